"""Searches against their papers' algorithms, turn by turn in NumPy with the same noise; scores that are no number."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.planning import cem, icem, mppi, random_shooting, search, td_mppi
from jaxrl.planning.search import Plan, Size, begun, coloured, scored, shifted, truncated_normal, weights, within_reach

H, A = 4, 2
KEY = jax.random.key(21)
RNG = np.random.default_rng(21)
LAST = Plan(
    jnp.float32([0.4, -0.6]),
    jnp.float32(RNG.uniform(-0.8, 0.8, (H, A))),
    jnp.float32(RNG.uniform(-0.9, 0.9, (2, H, A))),
    jnp.float32(-7),
    jnp.int32(3),
)
TARGET = jnp.float32(RNG.uniform(-0.9, 0.9, (H, A)))


def score(key, x):
    """A hill with noise, whose far corner has no number."""
    value = -((x - TARGET) ** 2).sum(axis=(1, 2)) + 0.3 * jax.random.normal(key, (x.shape[0],))
    return jnp.where(x[:, 0, 0] > 0.85, jnp.nan, value)


def judged(key, x):
    """Scores, minus infinity for what is no number, and how many there are of these."""
    values = np.asarray(jax.jit(score)(key, np.float32(x)), np.float64)
    return np.where(np.isnan(values), -np.inf, values), np.isnan(values).sum()


def later(sequence):
    """One step on: the first action is done, and nothing is done in the end."""
    sequence = np.asarray(sequence, np.float64)
    return np.concatenate([sequence[..., 1:, :], 0 * sequence[..., :1, :]], axis=-2)


def near(found, action, mean, kept, value, unsound, tolerance=2e-4):
    assert_allclose(found.action, action, rtol=tolerance, atol=tolerance)
    assert_allclose(found.mean, mean, rtol=tolerance, atol=tolerance)
    assert_allclose(found.kept, kept, rtol=tolerance, atol=tolerance)
    assert_allclose(found.score, value, rtol=tolerance, atol=tolerance)
    assert found.unsound == unsound and found.unsound.dtype == jnp.int32


def best_of(values, count):
    return np.argsort(-values, kind="stable")[:count]


def planned(search, *more):
    return jax.jit(lambda key, *more: search.plan(key, score, LAST, *more))(KEY, *more)


def cut(key, count):
    return np.asarray(truncated_normal(key, (count, H, A)), np.float64)


def reachable(mean, var):
    return np.minimum(np.minimum(((mean + 1) / 2) ** 2, ((1 - mean) / 2) ** 2), var)


@pytest.mark.parametrize("share, memory, turns", [(0.1, 0.1, 3), (0.25, 0.4, 2), (0.01, 0.0, 1)])
def test_cem(share, memory, turns):
    """Chua et al. 2018, as mbrl-lib has it: truncated noise within reach, the mean of the best is done."""
    count, mean, var, unsound = 40, later(LAST.mean), np.full((H, A), 0.25), 0
    elites = max(round(share * count), 1)
    for key in jax.random.split(KEY, turns):
        key_draw, key_score = jax.random.split(key)
        x = mean + np.sqrt(reachable(mean, var)) * cut(key_draw, count)
        values, bad = judged(key_score, x)
        top = best_of(values, elites)
        mean = memory * mean + (1 - memory) * x[top].mean(axis=0)
        var = memory * var + (1 - memory) * (x[top].var(axis=0, ddof=1) if elites > 1 else 0)
        unsound += bad
    found = planned(cem(H, A, count, turns, share, memory))
    near(found, mean[0], mean, LAST.kept, values[top].mean(), unsound)


@pytest.mark.parametrize("keep, turns", [(0.3, 3), (0.01, 1)])
def test_icem(keep, turns):
    """Pinneri et al. 2020, algorithm 1: fewer sequences each turn, elites kept, the mean among the last turn's."""
    count, elites, beta, decay, memory = 30, 6, 2.0, 1.5, 0.1
    carried = max(round(keep * elites), 1)
    start = LAST._replace(kept=LAST.kept[:carried])
    mean, std, kept, unsound = later(start.mean), np.full((H, A), 0.5), later(start.kept), 0
    best = (-np.inf, mean)
    for i, key in enumerate(jax.random.split(KEY, turns)):
        key_draw, key_end, key_score = jax.random.split(key, 3)
        size = max(round(count * decay**-i), 2 * elites)
        noise = np.asarray(jax.jit(lambda key, size=size: coloured(key, (size, H, A), beta))(key_draw), np.float64)
        x = np.clip(mean + std * noise, -1, 1)
        if i == 0:
            ends = np.asarray(jax.random.normal(key_end, (carried, A)), np.float64)
            kept[:, -1] = np.clip(mean[-1] + std[-1] * ends, -1, 1)
        x = np.concatenate([x, kept])
        if i == turns - 1:
            x = np.concatenate([x, mean[None]])
        values, bad = judged(key_score, x)
        top = best_of(values, elites)
        mean = memory * mean + (1 - memory) * x[top].mean(axis=0)
        std = memory * std + (1 - memory) * x[top].std(axis=0)
        kept, unsound = x[top[:carried]], unsound + bad
        if values[top[0]] > best[0]:
            best = (values[top[0]], x[top[0]])
    one = icem(H, A, count, turns, elites, beta, decay, memory, keep)
    found = jax.jit(lambda key: one.plan(key, score, start))(KEY)
    near(found, best[1][0], mean, kept, values[top].mean(), unsound)
    assert one.fresh.kept.shape == (carried, H, A)


