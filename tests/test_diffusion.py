"""Denoisers and flows: what is known of normals, schedules, the best steps against all, what a fit makes of data."""

from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.equations.diffusion import (
    best_steps,
    denoiser,
    denoising_loss,
    euler,
    flow_loss,
    heun,
    jump_cost,
    noise_level,
    noise_levels,
    scaling,
    straightening_loss,
)
from jaxrl.models.diffusion import Config, descended
from jaxrl.models.flow import flow

KEY = jax.random.key(9)
NONE = lambda x, noise: jnp.zeros_like(x)  # a network that says nothing: best for standard normals
SKIP = denoiser(NONE)


def test_the_scaling_of_a_denoiser():
    c = scaling(jnp.float32(2.0))
    assert_allclose(c.out**2, 4 / 5, rtol=1e-6)
    assert_allclose((c.skip, c.in_, c.noise), (1 / 5, 5**-0.5, np.log(2) / 4), rtol=1e-6)
    x = jnp.array([3.0, -1.0])
    assert_allclose(SKIP(x, jnp.float32(1e-4)), x, rtol=1e-6)
    assert_allclose(SKIP(x, jnp.float32(1e4)), 0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_the_best_denoiser_of_normals_has_a_loss_of_one_at_every_level(sigma):
    def one(key):
        key_x, key_noise = jax.random.split(key)
        return denoising_loss(SKIP, jax.random.normal(key_x, (8,)), jnp.float32(sigma), key_noise)

    losses = jax.jit(jax.vmap(one))(jax.random.split(KEY, 20_000))
    assert_allclose(losses.mean(), 1, atol=0.02)


def test_levels_go_down_to_nothing():
    levels = np.asarray(noise_levels(128))
    assert_allclose(levels[[0, 127, 128]], [80, 0.002, 0], rtol=1e-5)
    assert (np.diff(levels) < 0).all() and levels.size == 129


@pytest.mark.parametrize(("steps", "churn", "spread"), [(128, 0.0, 1.003), (128, 80.0, 1.006), (32, 0.0, 1.015)])
def test_the_sampler_of_the_known_denoiser_makes_normals(steps, churn, spread):
    def one(key):
        key_start, key_steps = jax.random.split(key)
        return heun(SKIP, key_steps, jax.random.normal(key_start, (1,)), noise_levels(steps), churn)

    x = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 20_000)))
    assert_allclose(x.std(), spread, atol=0.015)
    assert_allclose(x.mean(), 0, atol=0.03)


# -------------------------------------------------------------------------------------------------------- noisy data


def family(p):
    """The exact denoiser of normals of that mean and standard deviation."""
    return lambda x, sigma: p["mean"] + p["std"] ** 2 / (p["std"] ** 2 + sigma**2) * (x - p["mean"])


def slope_of(known, treated, at, keys=60_000):
    """The loss's gradient in the family's parameters, on data of mean 0.5 and standard deviation 0.8 with noise."""

    def loss(p):
        def one(key):
            k = jax.random.split(key, 4)
            y = 0.5 + 0.8 * jax.random.normal(k[0], (1,)) + known * jax.random.normal(k[1], (1,))
            return denoising_loss(family(p), y, noise_level(k[2]), k[3], known if treated else 0.0)

        return jax.vmap(one)(jax.random.split(KEY, keys)).mean()

    return jax.jit(jax.grad(loss))(at)


def test_noisy_data_teach_what_clean_ones_are():
    truth = {"mean": jnp.float32(0.5), "std": jnp.float32(0.8)}
    for known in (0.0, 0.6):
        slope = slope_of(known, True, truth)
        assert_allclose([slope["mean"], slope["std"]], 0, atol=0.03)
    naive = slope_of(0.6, False, truth)
    assert naive["std"] < -0.15  # it wants the spread of the noisy ones
    wide = slope_of(0.6, False, {**truth, "std": jnp.float32(1.0)})  # sqrt(0.8^2 + 0.6^2)
    assert_allclose(wide["std"], 0, atol=0.03)


def test_at_its_own_level_noise_teaches_nothing_and_clean_data_are_as_ever():
    x = jnp.array([0.3, -1.0])
    value = lambda p, known: denoising_loss(family(p), x, jnp.float32(0.1), KEY, known)
    p = {"mean": jnp.float32(0.2), "std": jnp.float32(1.3)}
    slope = jax.grad(value)(p, 0.5)  # a level of 0.1 becomes 0.5, its own
    assert_allclose([slope["mean"], slope["std"]], 0, atol=1e-3)
    assert value(p, 0.0) == denoising_loss(family(p), x, jnp.float32(0.1), KEY)
    each = denoising_loss(family(p), x, jnp.float32(0.7), KEY, jnp.array([0.0, 0.5]))
    assert jnp.isfinite(each)


