"""Pictures [T, H, W, 3] as files: a GIF, an MP4, or a sheet of some; each written whole or not at all."""

import math
import warnings
from pathlib import Path

import numpy as np

from jaxrl.core import BadInput

GAP = 2  # pixels between the pictures of a sheet


def gif(frames: np.ndarray, path: Path, fps: float) -> Path:
    """All frames share one palette, so that nothing flickers.

    Raises:
        BadInput: Pillow is not installed.
    """
    image = _pillow()
    few = frames[np.linspace(0, len(frames) - 1, min(len(frames), 8)).astype(int)]
    palette = image.fromarray(few.reshape(-1, *few.shape[2:])).quantize(256)
    still = [image.fromarray(frame).quantize(palette=palette, dither=image.Dither.NONE) for frame in frames]

    def save(part):
        still[0].save(part, "GIF", save_all=True, append_images=still[1:], duration=round(1000 / fps), loop=0)

    return _whole(path, save)


def mp4(frames: np.ndarray, path: Path, fps: float) -> Path:
    """H.264, which wants even sides: a last odd row or column is left out.

    Raises:
        BadInput: imageio or imageio-ffmpeg is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise BadInput('an MP4 needs imageio-ffmpeg: pip install "jaxrl[video]" (a GIF does without).') from error
    frames = np.ascontiguousarray(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2])
    if not frames.size:
        raise BadInput(f"frames are {frames.shape[1]} x {frames.shape[2]} pixels: an MP4 needs at least 2 a side.")

    def save(part):
        size = (frames.shape[2], frames.shape[1])
        writer = imageio_ffmpeg.write_frames(
            str(part), size, fps=fps, codec="libx264", macro_block_size=2, output_params=["-crf", "18", "-f", "mp4"]
        )
        with warnings.catch_warnings():  # of forking where JAX has threads: the child becomes ffmpeg at once
            warnings.simplefilter("ignore", RuntimeWarning)
            writer.send(None)
        for frame in frames:
            writer.send(frame)
        writer.close()

    return _whole(path, save)


def sheet(frames: np.ndarray, path: Path, count: int = 12) -> Path:
    """`count` frames, evenly spaced, row by row on one PNG.

    Raises:
        BadInput: Pillow is not installed, or count is below 1.
    """
    if count < 1:
        raise BadInput(f"count is {count}; a sheet shows at least 1 picture.")
    image = _pillow()
    chosen = frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    return _whole(path, lambda part: image.fromarray(tiled(chosen)).save(part, "PNG"))


def tiled(frames: np.ndarray) -> np.ndarray:
    """Pictures [N, H, W, 3] in rows as full as can be, the sheet about twice as wide as high."""
    count, height, width, _ = frames.shape
    wide = math.sqrt(2 * count * height / width)
    near = [n for n in range(1, count + 1) if wide / 1.6 <= n <= wide * 1.6] or [count]
    columns = min(near, key=lambda n: (-count % n, abs(math.log(n / wide))))
    rows = -(-count // columns)
    whole = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        whole[y : y + height, x : x + width] = frame
    return whole


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise BadInput('a GIF or a PNG needs Pillow: pip install "jaxrl[video]".') from error
    return Image


def _whole(path: Path, save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
