"""Bins and quantiles against loops in NumPy: each neighbour's weight, what is beyond, and slopes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from jaxrl.equations import categorical
from tests.pinned import taking_numpy

BINS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], np.float32)
UNEVEN = np.array([-20.0, -3.0, 0.5, 1.0, 9.0], np.float32)
RNG = np.random.default_rng(9)
two_hot, hl_gauss = taking_numpy(categorical.two_hot), taking_numpy(categorical.hl_gauss)
quantile_huber = taking_numpy(categorical.quantile_huber)


def test_symlog_and_symexp_are_odd_and_undo_each_other():
    x = jnp.array([-10.0, -0.5, 0.0, 0.5, 10.0])
    assert_allclose(categorical.symlog(x), [-np.log(11), -np.log(1.5), 0, np.log(1.5), np.log(11)], rtol=1e-6)
    assert_allclose(
        categorical.symexp(x), [1 - np.exp(10), 1 - np.exp(0.5), 0, np.exp(0.5) - 1, np.exp(10) - 1], rtol=1e-6
    )
    assert_allclose(categorical.symexp(categorical.symlog(x)), x, rtol=1e-5)


def between(x, bins):
    """Weights of the neighbours of x, by its distance to either."""
    x, weights = min(max(x, bins[0]), bins[-1]), np.zeros(len(bins))
    at = max(i for i in range(len(bins)) if bins[i] <= x)
    if at == len(bins) - 1:
        weights[at] = 1
    else:
        weights[at + 1] = (x - bins[at]) / (bins[at + 1] - bins[at])
        weights[at] = 1 - weights[at + 1]
    return weights


@pytest.mark.parametrize("bins", [BINS, UNEVEN, np.array([0, 1, 1.5, 4], np.float32)], ids=["even", "uneven", "wide"])
def test_two_neighbours_share_a_value(bins):
    xs = np.array([-50, *bins, *(0.7 * bins[:-1] + 0.3 * bins[1:]), 50], np.float32)
    found = np.stack([two_hot(x, bins) for x in xs])
    assert_allclose(found, [between(x, bins) for x in xs], atol=1e-6)
    assert_allclose(found @ bins, np.clip(xs, bins[0], bins[-1]), rtol=1e-5)


@pytest.mark.parametrize("x", [-7.0, -2.0, -0.3, 1.2, 3.0, 8.0])
@pytest.mark.parametrize("spread", [0.75, 0.4])
def test_a_normal_is_shared_among_bins_from_halfway_to_halfway(x, spread):
    """Bins twice as far apart, too: `spread` is counted in widths."""
    for bins, width in ((BINS, 1.0), (2 * BINS, 2.0)):
        law = stats.norm(np.clip(x, bins[0], bins[-1]), spread * width)
        mass = law.cdf(bins + width / 2) - law.cdf(bins - width / 2)
        found = hl_gauss(np.float32(x), bins, spread)
        assert_allclose(found, mass / mass.sum(), atol=1e-5)
    assert_allclose(hl_gauss(np.float32(x), BINS), hl_gauss(np.float32(x), BINS, 0.75), atol=1e-7)


def shared(values, probabilities, bins):
    return sum(p * between(value, bins) for value, p in zip(values, probabilities))


def test_a_distribution_is_split_between_neighbours():
    values, p = RNG.normal(scale=3, size=7).astype(np.float32), RNG.dirichlet(np.ones(7)).astype(np.float32)
    found = taking_numpy(categorical.projected)(values, p, BINS)
    assert_allclose(found, shared(values, p, BINS), atol=1e-6)


@pytest.mark.parametrize("reward, discount, bonus", [(0.5, 0.9, -0.4), (-1.0, 0.5, 0.7), (0.8, 0.0, 0.3)])
def test_the_distribution_of_the_critic_that_expects_least_is_moved(reward, discount, bonus):
    logits = RNG.normal(size=(3, len(BINS))).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    least = p[np.argmin(p @ BINS)]
    found = taking_numpy(categorical.clipped_distribution)(
        np.float32(reward), np.float32(discount), logits, np.float32(bonus), BINS
    )
    assert_allclose(found, shared(reward + discount * (BINS + bonus), least, BINS), atol=1e-6)


def test_cross_entropy_and_mean_are_of_the_softmax():
    logits, p = RNG.normal(size=5).astype(np.float32), RNG.dirichlet(np.ones(5)).astype(np.float32)
    q = np.exp(logits) / np.exp(logits).sum()
    cross = taking_numpy(categorical.cross_entropy)
    assert_allclose(cross(logits, p), -(p * np.log(q)).sum(), rtol=1e-5)
    assert_allclose(jax.grad(cross)(jnp.array(logits), p), q - p, atol=1e-6)
    assert_allclose(taking_numpy(categorical.expected)(logits, UNEVEN), q @ UNEVEN, rtol=1e-5)


def pairwise(quantiles, targets, kappa):
    """Dabney et al. 2018, eq. 10 without its division, pair by pair: the loss and its slopes."""
    n, m = len(quantiles), len(targets)
    loss, of_quantile, of_target = 0.0, np.zeros(n), np.zeros(m)
    for i in range(n):
        for j in range(m):
            error, tau = targets[j] - quantiles[i], (i + 0.5) / n
            weight = abs(tau - (error < 0)) / m
            small = abs(error) <= kappa
            loss += weight * (error**2 / 2 if small else kappa * (abs(error) - kappa / 2))
            slope = weight * (error if small else kappa * np.sign(error))
            of_quantile[i] -= slope
            of_target[j] += slope
    return loss, of_quantile, of_target


@pytest.mark.parametrize("kappa", [1.0, 0.3, 5.0])
def test_quantiles_pay_by_their_own_share_above_and_below(kappa):
    quantiles = np.array([-1.0, 0.2, 0.5, 2.0], np.float32)
    targets = np.array([-3.0, 0.4, 0.45, 1.0, 2.5, 0.0], np.float32)
    loss, of_quantile, of_target = pairwise(quantiles, targets, kappa)
    both = jax.value_and_grad(categorical.quantile_huber, argnums=(0, 1))
    found, slopes = both(jnp.array(quantiles), jnp.array(targets), kappa)
    assert_allclose(found, loss, rtol=1e-5)
    assert_allclose(slopes[0], of_quantile, rtol=1e-4, atol=1e-6)
    assert_allclose(slopes[1], of_target, rtol=1e-4, atol=1e-6)
    assert_allclose(quantile_huber(quantiles, targets), pairwise(quantiles, targets, 1.0)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "n", "wide"),
    [(-20.0, 20.0, 255, True), (-10.0, 10.0, 65, True), (-5.0, 5.0, 101, False), (-20.0, 20.0, 256, True)],
    ids=["the issue's", "MR.Q's", "SimbaV2's", "an even number"],
)
def test_equal_logits_expect_exactly_0_of_bins_around_0(low, high, n, wide):
    """However wide the bins are, were they made by rounding; and shifted by one bin the mean is that of doubles."""
    bins = jnp.linspace(low, high, n)
    bins = categorical.symexp(bins) if wide else bins
    one = jax.jit(categorical.expected)
    assert one(jnp.zeros(n), bins) == 0 == one(jnp.full(n, -3.7), bins)
    assert (jax.vmap(one, (0, None))(jnp.zeros((3, n)), bins) == 0).all()
    half = np.random.default_rng(0).normal(size=(n + 1) // 2)
    logits = jnp.float32(np.concatenate([half[: n // 2], half[::-1]]))
    assert abs(one(logits, bins)) <= 1e-8 * bins[-1]  # a vector's last exponentials may be other ones
    shifted = np.roll(np.linspace(-3, 3, n), 1)
    p = np.exp(shifted) / np.exp(shifted).sum()
    assert_allclose(one(jnp.float32(shifted), bins), p @ np.asarray(bins, np.float64), rtol=1e-4)


def test_bins_on_one_side_of_0_have_their_mean():
    bins = jnp.linspace(0.0, 150.0, 151)
    assert_allclose(categorical.expected(jnp.zeros(151), bins), 75, rtol=1e-6)
    assert_allclose(categorical.expected(jnp.zeros(1), jnp.float32([3])), 3)


def test_behind_a_discount_of_0_is_no_distribution_to_look_at():
    bins, r = jnp.linspace(-2.0, 2.0, 5), jnp.float32(0.5)
    target = lambda logits, bonus: categorical.clipped_distribution(r, jnp.float32(0), logits, bonus, bins)
    for content in (jnp.nan, 1e30, 0.0):
        found = target(jnp.full((2, 5), content), jnp.float32(content))
        assert_allclose(found, categorical.two_hot(r, bins), rtol=1e-6)