# ------------------------------------------------------------------------------------------------------------- flows


def test_a_straight_flow_is_learned_and_followed():
    noise, x = jnp.array([0.0, 1.0]), jnp.array([2.0, -1.0])
    straight = lambda at, time: x - noise
    assert flow_loss(straight, noise, x, jnp.float32(0.3)) == 0
    path = euler(straight, noise, jnp.linspace(0, 1, 5))
    assert_allclose(path[-1], x)
    assert_allclose(path[2], (x + noise) / 2)


def brute(cost, steps):
    last = cost.shape[0] - 1
    ways = [(0, *between, last) for between in combinations(range(1, last), steps - 1)]
    totals = [sum(cost[a, b] for a, b in pairwise(way)) for way in ways]
    return min(totals), ways[int(np.argmin(totals))]


def test_the_best_steps_are_the_best_of_all():
    rng = np.random.default_rng(0)
    cost = np.where(np.triu(np.ones((13, 13)), 1) > 0, rng.uniform(size=(13, 13)), np.inf).astype(np.float32)
    least = []
    for steps in range(1, 7):
        path, total = jax.jit(best_steps, static_argnums=1)(cost, steps)
        wanted, way = brute(cost, steps)
        assert_allclose(total, wanted, rtol=1e-6)
        assert_array_equal(path, way)
        least.append(float(total))
    path, _ = best_steps(jnp.asarray(cost), 12)
    assert_array_equal(path, np.arange(13))  # as many steps as there are: all points


def test_a_flow_in_pieces_costs_nothing_with_as_many_steps():
    times = jnp.linspace(0, 1, 13)
    pieces = lambda x, time: jnp.where(time < times[4], 1.0, jnp.where(time < times[9], -2.0, 0.5)) * jnp.ones_like(x)
    path = euler(pieces, jnp.zeros(2), times)
    cost = jump_cost(pieces, path, times)
    chosen, total = best_steps(cost, 3)
    assert_array_equal(chosen, [0, 4, 9, 12])
    assert_allclose(total, 0, atol=1e-9)
    assert best_steps(cost, 2)[1] > 0.01
    ahead = straightening_loss(pieces, path[0], path[4], times[0], times[4])
    assert_allclose(ahead, 0, atol=1e-9)
    assert straightening_loss(pieces, path[0], path[9], times[0], times[9]) > 0.1


def test_few_updates_leave_little_of_the_first_parameters_in_the_average():
    """Of .995, once in ten of 400 updates, alone four fifths would be left; and averages past 100 are by hand."""
    to_zero = lambda x, key: (x**2).sum()
    averaged, losses = jax.jit(lambda x: descended(to_zero, x, KEY, Config(updates=400, lr=0.1)))(jnp.full(3, 5.0))
    assert losses[-1] < 1e-3 and (jnp.abs(averaged) < 0.25).all()
    away = lambda x, key: -1e3 * x  # Adam goes up by the rate each time
    averaged, _ = descended(away, jnp.float32(0), KEY, Config(updates=135, lr=1.0, average=0.88))
    x = np.cumsum(0.5 * (1 + np.cos(np.pi * np.arange(135) / 135)))
    by_hand = x[100]
    for i, stays in ((110, 1 - 11 ** (-2 / 3)), (120, 1 - 21 ** (-2 / 3)), (130, 0.88)):
        by_hand = stays * by_hand + (1 - stays) * x[i]
    assert_allclose(averaged, by_hand, rtol=1e-4)


def test_a_flow_makes_what_it_was_shown_in_steps_that_cost_least():
    config = Config(width=32, blocks=1, embedding=16, updates=500, batch=128, lr=5e-3, average=0.9, apart=1)
    made = flow(1, config, given=1, grid=10)
    which = jnp.sign(jax.random.normal(KEY, (200, 1)))  # the given says where the data are: at -2 or 2
    x = 2 * which + 0.1 * jax.random.normal(jax.random.key(1), (200, 1))

    @jax.jit
    def lived(key):
        part, metrics = made.fit(made.init(key), x, jnp.ones(200), key, which)
        times, cost = made.steps(part, key, 3, which)
        straight = made.straightened(part, key, times, which)
        truth = made.draw(part, key, 200, jnp.linspace(0, 1, 11), which)
        off = lambda part: jnp.abs(made.draw(part, key, 200, times, which) - truth).mean()
        return metrics["diverged"], times, cost, truth, off(part), off(straight)

    diverged, times, cost, truth, before, after = lived(KEY)
    assert not diverged and jnp.isfinite(cost)
    assert times[0] == 0 and times[-1] == 1 and (jnp.diff(times) > 0).all()
    assert_allclose([truth[which < 0].mean(), truth[which > 0].mean()], [-2, 2], atol=0.2)
    assert after < before
