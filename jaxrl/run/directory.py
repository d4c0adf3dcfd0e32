"""What a run directory holds, and how its files are written so that a crash or a flipped byte is noticed.

    config.json        what was asked for (sealed)      result.json     the last line of a finished run (sealed)
    metrics.jsonl      a row a seed and chunk           curve.png       mean and interval over seeds
    checkpoints/       see `jaxrl.run.checkpoint`       README.txt      how to continue
    tensorboard/       where tensorboardX is installed  lock            held by the one process that writes

A *sealed* file is JSON that carries the SHA-256 of its own content.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import jax

from jaxrl.core import BadInput
from jaxrl.run.progress import say

once = functools.cache(say)  # of what a file system lacks, which every file of a run would say again


class Damaged(ValueError):
    """A file that is not what was written: one sentence that says which."""


@dataclass(frozen=True)
class Home:
    """The paths of one run directory."""

    path: Path

    config = property(lambda self: self.path / "config.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    tensorboard = property(lambda self: self.path / "tensorboard")
    result = property(lambda self: self.path / "result.json")
    curve = property(lambda self: self.path / "curve.png")
    readme = property(lambda self: self.path / "README.txt")
    lock = property(lambda self: self.path / "lock")
    batch = property(lambda self: self.path / "bad-batch.npz")
    wandb = property(lambda self: self.path / "wandb-id")


def ours(home: Home) -> None:
    """Raise `BadInput` for a folder that holds something and is no run: nothing of it would be kept.

    A run has a configuration that carries its seal, or a checkpoint with a manifest; one that was stopped before it had
    either holds its lock alone.
    """
    held = [path.name for path in home.path.iterdir()] if home.path.is_dir() else []
    if set(held) <= {home.lock.name, draft(home.config).name}:  # killed as it began
        return
    try:
        unsealed(home.config)
    except Damaged:
        if not any(home.checkpoints.glob("*/manifest.json")):
            some = ", ".join(sorted(held)[:3])
            raise BadInput(
                f"run is {home.path}, which holds {some} and is no run of jaxrl: choose another directory."
            ) from None


@contextmanager
def locked(home: Home) -> Iterator[TextIO]:
    """The directory, made where it does not exist, and held against a second writer: the open file that is its lock.

    A file system without locks is said once.

    Raises:
        BadInput: another process holds it, or the path is no directory in which files can be made.
    """
    with writing(home):
        try:
            home.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"run is {home.path}, which is a file: choose another directory.") from error
        # Opened for appending: the holder's process number is read before it is replaced.
        file = open(home.lock, "a+")  # noqa: SIM115  (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BadInput(
                f"run {home.path} is being written by process {holder}: wait for it, or choose another directory."
            ) from error
        except OSError as error:
            once(f"The file system of {home.path} has no locks ({error.strerror}): train there in one process only.")
        with contextlib.suppress(OSError):  # a full disk: the lock holds without saying whose it is
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield file


@contextmanager
def writing(home: Home) -> Iterator[None]:
    """Raise `BadInput` where something cannot be written to the directory, which is what the block does."""
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"run {home.path} cannot be written ({error.strerror}): mend that, or choose another --run."
        ) from error


def holds(home: Home, lock: TextIO) -> bool:
    """Whether the directory is there, and its lock is still the one that was taken: it may have been removed, and made
    anew by another process."""
    try:
        return os.path.samestat(os.stat(home.lock), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Ask the file system to keep a file or a directory now. One that cannot do so with directories is said once."""
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not folder or error.errno in LOST:
            raise
        once(f"The file system cannot sync a directory ({error.strerror}): a power cut may lose the newest files.")


LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)  # what sync says of data, not of what it can do


def draft(path: Path) -> Path:
    """Where a file is written before it has its name."""
    return path.with_name(f".{path.name}.draft")


def write(path: Path, data: bytes) -> None:
    """A whole file or none: written beside, synced, renamed."""
    beside = draft(path)
    try:
        beside.write_bytes(data)
        sync(beside)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync(path.parent)


def sealed(content: Any) -> bytes:
    """JSON of the content and its SHA-256."""
    inner = json.dumps(content, allow_nan=False)
    seal = {"sha256": hashlib.sha256(inner.encode()).hexdigest(), "content": json.loads(inner)}
    return (json.dumps(seal, indent=1) + "\n").encode()


def unsealed(path: Path) -> Any:
    """The content of a sealed file.

    Raises:
        Damaged: the file does not exist, is not such a file, or differs in any byte from what `sealed` made.
    """
    try:
        data = path.read_bytes()
        content = json.loads(data)["content"]
        intact = sealed(content) == data  # byte by byte: the spelling counts as well as the values
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise Damaged(f"{path} does not match the SHA-256 that it carries: it was damaged or edited")
    return content


def versions() -> dict[str, str]:
    """The packages whose versions decide a run's numbers."""
    found = {}
    for name in ("jaxrl", "jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "mujoco-mjx", "orbax-checkpoint"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def device() -> str:
    """Where jax computes: 'cpu', or the accelerators by name and number."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}" if devices[0].platform != "cpu" else "cpu"


def generator() -> str:
    """The name of jax's generator of random numbers."""
    return str(jax.config.jax_default_prng_impl)


def commit() -> str:
    """The commit of the code that runs, with '+' where the work tree differs from it; 'unknown' outside its own git.

    A repository that merely holds an environment in which jaxrl is installed does not track this file.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def differences(asked: dict, stored: dict, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value asked for, value stored) for each field in which two nested dicts differ."""
    for name in dict.fromkeys((*asked, *stored)):
        mine, theirs = asked.get(name), stored.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            yield f"{prefix}{name}", mine, theirs
