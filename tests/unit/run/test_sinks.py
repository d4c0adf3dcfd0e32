"""The metrics file: no row is lost without a word."""

import errno
import hashlib
import json
import os

import pytest

from jaxrl.errors import BadInput
from jaxrl.run import manifest, sinks
from jaxrl.run.sinks import JsonLines, mark_of, read


def row(step, seed=0):
    return {"step": step, "seed": seed, "actor/loss": 0.5}


def steps(path):
    return [row["step"] for row in read(path)]


@pytest.fixture
def said():
    return []


@pytest.fixture
def lines(tmp_path, said):
    """A file with the rows of steps 10 and 20."""
    found = JsonLines(tmp_path / "metrics.jsonl", None, said.append)
    for step in (10, 20):
        found.write([row(step)])
    return found


class Full:
    """A file on a full disk: it takes some bytes, then none."""

    def __init__(self, path, mode, buffering):
        self.file = open(path, mode, buffering=buffering)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        return self.file.write(data[: len(data) // 2])


def forbidden(*args, **how):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def removed(path, mode, buffering):
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@pytest.mark.parametrize("failing", [Full, forbidden, removed])
def test_rows_of_a_failed_write_are_kept_and_written_later(lines, said, monkeypatch, failing):
    monkeypatch.setattr(sinks, "open", failing, raising=False)
    lines.write([row(30)])
    lines.write([row(40)])
    assert len(said) == 1 and "its rows are kept and tried again" in said[0]
    assert steps(lines.path)[:2] == [10, 20] and len(lines.held) == 2
    monkeypatch.undo()
    lines.write([row(50)])
    assert steps(lines.path) == [10, 20, 30, 40, 50] and not lines.held
    assert "is written again" in said[1]
    assert lines.mark() == {
        "bytes": lines.path.stat().st_size,
        "sha256": hashlib.sha256(lines.path.read_bytes()).hexdigest(),
    }


def test_a_checkpoint_carries_the_rows_that_could_not_be_written(lines, said, monkeypatch):
    monkeypatch.setattr(sinks, "open", Full, raising=False)
    lines.write([row(30)])
    mark = json.loads(json.dumps(lines.mark()))
    monkeypatch.undo()
    JsonLines(lines.path, mark, said.append).write([row(40)])
    assert steps(lines.path) == [10, 20, 30, 40] and len(said) == 1


def test_a_manifest_takes_held_rows_and_nothing_else():
    seconds = dict.fromkeys(manifest.SECONDS, 0.0)
    content = {"pending": None, "seconds": seconds, "metrics": {"bytes": 1, "sha256": "a", "held": ["{}\n"]}}
    assert manifest._of_rest(content, 1) is None
    for held in ("rows", [1], None):
        content["metrics"]["held"] = held
        assert "rows that were held" in str(manifest._of_rest(content, 1))


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:7])])
def test_rows_that_somebody_removed_are_said_and_new_ones_written(lines, said, damage):
    damage(lines.path)
    lines.write([row(30)])
    assert len(said) == 1 and "was cut or removed" in said[0]
    lines.write([row(40)])
    assert steps(lines.path)[-1] == 40 and len(said) == 1
    assert lines.mark()["sha256"] == hashlib.sha256(lines.path.read_bytes()).hexdigest()


def test_what_follows_a_mark_is_cut_and_nothing_before(lines, said):
    mark = lines.mark()
    lines.write([row(30)])
    JsonLines(lines.path, mark, said.append)
    assert steps(lines.path) == [10, 20] and not said


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, said):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(BadInput, match=r"metrics.jsonl cannot be read \(Is a directory\)"):
        JsonLines(tmp_path / "metrics.jsonl", None, said.append)


@pytest.mark.parametrize(("pending", "kept"), [(False, [10, 20]), (True, [10])])
def test_a_checkpoint_without_a_mark_keeps_the_rows_up_to_its_step(lines, said, pending, kept):
    lines.write([row(30)])
    JsonLines(lines.path, mark_of(lines.path, 20, pending), said.append)
    assert steps(lines.path) == kept and not said


def test_a_file_that_is_not_there_has_the_mark_of_an_empty_one(tmp_path, said):
    JsonLines(tmp_path / "metrics.jsonl", mark_of(tmp_path / "metrics.jsonl", 20, True), said.append)
    assert steps(tmp_path / "metrics.jsonl") == [] and not said
