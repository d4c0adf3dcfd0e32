"""One run from beginning to end: continued, stopped, refused, watched."""

import json
import os
import signal
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.core import Agent, BadInput, Event, Recipe, mean, minimise
from jaxrl.loop import layout
from jaxrl.run import Diverged, Settings, checkpoint, driver, execute, load
from jaxrl.run.programs import many
from jaxrl.run.sinks import Guarded, read
from jaxrl.sources import uniform
from tests.walking import ABOUT, linear, rows, settings, walk


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run of four chunks: (path, last line)."""
    path = tmp_path_factory.mktemp("straight") / "run"
    return path, execute(walk(), linear(), path, settings(), ABOUT)


def test_a_run_leaves_what_its_directory_promises(straight):
    path, line = straight
    wanted = {"return_iqm", "return_low", "return_high", "steps", "wall_seconds", "compile_seconds"}
    assert wanted | {"steps_per_second", "parameters_sha256", "run"} <= line.keys()
    assert (line["steps"], line["run"], line["finished"]) == (40, str(path), True)
    assert line["return_low"] <= line["return_iqm"] <= line["return_high"]
    assert [row["step"] for row in rows(path)] == [10, 20, 30, 40]
    assert all(row["seed"] == 0 and np.isfinite(row["evaluation/return"]) for row in rows(path))
    assert [p.name for p in checkpoint.published(path / "checkpoints")] == [f"{n:012d}" for n in (40, 30, 20)]
    config = json.loads((path / "config.json").read_text())["content"]
    assert config["about"] == ABOUT and config["versions"]["jax"] == jax.__version__
    assert (path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert any((path / "tensorboard" / "seed-0").iterdir())
    assert "continue" in (path / "README.txt").read_text()


def test_continued_equals_uninterrupted(straight, tmp_path):
    execute(walk(), linear(), tmp_path, settings(20), ABOUT)
    line = execute(walk(), linear(), tmp_path, settings(40, resume=True), ABOUT)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert line["return_iqm"] == straight[1]["return_iqm"]
    assert rows(tmp_path) == rows(straight[0])


def test_resume_starts_afresh_where_nothing_was_saved(straight, tmp_path):
    line = execute(walk(), linear(), tmp_path / "not" / "there", settings(resume=True), ABOUT)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]


def test_a_finished_run_says_its_last_line_again_without_compiling(straight, monkeypatch):
    monkeypatch.setattr(driver, "compiled", None)
    assert execute(walk(), linear(), straight[0], settings(resume=True), ABOUT) == straight[1]


def interrupted_at(monkeypatch, step, act):
    """Make `act` happen in the host's turn at that step, once the checkpoint is written and before the log."""
    log = driver.Drive.log

    def logged(self, bar):
        if int(self.at.run.step) == step:
            act()
        return log(self, bar)

    monkeypatch.setattr(driver.Drive, "log", logged)


def test_a_crash_between_checkpoints_loses_no_row_and_repeats_none(straight, tmp_path, monkeypatch):
    def crash():
        raise OSError("the machine is on fire")

    # Saved at 20 alone: the rows of 30 are written and then cut, the row of 40 is never reached.
    saved = driver.Drive.save
    monkeypatch.setattr(driver.Drive, "save", lambda self: saved(self) if int(self.at.run.step) == 20 else None)
    interrupted_at(monkeypatch, 40, crash)
    with pytest.raises(OSError, match="fire"):
        execute(walk(), linear(), tmp_path, settings(), ABOUT)
    assert [row["step"] for row in rows(tmp_path)] == [10, 20, 30]
    monkeypatch.undo()
    line = execute(walk(), linear(), tmp_path, settings(resume=True), ABOUT)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert rows(tmp_path) == rows(straight[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_from_there(straight, tmp_path, monkeypatch, number):
    interrupted_at(monkeypatch, 20, lambda: os.kill(os.getpid(), number))
    line = execute(walk(), linear(), tmp_path, settings(saving=0.0), ABOUT)
    assert (line["finished"], line["signal"], line["steps"]) == (False, number.name, 20)
    monkeypatch.undo()
    line = execute(walk(), linear(), tmp_path, settings(resume=True), ABOUT)
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert rows(tmp_path) == rows(straight[0])


def test_an_interrupt_inside_a_turn_saves(straight, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    interrupted_at(monkeypatch, 30, interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(walk(), linear(), tmp_path, settings(saving=0.0), ABOUT)
    assert [p.name for p in checkpoint.published(tmp_path / "checkpoints")] == [f"{30:012d}"]
    monkeypatch.undo()
    execute(walk(), linear(), tmp_path, settings(resume=True), ABOUT)
    assert rows(tmp_path) == rows(straight[0])


def test_runs_outside_the_main_thread(straight, tmp_path):
    lines = []
    thread = threading.Thread(target=lambda: lines.append(execute(walk(), linear(), tmp_path, settings(10), ABOUT)))
    thread.start()
    thread.join()
    assert lines[0]["steps"] == 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"settings": {"seed": 1}}, "seed is 1, but run .* was made with 0"),
        ({"settings": {"seeds": 2}}, "seeds is 2, but run .* was made with 1"),
        ({"settings": {"chunk": 20}}, "chunk is 20, but run .* was made with 10"),
        ({"settings": {"steps": 20}}, "steps is 20, but this run is already at 40"),
        ({"settings": {"resume": False}}, "already holds checkpoints: add --resume"),
        ({"about": {"agent": "cubic"}}, "agent is cubic, but run .* was made with linear"),
        ({"about": {"config": {"lr": 0.2}}}, "config.lr is 0.2, but run .* was made with 0.1"),
        (
            {"recipe": {"width": 3}, "settings": {"steps": 50}},
            r"leaf 'parts/actor' is float32\[2, 3\].*float32\[2, 2\]",
        ),
    ],
)
def test_what_differs_is_refused_by_name(straight, change, sentence):
    path = straight[0]
    before = sorted(path.rglob("*"))
    asked = settings(**{"resume": True, **change.get("settings", {})})
    with pytest.raises(BadInput, match=sentence):
        execute(walk(), linear(**change.get("recipe", {})), path, asked, {**ABOUT, **change.get("about", {})})
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "value"), [("steps", -1), ("steps", 0), ("seeds", 0), ("seed", -1), ("chunk", 0), ("evaluate_episodes", 0)]
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(BadInput, match=f"{name} is {value}; it must be at least"):
        Settings(**{name: value})


