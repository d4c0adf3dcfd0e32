"""The loop: one program, exact clocks, true ends, seeds, events, offline runs, evaluation."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.core import action_repeat
from envs.probes import countdown, probe
from jaxrl.core import Agent, BadInput, Box, Env, Event, Recipe, Specs, TimeStep, first, mean, minimise, stateless
from jaxrl.loop import evaluate, fit, loop, over_devices, over_seeds, train
from jaxrl.sources import dataset, latest, rollout, uniform
from tests.devices import found_on

KEY = jax.random.key(3)
ROOT = Path(__file__).parents[1]


def value_agent(gamma: float, size: int, lr: float = 0.2) -> Agent:
    """Tabular TD(0) on one-hot observations, in the nouns: a part, a loss, a rule."""

    def loss(live, frozen, batch, key):
        v = batch["obs"] @ live["v"]
        target = batch["reward"] + gamma * batch["discount"] * (batch["next_obs"] @ frozen["v"])
        return mean(0.5 * (v - target) ** 2, batch), {"td_error": v - target}

    act = lambda parts, memory, obs, ctx, explore: (jnp.int32(0), memory, {})
    return Agent(lambda key: {"v": jnp.zeros(size)}, act, {"v": minimise(loss, optax.sgd(lr), "v")})


@pytest.mark.parametrize("terminates,value", [(False, 10.0), (True, 3.439)])
def test_truncation_is_not_termination(terminates, value):
    """The field's trap: a limit of 4 steps, reward 1, discount 0.9."""
    env, recipe = countdown(4, terminates), Recipe(value_agent(0.9, 4, lr=1.0), uniform(400, 32))
    run, _ = jax.jit(lambda key: train(env, recipe, key, steps=3000))(KEY)
    assert_allclose(run.parts["v"][0], value, rtol=1e-3)


def test_the_clock_counts_frames():
    env = action_repeat(countdown(8), 2)
    one = loop(env, Recipe(value_agent(0.9, 8), latest(), num_envs=3, unroll=5))
    run, metrics = jax.jit(one.chunk, static_argnums=1)(one.init(KEY), 4)
    assert one.frames == 3 * 5 * 2 and run.step == 4 * 30
    assert metrics["episode/length"] == 4 and metrics["episode/return"] == 8


def test_a_transition_keeps_the_true_last_observation():
    one = loop(countdown(3), Recipe(value_agent(0.9, 3), rollout(), unroll=7))
    _, batch = one.collect(one.init(KEY))
    assert_array_equal(batch["end"][:, 0], [0, 0, 1, 0, 0, 1, 0])
    assert_array_equal(batch["obs"][:, 0].argmax(-1), [0, 1, 2, 0, 1, 2, 0])
    assert_array_equal(batch["next_obs"][:, 0].argmax(-1), [1, 2, 0, 1, 2, 0, 1])
    assert_array_equal(batch["discount"][:, 0], np.ones(7))
    assert_array_equal(batch["info"]["episode"]["length"][:, 0], [1, 2, 3, 1, 2, 3, 1])


def traced_env(count: list) -> Env:
    env = probe(2)

    def step(state, action):
        count.append(1)
        return env.step(state, action)

    return Env(env.reset, step, env.specs, env.name)


def agent_of_probe(lr=0.1) -> Agent:
    return value_agent(0.9, 1, lr)


def test_nothing_is_traced_again_after_the_first_chunk():
    count = []
    one = loop(traced_env(count), Recipe(agent_of_probe(), uniform(64, 8), warmup=4))
    chunk = jax.jit(one.chunk, static_argnums=1, donate_argnums=0)
    run = jax.jit(one.init)(KEY)
    run, _ = chunk(run, 10)
    traced = len(count)
    for _ in range(3):
        run, _ = chunk(run, 10)
    assert len(count) == traced and chunk._cache_size() == 1


def test_a_chunk_transfers_nothing():
    one = loop(probe(2), Recipe(agent_of_probe(), uniform(64, 8)))
    chunk = jax.jit(lambda run: one.chunk(run, 10), donate_argnums=0)
    run = jax.jit(one.init)(KEY)
    with jax.transfer_guard("disallow"):
        run, metrics = chunk(run)
        jax.block_until_ready((run, metrics))


def test_chunks_compose_bit_for_bit():
    one = loop(probe(2), Recipe(agent_of_probe(), uniform(64, 8), num_envs=2, warmup=6))
    chunk = jax.jit(one.chunk, static_argnums=1)
    run = jax.jit(one.init)(KEY)
    whole, _ = chunk(run, 20)
    halves, _ = chunk(chunk(run, 10)[0], 10)
    same = jax.tree.map(
        lambda a, b: (
            (jax.random.key_data(a) == jax.random.key_data(b)).all()
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
            else (a == b).all()
        ),
        whole,
        halves,
    )
    assert all(jax.tree.leaves(same))


LATER = [pytest.param(name, marks=pytest.mark.reference) for name in ("sac", "ppo")]


