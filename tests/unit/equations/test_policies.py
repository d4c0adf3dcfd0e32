"""Losses of policies: on either side of a clip, for gains and for losses, the number and its slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.equations.policies import clipped_value_loss, ppo_surrogate, soft_policy_loss, temperature_loss

s = jnp.float32
HIGH, LOW, NEAR = np.log(1.5), np.log(0.5), np.log(1.1)  # ratios against a clip of 0.2


@pytest.mark.parametrize(
    "log_ratio, advantage, loss, slope",
    [
        (HIGH, 2.0, -1.2 * 2, 0),  # better, and done often enough already
        (LOW, -2.0, 0.8 * 2, 0),  # worse, and done seldom enough already
        (HIGH, -2.0, 1.5 * 2, 1.5 * 2),  # worse, and done more often: pulled back
        (LOW, 2.0, -0.5 * 2, -0.5 * 2),
        (NEAR, 2.0, -1.1 * 2, -1.1 * 2),
        (NEAR, -2.0, 1.1 * 2, 1.1 * 2),
    ],
)
def test_the_surrogate_stops_where_the_ratio_leaves_its_bounds_for_the_better(log_ratio, advantage, loss, slope):
    of = lambda now: ppo_surrogate(now, s(-0.7), s(advantage), 0.2)
    value, found = jax.value_and_grad(of)(s(log_ratio - 0.7))
    assert_allclose(value, loss, rtol=1e-5)
    assert_allclose(found, slope, rtol=1e-5)


@pytest.mark.parametrize(
    "value, old, target, loss, slope",
    [
        (2.0, 1.0, 3.0, 0.5 * 1.8**2, 0),  # near is 1.2: further from the target than the value is
        (2.0, 1.0, 0.0, 0.5 * 2**2, 2),  # near is 1.2, nearer to the target: the plain error counts
        (0.0, 1.0, -1.0, 0.5 * 1.8**2, 0),  # near is 0.8
        (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),
    ],
)
def test_values_that_jump_are_held_to_the_worse_of_two_errors(value, old, target, loss, slope):
    of = lambda v: clipped_value_loss(v, s(old), s(target), 0.2)
    found = jax.value_and_grad(of)(s(value))
    assert_allclose(found, (loss, slope), rtol=1e-5)


def test_without_a_clip_the_error_is_squared_and_halved():
    found = jax.value_and_grad(lambda v: clipped_value_loss(v, s(5), s(3), None))(s(0.5))
    assert_allclose(found, (0.5 * 2.5**2, -2.5), rtol=1e-6)


def test_a_soft_policy_pays_for_its_log_probability_and_is_paid_in_q():
    of = lambda log_prob, q: soft_policy_loss(log_prob, q, 0.3)
    assert_allclose(of(s(-2), s(1.5)), 0.3 * -2 - 1.5, rtol=1e-6)
    assert_allclose(jax.grad(of, argnums=(0, 1))(s(-2), s(1.5)), (0.3, -1), rtol=1e-6)


@pytest.mark.parametrize("log_prob, slope", [(-0.5, -0.5), (-2.0, 1.0), (-1.0, 0.0)])
def test_alpha_rises_where_entropy_is_below_its_target(log_prob, slope):
    """The target is 1 nat: of an entropy of 0.5, 2 and 1."""
    found = jax.value_and_grad(lambda alpha: temperature_loss(alpha, s(log_prob), 1.0))(s(0.4))
    assert_allclose(found, (0.4 * slope, slope), rtol=1e-6, atol=1e-7)
