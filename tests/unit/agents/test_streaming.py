"""What streaming agents share: features by their wrappers' formulas, each ablation, networks, and the bounded step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import streaming
from jaxrl.core import BadInput, Ctx
from jaxrl.nets import MLP, leaky_relu, net
from jaxrl.sources import latest
from tests.pinned import KEY, LENGTH, SPECS, bounded, defaults, near, rolled
from tests.streams import GAMMA, KAPPA, LAMBDA, LR, STREAM, experience, seen, started, x_of

CONFIG = streaming.Stream(**STREAM)
ENDLESS = replace(SPECS, limit=None)


def statistics(feature):
    """As `started` has them."""
    return started(type("Agent", (), {"init": staticmethod(lambda key: feature.parts())}))


def test_features_are_normalised_with_the_time_appended():
    feature = streaming.features(SPECS, CONFIG)
    parts, obs = statistics(feature), jnp.array([0.3, -1.0, 2.0])
    assert_allclose(feature.of(parts, obs, jnp.int32(6)), x_of(obs, 6), rtol=1e-5)
    assert feature.shape.shape == (LENGTH + 1,) and feature.names == ("norm", "reward_norm")
    endless = streaming.features(ENDLESS, CONFIG)
    assert_allclose(endless.of(parts, obs, jnp.int32(6)), x_of(obs, 6)[:-1], rtol=1e-5)
    assert endless.shape.shape == (LENGTH,)
    raw = streaming.features(SPECS, replace(CONFIG, normalise=False))
    assert_allclose(raw.of({}, obs, jnp.int32(6)), [0.3, -1.0, 2.0, 0.1], rtol=1e-6)
    assert (raw.parts(), raw.names, raw.observe) == ({}, (), {})
    with pytest.raises(BadInput, match="a streaming agent needs observations that are one vector"):
        streaming.features(replace(SPECS, observation=jax.ShapeDtypeStruct((2, 2), jnp.float32)), CONFIG)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_a_transition_as_it_is_seen(bootstrap):
    """Where it ends traces do; what follows a time limit is worth something to those who ask for it."""
    feature = streaming.features(SPECS, replace(CONFIG, bootstrap_truncated=bootstrap))
    parts = statistics(feature)
    for i, batch in enumerate(experience()):
        view, now = feature.view(parts, batch), seen(batch)
        near((view.x, view.x_next), (now["x"], now["x_next"]))
        discount = 0 if i == 4 or (i == 2 and not bootstrap) else GAMMA
        assert_allclose([view.discount, view.reset], [discount, i in (2, 4)], rtol=1e-6)
        assert_allclose(view.reward, now["reward"], rtol=1e-5)
        assert_array_equal(view.action, batch["action"][0])
    raw = streaming.features(SPECS, replace(CONFIG, normalise=False))
    assert_allclose(raw.view({}, batch).reward, batch["reward"][0])
    assert_allclose([feature.reward_unit(parts), raw.reward_unit({})], [np.sqrt(3), 1], rtol=1e-6)


def test_statistics_are_of_every_observation_and_of_the_running_return():
    feature = streaming.features(SPECS, CONFIG)
    batch = jax.tree.map(lambda x: x[:, :1], rolled(3))
    parts = feature.parts()
    assert list(feature.observe) == ["norm", "reward_norm"]
    u, returns = 0.0, []
    for reward, end in zip(batch["reward"][:, 0], batch["end"][:, 0]):
        u = GAMMA * (1 - end) * u + reward
        returns.append(u)
    for rule in feature.observe.values():
        parts, _, _ = rule.update(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))
    starts = batch["obs"][batch["info"]["episode"]["length"] == 1]
    every = np.concatenate([batch["next_obs"][:, 0], starts])
    assert_allclose(parts["norm"].mean, every.mean(axis=0), rtol=1e-4)
    assert_allclose(parts["norm"].m2, len(every) * every.var(axis=0), rtol=1e-4)
    assert_allclose([parts["reward_norm"].mean, parts["reward_norm"].m2], [np.mean(returns), 6 * np.var(returns)], 1e-4)


def test_networks_are_sparse_and_normalised_in_every_layer():
    x = jax.ShapeDtypeStruct((10,), jnp.float32)
    made = streaming.network(x, 2, CONFIG)
    parameters = jax.jit(made.init)(KEY)
    shapes = [parameters[f"Dense_{i}"]["kernel"].shape for i in range(3)]
    assert shapes == [(10, 6), (6, 6), (6, 2)] and set(parameters) == {"Dense_0", "Dense_1", "Dense_2"}
    for i, zeros in enumerate((5, 3, 3)):
        kernel = np.asarray(parameters[f"Dense_{i}"]["kernel"])
        assert_array_equal((kernel == 0).sum(axis=0), zeros)
        assert np.abs(kernel).max() <= 1 / np.sqrt(len(kernel))
    obs = jnp.linspace(-1, 2, 10)

    def by_hand(normed):
        h = obs
        for i in range(2):
            h = h @ parameters[f"Dense_{i}"]["kernel"]
            h = (h - h.mean()) / np.sqrt(h.var() + 1e-5) if normed else h
            h = jnp.where(h > 0, h, 0.01 * h)
        return h @ parameters["Dense_2"]["kernel"]

    assert_allclose(made.apply(parameters, obs), by_hand(True), rtol=1e-4, atol=1e-6)
    plain = streaming.network(x, 2, replace(CONFIG, layer_norm=False))
    assert_allclose(plain.apply(parameters, obs), by_hand(False), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bound", [True, False])
def test_the_step_is_bounded_where_it_is_asked_for(bound):
    """theta + min(lr, lr / M) delta z with M = lr kappa max(|delta|, 1) |z|_1, after z <- gamma lambda z + g."""
    feature = streaming.features(ENDLESS, replace(CONFIG, normalise=False))
    line = net(MLP((), 1, leaky_relu), feature.shape)

    def prediction(live, frozen, batch, key):
        now = feature.view(frozen, batch)
        return -line.apply(live["critic"], now.x)[0], {"delta": batch["delta"], "reset": now.reset}

    rule = streaming.traced(prediction, feature, replace(CONFIG, normalise=False, bound=bound), reads=("plan",))
    assert rule.reads == ("critic", "plan") and rule.writes == ("critic",)
    full = streaming.traced(prediction, streaming.features(SPECS, CONFIG), CONFIG)
    assert full.reads == ("critic", "norm", "reward_norm")
    parts = {"critic": {"Dense_0": {"kernel": jnp.ones((LENGTH, 1)), "bias": jnp.zeros(1)}}, "plan": jnp.int32(0)}
    state, z = rule.init(parts), 0.0
    for i, delta in enumerate((3.0, -0.05, 0.4, -2.0)):
        batch = {**experience()[i], "delta": jnp.full(1, delta)}
        g = np.append(batch["obs"][0] * (0.01 if i == 1 else 1), 1.0)
        batch["obs"] = batch["obs"] * (0.01 if i == 1 else 1)
        z = GAMMA * LAMBDA * z + g
        m = LR * KAPPA * max(abs(delta), 1) * np.abs(z).sum()
        step = (LR / max(m, 1) if bound else LR) * delta * z
        before = parts["critic"]["Dense_0"]
        parts, state, _ = rule.update(parts, state, batch, Ctx(KEY, jnp.int32(0)))
        moved = jax.tree.map(lambda a, b: a - b, parts["critic"]["Dense_0"], before)
        assert_allclose(np.append(moved["kernel"], moved["bias"]), step, rtol=1e-3, atol=1e-5)
        z = 0.0 if batch["end"][0] else z


def test_the_clock_and_the_recipe():
    assert streaming.clock() == 0 and streaming.clock().dtype == jnp.int32
    recipe = streaming.streaming("an agent")
    assert (recipe.agent, recipe.num_envs, recipe.unroll, recipe.ratio) == ("an agent", 1, 1, 1)
    assert recipe.source.sample.__qualname__ == latest().sample.__qualname__


def test_configuration():
    defaults(
        streaming.Stream(), width=32, lr=1.0, kappa=2.0, gamma=0.99, lambda_=0.8, sparsity=0.9, bound=True,
        normalise=True, layer_norm=True, bootstrap_truncated=False,
    )  # fmt: skip
    ranges = dict.fromkeys(("gamma", "lambda_", "sparsity"), (0.0, 1.0))
    bounded(streaming.Stream, {"width": 1, "lr": 0.0, "kappa": 0.0}, ranges)
