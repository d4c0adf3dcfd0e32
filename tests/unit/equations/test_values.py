"""Targets and losses of values, against the sources' formulas in NumPy: numbers, slopes, and both sides of a bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.equations.values import (
    clipped_q_target,
    double_q_target,
    expectile_loss,
    huber,
    q_target,
    sarsa_target,
    td_target,
)

s, f = jnp.float32, lambda *x: jnp.array(x, jnp.float32)


@pytest.mark.parametrize("reward, discount", [(1.5, 0.9), (-2.0, 0.5), (0.25, 0.0)])
def test_targets_add_the_discounted_value_of_what_follows(reward, discount):
    r, d = s(reward), s(discount)
    assert_allclose(td_target(r, d, s(3.0)), reward + discount * 3, rtol=1e-6)
    assert_allclose(sarsa_target(r, d, s(-3.0)), reward - discount * 3, rtol=1e-6)
    assert_allclose(q_target(r, d, f(3, 7, -2)), reward + discount * 7, rtol=1e-6)
    # The online network prefers the third action, of which the target network thinks least.
    assert_allclose(double_q_target(r, d, f(3, 7, -2), f(0.1, 0.2, 0.3)), reward - 2 * discount, rtol=1e-6)
    assert_allclose(clipped_q_target(r, d, f(4, 3, 7)), reward + discount * 3, rtol=1e-6)
    assert_allclose(clipped_q_target(r, d, f(4, 3), s(0.5)), reward + discount * 3.5, rtol=1e-6)
    assert_allclose(clipped_q_target(r, d, f(-4, 3), -0.5), reward - discount * 4.5, rtol=1e-6)


@pytest.mark.parametrize("delta", [1.0, 0.5, 3.0])
def test_huber_is_a_half_square_within_delta_and_straight_beyond(delta):
    error = np.array([-4.0, -1.5, -0.4, 0.0, 0.3, 0.7, 2.0, 5.0], np.float32)
    square, straight = error**2 / 2, delta * (np.abs(error) - delta / 2)
    expected = np.where(np.abs(error) <= delta, square, straight)
    assert_allclose(huber(jnp.array(error), delta), expected, rtol=1e-6)
    slope = jax.grad(lambda e: huber(e, delta).sum())(jnp.array(error))
    assert_allclose(slope, np.clip(error, -delta, delta), rtol=1e-6)


def test_huber_bends_at_one_where_nobody_says():
    assert_allclose(huber(f(1, 2, -3)), [0.5, 1.5, 2.5], rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.1])
def test_expectiles_weigh_what_lies_above_by_tau(tau):
    error = np.array([-2.0, -0.5, 0.0, 0.5, 3.0], np.float32)
    weight = np.where(error > 0, tau, 1 - tau)
    assert_allclose(expectile_loss(jnp.array(error), tau), weight * error**2, rtol=1e-6)
    slope = jax.grad(lambda e: expectile_loss(e, tau).sum())(jnp.array(error))
    assert_allclose(slope, 2 * weight * error, rtol=1e-6)


@pytest.mark.parametrize("content", [jnp.nan, jnp.inf, -1e30, 3.0])
def test_behind_a_discount_of_0_is_nothing_to_look_at(content):
    r, d, x = s(1.5), s(0), f(content, content)
    made = (td_target(r, d, x[0]), q_target(r, d, x), double_q_target(r, d, x, x), clipped_q_target(r, d, x, x[0]))
    assert [*made, sarsa_target(r, d, x[1])] == [1.5] * 5
    assert jax.grad(lambda v: td_target(r, d, v))(x[0]) == 0
