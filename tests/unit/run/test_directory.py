"""Run directories: what is not ours is left alone."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxrl.core import BadInput
from jaxrl.run.directory import Home, commit, ours, sealed
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
