"""What keeps networks able to learn, and what tells whether they are: by hand."""

import jax
import jax.numpy as jnp
import optax
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Ctx, minimise
from jaxrl.nets import bounded_spectra
from jaxrl.rules.resets import restarting, shrink_and_perturb
from jaxrl.statistics.plasticity import active_fraction, dormant_ratio, feature_rank, weight_norm

KEY = jax.random.key(0)


def test_statistics_of_a_layer():
    x = jnp.array([[1.0, 0.0, -2.0, 0.01], [3.0, 0.0, 2.0, 0.01]])
    # mean |x|: 2, 0, 2, .01; the layer's is 1.0025
    assert dormant_ratio(x) == 0.5
    assert dormant_ratio(x, threshold=0.0) == 0.25
    assert active_fraction([x]) == 5 / 8
    assert_allclose(weight_norm({"a": jnp.array([3.0]), "b": jnp.array([[0.0, 4.0]])}), 5)


def test_feature_rank():
    assert feature_rank(jnp.eye(4)) == 4
    assert feature_rank(jnp.outer(jnp.arange(1.0, 5), jnp.ones(3))) == 1
    assert feature_rank(jnp.diag(jnp.array([90.0, 9.5, 0.5]))) == 2  # 99.5 of 100 is held by two
    assert feature_rank(jnp.zeros((4, 3))) == 0


def test_spectra_are_bounded_and_what_is_within_stays():
    """Singular values of 3 and 1 become 1 and 1/3; a kernel whose largest is 1/2, and biases, stay as they are."""
    turned, _ = jnp.linalg.qr(jax.random.normal(KEY, (4, 2)))
    tree = {"a": {"kernel": turned * jnp.array([3.0, 1.0]), "bias": jnp.full(2, 9.0)}, "b": {"kernel": turned / 2}}
    found = bounded_spectra(tree)
    assert_allclose(jnp.linalg.svd(found["a"]["kernel"], compute_uv=False), [1, 1 / 3], rtol=1e-5)
    assert_array_equal(found["a"]["bias"], tree["a"]["bias"])
    assert_array_equal(found["b"]["kernel"], tree["b"]["kernel"])
    window = {"kernel": jax.random.normal(KEY, (2, 2, 3, 8))}
    bounded = bounded_spectra(window, most=0.5, turns=50)["kernel"].reshape(12, 8)
    assert_allclose(jnp.linalg.svd(bounded, compute_uv=False)[0], 0.5, rtol=1e-3)


def test_shrink_and_perturb():
    rule = shrink_and_perturb("w", lambda key: {"w": jnp.array([10.0])}, keep=0.75)
    parts, _, _ = rule.update({"w": jnp.array([2.0])}, rule.init({}), {}, Ctx(KEY, jnp.int32(0)))
    assert_allclose(parts["w"], [4.0])


def test_what_restarts_forgets_its_optimiser_and_leaves_what_it_does_not_write():
    """Momentum 1 with a gradient of 1: steps of 1, 2, 3; anew at the third update, its step is 1 again."""

    def loss(live, frozen, batch, key):
        return live["w"], {}

    rule = minimise(loss, optax.sgd(1.0, momentum=1.0), "w", reads="other")
    whole = restarting(rule, lambda key: {"w": jnp.float32(0), "other": jnp.float32(0)}, lambda ctx: ctx.update == 2)
    parts = {"w": jnp.float32(0), "other": jnp.float32(7)}
    state, seen = whole.init(parts), []
    for i in range(4):
        parts, state, _ = jax.jit(whole.update)(parts, state, {}, Ctx(KEY, jnp.int32(0), jnp.int32(i)))
        seen.append(float(parts["w"]))
    assert_array_equal(seen, [-1, -3, -1, -3])
    assert parts["other"] == 7