@pytest.mark.parametrize("name", [*LATER, "stream_q"])
def test_vmapped_seeds_equal_a_loop_of_seeds(name):
    """20 updates of each kind of agent, all of its parts."""
    module = importlib.import_module(f"jaxrl.agents.{name}")
    small = {
        "sac": {"widths": (8,), "batch": 8, "capacity": 64, "warmup": 0},
        "ppo": {"widths": (8,), "unroll": 8, "epochs": 1, "minibatches": 1},
        "stream_q": {"width": 8},
    }
    env = probe(5, continuous=name == "sac")
    one = loop(env, module.recipe(env.specs, module.Config(**small[name])))
    keys = jax.random.split(KEY, 2)
    many = over_seeds(one, "vmap")
    runs, _ = jax.jit(many.chunk, static_argnums=1)(jax.jit(many.init)(keys), 20)
    run, _ = jax.jit(one.chunk, static_argnums=1)(jax.jit(one.init)(keys[1]), 20)
    jax.tree.map(lambda a, b: assert_allclose(a[1], b, atol=1e-5), runs.parts, run.parts)


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_many_seeds_equal_a_loop_of_seeds(how):
    """20 updates; the parts agree within 1e-5, and so do what they learned from."""
    one = loop(probe(5), Recipe(agent_of_probe(), uniform(64, 8)))
    keys = jax.random.split(KEY, 3)
    many = over_seeds(one, how)
    runs, metrics = jax.jit(many.chunk, static_argnums=1)(jax.jit(many.init)(keys), 20)
    assert runs.step.low.shape == () and runs.step == 20 and metrics["v/loss"].shape == (3,)
    chunk = jax.jit(one.chunk, static_argnums=1)
    for i, key in enumerate(keys):
        run, _ = chunk(one.init(key), 20)
        assert_allclose(runs.parts["v"][i], run.parts["v"], atol=1e-5)
        assert_array_equal(runs.last[i], run.last)


def test_learning_rates_can_be_swept_by_vmap():
    def run(lr):
        return train(probe(1), Recipe(agent_of_probe(lr), latest()), KEY, steps=4)[0].parts["v"]

    def one_obs(lr):  # probe 1 shows zeros, so a bias is learned through probe 2's visible observation
        return train(probe(2), Recipe(agent_of_probe(lr), latest()), KEY, steps=4)[0].parts["v"][0]

    slow, fast = jax.jit(jax.vmap(one_obs))(jnp.array([0.1, 0.5]))
    assert_allclose([slow, fast], [1 - 0.9**4, 1 - 0.5**4], rtol=1e-5)
    assert_array_equal(jax.jit(run)(0.1), [0.0])


def test_warmup_acts_uniformly_and_learns_nothing():
    env = probe(4)
    agent = agent_of_probe()
    one = loop(env, Recipe(agent, uniform(64, 8), num_envs=1, warmup=40))
    chunk = jax.jit(one.chunk, static_argnums=1)
    run, metrics = chunk(one.init(KEY), 40)
    assert jnp.isnan(metrics["v/loss"]) and (run.parts["v"] == 0).all()
    assert -1 < metrics["episode/return"] < 1  # the agent alone always takes action 0, which is wrong: -1
    run, metrics = chunk(run, 40)
    assert jnp.isfinite(metrics["v/loss"]) and metrics["episode/return"] == -1


def test_ratio_counts_updates_and_may_be_a_function():
    def counting(parts, batch, ctx):
        return {"n": parts["n"] + 1}, {"update": ctx.update.saturated}

    agent = Agent(
        lambda key: {"n": jnp.int32(0)},
        lambda p, m, o, c, e: (jnp.int32(0), m, {}),
        {"count": stateless(counting, "n")},
    )
    total = lambda ratio: train(probe(1), Recipe(agent, latest(), ratio=ratio), KEY, steps=6)
    run, metrics = total(3)
    assert run.parts["n"] == 18 and metrics["count/update"] == 8.5  # 0 .. 17
    assert total(0)[0].parts["n"] == 0
    late = lambda parts, ctx: jnp.where(ctx.step >= 3, 2, 0)
    run, metrics = train(probe(1), Recipe(agent, latest(), ratio=late, most=2), KEY, steps=6)
    assert run.parts["n"] == 6 and metrics["count/update"] == 8.5  # 6 .. 11
    with pytest.raises(BadInput, match="`most`"):
        total(late)


def test_events_are_due_by_the_clock():
    def bump(run, ctx):
        return run._replace(parts={"v": run.parts["v"] + 100}), {"bump/at": ctx.step}

    agent = value_agent(0.9, 1, lr=0.0)
    bumped = lambda period, chunk: train(
        probe(1), Recipe(agent, latest(), events=(Event(period, bump),)), KEY, steps=12, chunk=chunk
    )
    run, metrics = bumped(4, 2)
    assert run.parts["v"][0] == 300
    assert_array_equal(metrics["bump/at"], [np.nan, 4, np.nan, 8, np.nan, 12])
    run, metrics = bumped(2, 6)  # three times a chunk
    assert run.parts["v"][0] == 600
    assert_array_equal(metrics["bump/at"], [4, 10])
    with pytest.raises(BadInput, match="neither a multiple nor a divisor of an event's period, 3"):
        bumped(3, 2)
    with pytest.raises(BadInput, match="period is 0 frames"):
        bumped(0, 2)


