"""Denoising and flows against Karras et al. 2022, Daras et al. 2025, Lipman et al. 2023 and Nguyen et al. 2024, in
NumPy: each loss with its slope, each step of a sampler."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.equations import diffusion

KEY = jax.random.key(12)
RNG = np.random.default_rng(12)
X = RNG.normal(size=3).astype(np.float32)
s = jnp.float32


@pytest.mark.parametrize("sigma, spread", [(0.3, 1.0), (2.0, 0.5), (40.0, 1.0)])
def test_a_denoiser_keeps_what_is_clean_and_learns_the_rest(sigma, spread):
    """Table 1 of Karras et al. 2022."""
    c = diffusion.scaling(s(sigma), spread)
    both = sigma**2 + spread**2
    expected = (spread**2 / both, sigma * spread / np.sqrt(both), 1 / np.sqrt(both), np.log(sigma) / 4)
    assert_allclose(c, expected, rtol=1e-5)
    network = lambda x, noise: 2 * x + noise
    told = diffusion.denoiser(network, spread)(jnp.array(X), s(sigma))
    assert_allclose(told, c.skip * X + c.out * (2 * c.in_ * X + c.noise), rtol=1e-5)


def test_data_have_a_spread_of_1_where_nobody_says():
    assert_allclose(diffusion.scaling(s(2)), diffusion.scaling(s(2), 1.0))
    network = lambda x, noise: x
    assert_allclose(diffusion.denoiser(network)(X, s(2)), diffusion.denoiser(network, 1.0)(X, s(2)))


def test_levels_to_learn_at_are_log_normal():
    assert_allclose(diffusion.noise_level(KEY), np.exp(-1.2 + 1.2 * jax.random.normal(KEY)), rtol=1e-6)
    assert_allclose(diffusion.noise_level(KEY, 0.5, 2.0), np.exp(0.5 + 2 * jax.random.normal(KEY)), rtol=1e-6)


def denoised(weight):
    return lambda x, sigma: weight * x / (1 + sigma)


@pytest.mark.parametrize("sigma, spread", [(0.7, 1.0), (2.0, 0.5)])
def test_denoising_of_clean_items(sigma, spread):
    """(sigma^2 + s^2) / (sigma s)^2 |D(x + sigma n) - x|^2: Karras et al. 2022, eq. 2, by table 1's weight."""
    noise = np.asarray(jax.random.normal(KEY, (3,)), np.float64)

    def of(weight):
        error = weight * (X + sigma * noise) / (1 + sigma) - X
        return (sigma**2 + spread**2) / (sigma * spread) ** 2 * (error**2).mean()

    loss = lambda weight: diffusion.denoising_loss(denoised(weight), jnp.array(X), s(sigma), KEY, spread=spread)
    value, slope = jax.value_and_grad(loss)(s(0.6))
    assert_allclose(value, of(0.6), rtol=1e-5)
    assert_allclose(slope, (of(0.6 + 1e-4) - of(0.6 - 1e-4)) / 2e-4, rtol=1e-3)
    if spread == 1.0:
        assert_allclose(diffusion.denoising_loss(denoised(0.6), jnp.array(X), s(sigma), KEY), value, rtol=1e-6)


@pytest.mark.parametrize("known", [0.5, np.array([0.5, 0.0, 0.2], np.float32)], ids=["one", "each"])
@pytest.mark.parametrize("level", [0.7, 0.3], ids=["above", "below"])
def test_items_with_noise_of_their_own_teach_the_levels_above_it(known, level):
    """The item is what the denoiser says, drawn back to the noised one by (known / sigma)^2: Daras et al., eq. 4.1."""
    sigma = max(level, 0.5 + 1e-4)
    noise = np.asarray(jax.random.normal(KEY, (3,)), np.float64)
    noised = X + np.sqrt(sigma**2 - np.asarray(known, np.float64) ** 2) * noise
    clean = 0.6 * noised / (1 + sigma)
    share = (known / sigma) ** 2
    expected = (sigma**2 + 1) / sigma**2 * ((clean * (1 - share) + share * noised - X) ** 2).mean()
    found = diffusion.denoising_loss(denoised(0.6), jnp.array(X), s(level), KEY, jnp.asarray(known))
    assert_allclose(found, expected, rtol=1e-4)


def test_without_noise_of_their_own_every_level_teaches():
    """Also one below the margin that keeps levels above the known noise."""
    low = 1e-5
    noise = np.asarray(jax.random.normal(KEY, (3,)))
    seen = []
    diffusion.denoising_loss(lambda x, sigma: seen.append((x, sigma)) or x, jnp.array(X), s(low), KEY, 0.0)
    assert_allclose(seen[0][1], low, rtol=1e-6)
    assert_allclose(seen[0][0], X + low * noise, rtol=1e-6)


@pytest.mark.parametrize("n, settings", [(5, ()), (4, (0.1, 10.0, 3.0))])
def test_levels_fall_by_a_power_to_nothing(n, settings):
    """Karras et al. 2022, eq. 5."""
    low, high, rho = settings or (0.002, 80.0, 7.0)
    steps = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    assert_allclose(diffusion.noise_levels(n, *settings), [*steps, 0], rtol=1e-4)


LEVELS = np.array([60.0, 5.0, 1.0, 0.04, 0.0], np.float32)


