"""An older checkpoint can be chosen: nothing is deleted for it, and a learning rate may differ from there on."""

import json
import shutil

import pytest

from jaxrl.core import BadInput
from jaxrl.run import Settings, checkpoint, execute, rewind
from jaxrl.run.directory import Home, unsealed
from tests.walking import ABOUT, linear, rows, settings, walk


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of four chunks, with checkpoints of 20, 30 and 40: (path, last line)."""
    path = tmp_path_factory.mktemp("straight") / "run"
    return path, execute(walk(), linear(), path, settings(), ABOUT)


@pytest.fixture
def copy(straight, tmp_path):
    return shutil.copytree(straight[0], tmp_path / "copy")


def again(path, at, about=ABOUT, **more):
    return execute(walk(), linear(), path, settings(resume=True, at=at, **more), about)


def test_an_older_checkpoint_is_gone_on_from_and_nothing_is_lost(straight, copy):
    before = rows(copy)
    line = again(copy, 20)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"] and rows(copy) == before
    aside = {path.name for path in (copy / "checkpoints").iterdir() if not path.name.isdigit()}
    assert aside == {f"{step:012d}.newer" for step in (30, 40)}
    cut = [json.loads(row) for row in (copy / "metrics-after-20.jsonl").read_text().splitlines()]
    assert cut == [
        row for row in before if row["step"] >= 20
    ]  # the row of 20 itself is written when it is gone on from
    assert unsealed(copy / "result-after-20.json")["line"] == straight[1]
    again(copy, 20)
    assert {path.name for path in copy.glob("*-after-20*")} >= {"metrics-after-20.jsonl-1", "result-after-20.json-1"}


def test_a_lower_learning_rate_is_accepted_there_and_recorded(copy, capsys):
    slower = {**ABOUT, "config": {"lr": 0.01}}
    with pytest.raises(
        BadInput, match=r"config\.lr is 0\.01, but run .* was made with 0\.1: .* --at STEP, which accepts"
    ):
        again(copy, None, slower)
    again(copy, 30, slower)
    assert "config.lr is 0.01 from step 30 on, and was 0.1 before." in capsys.readouterr().err
    change = {"step": 30, "field": "config.lr", "from": 0.1, "to": 0.01}
    newest = checkpoint.newest(copy / "checkpoints", print)[1]
    assert unsealed(copy / "config.json")["changes"] == newest["config"]["changes"] == [change]
    # From then on it is the run's own, and a further change is one more.
    again(copy, None, slower, steps=50)
    assert unsealed(copy / "config.json")["changes"] == [change]
    again(copy, 50, {**ABOUT, "config": {"lr": 0.001}}, steps=60)
    assert [change["to"] for change in unsealed(copy / "config.json")["changes"]] == [0.01, 0.001]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("config.lr", True),
        ("config.encoder_lr", True),
        ("config.mbpo.model.lr", True),
        ("config.gamma", False),
        ("config.blr", False),
        ("config.lr_frames", False),
        ("agent", False),
        ("seed", False),
    ],
)
def test_learning_rates_alone_may_differ(tmp_path, name, accepted):
    change = lambda at: rewind.changes(Home(tmp_path), [(name, 1, 2)], at)
    with pytest.raises(BadInput, match=f"{name} is 1, but run .* was made with 2: give that") as error:
        change(None)
    assert ("--at STEP" in str(error.value)) == accepted
    if accepted:
        assert change(7) == [{"step": 7, "field": name, "from": 2, "to": 1}]
    else:
        with pytest.raises(BadInput, match="choose another --run"):
            change(7)


def damage(path):
    (path / "checkpoints" / f"{20:012d}" / "manifest.json").write_bytes(b"")


@pytest.mark.parametrize(
    ("at", "spoil", "sentence"),
    [
        (10, None, "at is 10, but run .* holds checkpoints of 40, 30, 20: choose one of those"),
        (-30, None, "at is -30, but run .* holds checkpoints of 40, 30, 20"),
        (20, damage, "at is 20, but .*manifest.json does not match .*: choose another of 40, 30, 20"),
        (20, lambda path: shutil.rmtree(path / "checkpoints"), "at is 20, but run .* holds no checkpoint: leave --at"),
    ],
    ids=["not there", "negative", "damaged", "none at all"],
)
def test_what_cannot_be_chosen_is_one_sentence_and_nothing_is_touched(copy, at, spoil, sentence):
    if spoil:
        spoil(copy)
    before = sorted(copy.rglob("*"))
    with pytest.raises(BadInput, match=sentence):
        again(copy, at)
    assert sorted(copy.rglob("*")) == before


def test_what_is_refused_for_another_reason_sets_nothing_aside(copy):
    before = sorted(copy.rglob("*"))
    with pytest.raises(BadInput, match="agent is cubic"):
        again(copy, 20, {**ABOUT, "agent": "cubic"})
    assert sorted(copy.rglob("*")) == before


def test_it_is_about_a_run_that_is_continued():
    with pytest.raises(BadInput, match="at is 20 without --resume"):
        Settings(at=20)