def test_fit_needs_no_environment():
    x = jax.random.normal(KEY, (64, 2))
    data = {"x": x, "y": x @ jnp.array([1.0, -2.0])}

    def loss(live, frozen, batch, key):
        return mean((batch["x"] @ live["w"] - batch["y"]) ** 2, batch), {}

    agent = Agent(lambda key: {"w": jnp.zeros(2)}, lambda *a: None, {"fit": minimise(loss, optax.sgd(0.1), "w")})
    run, metrics = jax.jit(lambda key: fit(Recipe(agent, dataset(data, 16)), key, steps=200, chunk=100))(KEY)
    assert_allclose(run.parts["w"], [1, -2], atol=1e-3)
    assert run.step == 200 and metrics["fit/loss"].shape == (2,)


def test_evaluate_plays_whole_episodes_and_refuses_endless_tasks():
    out = jax.jit(lambda key: evaluate(countdown(5), value_agent(0.9, 5), {"v": jnp.zeros(5)}, key, 3))(KEY)
    assert_array_equal(out["return"], [5, 5, 5])
    assert_array_equal(out["length"], [5, 5, 5])
    env = probe(1)
    endless = Env(env.reset, env.step, Specs(env.specs.observation, env.specs.action), "treadmill")
    with pytest.raises(BadInput, match=r"treadmill is endless.*time_limit"):
        evaluate(endless, agent_of_probe(), {}, KEY)


def test_a_bank_of_starts_is_redrawn_between_chunks():
    """Episodes of one step show the bank: a chunk sees at most that many starts, and the next chunk others."""

    def reset(key):
        x = jax.random.uniform(key, (1,))
        return x, first(x)

    def step(x, action):
        return x, TimeStep(x, x[0], jnp.bool_(True), jnp.bool_(False))

    env = Env(reset, step, Specs(jax.ShapeDtypeStruct((1,), jnp.float32), Box((1,)), limit=1))
    see = Agent(
        lambda key: {"log": jnp.zeros((2, 20))},
        lambda p, m, o, c, e: (jnp.zeros(1), m, {}),
        {},
        {
            "log": stateless(
                lambda parts, batch, ctx: (
                    {"log": parts["log"].at[(ctx.update // 20) % 2, ctx.update % 20].set(batch["obs"][0, 0, 0])},
                    {},
                ),
                "log",
            )
        },
    )
    run, _ = train(env, Recipe(see, latest(), starts=4), KEY, steps=40, chunk=20)
    first_chunk, second_chunk = (set(np.asarray(row[1:]).tolist()) for row in run.parts["log"])
    assert len(first_chunk) <= 4 and len(second_chunk) <= 4 and not first_chunk & second_chunk

    def above(parts, key):
        x = 2 + jax.random.uniform(key, (3, 1))
        return x, jax.vmap(first)(x)

    run, _ = train(env, Recipe(see, latest(), starts=above), KEY, steps=40, chunk=20)
    assert (run.parts["log"][:, 1:] > 2).all()


def test_settings_that_cannot_run_are_refused():
    ok = agent_of_probe()
    for setting, sentence in [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"unroll": 0}, "unroll is 0"),
        ({"ratio": -1}, "ratio is -1"),
        ({"warmup": -5}, "warmup is -5"),
        ({"starts": 0}, "starts is 0"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            train(probe(1), Recipe(ok, latest(), **setting), KEY, steps=12)
    for recipe, lengths, sentence in [
        ({}, {"steps": 0}, "steps is 0"),
        ({"num_envs": 2}, {"steps": 12, "chunk": 3}, "chunk is 3 frames"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            train(probe(1), Recipe(ok, latest(), **recipe), KEY, **lengths)


# ----------------------------------------------------------------------------------------------------------- devices


@pytest.fixture(scope="module")
def spread():
    """What four virtual devices found, in a process of their own: the number of devices is fixed when jax starts."""
    return found_on(4, "on_policy", "off_policy")


def test_four_devices_learn_what_one_does(spread):
    found = spread["on_policy"]
    assert found["moved"] > 1e-4
    assert found["parts_apart"] < 1e-6 and found["observations_apart"] < 1e-6 and found["metrics_apart"] < 1e-5
    assert found["steps"] == [96, 96]  # 3 ticks of 4 steps in all of 8 environments, however they are spread


def test_each_device_has_a_replay_of_its_own(spread):
    """2 of 8 environments each; statistics count all: what 5 steps led to, and what 8 episodes began with."""
    found = spread["off_policy"]
    assert found["replay"] == [4, 21, 2, 3] and found["replays_differ"] == 4
    assert found["same_parts"] and found["seen"] == 48 and np.isfinite(found["loss"])


def test_environments_that_cannot_be_shared_out_are_refused():
    env = probe(1)
    recipe = Recipe(agent_of_probe(), latest(), num_envs=3)
    with pytest.raises(BadInput, match="num_envs is 3, which 2 devices do not divide"):
        over_devices(env, recipe, [jax.devices()[0]] * 2)
