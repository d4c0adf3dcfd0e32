"""Pictures of small worlds: rounded boxes in the plane, drawn from their signed distance; and grids of tiles.

A disc is a box without extent, a segment one without width: one formula draws everything, over all pixels at once, and
a table may be built from traced numbers. Later shapes lie on top.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import BadInput, unknown

PAPER = (0.955, 0.945, 0.915)  # sRGB, as are all colours here
INK, GREY, CHALK, SAND = (0.18, 0.20, 0.25), (0.62, 0.63, 0.64), (0.90, 0.885, 0.85), (0.80, 0.74, 0.62)
BRASS, TEAL, RED, GREEN = (0.86, 0.58, 0.28), (0.20, 0.47, 0.58), (0.78, 0.26, 0.24), (0.36, 0.58, 0.33)


class Shapes(NamedTuple):
    """N rounded boxes. Fields: centre [N, 2], half [N, 2] (half-lengths before rounding), angle [N] (rad, from x to y),
    radius [N] (of the rounding, which adds to the half-lengths), colour [N, 3]; y points up."""

    centre: jax.Array
    half: jax.Array
    angle: jax.Array
    radius: jax.Array
    colour: jax.Array


def disc(centre, radius, colour=INK) -> Shapes:
    return box(centre, (0.0, 0.0), colour, radius=radius)


def segment(start, end, width, colour=INK) -> Shapes:
    """A line with round ends, `width` across."""
    start, end = _pair(start), _pair(end)
    along = end - start
    half = jnp.stack([jnp.linalg.norm(along) / 2, jnp.float32(0)])
    return box((start + end) / 2, half, colour, jnp.arctan2(along[1], along[0]), width / 2)


def box(centre, half, colour=INK, angle: Any = 0.0, radius: Any = 0.0) -> Shapes:
    """A box `half` (x, y) to each side of its centre, turned by `angle`, its corners rounded outwards."""
    one = lambda x: jnp.asarray(x, jnp.float32)[None]
    return Shapes(_pair(centre)[None], _pair(half)[None], one(angle), one(radius), one(colour))


def chain(points, width, colour=INK) -> Shapes:
    """Segments from each point [M, 2] to the next."""
    points = jnp.asarray(points, jnp.float32)
    return jax.vmap(lambda a, b: jax.tree.map(lambda x: x[0], segment(a, b, width, colour)))(points[:-1], points[1:])


def columns(places, heights, colour=INK, depth: float = 4.0) -> Shapes:
    """The ground below a curve: upright boxes around places [M], evenly spaced, from their heights [M] down."""
    # Each overlaps the next, whose smoothed edge would let the paper shine through.
    half = jnp.broadcast_to(_pair((places[1] - places[0], depth / 2)), (len(places), 2))
    centre = jnp.stack([places, heights - depth / 2], axis=1)
    zero = jnp.zeros(len(places))
    return Shapes(centre, half, zero, zero, jnp.broadcast_to(jnp.asarray(colour, jnp.float32), (len(places), 3)))


def only(camera: str | None) -> None:
    """Raise `BadInput` where a camera is named: a flat world is seen from one side."""
    if camera is not None:
        raise unknown("camera", camera, [])


def _pair(x) -> jax.Array:
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in x])


def draw(
    *shapes: Shapes, shape: tuple[int, int], centre=(0.0, 0.0), height: float = 2.0, background=PAPER
) -> jax.Array:
    """A picture of the shapes, uint8 [H, W, 3], edges smoothed over one pixel.

    Args:
        shape: (height, width) in pixels.
        centre, height: of the part of the plane that is seen; its width follows from the picture's.

    Raises:
        BadInput: a side is below one pixel.
    """
    rows, columns = _checked(shape)
    pixel = height / rows
    x = centre[0] + pixel * (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2)
    y = centre[1] - pixel * (np.arange(rows, dtype=np.float32) + 0.5 - rows / 2)
    x, y = (np.ascontiguousarray(grid).reshape(-1) for grid in np.broadcast_arrays(x[None, :], y[:, None]))

    def cover(image, one: Shapes):
        """The image [3, P] with one shape on top."""
        dx, dy = x - one.centre[0], y - one.centre[1]
        cos, sin = jnp.cos(one.angle), jnp.sin(one.angle)
        beyond_x = jnp.abs(cos * dx + sin * dy) - one.half[0]
        beyond_y = jnp.abs(cos * dy - sin * dx) - one.half[1]
        outside = jnp.sqrt(jnp.maximum(beyond_x, 0) ** 2 + jnp.maximum(beyond_y, 0) ** 2)
        distance = outside + jnp.minimum(jnp.maximum(beyond_x, beyond_y), 0) - one.radius
        share = jnp.clip(0.5 - distance / pixel, 0, 1)
        return image + share * (one.colour[:, None] - image), None

    table = jax.tree.map(lambda *each: jnp.concatenate(each), *shapes)
    blank = jnp.broadcast_to(jnp.asarray(background, jnp.float32)[:, None], (3, rows * columns))
    image, _ = jax.lax.scan(cover, blank, table)
    return (image * 255 + 0.5).astype(jnp.uint8).T.reshape(rows, columns, 3)


def tiles(cells: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """A grid as a picture of any size, each pixel from the nearest: uint8 [H, W, 3].

    Args:
        cells: uint8 [h, w, 3], a colour a cell, or [h, w, s, s, 3], a small picture a cell (`sprites[grid]`).

    Raises:
        BadInput: cells of another shape, or a side below one pixel.
    """
    rows, columns = _checked(shape)
    if cells.ndim not in (3, 5) or cells.shape[-1] != 3:
        raise BadInput(f"cells have the shape {cells.shape}; they are [h, w, 3], or [h, w, s, s, 3] with pictures.")
    if cells.ndim == 5:
        h, w, s, t, _ = cells.shape
        cells = cells.transpose(0, 2, 1, 3, 4).reshape(h * s, w * t, 3)
    near = lambda count, size: ((np.arange(count) + 0.5) * size / count).astype(np.int32)
    return cells[near(rows, cells.shape[0])][:, near(columns, cells.shape[1])]


def _checked(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise BadInput(f"image size is {' x '.join(map(str, shape))}; height and width are at least 1 pixel.")
    return shape