@pytest.mark.parametrize("heat, smooth, std", [(0.9, 0.9, 0.5), (5.0, 0.6, 0.2)])
def test_mppi(heat, smooth, std):
    """Nagabandi et al. 2020, eq. 3: an action leans on the one before, sequences weigh by their score."""
    count, mean, unsound = 40, later(LAST.mean), 0
    for key in jax.random.split(KEY, 3):
        key_draw, key_score = jax.random.split(key)
        free = mean + np.sqrt(reachable(mean, std**2)) * cut(key_draw, count)
        x, before = np.zeros((count, H, A)), np.asarray(LAST.action, np.float64)
        for t in range(H):
            before = smooth * free[:, t] + (1 - smooth) * before
            x[:, t] = np.clip(before, -1, 1)
        values, bad = judged(key_score, x)
        weight = np.exp(heat * (values - values.max()))
        weight /= weight.sum()
        mean = np.einsum("n,nha->ha", weight, x)
        value, unsound = sum(w * v for w, v in zip(weight, values) if w > 0), unsound + bad
    near(planned(mppi(H, A, count, 3, heat, smooth, std)), mean[0], mean, LAST.kept, value, unsound)


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("proposed", [0, 3])
def test_td_mppi(proposed, explore):
    """Hansen et al. 2024, algorithm 1: a policy's sequences compete, weighted elites decide, one of them is done."""
    count, elites, heat, std = 40, 8, 0.5, (0.3, 0.8)
    key_turns, key_choice, key_noise = jax.random.split(KEY, 3)
    given = RNG.uniform(-0.5, 0.5, (proposed, H, A)).astype(np.float32)
    mean, spread, unsound = later(LAST.mean), np.full((H, A), std[1]), 0
    for key in jax.random.split(key_turns, 3):
        key_draw, key_score = jax.random.split(key)
        drawn = np.asarray(jax.random.normal(key_draw, (count - proposed, H, A)), np.float64)
        x = np.concatenate([given, np.clip(mean + spread * drawn, -1, 1)])
        values, bad = judged(key_score, x)
        top = best_of(values, elites)
        weight = np.exp(heat * (values[top] - values[top[0]]))
        weight /= weight.sum()
        mean = np.einsum("n,nha->ha", weight, x[top])
        spread = np.clip(np.sqrt(np.einsum("n,nha->ha", weight, (x[top] - mean) ** 2)), *std)
        unsound += bad
    action = x[top[int(jax.random.categorical(key_choice, jnp.log(jnp.float32(weight))))], 0]
    if explore:
        action = np.clip(action + spread[0] * np.asarray(jax.random.normal(key_noise, (A,))), -1, 1)
    one = td_mppi(H, A, count, 3, elites, heat, std)
    more = (jnp.array(given),) if proposed else ()
    found = jax.jit(lambda key, *more: one.plan(key, score, LAST, explore, *more))(KEY, *more)
    near(found, action, mean, LAST.kept, values[top].mean(), unsound)


