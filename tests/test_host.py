"""Environments on the host: the numbers of the compiled loop, true ends when continued, one sentence for faults."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Agent, BadInput, Box, Env, Recipe, Specs, TimeStep, first, mean, minimise, stateless
from jaxrl.host import Host, Hosted, Step, host_loop
from jaxrl.loop import loop
from jaxrl.run import Diverged, Settings, checkpoint, execute
from jaxrl.run.driver import failure
from jaxrl.run.evaluation import returns, saved
from jaxrl.sources import rollout, uniform

KEY = jax.random.key(4)
SPECS = Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((1,)), limit=5)


def walk() -> Env:
    """A walk along a line: obs (place, time); past 1.5 the task is over, after 5 steps the clock has run out."""

    def step(state, action):
        x, t = state[0] + action[0], state[1] + 1
        obs = jnp.stack([x, t])
        return obs, TimeStep(obs, x, x > 1.5, (t >= 5) & (x <= 1.5))

    return Env(lambda key: (jnp.zeros(2), first(jnp.zeros(2))), step, SPECS, "walk")


class Walk:
    """The same walk as a simulator."""

    def __init__(self, seeds: list, spoilt: bool = False):
        self.seeds, self.spoilt = seeds, spoilt

    def reset(self, seed: int) -> np.ndarray:
        self.seeds.append(seed)
        self.obs = np.zeros(2, np.float32)
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        self.obs = self.obs + np.array([action[0], 1], np.float32)
        x, t = self.obs
        return Step(self.obs, float("nan") if self.spoilt else x, x > 1.5, t >= 5)


def host(seeds: list | None = None, spoilt: bool = False) -> Host:
    seeds = [] if seeds is None else seeds
    return Host(lambda: Walk(seeds, spoilt), SPECS, "walk")


def recipe(source, **more) -> Recipe:
    """An agent with a memory (steps of this episode), noisy actions, and least squares of the reward."""

    def act(parts, memory, obs, ctx, explore):
        noise = explore * jax.random.uniform(ctx.key, (1,), minval=-1.0, maxval=1.0)
        return jnp.tanh(obs @ parts["w"])[None] * 0.1 + noise, memory + 1, {"noise": noise}

    def loss(live, frozen, batch, key):
        return mean((batch["obs"] @ live["w"] - batch["reward"]) ** 2, batch), {}

    rules = {"fit": minimise(loss, optax.sgd(0.01), "w")}
    agent = Agent(lambda key: {"w": jax.random.normal(key, (2,))}, act, rules, memory=lambda: jnp.int32(0))
    return Recipe(agent, source, **{"num_envs": 3, "unroll": 4, "warmup": 12, **more})


def test_the_host_collects_and_learns_what_the_compiled_loop_does():
    seeds, how = [], recipe(rollout())
    one, hosted = loop(walk(), how), Hosted(host(seeds), how, host_loop(host(), how), 0)
    collect, learn = jax.jit(one.collect), jax.jit(one.learn)
    run, other = jax.jit(one.init)(KEY), jax.jit(hosted.one.init)(KEY)
    ended = 0
    run, newest = collect(run)
    for _ in range(4):
        ended += int(newest["end"].sum())
        run, metrics = learn(run, newest)
        other, found = hosted.chunk(other, 1)
        run, newest = collect(run)
        assert int(other.step) == int(run.step) - one.frames
        assert found["episode/length"] > 0 and found.keys() >= metrics.keys()
        for path, mine in jax.tree_util.tree_leaves_with_path(newest):
            theirs = dict(jax.tree_util.tree_leaves_with_path(other.envs))[path]
            assert theirs.dtype == mine.dtype
            assert_allclose(theirs, mine, rtol=1e-5, atol=1e-6, err_msg=str(path))
        assert_allclose(other.parts["w"], run.parts["w"], rtol=1e-5)
    ended += int(newest["end"].sum())
    assert len(seeds) == len(set(seeds)) == 3 + ended and ended > 4


@pytest.mark.reference
def test_two_short_chunks_are_one_long_one():
    how = recipe(uniform(64, 4))
    once, twice = (Hosted(host(), how, host_loop(host(), how), 0) for _ in range(2))
    run = jax.jit(once.one.init)(KEY)
    whole, _ = once.chunk(jax.tree.map(jnp.copy, run), 4)
    halves, _ = twice.chunk(twice.chunk(run, 2)[0], 2)
    assert_array_equal(whole.parts["w"], halves.parts["w"])
    assert_array_equal(whole.envs["obs"], halves.envs["obs"])


def test_continued_it_cuts_the_episodes_that_were_lost():
    seeds, how = [], recipe(rollout())
    before = Hosted(host(seeds), how, host_loop(host(), how), 0)
    run, _ = before.chunk(jax.jit(before.one.init)(KEY), 2)
    assert not run.envs["end"][-1].all()
    after = Hosted(host(seeds), how, before.one, 0)
    known = set(seeds)
    again, newest, lost = after.take_up(run)
    assert newest["end"][-1].all() and lost[-1].any()
    assert_array_equal(newest["end"][:-1], run.envs["end"][:-1])
    assert_array_equal(lost[-1], ~np.asarray(run.envs["end"][-1]))
    assert_array_equal(newest["discount"], run.envs["discount"])  # what follows is still worth its value
    assert_array_equal(again.last, np.zeros((3, 2)))
    assert_array_equal(again.memory, np.zeros(3))
    assert len(set(seeds)) == len(seeds) > len(known)
    # The first chunk after that learns from the cut transitions, and reports no episode that was cut.
    genuine = int(run.envs["end"].sum())
    _, metrics = Hosted(host(), how, before.one, 0).chunk(run, 1)
    assert np.isnan(metrics["episode/length"]) == (genuine == 0)


def settings(steps, **more) -> Settings:
    return Settings(steps=steps, chunk=24, evaluate_episodes=2, saving=1000.0, **more)


def test_a_run_on_the_host_is_kept_continued_and_played(tmp_path, capsys):
    how, about = recipe(uniform(64, 4)), {"env": "walk"}
    execute(host(), how, tmp_path, settings(48), about)
    assert "walk runs on the host: outside the scan and therefore slower" in capsys.readouterr().err
    line = execute(host(), how, tmp_path, settings(96, resume=True), about)
    assert line["steps"] == 96 and line["finished"]
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [24, 48, 72, 96]
    assert all(np.isfinite(row["evaluation/return"]) and row["episode/length"] <= 5 for row in rows)
    assert checkpoint.newest(tmp_path / "checkpoints", print)[1]["step"] == 96
    run = saved(tmp_path, lambda about: (host(), how))
    scores = returns(run, 3)
    # Without noise every episode is the same one, and so is the last evaluation.
    assert scores.shape == (1, 3)
    assert_allclose(scores, line["return_iqm"], rtol=1e-5)


def test_a_run_is_saved_where_a_simulator_fails_and_goes_on_once_it_is_mended(tmp_path):
    """The fault comes within a chunk of two ticks: what is left of it is made up, and chunks are whole again."""
    made = []

    class Failing(Walk):
        def step(self, action):
            self.count = getattr(self, "count", 0) + 1
            return super().step(action)._replace(reward=None if self.count == 14 else 1.0)

        def close(self):
            made.remove(self)

    def failing():
        made.append(Failing([]))
        return made[-1]

    how = recipe(uniform(64, 4))
    with pytest.raises(
        BadInput, match=r"environment 0 of 3 \(walk\), step 14: .*the last checkpoint is of step 36: mend"
    ):
        execute(Host(failing, SPECS, "walk"), how, tmp_path, settings(96))
    assert not made  # all are closed, those of the evaluation too
    assert checkpoint.newest(tmp_path / "checkpoints", print)[1]["step"] == 36
    line = execute(host(), how, tmp_path, settings(96, resume=True))
    assert line["finished"] and line["steps"] == 96
    rows = [json.loads(row)["step"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [24, 36, 48, 72, 96]


def test_a_compiled_environment_whose_callback_raises_is_a_sentence(tmp_path):
    def callback(x):
        raise ValueError("the solver\nis gone")

    def step(state, action):
        state, out = walk().step(state, action)
        reward = jax.pure_callback(
            callback, jax.ShapeDtypeStruct((), jnp.float32), out.reward, vmap_method="sequential"
        )
        return state, out._replace(reward=reward)

    with pytest.raises(
        BadInput, match=r"the compiled program failed \(.*is gone\): mend the environment.*no checkpoint"
    ):
        execute(replace(walk(), step=step), recipe(uniform(64, 4)), tmp_path, settings(24))
    crowded = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.\nmore")
    assert failure(crowded).startswith("the device has too little memory (RESOURCE_EXHAUSTED: Out of memory")


def test_faults_are_sentences(tmp_path):
    with pytest.raises(BadInput, match="seeds is 2, but walk runs on the host"):
        execute(host(), recipe(rollout()), tmp_path / "many", settings(24, seeds=2))
    with pytest.raises(BadInput, match="leave `starts` away"):
        host_loop(host(), recipe(rollout(), starts=lambda parts, key: None))
    with pytest.raises(
        BadInput, match=r"environment 0 of 3 \(walk\), step 1: step's reward is nan, .*checkpoint is of step 12"
    ):
        execute(host(spoilt=True), recipe(rollout()), tmp_path / "spoilt", settings(48))
    how = recipe(rollout())
    rules = {"fit": stateless(lambda parts, batch, ctx: ({"w": parts["w"] * jnp.inf}, {}), "w")}
    how = replace(how, agent=Agent(how.agent.init, how.agent.act, rules, memory=how.agent.memory))
    with pytest.raises(Diverged, match=r"part 'w' is not finite.*rule 'fit', which cannot be played again on the host"):
        execute(host(), how, tmp_path / "learner", settings(24))