def stepped(churn, between, stir):
    """Algorithm 2 of Karras et al. 2022, a line at a time, with this denoiser."""
    denoise = lambda x, sigma: 0.5 * x / (1 + sigma)
    x, n = LEVELS[0] * X.astype(np.float64), len(LEVELS) - 1
    for i, key in enumerate(jax.random.split(KEY, n)):
        now, then = float(LEVELS[i]), float(LEVELS[i + 1])
        gamma = min(churn / n, np.sqrt(2) - 1) if between[0] <= now <= between[1] else 0.0
        high = now + gamma * now
        x = x + np.sqrt(high**2 - now**2) * stir * np.asarray(jax.random.normal(key, (3,)), np.float64)
        d = (x - denoise(x, high)) / high
        ahead = x + (then - high) * d
        if then:
            d = (d + (ahead - denoise(ahead, then)) / then) / 2
            ahead = x + (then - high) * d
        x = ahead
    return x


@pytest.mark.parametrize(
    "churn, between, stir",
    [(0.0, (0.05, 50.0), 1.003), (0.8, (0.05, 50.0), 1.003), (80.0, (1.0, 5.0), 1.1), (1.0, (0.0, 100.0), 0.9)],
)
def test_each_step_of_the_sampler(churn, between, stir):
    denoise = lambda x, sigma: 0.5 * x / (1 + sigma)
    found = diffusion.heun(denoise, KEY, jnp.array(X), jnp.array(LEVELS), churn, between, stir)
    assert_allclose(found, stepped(churn, between, stir), rtol=2e-4, atol=1e-5)


def test_the_sampler_stirs_as_the_paper_does_where_nobody_says():
    denoise = lambda x, sigma: 0.5 * x / (1 + sigma)
    usual = lambda *settings: diffusion.heun(denoise, KEY, jnp.array(X), jnp.array(LEVELS), *settings)
    assert_array_equal(usual(), usual(0.0, (0.05, 50.0), 1.003))
    assert_array_equal(usual(2.0), usual(2.0, (0.05, 50.0), 1.003))
    edge = jnp.array([50.0, 0.05, 0.02, 0.0])  # the bounds themselves are stirred
    within = lambda *between: diffusion.heun(denoise, KEY, jnp.array(X), edge, 2.0, *between)
    assert_array_equal(within(), within((0.04, 60.0)))
    assert abs(within() - within((0.06, 60.0))).max() > 0 and abs(within() - within((0.04, 49.0))).max() > 0


# ------------------------------------------------------------------------------------------------------------ flows

END = RNG.normal(size=3).astype(np.float32)


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_velocities_learn_the_straight_way(time):
    """|v((1 - t) n + t x, t) - (x - n)|^2."""
    loss = lambda w: diffusion.flow_loss(lambda x, t: w * x + t, jnp.array(X), jnp.array(END), s(time))
    error = 0.6 * ((1 - time) * X + time * END) + time - (END - X)
    value, slope = jax.value_and_grad(loss)(s(0.6))
    assert_allclose(value, (error**2).mean(), rtol=1e-5)
    assert_allclose(slope, (2 * error * ((1 - time) * X + time * END)).mean(), rtol=1e-4)


TIMES = np.array([0.0, 0.2, 0.5, 1.0], np.float32)
VELOCITY = lambda x, t: 0.5 * x - 2 * t


def test_euler_goes_along_the_velocity():
    x, path = X.astype(np.float64), [X]
    for now, then in itertools.pairwise(TIMES):
        x = x + (then - now) * (0.5 * x - 2 * now)
        path.append(x)
    assert_allclose(diffusion.euler(VELOCITY, jnp.array(X), jnp.array(TIMES)), path, rtol=1e-5)


def test_a_jump_costs_the_square_of_what_it_misses():
    path = RNG.normal(size=(4, 3)).astype(np.float32)
    expected = np.full((4, 4), np.inf)
    for i, j in itertools.combinations(range(4), 2):
        reached = path[i] + (TIMES[j] - TIMES[i]) * (0.5 * path[i] - 2 * TIMES[i])
        expected[i, j] = ((reached - path[j]) ** 2).sum()
    assert_allclose(diffusion.jump_cost(VELOCITY, jnp.array(path), jnp.array(TIMES)), expected, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_best_steps_are_the_least_of_all_ways(steps):
    for seed in range(3):
        cost = np.full((6, 6), np.inf, np.float32)
        for i, j in itertools.combinations(range(6), 2):
            cost[i, j] = np.random.default_rng((seed, i, j)).uniform(0.1, 1) * (j - i) ** 0.5
        ways = [(0, *middle, 5) for middle in itertools.combinations(range(1, 5), steps - 1)]
        total = {way: sum(cost[a, b] for a, b in itertools.pairwise(way)) for way in ways}
        best = min(total, key=lambda way: total[way])
        points, least = diffusion.best_steps(jnp.array(cost), steps)
        assert tuple(points.tolist()) == best
        assert_allclose(least, total[best], rtol=1e-6)
        assert points.dtype == jnp.int32


def test_a_segment_is_straightened():
    """|v(start, now) - (end - start) / (then - now)|^2, summed."""
    loss = lambda w: diffusion.straightening_loss(lambda x, t: w * x + t, jnp.array(X), jnp.array(END), s(0.2), s(0.7))
    error = 0.6 * X + 0.2 - (END - X) / 0.5
    value, slope = jax.value_and_grad(loss)(s(0.6))
    assert_allclose(value, (error**2).sum(), rtol=1e-5)
    assert_allclose(slope, (2 * error * X).sum(), rtol=1e-4)