def test_td_mppi_where_no_turn_is_better_draws_any_elite_alike():
    one = td_mppi(H, A, 12, 1, 4)
    nothing = lambda key, x: jnp.nan * x[:, 0, 0]
    found = jax.jit(lambda key: one.plan(key, nothing, LAST, False))(KEY)
    assert jnp.isfinite(found.action).all() and found.unsound == 12


def test_random_shooting():
    key_draw, key_score = jax.random.split(KEY)
    x = np.asarray(jax.random.uniform(key_draw, (30, H, A)), np.float64) * 2 - 1
    values, bad = judged(key_score, x)
    at = values.argmax()
    near(planned(random_shooting(H, A, 30)), x[at, 0], x[at], LAST.kept, values[at], bad)
    assert x.min() < -0.9


@pytest.mark.parametrize("horizon", [1, 2, 5, 6])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_coloured_noise_is_a_sum_of_waves_whose_power_falls(horizon, beta):
    """Timmer and Koenig 1995, from the same normals, a wave at a time; the lowest frequency stands for none."""
    numbers = range(horizon // 2 + 1)
    waves = np.asarray(jax.random.normal(KEY, (2, 3, A, len(numbers))), np.float64)
    x, power = np.zeros((3, horizon, A)), 0.0
    for k in numbers:
        scale = max(k, 1) ** (-beta / 2)
        whole = k == 0 or 2 * k == horizon
        for t in range(horizon):
            angle = 2 * np.pi * k * t / horizon
            if whole:
                x[:, t] += scale * np.sqrt(2) * waves[0, :, :, k] * np.cos(angle)
            else:
                x[:, t] += 2 * scale * (waves[0, :, :, k] * np.cos(angle) - waves[1, :, :, k] * np.sin(angle))
        power += (2 if whole else 4) * scale**2
    assert_allclose(coloured(KEY, (3, horizon, A), beta), x / np.sqrt(power), rtol=1e-4, atol=1e-5)


def test_pieces_of_searches():
    assert_array_equal(shifted(LAST.kept), later(LAST.kept))
    assert_allclose(
        within_reach(jnp.float32([0.9, -0.8, 0.0, 0.5]), jnp.float32(0.04)), [0.0025, 0.01, 0.04, 0.04], rtol=1e-5
    )
    noise = np.asarray(truncated_normal(KEY, (4000,)))
    assert abs(noise).max() <= 2 and noise.min() < -1.9 and noise.max() > 1.9
    assert_allclose(noise.std(), 0.88, atol=0.03)
    values, unsound = scored(lambda key, x: x, KEY, jnp.float32([1, np.nan, -np.inf, np.nan]))
    assert_array_equal(values, [1, -np.inf, -np.inf, -np.inf])
    assert unsound == 2
    assert_allclose(weights(jnp.float32([0, np.log(3), -np.inf]), 2.0), [0.1, 0.9, 0], rtol=1e-5)
    assert_allclose(weights(jnp.full(4, -jnp.inf), 2.0), [0.25] * 4)
    plan = begun(Size(3, 2, 10, 1, 5))
    assert plan.kept.shape == (0, 3, 2) and plan.score == 0 and plan.unsound == 0
    assert not any(leaf.any() for leaf in (plan.action, plan.mean))


@pytest.mark.parametrize(
    "make, settings",
    [
        (cem, {"population": 350, "turns": 5, "share": 0.1, "memory": 0.1}),
        (icem, {"population": 200, "turns": 5, "elites": 20, "beta": 2.0, "decay": 1.3, "memory": 0.1, "keep": 0.3}),
        (mppi, {"population": 350, "turns": 5, "heat": 0.9, "smooth": 0.9, "std": 0.5}),
        (td_mppi, {"population": 512, "turns": 6, "elites": 64, "heat": 0.5, "std": (0.05, 2.0)}),
        (random_shooting, {"population": 1000}),
        (begun, {"kept": 0}),
    ],
)
def test_settings_are_the_papers_where_nobody_says(make, settings):
    given = {name: one.default for name, one in inspect.signature(make).parameters.items()}
    assert {
        name: value for name, value in given.items() if value is not inspect.Parameter.empty and name in settings
    } == settings
    assert make is begun or make(2, 1).fresh.mean.shape == (2, 1)


def test_a_search_is_a_plan_and_where_it_begins():
    for make in (cem, icem, mppi, td_mppi, random_shooting):
        one = make(2, 1)
        assert isinstance(one, search.Search)
        assert one.fresh.kept.shape[0] == (6 if make is icem else 0)
