"""Returns and advantages, against sums written out term by term in NumPy; ends, cuts, and the value at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.equations import returns
from tests.pinned import taking_numpy

gae = taking_numpy(returns.gae)
lambda_returns = taking_numpy(returns.lambda_returns)
n_step_return = taking_numpy(returns.n_step_return)

T = 5
RNG = np.random.default_rng(3)
REWARD, VALUE, BEFORE = RNG.normal(size=(3, T)).astype(np.float32)
DISCOUNT = np.array([0.9, 0.8, 0.0, 0.95, 0.7], np.float32)
CUT = np.array([True, False, False, False, False])
NOWHERE = np.zeros(T, bool)


def test_n_step_returns_are_the_discounted_sum_and_the_value_at_its_end():
    expected = REWARD[0] + 0.9 * REWARD[1] + 0.9 * 0.8 * 3.0
    assert_allclose(n_step_return(REWARD[:2], DISCOUNT[:2], jnp.float32(3)), expected, rtol=1e-6)
    one = n_step_return(jnp.float32([2]), jnp.float32([0.5]), jnp.float32(8))
    assert_allclose(one, 6.0)
    assert_allclose(n_step_return(REWARD[:3], DISCOUNT[:3], jnp.float32(3)), REWARD[:3] @ [1, 0.9, 0.72], rtol=1e-5)


def mixed(lambda_, cut):
    """(1 - lambda) sum_n lambda^(n-1) G_t^(n) over the steps up to a cut, the rest of the weight on the last one."""
    returns = []
    for t in range(T):
        total, weight, discounted, factor = 0.0, 1.0, 0.0, 1.0
        for k in range(t, T):
            discounted += factor * REWARD[k]
            factor *= DISCOUNT[k]
            last = k == T - 1 or cut[k]
            total += weight * (1 if last else 1 - lambda_) * (discounted + factor * VALUE[k])
            weight *= lambda_
            if last:
                break
        returns.append(total)
    return np.array(returns)


@pytest.mark.parametrize("cut", [NOWHERE, CUT, ~NOWHERE], ids=["nowhere", "once", "everywhere"])
@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_lambda_returns_mix_n_step_returns(lambda_, cut):
    assert_allclose(lambda_returns(REWARD, DISCOUNT, VALUE, lambda_, jnp.array(cut)), mixed(lambda_, cut), rtol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("cut", [NOWHERE, CUT], ids=["nowhere", "once"])
def test_advantages_sum_the_errors_that_follow(lambda_, cut):
    delta = REWARD + DISCOUNT * VALUE - BEFORE
    expected = []
    for t in range(T):
        total, factor = 0.0, 1.0
        for k in range(t, T):
            total += factor * delta[k]
            factor *= 0 if cut[k] else DISCOUNT[k] * lambda_
        expected.append(total)
    assert_allclose(gae(REWARD, DISCOUNT, BEFORE, VALUE, lambda_, jnp.array(cut)), expected, rtol=1e-5)


def test_without_cuts_nothing_is_cut():
    assert_allclose(lambda_returns(REWARD, DISCOUNT, VALUE, 0.6), mixed(0.6, NOWHERE), rtol=1e-5)
    plain = gae(REWARD, DISCOUNT, BEFORE, VALUE, 0.6)
    assert_allclose(plain, gae(REWARD, DISCOUNT, BEFORE, VALUE, 0.6, jnp.array(NOWHERE)), rtol=1e-6)


def test_each_kind_is_differentiable_in_the_values():
    """What a value at the end weighs: the product of the discounts before it, and lambda where errors are mixed."""
    slope = jax.grad(lambda v: n_step_return(REWARD[:2], DISCOUNT[:2], v))(jnp.float32(0))
    assert_allclose(slope, 0.72, rtol=1e-6)
    slope = jax.grad(lambda v: gae(REWARD, DISCOUNT, BEFORE, v, 0.5)[0])(jnp.array(VALUE))
    assert_allclose(slope, [0.9, 0.9 * 0.5 * 0.8, 0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("content", [np.nan, 1e30])
def test_behind_a_discount_of_0_is_nothing_to_look_at(content):
    """The third step terminates: its successor's value, and all that is behind it, is not looked at before."""
    value, reward = VALUE.copy(), REWARD.copy()
    value[2] = content
    returned, advantage = (REWARD, DISCOUNT, VALUE, 0.9, CUT), (REWARD, DISCOUNT, BEFORE, VALUE, 0.9, CUT)
    assert_allclose(lambda_returns(REWARD, DISCOUNT, value, 0.9, CUT), lambda_returns(*returned))
    assert_allclose(gae(REWARD, DISCOUNT, BEFORE, value, 0.9, CUT), gae(*advantage))
    reward[3:] = value[3:] = content
    assert_allclose(lambda_returns(reward, DISCOUNT, value, 0.9, CUT)[:3], lambda_returns(*returned)[:3])
    assert_allclose(gae(reward, DISCOUNT, BEFORE, value, 0.9, CUT)[:3], gae(*advantage)[:3])
    known = n_step_return(REWARD, DISCOUNT, jnp.float32(3))
    assert_allclose(n_step_return(reward, DISCOUNT, jnp.float32(content)), known)
