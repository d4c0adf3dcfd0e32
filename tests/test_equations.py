"""Every equation against arrays worked by hand, with and without jit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.equations import categorical, distributions, policies, returns, values

f = lambda *xs: jnp.array(xs, jnp.float32)
s = jnp.float32


@pytest.fixture(params=["eager", "jit"])
def run(request):
    """Each check runs as written and compiled."""
    return (lambda fn, *args: fn(*args)) if request.param == "eager" else (lambda fn, *args: jax.jit(fn)(*args))


def test_n_step_return(run):
    # 1 + .9 * 2 + .9 * .9 * 10
    assert_allclose(run(returns.n_step_return, f(1, 2), f(0.9, 0.9), s(10)), 10.9, rtol=1e-6)
    # a termination at the first step: nothing follows
    assert_allclose(run(returns.n_step_return, f(1, 2), f(0, 0.9), s(10)), 1)


def test_lambda_returns_between_one_step_and_monte_carlo(run):
    r, d, v = f(1, 1, 1), f(0.9, 0.9, 0.9), f(2, 3, 4)
    assert_allclose(run(returns.lambda_returns, r, d, v, 0.0), [2.8, 3.7, 4.6], rtol=1e-6)
    # G_3 = 1 + .9*4 = 4.6, G_2 = 1 + .9*4.6 = 5.14, G_1 = 1 + .9*5.14 = 5.626
    assert_allclose(run(returns.lambda_returns, r, d, v, 1.0), [5.626, 5.14, 4.6], rtol=1e-6)
    # G_2 = 1 + .9(.5*3 + .5*4.6) = 4.42, G_1 = 1 + .9(.5*2 + .5*4.42) = 3.889
    assert_allclose(run(returns.lambda_returns, r, d, v, 0.5), [3.889, 4.42, 4.6], rtol=1e-6)


def test_lambda_returns_stop_at_a_cut_but_keep_its_value(run):
    cut = jnp.array([True, False, False])
    got = run(returns.lambda_returns, f(1, 1, 1), f(0.9, 0.9, 0.9), f(2, 3, 4), 1.0, cut)
    assert_allclose(got, [2.8, 5.14, 4.6], rtol=1e-6)


def test_gae(run):
    r, v = f(1, 1, 1), f(0.5, 0.5, 0.5)
    d = f(0.9, 0.9, 0.9)
    assert_allclose(run(returns.gae, r, d, v, v, 0.8), [2.12648, 1.634, 0.95], rtol=1e-5)
    # terminated at the last step: A_3 = 1 - .5, A_2 = .95 + .72 * .5 = 1.31
    assert_allclose(run(returns.gae, r, f(0.9, 0.9, 0), v, v, 0.8)[1:], [1.31, 0.5], rtol=1e-5)
    # truncated at the second: its value counts, what comes after does not
    cut = jnp.array([False, True, False])
    assert_allclose(run(returns.gae, r, d, v, v, 0.8, cut), [0.95 + 0.72 * 0.95, 0.95, 0.95], rtol=1e-5)


def test_gae_is_the_lambda_return_less_the_value():
    keys = jax.random.split(jax.random.key(0), 5)
    r, v0, v1 = (jax.random.normal(k, (7,)) for k in keys[:3])
    d = 0.95 * (jax.random.uniform(keys[3], (7,)) > 0.2)
    cut = jax.random.uniform(keys[4], (7,)) > 0.7
    v1 = jnp.where(cut | (d == 0), v1, jnp.append(v0[1:], v1[-1]))  # what a step led to is where the next begins
    g = returns.lambda_returns(r, d, v1, 0.8, cut)
    assert_allclose(returns.gae(r, d, v0, v1, 0.8, cut), g - v0, rtol=1e-4, atol=1e-5)


def test_value_targets(run):
    assert_allclose(run(values.td_target, s(1), s(0.9), s(2)), 2.8)
    assert_allclose(run(values.q_target, s(0), s(1), f(5, 3)), 5)
    # the online network prefers the second action, the target values it at 3
    assert_allclose(run(values.double_q_target, s(0), s(1), f(5, 3), f(1, 2)), 3)
    assert_allclose(run(values.clipped_q_target, s(1), s(0.99), f(3, 5)), 3.97)
    assert_allclose(run(values.clipped_q_target, s(1), s(0.0), f(3, 5)), 1)
    # SAC: alpha .2, log pi -1: the bonus is .2
    assert_allclose(run(values.clipped_q_target, s(1), s(0.5), f(3, 5), s(0.2)), 2.6)
    assert_allclose(run(values.sarsa_target, s(1), s(0.5), s(4)), 3)


def test_huber(run):
    assert_allclose(run(values.huber, f(0.5, 2, -3)), [0.125, 1.5, 2.5])
    assert_allclose(jax.grad(lambda e: values.huber(e).sum())(f(0.5, 2, -3)), [0.5, 1, -1])


def test_ppo_surrogate(run):
    old, new = s(0), jnp.log(s(1.5))
    assert_allclose(run(policies.ppo_surrogate, new, old, s(1), 0.2), -1.2, rtol=1e-6)
    assert_allclose(run(policies.ppo_surrogate, new, old, s(-1), 0.2), 1.5, rtol=1e-6)
    gradient = jax.grad(policies.ppo_surrogate)
    assert gradient(new, old, s(1), 0.2) == 0  # already far enough
    assert_allclose(gradient(new, old, s(-1), 0.2), 1.5, rtol=1e-6)


def test_clipped_value_loss(run):
    # v = 2, v_old = 1, eps .2: near = 1.2; target 3: max(1, 3.24) / 2
    assert_allclose(run(policies.clipped_value_loss, s(2), s(1), s(3), 0.2), 1.62, rtol=1e-6)
    assert_allclose(policies.clipped_value_loss(s(2), s(1), s(3), None), 0.5)


def test_soft_policy_and_temperature(run):
    assert_allclose(run(policies.soft_policy_loss, s(-1), s(3), s(0.2)), -3.2, rtol=1e-6)
    # entropy 0.5 below its target of 1: descending the loss raises log alpha
    gradient = jax.grad(policies.temperature_loss)(s(0), s(-0.5), 1.0)
    assert_allclose(gradient, -0.5)


def test_normal(run):
    assert_allclose(run(distributions.normal_log_prob, f(0, 1), f(0, 0), f(0, 0)), -np.log(2 * np.pi) - 0.5, rtol=1e-6)
    assert_allclose(
        run(distributions.normal_entropy, f(0, jnp.log(2.0))), np.log(2 * np.pi * np.e) + np.log(2), rtol=1e-6
    )


def test_tanh_normal_density_integrates_to_one():
    mean, log_std = f(0.4), f(-0.3)
    a = jnp.linspace(-1 + 1e-5, 1 - 1e-5, 20001)
    u = jnp.arctanh(a)[:, None]
    moved = lambda u: distributions.log_abs_det_tanh(u).sum()
    log_p = jax.vmap(lambda u: distributions.normal_log_prob(u, mean, log_std) - moved(u))(u)
    assert_allclose(jnp.trapezoid(jnp.exp(log_p), a), 1, atol=2e-3)


def test_tanh_normal_sample_gives_its_own_log_prob(run):
    mean, log_std = f(0.4, -1), f(-0.3, 0.2)
    a, log_p = run(distributions.tanh_normal_sample, jax.random.key(1), mean, log_std)
    u = jnp.arctanh(a)
    expected = distributions.normal_log_prob(u, mean, log_std) - jnp.log(1 - a**2).sum()
    assert_allclose(log_p, expected, rtol=1e-4)
    assert jnp.isfinite(distributions.log_abs_det_tanh(f(30, -30))).all()


def test_categorical(run):
    logits = jnp.log(f(0.25, 0.75))
    assert_allclose(run(distributions.categorical_log_prob, jnp.int32(1), logits), np.log(0.75), rtol=1e-6)
    assert_allclose(run(distributions.categorical_entropy, f(1, 1, 1, 1)), np.log(4), rtol=1e-6)


def test_epsilon_greedy_frequencies():
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.vmap(lambda key, e: distributions.epsilon_greedy(key, f(0, 2, 1), e), in_axes=(0, None))
    chex.assert_type(draw(keys, 0.0), jnp.int32)
    assert (draw(keys, 0.0) == 1).all()
    # greedy 1 - .6 + .2, the others .2 each
    assert_allclose(jnp.bincount(draw(keys, 0.6), length=3) / 4000, [0.2, 0.6, 0.2], atol=0.03)


def test_shapes_are_checked():
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError):
        returns.gae(f(1, 1), f(1, 1, 1), f(1, 1), f(1, 1), 0.9)


def test_two_hot(run):
    bins = f(-1, 0, 2)
    for x, weights in [
        (0.5, (0, 0.75, 0.25)),
        (-0.25, (0.25, 0.75, 0)),
        (0, (0, 1, 0)),
        (9, (0, 0, 1)),
        (-9, (1, 0, 0)),
    ]:
        assert_allclose(run(categorical.two_hot, s(x), bins), weights, atol=1e-6)
    # Symexp bins of MR.Q: the weights are linear in the reward, not in its logarithm.
    wide = categorical.symexp(jnp.linspace(-10, 10, 65))
    weights = run(categorical.two_hot, s(1), wide)
    assert_allclose(weights[34:36], [0.8078, 0.1922], atol=1e-4)
    assert_allclose(weights @ wide, 1, rtol=1e-5)
    assert run(categorical.two_hot, s(0), wide)[32] == 1


def test_symlog_and_its_inverse(run):
    x = f(-100, -1, 0, 0.5, 1000)
    assert_allclose(run(categorical.symlog, f(-1, 0, jnp.e - 1)), [-jnp.log(2.0), 0, 1], rtol=1e-6)
    assert_allclose(run(categorical.symexp, categorical.symlog(x)), x, rtol=1e-5)


def test_projection_of_a_value_distribution(run):
    bins = jnp.linspace(-5, 5, 101)
    at = lambda value: jax.nn.one_hot(round((value + 5) * 10), 101)
    for value, where in [(0.25, (52, 53)), (1.35, (63, 64)), (7.0, (100,))]:
        got = run(categorical.projected, value + 0 * bins, at(0), bins)
        assert_allclose(got[jnp.array(where)], jnp.full(len(where), 1 / len(where)), atol=1e-4)
        assert_allclose(got.sum(), 1, rtol=1e-5)


def test_projection_against_brute_force():
    """Algorithm 1 of Bellemare et al. 2017, in plain Python."""
    rng = np.random.default_rng(0)
    bins, p = np.linspace(-2, 2, 9), rng.dirichlet(np.ones(9))
    targets, wanted = 0.7 + 0.9 * bins, np.zeros(9)
    for weight, value in zip(p, targets):
        b = (np.clip(value, -2, 2) + 2) / 0.5
        low, high = int(np.floor(b)), int(np.ceil(b))
        wanted[low] += weight * (high - b if high > low else 1)
        wanted[high] += weight * (b - low)
    got = categorical.projected(
        jnp.asarray(targets, jnp.float32), jnp.asarray(p, jnp.float32), jnp.asarray(bins, jnp.float32)
    )
    assert_allclose(got, wanted, atol=1e-5)


def test_clipped_distribution(run):
    """Two critics certain of 1 and of 2: 0.5 + 0.5 (1 + 1) = 1.5 of the lower one; and the reward alone at an end."""
    bins = f(0, 1, 2)
    logits = jnp.log(f(1e-9, 1, 1e-9) * jnp.ones((2, 3))).at[1].set(jnp.log(f(1e-9, 1e-9, 1)))
    assert_allclose(run(categorical.clipped_distribution, s(0.5), s(0.5), logits, s(1), bins), [0, 0.5, 0.5], atol=1e-5)
    assert_allclose(run(categorical.clipped_distribution, s(0.5), s(0), logits, s(1), bins), [0.5, 0.5, 0], atol=1e-5)


def test_categorical_loss_and_mean(run):
    logits = jnp.log(f(0.5, 0.25, 0.25))
    assert_allclose(run(categorical.cross_entropy, logits, f(0, 1, 0)), jnp.log(4.0), rtol=1e-6)
    assert_allclose(run(categorical.expected, logits, f(-1, 0, 3)), 0.25, rtol=1e-5)


def test_quantile_huber(run):
    assert_allclose(run(categorical.quantile_huber, f(0), f(2)), 0.75)  # tau .5: .5 * 1.5
    assert_allclose(run(categorical.quantile_huber, f(0), f(0.5)), 0.0625)
    # Two quantiles, tau .25 and .75, two targets: mean over targets of the sum over quantiles.
    # d = 3, -1 for both: (.25 + .75) 2.5 = 2.5, (.75 + .25) .5 = .5
    assert_allclose(run(categorical.quantile_huber, f(0, 0), f(3, -1)), 1.5)
    # tau .25, d = -1: .75 * .5; tau .75 at the target itself: 0
    assert_allclose(run(categorical.quantile_huber, f(1, 0), f(0)), 0.375)
