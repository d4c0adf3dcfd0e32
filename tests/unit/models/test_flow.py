"""Flows: what each update learns from, where draws end, the steps that are chosen, and what straightening asks."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import below
from jaxrl.equations.diffusion import best_steps, euler, flow_loss, jump_cost, straightening_loss
from jaxrl.models.diffusion import Config, conditional, descended, standard
from jaxrl.models.flow import flow

KEY = jax.random.key(15)
SMALL = Config(width=4, blocks=1, embedding=4, updates=20, batch=2, lr=0.05, apart=2)
RNG = np.random.default_rng(15)
X, GIVEN = RNG.normal(size=(6, 3)).astype(np.float32) * 5 + 2, RNG.normal(size=(6, 2)).astype(np.float32)
WEIGHT = np.array([1, 0, 1, 1, 1, 0], np.float32)
MODEL, NETWORK = flow(3, SMALL, 2, grid=4, draws=6), conditional(3, 2, SMALL)
FINE = np.linspace(0, 1, 5).astype(np.float32)
close = lambda a, b: assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def velocity(parameters, about):
    return lambda x, time: NETWORK.apply(parameters, jnp.concatenate([x, about]), time)


def begun():
    part = MODEL.init(KEY)
    shaken = jax.tree.map(lambda x: x + 0.3 * jnp.float32(RNG.normal(size=x.shape)), part["network"])
    return {"network": shaken, "norm": {"mean": jnp.float32([1, 2, 3]), "std": jnp.float32([1, 10, 100])}}


PART = begun()


def test_a_flow_begins_without_units():
    part = MODEL.init(KEY)
    assert_array_equal(part["norm"]["mean"], [0, 0, 0])
    assert_array_equal(part["norm"]["std"], [1, 1, 1])
    jax.tree.map(assert_array_equal, part["network"], NETWORK.init(KEY))


def test_a_fit_learns_the_way_from_noise_to_what_is_held():
    found, metrics = jax.jit(lambda key: MODEL.fit(PART, jnp.array(X), jnp.array(WEIGHT), key, jnp.array(GIVEN)))(KEY)
    norm = standard(jnp.array(X), jnp.array(WEIGHT))
    z, rows = (X - norm["mean"]) / norm["std"], jnp.array(np.flatnonzero(WEIGHT > 0))
    key_init, key_fit = jax.random.split(KEY)

    def loss(parameters, key):
        key_rows, key_noise, key_time = jax.random.split(key, 3)
        at = rows[below(key_rows, (2,), 4)]
        noise, time = jax.random.normal(key_noise, (2, 3)), jax.random.uniform(key_time, (2,))
        each = [flow_loss(velocity(parameters, jnp.array(GIVEN)[at[i]]), noise[i], z[at[i]], time[i]) for i in range(2)]
        return sum(each) / 2

    averaged, losses = jax.jit(lambda: descended(loss, NETWORK.init(key_init), key_fit, SMALL))()
    jax.tree.map(close, found["network"], averaged)
    jax.tree.map(close, found["norm"], norm)
    assert_allclose(metrics["loss"], losses[-2:].mean(), rtol=1e-3)
    assert not metrics["diverged"]


def paths(key, about, times):
    """Standardised, [B, K + 1, n]."""
    noise = jax.random.normal(key, (len(about), 3))
    ways = [
        euler(velocity(PART["network"], jnp.array(one)), start, jnp.array(times)) for start, one in zip(noise, about)
    ]
    return np.stack(ways)


def test_draws_go_along_the_flow_to_its_end():
    times = np.array([0, 0.3, 1], np.float32)
    found = jax.jit(lambda key: MODEL.draw(PART, key, 6, jnp.array(times), jnp.array(GIVEN)))(KEY)
    close(found, paths(KEY, GIVEN, times)[:, -1] * [1, 10, 100] + [1, 2, 3])
    alone = flow(3, SMALL, grid=4)
    part = alone.init(KEY)
    assert alone.draw(part, KEY, 5, jnp.array(times)).shape == (5, 3)


def test_the_steps_that_cost_least_on_average_are_chosen():
    cost = np.mean(
        [
            jump_cost(velocity(PART["network"], jnp.array(one)), jnp.array(path), jnp.array(FINE))
            for one, path in zip(GIVEN, paths(KEY, GIVEN, FINE))
        ],
        axis=0,
    )
    for k in (2, 3):
        times, least = jax.jit(lambda key, k=k: MODEL.steps(PART, key, k, jnp.array(GIVEN)))(KEY)
        at, expected = best_steps(jnp.array(cost), k)
        assert_allclose(times, FINE[at], rtol=1e-6)
        assert_allclose(least, expected, rtol=1e-3)


def test_straightening_asks_each_segment_to_go_straight():
    times = np.array([0, 0.5, 1], np.float32)
    found = jax.jit(lambda key: MODEL.straightened(PART, key, jnp.array(times), jnp.array(GIVEN)))(KEY)
    key_paths, key_fit = jax.random.split(KEY)
    path = jnp.array(paths(key_paths, GIVEN, FINE)[:, [0, 2, 4]])

    def loss(parameters, key):
        key_who, key_where = jax.random.split(key)
        who, at = jax.random.randint(key_who, (2,), 0, 6), jax.random.randint(key_where, (2,), 0, 2)
        ends = jnp.array(times)
        each = [
            straightening_loss(
                velocity(parameters, jnp.array(GIVEN)[i]), path[i, j], path[i, j + 1], ends[j], ends[j + 1]
            )
            for i, j in zip(who, at)
        ]
        return sum(each) / 2

    averaged, _ = jax.jit(lambda: descended(loss, PART["network"], key_fit, SMALL))()
    jax.tree.map(close, found["network"], averaged)
    jax.tree.map(assert_array_equal, found["norm"], PART["norm"])


def test_a_hundred_fine_steps_and_256_draws_where_nobody_says():
    alone = flow(2, SMALL)
    part = alone.init(KEY)
    times = jax.eval_shape(lambda key: alone.steps(part, key, 3)[0], KEY)
    assert times.shape == (4,)
    named = flow(2, SMALL, 0, 100, 256)
    one, other = (jax.jit(lambda key, model=model: model.steps(part, key, 2))(KEY) for model in (alone, named))
    assert_array_equal(one[0], other[0])
    assert_array_equal(one[1], other[1])
    assert_allclose(one[0] * 100, np.round(one[0] * 100), atol=1e-4)
