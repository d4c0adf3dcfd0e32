"""A run directory is data: what its manifest names is imported only where it is jaxrl's own, or trusted by name."""

import sys
from pathlib import Path

import pytest

from envs.registry import foreign as foreign_environment
from experiments import evaluate, play
from experiments.train import written
from jaxrl.agents import foreign as foreign_agents
from jaxrl.agents import sac
from jaxrl.core import BadInput
from jaxrl.run import checkpoint
from jaxrl.run.directory import sealed

PAYLOAD = """
from pathlib import Path
Path(__file__).with_name("was-run").write_text("yes")
def factory(): Path(__file__).with_name("was-called").write_text("yes")
"""


def about(**changes):
    usual = {"agent": "sac", "env": "pendulum", "repeat": 1, "pixels": None, "config": written(sac.Config())}
    return {**usual, **changes}


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module `payload` that can be imported, and leaves a file where it was."""
    (tmp_path / "package").mkdir()
    for name in ("payload.py", "package/__init__.py", "package/payload.py"):
        (tmp_path / name).write_text(PAYLOAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("payload", "package", "package.payload"):
        sys.modules.pop(name, None)
    assert not list(tmp_path.rglob("was-*"))


MANIFESTS = {
    "an agent": ({"agent": "package.payload"}, "agent 'package.payload'"),
    "an agent of the standard library": ({"agent": "os.path"}, "agent 'os.path'"),
    "an addition": ({"agent": "sac+package.payload"}, "agent 'package.payload'"),
    "an addition behind a known one": ({"agent": "drqv2+taco+package.payload"}, "agent 'package.payload'"),
    "an addition to a sum of ours": ({"agent": "mbpo+package.payload"}, "agent 'package.payload'"),
    "an environment": ({"env": "payload:factory"}, "environment 'payload:factory'"),
    "an environment that ends the process": ({"env": "os:abort"}, "environment 'os:abort'"),
    "an environment in a package": ({"env": "package.payload:factory"}, "environment 'package.payload:factory'"),
    "a module that registers with gymnasium": ({"env": "gymnasium:payload:Any-v0"}, "'gymnasium:payload:Any-v0'"),
    "an adapter that is none": ({"env": "payload:brax"}, "environment 'payload:brax'"),
    "a factory of ours that is in no table": ({"env": "envs.adapters:host"}, "environment 'envs.adapters:host'"),
    "a known name in another spelling": ({"agent": "jaxrl.agents.sac"}, "agent 'jaxrl.agents.sac'"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_what_a_manifest_names_is_not_imported(kind, payload):
    changes, named = MANIFESTS[kind]
    with pytest.raises(BadInput, match=f"{named}, which is not jaxrl's own.*--trust") as error:
        evaluate.builder()(about(**changes))
    assert "\n" not in str(error.value)


def test_a_trusted_name_is_imported(payload):
    with pytest.raises(BadInput, match=r"module package\.payload has no 'Config'"):
        evaluate.builder(("package.payload",))(about(agent="package.payload"))
    (payload / "package/was-run").unlink()  # the package, and the module in it
    (payload / "was-run").unlink(missing_ok=True)
    with pytest.raises(BadInput, match="environment 'payload:factory'"):  # the other name is not trusted by it
        evaluate.builder(("package.payload",))(about(env="payload:factory"))


def test_our_own_names_are_known():
    ours = ("sac", "mbpo", "drqv2+drm+taco", "stream_q")
    assert not any(foreign_agents(name) for name in ours)
    known = ("pendulum", "brax:ant", "dm_control:cartpole-swingup", "gymnasium:Pendulum-v1", "probe-3")
    assert not any(foreign_environment(id) for id in known)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"agent": 7}, "run's agent is 7, not a str"),
        ({"agent": None}, "run's agent is None"),
        ({"env": ["pendulum"]}, r"run's env is \['pendulum'\]"),
        ({"repeat": "2"}, "run's repeat is '2', not a int"),
        ({"repeat": True}, "run's repeat is True"),
        ({"pixels": "84"}, "run's pixels is '84'"),
        ({"config": []}, r"run's config is \[\]"),
        ({"config": {"widths": 3}}, "configuration is not one of sac: widths is 3"),
        ({"config": {"lr": "fast"}}, "configuration is not one of sac: lr is 'fast'"),
        ({"agent": "sacc"}, "unknown agent 'sacc'"),
    ],
)
def test_an_edited_manifest_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as error:
        evaluate.builder()(about(**changes))
    assert "\n" not in str(error.value)


def a_manifest(folder: Path, **changes) -> Path:
    """A run whose newest checkpoint has a manifest and nothing else."""
    config = {"about": about(), "seed": 0, "seeds": 2, "chunk": 10, "frames": 100, "versions": {}, "device": "cpu"}
    seconds = dict.fromkeys(("wall", "compile", "train", "saving"), 1.0)
    content = {"step": 10, "files": {}, "leaves": {}, "pending": None, "metrics": None, "seconds": seconds}
    content = {**content, "config": config, **changes}
    place = folder / "checkpoints" / "000000000010"
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(sealed(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pending": {"loss": [1.0]}}, "pending is not a list of 2 numbers"),
        ({"pending": [1.0, 2.0]}, "pending is not a list of 2 numbers"),
        ({"pending": {"loss": ["a", "b"]}}, "pending is not a list of 2 numbers"),
        ({"seconds": {"wall": 1.0}}, "seconds lacks a number"),
        ({"seconds": None}, "seconds lacks a number"),
        ({"metrics": {"bytes": -1, "sha256": ""}}, "metrics is not a number of bytes"),
        ({"diverged": [3]}, "diverged is not a list of a seed, a step and a cause"),
        ({"diverged": [{"seed": 0, "step": "late", "cause": ""}]}, "diverged is not a list of a seed, a step"),
        ({"config": None}, "config is no dict"),
        ({"config": {"about": {}, "seed": 0, "seeds": 0}}, "config.seeds is 0"),
    ],
)
def test_a_run_that_was_edited_and_sealed_again_is_refused(tmp_path, changes, sentence):
    run = a_manifest(tmp_path, **changes)
    with pytest.raises(BadInput, match=f"was edited, or is not one of ours: .*{sentence}"):
        evaluate.load(run)


@pytest.mark.parametrize("changes", [{"files": {"parts/../../x": "0"}}, {"files": 3}, {"step": -1}, {"leaves": []}])
def test_a_manifest_of_no_checkpoint_is_passed_over(tmp_path, changes):
    run = a_manifest(tmp_path, **changes)
    with pytest.raises(BadInput, match=r"no checkpoint in .* is intact: .*was edited, or is not one of ours"):
        checkpoint.newest(run / "checkpoints", print)


def test_the_commands_take_trusted_names():
    assert evaluate.flags(evaluate.Options, ["runs/x", "--trust", "a.b", "c:d"], "", "").trust == ("a.b", "c:d")
    assert play.flags(play.Options, ["runs/x", "--trust", "a.b"], "", "").trust == ("a.b",)
