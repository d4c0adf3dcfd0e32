"""Checkpoints: the whole `Run` through Orbax, with a manifest that notices any flipped byte.

    checkpoints/000000005000/        published by one rename: there is all of it or nothing
        parts/                       the agent's parts, so that a policy loads without the replay
        rest/                        every other field of the run
        manifest.json                sealed: SHA-256 of each file, shape and dtype of each leaf, the configuration

Orbax writes atomically but casts dtypes silently and does not checksum data: hence the manifest. A checkpoint that
fails it is set aside under another name where an older one is intact, and never deleted.
"""

import errno
import functools
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxrl.core import BadInput, Parts, PyTree
from jaxrl.loop import Run
from jaxrl.run.directory import Damaged, digest, sealed, sync, unsealed
from jaxrl.run.manifest import of_files
from jaxrl.run.progress import say

LARGE = 1_000_000_000  # bytes from which 2 checkpoints are kept rather than 3
ROOMS = ("parts", "rest")
Leaves = dict[str, Any]


# --------------------------------------------------------------------------------------------------------- leaves


def leaves(tree: PyTree) -> Leaves:
    """Each leaf by its path: 'parts/actor/kernel'. A path that occurs twice is numbered."""
    found: Leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name if name not in found else f"{name}#{len(found)}"] = leaf
    return found


def is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def describe(named: Leaves) -> dict[str, list]:
    """[dtype, shape] of each leaf, as the manifest keeps it."""
    return {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in named.items()}


def size(tree: PyTree) -> int:
    """Bytes of all leaves, of arrays or of their shapes."""
    data = jax.eval_shape(lambda t: jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, t), tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(data))


def fingerprint(parts: Parts) -> str:
    """The SHA-256 of every part: path, dtype, shape and bytes."""
    total = hashlib.sha256()
    for name, leaf in sorted(leaves(parts).items()):
        leaf = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        total.update(f"{name} {leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes())
    return total.hexdigest()


def _room(name: str) -> str:
    return "parts" if name.startswith("parts/") else "rest"


# ----------------------------------------------------------------------------------------------------------- save


def kept(bytes: int) -> int:
    """How many checkpoints of that size stay."""
    return 2 if bytes > LARGE else 3


def save(folder: Path, run: Run, extra: dict, keep: int | None = None, say: Callable[[str], None] = say) -> Path:
    """Publish a checkpoint of the run, then remove all but the last few.

    On a full disk older ones make room for it, the oldest first, but never the newest intact one. Each call leaves some
    kilobytes with the process: TensorStore keeps 0.27 kB for each array's specification, and the C library's heaps grow
    with the threads that Orbax begins, most in the first hundred calls.

    Args:
        extra: JSON kept in the manifest.
        keep: how many checkpoints stay; None: see `kept`.
        say: told of each one that made room.

    Raises:
        OSError: it could not be written; what was published before is there still.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            target = _published(folder, run, extra)
            break
        except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
            sweep(folder)
            if not is_full(error) or not (old := spare(folder)):
                raise unwritten(error) from error
            say(f"The disk is full: the checkpoint of step {int(old.name):,} makes room for a new one.")
            _remove(old)
    for old in published(folder)[keep or kept(size(run)) :]:
        _remove(old)
    return target


def _published(folder: Path, run: Run, extra: dict) -> Path:
    """Write a checkpoint beside its place, then rename it."""
    named = leaves(run)
    data = {name: np.asarray(jax.random.key_data(x) if is_key(x) else x) for name, x in named.items()}
    step = int(run.step)
    target, draft = folder / f"{step:012d}", free(folder / f".draft-{step}")
    sweep(folder)
    draft.mkdir()
    for room in ROOMS:
        # Orbax refuses arrays without elements; the manifest's shapes are enough to make them again.
        full = {name: x for name, x in data.items() if x.size and _room(name) == room}
        with _unlogged():
            ocp.save((draft / room).absolute(), full)
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    content = {
        "step": step,
        "leaves": describe(named),
        "files": {str(path.relative_to(draft)): digest(path) for path in files},
        **extra,
    }
    (draft / "manifest.json").write_bytes(sealed(content))
    for path in [*draft.rglob("*"), draft]:
        sync(path)
    os.rename(draft, target)
    sync(folder)
    return target


@contextmanager
def _unlogged() -> Iterator[None]:
    """Orbax says what it raises, and no more: each of its threads would log a traceback as well."""
    _ignore_late_answers()
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@functools.cache
def _ignore_late_answers() -> None:
    """After a failed save TensorStore still answers to event loops that Orbax has closed, which Python would print."""
    print_it = sys.unraisablehook

    def hook(about: Any) -> None:
        if not (isinstance(about.exc_value, RuntimeError) and str(about.exc_value) == "Event loop is closed"):
            print_it(about)

    sys.unraisablehook = hook


def is_full(error: Exception) -> bool:
    """Whether the disk, or the user's share of it, has no room left."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def unwritten(error: Exception) -> OSError:
    """The error itself, or what a library made of one of the file system: the reason alone, in words."""
    if isinstance(error, OSError):
        return error
    known = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG))
    return OSError(next((reason for reason in known if reason in str(error)), str(error).splitlines()[0]))


def spare(folder: Path) -> Path | None:
    """The oldest checkpoint, where a newer one is intact."""
    *newer, oldest = published(folder) or [None]
    for path in newer:
        try:
            verify(path)
        except Damaged:
            continue
        return oldest
    return None


