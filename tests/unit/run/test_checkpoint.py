"""Saving where there is no room: older checkpoints make some, and nothing is lost that has no successor."""

import errno
import os
import resource
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.run import checkpoint
from tests.test_checkpoint import a_run, truncate

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
QUOTA = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
TENSORSTORE = ValueError("RESOURCE_EXHAUSTED: Failed to write 3 bytes: No space left on device [os_error_code='28']")


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 100, 200 and 300."""
    for step in (100, 200, 300):
        checkpoint.save(tmp_path, a_run(step), {})
    return tmp_path


def room_for(monkeypatch, folder, count, error):
    """A disk that holds that many checkpoints."""
    write = checkpoint._published

    def written(folder, run, extra):
        if len(checkpoint.published(folder)) >= count:
            (folder / ".draft-half").mkdir(exist_ok=True)
            raise error
        return write(folder, run, extra)

    monkeypatch.setattr(checkpoint, "_published", written)


def steps(folder):
    return [int(path.name) for path in checkpoint.published(folder)]


@pytest.mark.parametrize("error", [FULL, QUOTA, TENSORSTORE])
@pytest.mark.parametrize(("count", "left"), [(3, [400, 300, 200]), (2, [400, 300])])
def test_on_a_full_disk_the_oldest_go_first(folder, monkeypatch, error, count, left):
    said = []
    room_for(monkeypatch, folder, count, error if error is not QUOTA else QUOTA)
    checkpoint.save(folder, a_run(400), {}, say=said.append)
    assert steps(folder) == left and not list(folder.glob(".draft*"))
    assert (
        said
        == [f"The disk is full: the checkpoint of step {n} makes room for a new one." for n in (100, 200)][: 4 - count]
    )


def test_the_last_one_never_goes(folder, monkeypatch):
    room_for(monkeypatch, folder, 1, FULL)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(folder, a_run(400), {}, say=lambda line: None)
    assert steps(folder) == [300] and not list(folder.glob(".draft*"))
    checkpoint.verify(checkpoint.published(folder)[0])


def test_nor_the_last_that_is_intact(folder, monkeypatch):
    for path in checkpoint.published(folder)[:2]:
        truncate(path)
    room_for(monkeypatch, folder, 1, FULL)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(folder, a_run(400), {}, say=lambda line: None)
    assert steps(folder) == [300, 200, 100]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES])
def test_of_another_failure_nothing_is_removed(folder, monkeypatch, number):
    room_for(monkeypatch, folder, 0, OSError(number, os.strerror(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        checkpoint.save(folder, a_run(400), {}, say=lambda line: None)
    assert steps(folder) == [300, 200, 100]


def test_what_a_library_says_of_a_file_system_is_its_reason_alone():
    reason = lambda text: str(checkpoint.unwritten(ValueError(text)))
    assert reason("OUT_OF_RANGE: a long story: File too large [os_error_code='27']") == "File too large"
    assert reason("INTERNAL: a story\nof two lines") == "INTERNAL: a story"
    assert checkpoint.unwritten(FULL) is FULL and checkpoint.is_full(QUOTA) and not checkpoint.is_full(ValueError("x"))


def test_a_disk_that_takes_no_large_file_is_one_error_without_a_log(folder, capfd):
    """Orbax and its threads fail in earnest: each would log a traceback."""
    run = a_run(400)._replace(source={"a": np.random.default_rng(0).normal(size=50_000).astype(np.float32)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(folder, run, {}, say=lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert steps(folder) == [300, 200, 100] and "Traceback" not in "".join(capfd.readouterr())
    checkpoint.save(folder, run._replace(step=jnp.int32(500)), {})
    assert steps(folder) == [500, 300, 200]


def test_a_draft_that_cannot_be_removed_is_in_nobodys_way(folder, monkeypatch):
    """A thread of a failed save still writes into it: the directory is never empty (OSError 39)."""
    (folder / ".draft-400").mkdir()

    def busy(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(checkpoint.shutil, "rmtree", busy)
    checkpoint.save(folder, a_run(400), {}, keep=4)
    assert steps(folder) == [400, 300, 200, 100]
