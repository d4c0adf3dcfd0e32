"""Running moments against NumPy's over everything seen so far; what is counted, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Ctx
from jaxrl.rules.statistics import (
    Moments,
    contrast,
    merge,
    moments,
    normalise,
    observation_statistics,
    return_statistics,
    scale,
    variance,
)

RNG = np.random.default_rng(7)
CTX = Ctx(jax.random.key(0), jnp.int32(0))
M = Moments(jnp.array([1.0, -2.0]), jnp.array([8.0, 2.0]), jnp.float32(5))  # variances 2 and 0.5
X = jnp.array([[3.0, -1.0], [0.0, -2.5]])


def test_moments_begin_empty_with_a_variance_of_1():
    m = moments((2,))
    assert_array_equal(m.mean, [0, 0])
    assert_array_equal(m.m2, [0, 0])
    assert m.count == 0
    assert_array_equal(variance(m), [1, 1])
    assert_array_equal(variance(m._replace(count=jnp.float32(1), m2=jnp.zeros(2))), [1, 1])
    assert moments().mean.shape == ()


def test_the_variance_is_unbiased():
    assert_allclose(variance(M), [2, 0.5])
    assert_allclose(variance(M._replace(count=jnp.float32(2))), [8, 2])


def test_merged_moments_are_those_of_all_that_was_weighed():
    """Batches of several shapes, one of them without any weight and one in which a single row counts."""
    m, seen = moments((2,)), []
    for shape, weigh in (((4,), 0.6), ((2, 3), 0.5), ((5,), 0.0), ((3,), 1.0)):
        x = (10 + RNG.normal(size=(*shape, 2)) * [1, 5]).astype(np.float32)
        weight = RNG.uniform(size=shape) < weigh
        x[~weight] = np.nan
        m = merge(m, jnp.array(x), jnp.array(weight))
        seen.append(x[weight])
        together = np.concatenate(seen)
        assert m.count == len(together)
        if len(together) > 1:
            assert_allclose(m.mean, together.mean(axis=0), rtol=1e-5)
            assert_allclose(variance(m), together.var(axis=0, ddof=1), rtol=1e-4)


def test_one_sample_moves_the_mean_alone():
    m = merge(moments((2,)), X[:1], jnp.ones(1))
    assert_allclose(m.mean, X[0])
    assert_array_equal(m.m2, [0, 0])
    # The second of two: half of the square of their distance.
    assert_allclose(merge(m, X[1:], jnp.ones(1)).m2, (X[0] - X[1]) ** 2 / 2)


def test_uses_of_moments():
    std = np.sqrt([2 + 1e-8, 0.5 + 1e-8])
    z = (np.asarray(X) - [1, -2]) / std
    assert_allclose(normalise(M, X), z, rtol=1e-5)
    assert_allclose(normalise(M, X, clip=0.8), np.clip(z, -0.8, 0.8), rtol=1e-5)
    assert_allclose(scale(M, X), np.asarray(X) / std, rtol=1e-5)
    picture = jnp.array([[7, 1], [0, 3]], jnp.uint8)
    assert_allclose(contrast(M, picture), (np.array([[7, 1], [0, 3]]) - [1.0, -2]) / np.sqrt(1.25), rtol=1e-5)


def test_what_never_varies_is_not_magnified_beyond_1e4():
    still = Moments(jnp.zeros(2), jnp.zeros(2), jnp.float32(9))
    for use in (normalise, scale, contrast):
        assert_allclose(use(still, jnp.ones(2)), [1e4, 1e4], rtol=1e-4)


def test_observations_are_counted_once_each():
    """Of 3 steps of 2 environments, what each led to; and what the two episodes that begin there began with."""
    obs, following = RNG.normal(size=(2, 3, 2, 4)).astype(np.float32)
    length = np.array([[1, 3], [2, 4], [3, 1]])
    rule = observation_statistics("norm")
    parts = {"norm": moments((4,)), "other": jnp.ones(3)}
    batch = {"obs": obs, "next_obs": following, "info": {"episode": {"length": length}}}
    batch |= {"end": np.zeros((3, 2), bool), "discount": np.ones((3, 2), np.float32)}
    after, _, _ = rule.update(parts, rule.init(parts), jax.tree.map(jnp.array, batch), CTX)
    counted = np.concatenate([following.reshape(6, 4), obs[0, :1], obs[2, 1:]])
    assert after["norm"].count == 8
    assert_allclose(after["norm"].mean, counted.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert_allclose(variance(after["norm"]), counted.var(axis=0, ddof=1), rtol=1e-4)
    assert_array_equal(after["other"], parts["other"])
    assert rule.reads == rule.writes == ("norm",) and observation_statistics().writes == ("norm",)


@pytest.mark.parametrize("count", [2**22 + 1, 2**24, 2**30], ids=["4 million", "16 million", "a billion"])
def test_moments_of_very_many_samples_stay_what_they_are(count):
    """Single samples that are +-1 have a variance of 1, with so many behind them as well, and are forgotten in time."""
    known = lambda var: Moments(jnp.float32(0), jnp.float32(var * count), jnp.float32(count))
    sign = jnp.where(jnp.arange(2**16) % 2 == 0, 1.0, -1.0)
    add = jax.jit(lambda m: jax.lax.scan(lambda m, x: (merge(m, x, jnp.ones(())), None), m, sign)[0])
    same, wider = add(known(1)), add(known(4))
    assert same.count == count
    assert_allclose([variance(same), same.mean], [1, 0], atol=1e-3)
    assert variance(wider) < 4 or count > 2**24  # a billion forgets 2^16 of itself, which is less than rounding
    batch = merge(known(1), 2 * sign, jnp.ones(2**16))
    assert batch.count > count  # as many at once are added as ever
    assert_allclose(variance(batch), (count + 4 * 2**16) / (count + 2**16), rtol=1e-3)


@pytest.mark.parametrize("peak", [None, "peak"])
def test_returns_run_on_until_an_episode_ends(peak):
    """u <- gamma u + r; at an episode's last step u is that reward alone, as where one begins."""
    reward = RNG.normal(size=(4, 2)).astype(np.float32)
    end = np.array([[False, False], [True, False], [False, False], [False, True]])
    rule = return_statistics(0.9, 2, "spread", peak)
    parts = {"spread": moments(), "peak": jnp.float32(0.1)}
    state, u, seen = rule.init(parts), np.zeros(2), []
    for half in (slice(0, 2), slice(2, 4)):
        batch = {"reward": jnp.array(reward[half]), "end": jnp.array(end[half])}
        parts, state, metrics = rule.update(parts, state, batch, CTX)
        for r, over in zip(reward[half], end[half]):
            u = 0.9 * np.where(over, 0, u) + r
            seen.append(u)
        assert_allclose(state, u, rtol=1e-5)
        assert metrics == {}
    assert_allclose(variance(parts["spread"]), np.var(np.array(seen), ddof=1), rtol=1e-4)
    assert_allclose(parts["spread"].mean, np.mean(seen), rtol=1e-4)
    assert_allclose(parts["peak"], 0.1 if peak is None else np.abs(seen).max(), rtol=1e-6)
    assert rule.writes == (("spread",) if peak is None else ("spread", "peak"))


def test_a_peak_never_falls():
    rule = return_statistics(0.9, 1, "spread", "peak")
    parts = {"spread": moments(), "peak": jnp.float32(50)}
    batch = {"reward": jnp.full((2, 1), -3.0), "end": jnp.zeros((2, 1), bool)}
    after, state, _ = rule.update(parts, rule.init(parts), batch, CTX)
    assert after["peak"] == 50
    assert_allclose(
        rule.update({**parts, "peak": jnp.float32(1)}, state, batch, CTX)[0]["peak"],
        0.81 * 5.7 + 0.9 * 3 + 3,
        rtol=1e-5,
    )
