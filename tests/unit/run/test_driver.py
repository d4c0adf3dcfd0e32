"""What becomes of a run whose disk is full, is taken away, or never was large enough."""

import errno
import os
import shutil
import signal
from types import SimpleNamespace

import pytest

from jaxrl.core import BadInput
from jaxrl.run import checkpoint, driver, execute, sinks
from jaxrl.run.directory import Home, locked, sealed, unsealed
from jaxrl.run.driver import Drive
from jaxrl.run.programs import many
from tests.walking import ABOUT, linear, rows, settings, walk

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
TENSORSTORE = ValueError("RESOURCE_EXHAUSTED: Failed to write 3 bytes: No space left on device [os_error_code='28']")
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The undisturbed run: its directory and last line."""
    path = tmp_path_factory.mktemp("straight") / "run"
    return path, execute(walk(), linear(), path, settings(), ABOUT)


def train(path, steps=40, **more):
    return execute(walk(), linear(), path, settings(steps, **more), ABOUT)


def failing(monkeypatch, error, steps):
    """Checkpoints of these steps cannot be written."""
    write = checkpoint._published

    def written(folder, run, extra):
        if int(run.step) in steps:
            raise error
        return write(folder, run, extra)

    monkeypatch.setattr(checkpoint, "_published", written)


def at_step(monkeypatch, step, act):
    """Make `act` happen once, when that step's chunk is trained, before its checkpoint."""
    save, left = Drive.save, [act]

    def saved(self):
        if int(self.at.run.step) == step and left:
            left.pop()()
        save(self)

    monkeypatch.setattr(Drive, "save", saved)


def test_a_save_that_fails_is_said_and_the_run_goes_on(straight, tmp_path, monkeypatch, capsys):
    failing(monkeypatch, TENSORSTORE, {20, 30})
    line = train(tmp_path)
    said = capsys.readouterr().err
    assert said.count("could not be saved") == 1
    assert "Step 20 could not be saved (No space left on device); the last checkpoint is of step 10." in said
    assert "Step 40 is saved: checkpoints are written again" in said
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"] and rows(tmp_path) == rows(straight[0])


@pytest.mark.parametrize("error", [READ_ONLY, FULL])
def test_a_run_that_ends_unsaved_says_so_and_goes_on_from_its_last_checkpoint(straight, tmp_path, monkeypatch, error):
    failing(monkeypatch, error, {20, 30, 40})
    with pytest.raises(
        BadInput, match=rf"ends unsaved at step 40 \({error.strerror}\), the last checkpoint is of step 10"
    ):
        train(tmp_path)
    monkeypatch.undo()
    line = train(tmp_path, resume=True)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"] and rows(tmp_path) == rows(straight[0])


def test_a_directory_that_was_removed_is_made_anew(straight, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    at_step(monkeypatch, 20, lambda: shutil.rmtree(path))
    line = train(path)
    said = capsys.readouterr().err
    assert "was removed while it trained: it is made anew" in said and "of its earlier rows are lost" in said
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert [row["step"] for row in rows(path)] == [20, 30, 40]
    monkeypatch.undo()
    assert train(path, resume=True) == line


def test_a_directory_that_is_anothers_by_now_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "run"

    def taken():
        shutil.rmtree(path)
        path.mkdir()
        (path / "lock").write_text("17")

    at_step(monkeypatch, 20, taken)
    with pytest.raises(BadInput, match="is another process's now: it ends"):
        train(path)
    assert [file.name for file in path.iterdir() if file.name not in ("tensorboard", "metrics.jsonl")] == ["lock"]
    assert (path / "lock").read_text() == "17"


def test_rows_that_could_not_be_written_at_the_end_are_written_by_resume(straight, tmp_path, monkeypatch, capsys):
    append = sinks.JsonLines._append

    def appended(self, data):
        if b'"step": 30' in data:
            raise FULL
        append(self, data)

    monkeypatch.setattr(sinks.JsonLines, "_append", appended)
    line = train(tmp_path)
    assert "2 rows of" in capsys.readouterr().err and not (tmp_path / "result.json").exists()
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]
    monkeypatch.undo()
    again = train(tmp_path, resume=True)
    assert again["parameters_sha256"] == line["parameters_sha256"] and rows(tmp_path) == rows(straight[0])


