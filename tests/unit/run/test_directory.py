"""Run directories: what is not ours is left alone."""

import errno
import functools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxrl.core import BadInput
from jaxrl.run import directory
from jaxrl.run.directory import Home, commit, holds, locked, ours, sealed, write
from jaxrl.run.sinks import Wandb

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "files",
    [
        {"tensorboard/events": "x"},
        {"config.json": json.dumps({"lr": 1})},
        {"README.txt": "mine"},
        {"metrics.jsonl": "{}\n"},
        {"checkpoints/notes.txt": "mine"},
        {"checkpoints/000000001000/weights.bin": "another program's"},
        {"lock": "123", "curve.png": "x"},
        {".hidden": ""},
    ],
)
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=r"is no run of jaxrl: choose another directory"):
        ours(Home(tmp_path))
    held = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert held == files


def test_runs_of_ours_and_what_is_not_there_yet_are_taken(tmp_path):
    ours(Home(tmp_path / "nowhere"))
    ours(Home(tmp_path))
    (tmp_path / "lock").write_text("17")
    ours(Home(tmp_path))
    (tmp_path / "config.json").write_bytes(sealed({"seed": 0}))
    (tmp_path / "notes.txt").write_text("mine")
    ours(Home(tmp_path))
    (tmp_path / "config.json").write_text("damaged")  # then a checkpoint tells whose it is
    (tmp_path / "checkpoints/000000001000").mkdir(parents=True)
    (tmp_path / "checkpoints/000000001000/manifest.json").write_bytes(sealed({}))
    ours(Home(tmp_path))


def test_the_commit_is_that_of_jaxrls_own_tree(tmp_path):
    """Installed into an environment within somebody's repository, it is none."""
    assert (
        commit().rstrip("+")
        == subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    place = tmp_path / "site-packages"
    (place / "jaxrl").parent.mkdir()
    for path in (ROOT / "jaxrl").rglob("*.py"):
        (place / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (place / path.relative_to(ROOT)).write_text(path.read_text())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    code = "from jaxrl.run.directory import commit; print(commit())"
    env = {"PYTHONPATH": str(place), "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "unknown"


def test_the_page_of_a_run_is_its_own(tmp_path, monkeypatch):
    """Two runs of one name are two pages; continued, a run has the page that it had."""
    asked = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: asked.append(how["id"])))
    for place in ("a/run", "b/run", "a/run"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Wandb(Home(tmp_path / place), {})
    assert asked[0] == asked[2] != asked[1] and len(asked[0]) >= 16


@pytest.fixture
def told(monkeypatch):
    """What is said once, anew for each test."""
    said = []
    monkeypatch.setattr(directory, "once", functools.cache(said.append))
    return said


def refusing(number):
    def refused(*args):
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_said_once_and_used(tmp_path, monkeypatch, told, number):
    monkeypatch.setattr(directory.fcntl, "flock", refusing(number))
    for _ in range(2):
        with locked(Home(tmp_path)) as lock:
            assert holds(Home(tmp_path), lock)
    assert len(told) == 1 and "has no locks" in told[0]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM])
def test_a_file_system_that_syncs_no_directory_is_said_once_and_used(tmp_path, monkeypatch, told, number):
    sync = os.fsync
    folder = lambda handle: stat.S_ISDIR(os.fstat(handle).st_mode)
    monkeypatch.setattr(os, "fsync", lambda handle: refusing(number)() if folder(handle) else sync(handle))
    for name in ("a", "b"):
        write(tmp_path / name, b"text")
    assert (tmp_path / "b").read_bytes() == b"text" and len(told) == 1 and "cannot sync a directory" in told[0]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EINVAL])
def test_a_file_that_cannot_be_synced_is_not_written(tmp_path, monkeypatch, told, number):
    (tmp_path / "a").write_text("former")
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write(tmp_path / "a", b"text")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "former")] and not told


def test_a_lock_is_held_until_its_file_is_removed_or_another(tmp_path):
    home = Home(tmp_path / "run")
    with locked(home) as lock:
        assert holds(home, lock)
        home.lock.rename(home.path / "moved")
        assert not holds(home, lock)
        home.lock.write_text("17")
        assert not holds(home, lock)


def test_a_run_that_was_killed_as_it_began_is_taken(tmp_path):
    (tmp_path / "lock").write_text("17")
    (tmp_path / ".config.json.draft").write_text("{")
    ours(Home(tmp_path))