def test_steps_are_rounded_up_to_whole_chunks_and_it_is_said(tmp_path, capsys):
    assert execute(walk(), linear(), tmp_path, settings(15), ABOUT)["steps"] == 20
    assert "15 steps are rounded up to 20, whole chunks of 10" in capsys.readouterr().err


def test_sizes_are_said_beforehand(tmp_path, capsys):
    execute(walk(), linear(), tmp_path, settings(10), ABOUT)
    said = capsys.readouterr().err
    assert said.index("a checkpoint") < said.index("Compiling")


@pytest.mark.parametrize(
    ("tick", "steps", "periods", "length"),
    [
        (8, 100_000, (), 5000),
        (1, 500, (), 500),
        (1, 2_000_000, (), 50_000),
        (2048, 100_000, (), 4096),
        (10, 100_000, (3000, 2000), 1000),
        (1, 100_000, (250,), 5000),
        (1, 100_000, (300,), 4800),
    ],
)
def test_chunk_lengths(tick, steps, periods, length):
    assert driver.chunk_length(tick, steps, periods) == length


def test_nothing_is_traced_after_the_first_chunk(tmp_path):
    counts = []
    for steps in (10, 60):
        traced = []
        execute(walk(traced), linear(), tmp_path / str(steps), settings(steps), ABOUT)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


def test_a_chunk_calls_no_host(monkeypatch):
    def text(recipe):
        runs = many(walk(), recipe, 0, 1)
        return jax.jit(lambda run: runs.loop.chunk(run, 2)).lower(runs.shapes()).as_text()

    assert "callback" not in text(linear())
    act = linear().agent.act
    talking = lambda *args: (jax.debug.callback(print, args[2]), act(*args))[1]
    recipe = linear()
    object.__setattr__(recipe.agent, "act", talking)
    assert "callback" in text(recipe)  # so that the line above can fail


def test_a_checkpoint_within_the_budget_only(tmp_path):
    execute(walk(), linear(), tmp_path, settings(saving=0.0), ABOUT)
    assert [p.name for p in checkpoint.published(tmp_path / "checkpoints")] == [f"{40:012d}"]


