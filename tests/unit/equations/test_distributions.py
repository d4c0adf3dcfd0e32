"""Distributions of actions, against densities by SciPy and draws counted."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from jaxrl.equations import distributions
from tests.pinned import taking_numpy

categorical_entropy = taking_numpy(distributions.categorical_entropy)
categorical_log_prob = taking_numpy(distributions.categorical_log_prob)
epsilon_greedy = taking_numpy(distributions.epsilon_greedy)
log_abs_det_tanh = taking_numpy(distributions.log_abs_det_tanh)
noisy_action = distributions.noisy_action
normal_entropy = taking_numpy(distributions.normal_entropy)
normal_log_prob = taking_numpy(distributions.normal_log_prob)
tanh_normal_sample = taking_numpy(distributions.tanh_normal_sample)

MEAN, LOG_STD = np.array([0.3, -1.2, 2.0], np.float32), np.array([-0.5, 0.4, 0.0], np.float32)
X = np.array([1.0, -2.0, 2.5], np.float32)
LOGITS = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
KEY = jax.random.key(4)


def test_normals_have_the_density_and_entropy_of_their_product():
    expected = stats.norm.logpdf(X, MEAN, np.exp(LOG_STD)).sum()
    assert_allclose(normal_log_prob(X, MEAN, LOG_STD), expected, rtol=1e-5)
    slope = jax.grad(normal_log_prob, argnums=1)(X, MEAN, LOG_STD)
    assert_allclose(slope, (X - MEAN) / np.exp(2 * LOG_STD), rtol=1e-5)
    assert_allclose(normal_entropy(LOG_STD), stats.norm.entropy(MEAN, np.exp(LOG_STD)).sum(), rtol=1e-5)


def test_the_slope_of_tanh_is_exact_where_it_underflows():
    u = np.array([-30.0, -1.0, 0.0, 0.7, 30.0])
    expected = np.log(4) - 2 * np.logaddexp(u, -u)  # of 1 / cosh(u)^2
    assert_allclose(log_abs_det_tanh(jnp.float32(u)), expected, rtol=1e-5, atol=1e-6)


def test_squashed_samples_are_the_tanh_of_normals_with_their_density():
    noise = np.asarray(jax.random.normal(KEY, (3,)), np.float64)
    u = MEAN + np.exp(LOG_STD) * noise
    each = stats.norm.logpdf(u, MEAN, np.exp(LOG_STD)) - np.log(1 - np.tanh(u) ** 2)
    action, log_prob = tanh_normal_sample(KEY, MEAN, LOG_STD)
    assert_allclose(action, np.tanh(u), rtol=1e-5)
    assert_allclose(log_prob, each.sum(), rtol=1e-4)
    weights = np.array([1.0, 0.0, 2.0], np.float32)
    assert_allclose(tanh_normal_sample(KEY, MEAN, LOG_STD, weights)[1], (weights * each).sum(), rtol=1e-4)


def test_samples_are_reparameterised():
    slope = jax.jacobian(lambda mean: tanh_normal_sample(KEY, mean, LOG_STD)[0])(MEAN)
    u = MEAN + np.exp(LOG_STD) * np.asarray(jax.random.normal(KEY, (3,)))
    assert_allclose(slope, np.diag(1 - np.tanh(u) ** 2), rtol=1e-4, atol=1e-7)


def test_noise_is_kept_within_bounds_that_no_gradient_sees():
    mean, noise = jnp.array([0.2, 0.9, -0.9]), jnp.array([0.3, 0.5, -0.5])
    action = noisy_action(mean, noise)
    assert_allclose(action, [0.5, 1 - 1e-6, 1e-6 - 1], rtol=3e-7)
    assert (jnp.abs(action) < 1).all()
    assert_array_equal(jax.jacobian(noisy_action)(mean, noise), jnp.eye(3))


def test_categories_are_those_of_a_softmax():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    for action in range(4):
        assert_allclose(categorical_log_prob(jnp.int32(action), LOGITS), np.log(p[action]), rtol=1e-5)
    assert_allclose(categorical_entropy(LOGITS), -(p * np.log(p)).sum(), rtol=1e-5)


def test_one_in_so_many_actions_is_any():
    """Of 4 actions with epsilon 0.4: the best 0.7 of the time, each other 0.1; never another at 0, any at 1."""
    draw = jax.jit(jax.vmap(lambda key, epsilon: epsilon_greedy(key, LOGITS, epsilon), in_axes=(0, None)))
    keys = jax.random.split(KEY, 4000)
    share = np.bincount(draw(keys, 0.4), minlength=4) / 4000
    assert_allclose(share, [0.1, 0.1, 0.7, 0.1], atol=0.03)
    assert (draw(keys, 0.0) == 2).all()
    assert_allclose(np.bincount(draw(keys, 1.0), minlength=4) / 4000, np.full(4, 0.25), atol=0.03)
    assert draw(keys, 0.4).dtype == jnp.int32


def test_exploring_is_drawn_apart_from_the_action():
    """Were one key used for both, which action is explored would tell that it is."""
    draw = jax.jit(jax.vmap(lambda key: epsilon_greedy(key, LOGITS, 0.5)))
    assert_allclose(
        np.bincount(draw(jax.random.split(KEY, 4000)), minlength=4) / 4000, [0.125] * 2 + [0.625, 0.125], atol=0.03
    )