def _remove(old: Path) -> None:
    """Renamed first: a kill in the middle of a removal leaves no half checkpoint under a valid name."""
    draft = free(old.with_name(f".draft-{old.name}-old"))
    os.rename(old, draft)
    shutil.rmtree(draft, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written or half removed. Only the holder of the lock may.

    What a thread of a failed save still writes into stays until the next time.
    """
    for draft in folder.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- restore


def published(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first, whether or not they are intact."""
    if not folder.is_dir():
        return []
    # By number: a name has 12 digits, or more where the clock does.
    return sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name), reverse=True)


def verify(path: Path, rooms: tuple[str, ...] = ROOMS) -> dict:
    """The manifest's content, once every file of these rooms has the SHA-256 that it lists.

    Raises:
        Damaged: the manifest or a file is missing, truncated, altered, or belongs to another checkpoint.
    """
    content = unsealed(path / "manifest.json")
    if fault := of_files(content):
        raise Damaged(f"{path / 'manifest.json'} was edited, or is not one of ours: {fault}")
    if f"{content['step']:012d}" != path.name:
        raise Damaged(f"{path} holds step {content['step']}: it was renamed, or is another run's")
    for name, sha in content["files"].items():
        if name.split("/")[0] in rooms:
            file = path / name
            if not file.is_file():
                raise Damaged(f"{file} is missing")
            if digest(file) != sha:
                raise Damaged(f"{file} does not have the SHA-256 that its manifest lists")
    return content


def newest(
    folder: Path, say: Callable[[str], None], rooms: tuple[str, ...] = ROOMS, set_aside: bool = False
) -> tuple[Path, dict] | None:
    """The newest intact checkpoint and its manifest; None where there is no checkpoint at all.

    Args:
        say: told of each damaged one that was passed over.
        set_aside: rename damaged ones to NAME.damaged, so that they never come up again.

    Raises:
        BadInput: there are checkpoints, and none of them is intact.
    """
    damaged: list[tuple[Path, str]] = []
    for path in published(folder):
        try:
            content = verify(path, rooms)
        except Damaged as error:
            damaged.append((path, str(error)))
            continue
        for bad, reason in damaged:
            say(f"{reason}; falling back to step {content['step']}.")
            if set_aside:
                os.rename(bad, free(bad.with_suffix(".damaged")))
        return path, content
    if damaged:
        raise BadInput(
            f"no checkpoint in {folder} is intact: {damaged[0][1]}; nothing was removed: restore the folder from a "
            "copy, or choose another run directory."
        )
    return None


def free(path: Path) -> Path:
    """The path, numbered where it is taken."""
    return next(p for i in range(1_000_000) if not (p := path if i == 0 else Path(f"{path}-{i}")).exists())


def match(content: dict, like: PyTree, prefix: str = "") -> None:
    """Raise `BadInput` naming the first leaf whose path, dtype or shape differs from those of `like`."""
    held = widened(content["leaves"], lambda leaf: (["uint32", []], ["uint32", []]))
    stored = {name: tuple(x) for name, x in held.items() if name.startswith(prefix)}
    asked = {name: tuple(x) for name, x in describe(leaves(like)).items() if name.startswith(prefix)}
    for name in sorted({*stored, *asked}):
        mine, theirs = (f"{x[name][0]}{x[name][1]}" if name in x else "absent" for x in (asked, stored))
        if mine != theirs:
            raise BadInput(
                f"leaf '{name}' is {mine} in this run but {theirs} in its checkpoint: continue with the settings that "
                "the run was made with, or choose another run directory."
            )


def widened(named: Leaves, words: Callable[[Any], tuple[Any, Any]]) -> Leaves:
    """The leaves of a run, whose clock was one int32 'step' in older checkpoints, with the two words of a `Wide`."""
    if "step" not in named:
        return named
    high, low = words(named["step"])
    return {name: x for name, x in named.items() if name != "step"} | {"step/high": high, "step/low": low}


def load(path: Path, content: dict, like: Run) -> Run:
    """The run in a verified checkpoint.

    Args:
        like: shapes and dtypes that it must have, as from `jax.eval_shape`.

    Raises:
        BadInput: see `match`.
    """
    match(content, like)
    return _filled(path, like, ROOMS)


def load_parts(path: Path, content: dict, like: Parts) -> Parts:
    """The agent's parts alone; otherwise as `load`."""
    match(content, {"parts": like}, "parts/")
    return _filled(path, {"parts": like}, ("parts",))["parts"]


def _filled(path: Path, like: PyTree, rooms: tuple[str, ...]) -> PyTree:
    data: Leaves = {}
    for room in rooms:
        data |= ocp.load((path / room).absolute())
    data = widened(data, lambda step: (np.zeros((), np.uint32), np.asarray(step).astype(np.uint32)))
    values = []
    for name, leaf in leaves(like).items():
        shape = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
        value = data.get(name, np.zeros(shape.shape, shape.dtype))
        if (value.dtype, value.shape) != (shape.dtype, shape.shape) or (name not in data and shape.size):
            raise BadInput(f"leaf '{name}' of {path} was not read back as it was written: choose another checkpoint.")
        # Copied: a donated run must not share its memory with an array of the host.
        value = jnp.array(value, copy=True)
        values.append(jax.random.wrap_key_data(value, impl=_generator(leaf)) if is_key(leaf) else value)
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _generator(leaf: Any) -> str:
    """The name of the generator of a key, which its dtype alone decides."""
    names = ("threefry2x32", "rbg", "unsafe_rbg")
    return next(name for name in names if jax.eval_shape(lambda: jax.random.key(0, impl=name)).dtype == leaf.dtype)  # noqa: B023
