"""The commands: names at once, one sentence for bad input, one JSON line for an answer."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import cli, evaluate, train
from jaxrl import interrupts
from jaxrl.errors import BadInput
from jaxrl.run import Diverged


def test_names_are_answered_without_importing_jax():
    code = """
import sys
from experiments import train
from jaxrl import interrupts
from jaxrl.errors import BadInput
for args in (["--help"], ["--agent", "sacc"], ["--env=cartpole-swingupp"]):
    try:
        train.parse(args)
    except (SystemExit, BadInput) as end:
        print(end)
print(sorted({"jax", "flax", "mujoco", "orbax", "matplotlib"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *help, code, agent, env, imported = done.stdout.splitlines()
    assert any("--steps" in line for line in help) and code == "0"
    assert agent.startswith("unknown agent 'sacc': there are bro,") and agent.endswith("Did you mean 'sac'?")
    assert env.endswith("Did you mean 'cartpole-swingup'?")
    assert imported == "[]"


def test_agent_flags_are_listed(capsys):
    with pytest.raises(SystemExit) as end:
        train.parse(["--agent", "sac", "--help"])
    assert end.value.code == 0 and "--agent.lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--stepz", "3"], r"unknown flag --stepz: .*Did you mean --steps\?"),
        (["--agent.lrr", "3"], r"unknown flag --agent\.lrr: .*Did you mean --agent\.lr\?"),
        (["--steps", "many"], "Error parsing --steps: .*'many'"),
        (["--agent.lr", "-1"], r"lr is -1\.0"),
        (["--agent.gamma", "1.5"], r"gamma is 1\.5"),
        (["--agent.batch", "64", "--agent.capacity", "32"], "batch"),
        (["--agent.num-envs", "0"], "num_envs is 0"),
        (["--steps", "-4"], "steps is -4; it must be at least 1"),
        (["--seeds", "0"], "seeds is 0; it must be at least 1"),
        (["--repeat", "0"], "action repeat is 0"),
        (["--at", "30"], "at is 30 without --resume"),
        (["--env", "cartpole"], "sac"),
        (["--agent", "dqn"], "dqn"),
        (["--agent", "nowhere.to_be_found"], "there is no module 'nowhere'"),
        (["--agent", "json.decoder"], "has no 'Config'"),
        (["--env", "nowhere:env"], "cannot import 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_compiled(tmp_path, monkeypatch, args, sentence):
    monkeypatch.setattr("jaxrl.run.driver.compiled", None)
    args = args if "--env" in args else ["--env", "pendulum", *args]
    with pytest.raises(BadInput, match=sentence) as error:
        train.main([*args, "--run", str(tmp_path / "run")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("error", "code"), [(BadInput("the sentence"), 2), (KeyboardInterrupt(), 130)])
def test_exit_codes(capsys, monkeypatch, error, code):
    def main(args):
        raise error

    def left():
        raise SystemExit(interrupts.INTERRUPTED)

    monkeypatch.setattr(interrupts, "leave", left)  # ends the process
    with pytest.raises(SystemExit) as end:
        cli.answer(main)
    assert end.value.code == code and capsys.readouterr().err.startswith("error: ")


def test_numbers_that_are_not_finite_exit_with_1(tmp_path, monkeypatch, capsys):
    def execute(*given):
        raise Diverged("the sentence")

    monkeypatch.setattr("jaxrl.run.execute", execute)
    assert train.main(["--env", "pendulum", "--run", str(tmp_path / "run")]) == 1
    assert capsys.readouterr() == ("", "error: the sentence\n")


def test_the_command_that_continues_a_run_goes_back_no_second_time():
    args = ["--run", "a", "--at", "30", "--resume", "--at=40", "--attic", "x"]
    assert cli.without(args, "--at") == ["--run", "a", "--resume", "--attic", "x"]


BAD_WORLD = """
import jax, jax.numpy as jnp
from jaxrl.core import Box, Env, Specs, TimeStep, first
def world(nan=False, wide=False, endless=False, short=False):
    obs = lambda t: jnp.full(3 if wide else 2, jnp.where(nan, jnp.nan, 1.0) * (t > 0))
    def step(t, action):
        end = t + 1 >= (1 if short else 10)
        return t + 1, TimeStep(obs(t + 1), jnp.float32(1), jnp.bool_(False), end & (not endless))
    specs = Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((1,)), limit=10)
    return Env(lambda key: (jnp.int32(0), first(obs(jnp.int32(0)))), step, specs)
def nan(): return world(nan=True)
def wide(): return world(wide=True)
def endless(): return world(endless=True)
def short(): return world(short=True)
"""


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("nan", "nan|finite"),
        ("wide", r"\[3\].*\[2\]"),
        ("endless", "went on after"),
        ("short", "every|length"),
    ],
)
def test_a_bad_world_is_refused_before_training(tmp_path, monkeypatch, factory, sentence):
    (tmp_path / "bad_world.py").write_text(BAD_WORLD)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match=f"(?i)bad_world:{factory}.*({sentence})"):
        train.main(["--env", f"bad_world:{factory}", "--run", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


OWN_AGENT = """
from jaxrl.agents.dqn import Config, recipe
"""


OTHERS = (
    "own.agent",
    "envs.probes:countdown",
)  # of nobody that is known: an agent beside the test, a factory in no table


def test_train_resume_and_evaluate(tmp_path, monkeypatch, capfd):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "agent.py").write_text(OWN_AGENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = str(tmp_path / "run")
    args = ["--agent", "own.agent", "--env", "envs.probes:countdown", "--steps", "8", "--chunk", "4", "--run", run]
    args += ["--saving", "1000"]  # each chunk is saved, whatever it costs
    args += ["--agent.num-envs", "1", "--agent.warmup", "4"]
    assert train.main(args) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["return_iqm"] == line["return_low"] == line["return_high"] == 4.0 and line["steps"] == 8
    assert train.main([*args, "--resume"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == line
    slower = [*args, "--agent.lr", "1e-5"]
    with pytest.raises(BadInput, match=r"config\.lr is 1e-05, but run .* --at STEP, which accepts it"):
        train.main([*slower, "--resume"])
    assert train.main([*slower, "--resume", "--at", "4"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (line["steps"], line["diverged"]) == (8, [])
    again = (tmp_path / "run" / "README.txt").read_text()
    assert "--agent.lr 1e-5" in again and "--at" not in again.split() and "--resume" in again

    assert evaluate.main([run, "--episodes", "3", "--trust", *OTHERS]) == 0
    played = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert played["return_iqm"] == 4.0 and played["parameters_sha256"] == line["parameters_sha256"]

    policy = evaluate.load(run, trust=OTHERS)
    assert int(policy(np.eye(4, dtype=np.float32)[0])) in (0, 1)


def test_a_configuration_survives_json():
    from jaxrl.agents.sac import Config

    config = Config(widths=(3, 4), lr=0.25)
    assert evaluate.read(Config, json.loads(json.dumps(train.written(config)))) == config
