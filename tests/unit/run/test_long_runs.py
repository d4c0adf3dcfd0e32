"""Runs of more frames than a 32-bit integer counts, on the host's side: names, rows, resumption, older checkpoints."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs.probes import probe
from jaxrl.core import Agent, BadInput, Recipe, Wide, minimise
from jaxrl.run import Settings, checkpoint, execute, load
from jaxrl.run.programs import many
from jaxrl.sources import uniform

ABOUT, EDGE = {"agent": "line", "env": "probe"}, 2**31


def line(warmup=0) -> Recipe:
    """Noisy actions, and a weight that learns their mean reward."""

    def loss(live, frozen, batch, key):
        return ((batch["reward"] - live["w"]) ** 2).mean(), {}

    act = lambda parts, memory, obs, ctx, explore: (jax.random.randint(ctx.key, (), 0, 2), memory, {})
    rules = {"w": minimise(loss, optax.sgd(0.1), "w")}
    return Recipe(Agent(lambda key: {"w": jnp.float32(0)}, act, rules), uniform(64, 4), num_envs=2, warmup=warmup)


def settings(steps, **more) -> Settings:
    return Settings(steps=steps, chunk=10, saving=1000.0, evaluate_episodes=2, **more)


def moved(path, start, found) -> None:
    """In a directory of its own, the checkpoint of a run, as if it stood at `start`."""
    content = found[1]
    run = checkpoint.load(*found, many(probe(5), line(), 0, 1).shapes())._replace(step=Wide.of(start))
    extra = {name: content[name] for name in ("seconds", "config")} | {"pending": None, "metrics": None}
    path.mkdir()
    checkpoint.save(path / "checkpoints", run, extra)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    path = tmp_path_factory.mktemp("begun") / "run"
    execute(probe(5), line(), path, settings(20), ABOUT)
    return checkpoint.newest(path / "checkpoints", print)


def rows(path):
    return [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("start", [EDGE - 20 - EDGE % 10, 10**12 - 20])
def test_a_run_is_saved_and_continued_across_the_edge(begun, tmp_path, start):
    """Past 2^31, and where the directories' names get a thirteenth digit."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    for path in (once, twice):
        moved(path, start, begun)
    whole = execute(probe(5), line(), once, settings(start + 40, resume=True), ABOUT)
    for steps in (10, 30, 40):
        parted = execute(probe(5), line(), twice, settings(start + steps, resume=True), ABOUT)
    assert whole["steps"] == parted["steps"] == start + 40
    assert whole["parameters_sha256"] == parted["parameters_sha256"]
    steps = [start + n for n in (10, 20, 30, 40)]
    for path in (once, twice):
        assert [row["step"] for row in rows(path)] == steps
        assert all(np.isfinite(row["w/loss"]) for row in rows(path))
        assert [p.name for p in checkpoint.published(path / "checkpoints")] == [f"{n:012d}" for n in steps[:0:-1]]
    assert rows(once) == rows(twice)
    policy = load(once, lambda about: (probe(5), line()))
    assert policy.clock == start + 40 and policy.step(jnp.ones(1), (), jax.random.key(0))[0].dtype == jnp.int32


def test_a_checkpoint_whose_clock_was_one_word_still_loads(begun, tmp_path):
    like = many(probe(5), line(), 0, 1).shapes()
    run = checkpoint.load(*begun, like)
    path = checkpoint.save(tmp_path / "c", run._replace(step=jnp.int32(20)), {})
    content = checkpoint.verify(path)
    assert content["leaves"]["step"] == ["int32", []]
    again = checkpoint.load(path, content, like)
    assert jax.tree.structure(again) == jax.tree.structure(run) and int(again.step) == 20
    assert checkpoint.fingerprint(again.parts) == checkpoint.fingerprint(run.parts)


@pytest.mark.parametrize(
    "steps, warmup, sentence",
    [
        (2**40 + 10**6, 0, r"steps is 1099512627780, more than the 2\^40 frames"),
        (40, 40, "steps is 40, all of them within the warm-up of 40 frames, in which nothing is learned"),
        (40, 10**10, "within the warm-up of 10000000000 frames"),
    ],
)
def test_runs_that_are_too_long_or_too_short_are_refused(tmp_path, steps, warmup, sentence):
    with pytest.raises(BadInput, match=sentence):
        execute(probe(5), line(warmup), tmp_path, settings(steps), ABOUT)
