"""Regressions and orders of causes against NumPy's least squares, loops, and Hyvarinen's formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.equations import causal
from tests.pinned import taking_numpy

N = 24
RNG = np.random.default_rng(6)
X = (RNG.laplace(size=(N, 3)) * [1, 3, 0.2] + [0, 5, -1]).astype(np.float32)
Y = (X @ RNG.normal(size=(3, 2)) + RNG.normal(size=(N, 2))).astype(np.float32)
WEIGHT = RNG.uniform(0.5, 2, N).astype(np.float32)
WEIGHT[3] = 0
SHARE = WEIGHT.astype(np.float64) / WEIGHT.sum()
standardised, least_squares, lasso, entropy, causal_order, before, ancestors = map(
    taking_numpy,
    (
        causal.standardised, causal.least_squares, causal.lasso, causal.entropy, causal.causal_order, causal.before,
        causal.ancestors,
    ),
)  # fmt: skip


def scaled(x, share=SHARE):
    centred = x - share @ x
    return centred / np.sqrt(share @ centred**2)


def test_columns_have_mean_0_and_variance_1_over_the_weighed_rows():
    table = np.hstack([X, np.full((N, 1), 7, np.float32)])
    table[3] = np.nan  # of weight 0
    expected = np.zeros((N, 4))
    clean = np.where(np.isnan(table), 0, table)[:, :3]
    expected[:, :3] = np.where(WEIGHT[:, None] > 0, scaled(clean), 0)
    assert_allclose(standardised(table, WEIGHT), expected, rtol=1e-4, atol=1e-5)
    assert_array_equal(standardised(table, np.zeros(N, np.float32)), np.zeros((N, 4)))


def test_what_hardly_varies_is_nothing_and_what_varies_a_little_is_all():
    little = np.tile(np.array([-1, 1], np.float32), N // 2)[:, None]
    ones = np.ones(N, np.float32)
    assert_array_equal(standardised(1e-7 * little, ones), np.zeros((N, 1)))
    assert_allclose(standardised(1e-5 * little, ones), little, rtol=1e-4)


def solved(x, y, share, ridge):
    return np.linalg.solve((x.T * share) @ x + ridge * np.eye(x.shape[1]), (x.T * share) @ y).T


@pytest.mark.parametrize("ridge", [1e-4, 0.5])
def test_coefficients_are_those_of_the_normal_equations(ridge):
    assert_allclose(least_squares(X, Y, WEIGHT, ridge), solved(X, Y, SHARE, ridge), rtol=1e-3, atol=1e-4)
    assert_array_equal(least_squares(X, Y, np.zeros(N, np.float32)), np.zeros((2, 3)))


def test_the_ridge_decides_between_equal_columns():
    """Of two that are the same each has half; by 1e-4 where nobody says."""
    same = np.repeat(scaled(X)[:, :1], 2, axis=1).astype(np.float32)
    assert_allclose(least_squares(same, same[:, :1], WEIGHT), solved(same, same[:, :1], SHARE, 1e-4), rtol=1e-3)
    tiny = np.float32(1e-2) * same  # a second moment of 1e-4: as much as the ridge
    assert_allclose(least_squares(tiny, tiny[:, :1], WEIGHT), solved(tiny, tiny[:, :1], SHARE, 1e-4), rtol=1e-3)


def accelerated(x, y, share, penalty, steps):
    """FISTA as Beck & Teboulle 2009 write it (section 4), a column of y at a time, in double precision."""
    gram, moment = (x.T * share) @ x, (x.T * share) @ y
    rate, found = 1 / np.linalg.eigvalsh(gram).max(), []
    for column in moment.T:
        w = ahead = np.zeros(x.shape[1])
        t = 1.0
        for _ in range(steps):
            free = ahead - rate * (gram @ ahead - column)
            new = np.sign(free) * np.maximum(abs(free) - rate * penalty, 0)
            later = (1 + np.sqrt(1 + 4 * t * t)) / 2
            w, ahead, t = new, new + (t - 1) / later * (new - w), later
        found.append(w)
    return np.stack(found)


@pytest.mark.parametrize("penalty, steps", [(0.3, 1), (0.3, 4), (0.05, 9)])
def test_each_step_of_the_lasso(penalty, steps):
    x = scaled(X).astype(np.float32)
    expected = accelerated(x, Y, SHARE, penalty, steps)
    assert_allclose(lasso(x, Y, WEIGHT, penalty, steps), expected, rtol=1e-3, atol=1e-4)


def test_the_lasso_ends_where_its_conditions_hold():
    """Of half the squared error and the penalty: slopes of -penalty sign(w), and within it where w is 0."""
    x = np.hstack([scaled(X), 0.999 * scaled(X)[:, :1] + 0.03 * RNG.normal(size=(N, 1))]).astype(np.float32)
    w = np.asarray(lasso(x, Y, WEIGHT, 0.4), np.float64)
    slope = (w @ ((x.T * SHARE) @ x)) - ((x.T * SHARE) @ Y).T
    assert (w == 0).any() and (w != 0).any()
    assert_allclose(slope[w != 0], -0.4 * np.sign(w[w != 0]), atol=2e-3)
    assert (abs(slope) <= 0.4 + 2e-3).all()
    assert_array_equal(lasso(x, Y, np.zeros(N, np.float32), 0.4), np.zeros((2, 4)))


def test_the_lasso_takes_200_steps_where_nobody_says():
    x = np.hstack([scaled(X)[:, :1], scaled(X)[:, :1] + 1e-2 * scaled(X)[:, 1:2]]).astype(np.float32)
    few, many, usual = (np.asarray(lasso(x, Y, WEIGHT, 1e-4, *steps)) for steps in ((200,), (400,), ()))
    assert_array_equal(usual, few)
    assert abs(few - many).max() > 1e-4


def negentropic(u, share):
    """Hyvarinen 1998, eq. 34."""
    log_cosh = np.log(np.cosh(u))
    return (
        (1 + np.log(2 * np.pi)) / 2
        - 79.047 * (share @ log_cosh - 0.37457) ** 2
        - 7.4129 * (share @ (u * np.exp(-(u**2) / 2))) ** 2
    )


def test_entropy_is_hyvarinens():
    for column in scaled(X).T:
        assert_allclose(entropy(column.astype(np.float32), WEIGHT), negentropic(column, SHARE), rtol=1e-3)
    far = np.linspace(-3, 5, N).astype(np.float32)  # both terms are large
    assert_allclose(entropy(far, WEIGHT), negentropic(far.astype(np.float64), SHARE), rtol=1e-3)


def ordered(x, share):
    """DirectLiNGAM by the pairwise measure, in double precision, one comparison at a time."""
    x, rest, order = x.astype(np.float64), list(range(x.shape[1])), []
    while rest:
        z = {i: scaled(x[:, i], share) for i in rest}
        doubt = dict.fromkeys(rest, 0.0)
        for i, j in itertools.permutations(rest, 2):
            slope = share @ (z[i] * z[j])
            left, other = scaled(z[i] - slope * z[j], share), scaled(z[j] - slope * z[i], share)
            forward = negentropic(z[j], share) + negentropic(left, share)
            back = negentropic(z[i], share) + negentropic(other, share)
            doubt[i] += min(0, forward - back) ** 2
        cause = min(rest, key=lambda i: doubt[i])
        order.append(cause)
        rest.remove(cause)
        for i in rest:
            x[:, i] = z[i] - share @ (z[i] * z[cause]) * z[cause]
    return order


def test_causes_come_before_effects():
    """Chains through every order of three columns; with few samples, where any other measure would err."""
    found = jax.jit(jax.vmap(causal.causal_order))
    tables, expected, weights = [], [], []
    for seed, places in itertools.product(range(4), itertools.permutations(range(3))):
        rng = np.random.default_rng(seed)
        noise = rng.laplace(size=(N, 3)) if seed % 2 else rng.uniform(-1, 1, (N, 3))
        weight = rng.uniform(0.2, 2, N).astype(np.float32)
        weight[5] = 0
        first, second, third = noise.T
        second = second + 1.5 * first
        third = third - second + 0.4 * first
        table = np.stack([first, second, third], axis=1)[:, places].astype(np.float32)
        tables.append(table)
        weights.append(weight)
        expected.append(ordered(table, weight.astype(np.float64) / weight.sum()))
    assert len({tuple(order) for order in expected}) >= 4
    assert_array_equal(found(jnp.array(tables), jnp.array(weights)), expected)


def test_a_place_in_an_order():
    order = np.array([2, 0, 3, 1], np.int32)
    assert_array_equal(before(order, 3), [True, False, True, False])
    assert_array_equal(before(order, 2), [False] * 4)


def test_ancestors_are_reached_backwards_over_any_number_of_edges():
    """0 <- 1 <- 2 <- 3, and 4 that nothing leads from."""
    edges = np.zeros((5, 5), bool)
    edges[0, 1] = edges[1, 2] = edges[2, 3] = edges[4, 0] = True
    direct = np.array([True, False, False, False, False])
    assert_array_equal(ancestors(direct, edges), [True, True, True, True, False])
    assert_array_equal(
        ancestors(np.array([False, False, True, False, False]), edges), [False, False, True, True, False]
    )