def test_seeds_have_a_row_each_and_continue_bit_for_bit(straight, tmp_path, capsys):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    line = execute(walk(), linear(), whole, settings(seeds=2), ABOUT)
    said = {"map": "one after another", "vmap": "side by side"}[layout()]
    assert f"2 seeds train {said}" in capsys.readouterr().err
    execute(walk(), linear(), halves, settings(20, seeds=2), ABOUT)
    again = execute(walk(), linear(), halves, settings(seeds=2, resume=True), ABOUT)
    assert line["parameters_sha256"] == again["parameters_sha256"] and rows(whole) == rows(halves)
    assert [(row["step"], row["seed"]) for row in rows(whole)] == [(s, k) for s in (10, 20, 30, 40) for k in (0, 1)]
    alone = [row["actor/loss"] for row in rows(straight[0])]
    np.testing.assert_allclose([row["actor/loss"] for row in rows(whole) if row["seed"] == 0], alone, rtol=1e-5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_events_happen_when_due_also_after_a_resume(tmp_path, seeds):
    def reset(run, ctx):
        noise = jax.random.normal(ctx.key, run.parts["actor"].shape)
        return run._replace(parts={**run.parts, "actor": noise}), {"event/first": noise[0, 0]}

    recipe = replace(linear(), events=(Event(20, reset),))
    whole = execute(walk(), recipe, tmp_path / "whole", settings(60, seeds=seeds), ABOUT)
    execute(walk(), recipe, tmp_path / "halves", settings(30, seeds=seeds), ABOUT)
    halves = execute(walk(), recipe, tmp_path / "halves", settings(60, seeds=seeds, resume=True), ABOUT)
    assert whole["parameters_sha256"] == halves["parameters_sha256"]
    due = [row["step"] for row in rows(tmp_path / "whole") if row.get("event/first") is not None]
    assert sorted(set(due)) == [20, 40, 60] and rows(tmp_path / "whole") == rows(tmp_path / "halves")


def test_the_event_that_spoils_a_part_is_named(tmp_path):
    spoil = lambda run, ctx: (run._replace(parts={**run.parts, "actor": run.parts["actor"] * jnp.nan}), {})
    recipe = replace(linear(), events=(Event(20, spoil, "refit"),))
    with pytest.raises(Diverged, match="'actor' is not finite at step 20: event 'refit' wrote it, the last good"):
        execute(walk(), recipe, tmp_path, settings(), ABOUT)
    assert not (tmp_path / "bad-batch.npz").exists()


def test_the_rule_that_spoils_a_part_is_named_and_its_batch_kept(tmp_path):
    # 1 -> log(0.7) -> log of a negative number: the second update.
    with pytest.raises(
        Diverged, match="part 'scale' is not finite at step 4: rule 'shrink' wrote it; its batch"
    ) as info:
        execute(walk(), linear(bad=True), tmp_path, settings(), ABOUT)
    assert "no checkpoint had been written" in str(info.value)
    with np.load(tmp_path / "bad-batch.npz") as batch:
        assert batch["obs"].shape == (4, 2) and np.isfinite(batch["obs"]).all()


def test_a_spoilt_source_is_blamed_and_the_batch_kept(tmp_path):
    """What an event puts into a source is seen when it is drawn."""

    def loss(live, frozen, batch, key):
        return mean(jnp.square(live["actor"].sum() - batch["reward"]), batch), {}

    def spoil(run, ctx):
        nodes = {**run.source.nodes, "reward": run.source.nodes["reward"] * jnp.nan}
        return run._replace(source=run.source._replace(nodes=nodes)), {}

    recipe = linear()
    rules = {"actor": minimise(loss, optax.adam(0.1), "actor")}
    agent = Agent(recipe.agent.init, recipe.agent.act, rules)
    recipe = Recipe(agent, uniform(64, 4), num_envs=2, events=(Event(20, spoil),))
    with pytest.raises(Diverged, match=r"rule 'actor' wrote it, from a batch whose 'reward' was not finite") as info:
        execute(walk(), recipe, tmp_path, settings(40, seeds=2, seed=3), ABOUT)
    assert "no seed is left: " in str(info.value) and "(seed 4)" in str(info.value)
    for seed in (3, 4):
        with np.load(tmp_path / f"bad-batch-{seed}.npz") as batch:
            assert np.isnan(batch["reward"]).any()


def test_a_dead_sink_says_so_once_and_training_goes_on():
    said = []

    class Dead:
        def write(self, rows):
            raise OSError("no space left")

    sink = Guarded("metrics", Dead, said.append)
    for _ in range(3):
        sink.write([])
    sink.close()
    assert len(said) == 1 and "metrics stopped recording (OSError: no space left)" in said[0]


def test_damaged_metrics_are_noticed(straight, tmp_path, capsys):
    execute(walk(), linear(), tmp_path, settings(20), ABOUT)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": 10', b'"step": 11'))
    line = execute(walk(), linear(), tmp_path, settings(resume=True), ABOUT)
    assert "metrics.jsonl is not what the checkpoint recorded" in capsys.readouterr().err
    assert line["parameters_sha256"] == straight[1]["parameters_sha256"]
    assert [row["step"] for row in read(path)][1:] == [20, 30, 40]


def test_a_policy_in_three_lines(straight):
    policy = load(straight[0], lambda about: (walk(), linear()))
    obs = policy.env.reset(jax.random.key(0))[1].obs
    np.testing.assert_allclose(policy(obs), obs @ policy.parts["actor"], rtol=1e-6)
    with pytest.raises(BadInput, match=r"seed is 7, and run .* has 0 to 0"):
        load(straight[0], lambda about: (walk(), linear()), seed=7)
    with pytest.raises(BadInput, match="holds no checkpoint"):
        load(straight[0] / "nowhere", lambda about: (walk(), linear()))