def test_a_checkpoint_that_recorded_no_metrics_keeps_the_rows(straight, tmp_path, capsys):
    train(tmp_path, 20)
    manifest = checkpoint.published(tmp_path / "checkpoints")[0] / "manifest.json"
    manifest.write_bytes(sealed({**unsealed(manifest), "metrics": None}))
    train(tmp_path, resume=True)
    assert "does not say what" in capsys.readouterr().err and rows(tmp_path) == rows(straight[0])


def test_an_interrupt_in_the_last_chunk_loses_no_row(straight, tmp_path, monkeypatch):
    at_step(monkeypatch, 40, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(tmp_path)["finished"] and rows(tmp_path) == rows(straight[0])


def test_a_last_line_that_cannot_be_stored_is_said(straight, tmp_path, monkeypatch, capsys):
    write = driver.write

    def written(path, data):
        if path.name == "result.json":
            raise FULL
        write(path, data)

    monkeypatch.setattr(driver, "write", written)
    assert train(tmp_path)["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert "result.json cannot be written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chunks", "there", "needed"),
    [(100, 0, 4), (3, 0, 3), (1, 0, 1), (100, 1, 3), (100, 2, 1), (100, 3, 0), (0, 3, 0), (1, 1, 1), (100, 7, 0)],
)
def test_the_disk_holds_what_is_kept_and_one_more(tmp_path, monkeypatch, chunks, there, needed):
    home = Home(tmp_path)
    for step in range(there):
        (home.checkpoints / f"{step:012d}").mkdir(parents=True)
    drive = SimpleNamespace(home=home)
    free = lambda bytes: monkeypatch.setattr(driver.shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes))
    free(needed * 1000)
    Drive.check_disk(drive, 1000, chunks)
    if needed:
        free(needed * 1000 - 1)
        with pytest.raises(
            BadInput, match=f"needs {needed}.0 kB more, as .* checkpoints of 1.0 kB lie there at a time"
        ):
            Drive.check_disk(drive, 1000, chunks)


def test_large_checkpoints_are_kept_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGE", 999)
    monkeypatch.setattr(driver.shutil, "disk_usage", lambda path: SimpleNamespace(free=2999))
    with pytest.raises(BadInput, match=r"needs 3.0 kB more, as 3 checkpoints"):
        Drive.check_disk(SimpleNamespace(home=Home(tmp_path)), 1000, 100)


@pytest.mark.parametrize(("seeds", "named"), [(1, "the source needs"), (3, "the source of 3 seeds needs")])
def test_the_sources_of_all_seeds_count(tmp_path, seeds, named):
    # 64 rows of 2 environments take some kilobytes a seed.
    with pytest.raises(BadInput, match=f"{named} .* more than the budget of 1.0 kB: lower capacity or raise budget"):
        train(tmp_path, seeds=seeds, budget=1000)
    assert not (tmp_path / "checkpoints").exists()


def test_what_is_free_for_one_seed_may_be_too_little_for_three(tmp_path, monkeypatch):
    class Compiled(Exception):
        pass

    def compiled(*args):
        raise Compiled

    monkeypatch.setattr(driver, "compiled", compiled)
    one = checkpoint.size(many(walk(), linear(), 0, 1).shapes().source)
    monkeypatch.setattr("jaxrl.sources.budget.available", lambda: 2 * one)
    with pytest.raises(Compiled):
        train(tmp_path / "one")
    with pytest.raises(BadInput, match=r"the source of 3 seeds needs .* more than half of the"):
        train(tmp_path / "three", seeds=3)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch, number):
    def refused(*args, **how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("jaxrl.run.driver.write", refused)
    with pytest.raises(BadInput, match=rf"run .* cannot be written \({os.strerror(number)}\): mend that"):
        train(tmp_path / "run")
    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    with pytest.raises(BadInput, match=r"run .* cannot be written"), locked(Home(tmp_path / "other")):
        pass
