"""Narrow computation: what is cast and what is not, and loss scaling against steps by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Ctx, every, minimise, stateless
from jaxrl.nets import MLP, computing, in_precision, net
from jaxrl.rules.precision import loss_scaled

KEY = jax.random.key(3)
OBS = jax.ShapeDtypeStruct((4,), jnp.float32)
WIDE = net(MLP((32,), 2, norm="plain"), OBS)


def test_products_are_narrow_and_parameters_and_outputs_wide():
    narrow = in_precision(WIDE, computing("bfloat16"))
    parameters, x = narrow.init(KEY), jnp.ones((3, 4))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype("float32")}
    program = jax.jit(narrow.apply).lower(parameters, x).as_text().splitlines()
    products, sums = ([line for line in program if f"stablehlo.{op}" in line] for op in ("dot_general", "reduce("))
    assert len(products) == 2 and all("xbf16>" in line and "xf32>" not in line for line in products)
    assert sums and all("xf32>" in line for line in sums)  # LayerNorm's
    assert narrow.apply(parameters, x).dtype == jnp.float32


def test_gradients_point_where_those_of_float32_do():
    parameters, x = WIDE.init(KEY), jax.random.normal(KEY, (64, 4))
    of = lambda net: jax.grad(lambda p: (net.apply(p, x) ** 2).mean())(parameters)
    flat = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    full, narrow = flat(of(WIDE)), flat(of(in_precision(WIDE, computing("bfloat16"))))
    assert narrow.dtype == jnp.float32
    assert full @ narrow / jnp.linalg.norm(full) / jnp.linalg.norm(narrow) > 0.99
    assert_array_equal(flat(of(in_precision(WIDE, computing("float32")))), full)


def test_small_gradients_survive_float16_by_scaling_alone():
    """A slope of 1e-8 is nothing in float16, whose least number is 6e-8."""
    small = lambda live, frozen, batch, key: (
        (live["w"].astype(jnp.float16) * jnp.float16(1e-4)).astype(jnp.float32) * jnp.float32(1e-4),
        {},
    )
    rule = minimise(small, optax.sgd(1e6), "w")
    moved = lambda rule: rule.update({"w": jnp.float32(0)}, rule.init({"w": jnp.float32(0)}), {}, CTX)[0]["w"]
    assert moved(rule) == 0
    assert_allclose(moved(loss_scaled(rule)), -0.01, rtol=2e-2)


CTX = Ctx(KEY, jnp.int32(0), jnp.int32(0))


def square(live, frozen, batch, key):
    return ((live["w"] - batch["x"]) ** 2).sum(), {"w": live["w"]}


def test_a_scaled_step_is_the_step():
    rule = minimise(square, optax.adam(0.1), "w")
    parts, batch = {"w": jnp.arange(3.0)}, {"x": jnp.float32(5)}
    plain, _, found = rule.update(parts, rule.init(parts), batch, CTX)
    scaled = loss_scaled(rule)
    same, state, also = scaled.update(parts, scaled.init(parts), batch, CTX)
    assert_allclose(same["w"], plain["w"], rtol=1e-6)
    assert_allclose(also["loss"], found["loss"])
    assert also["loss_scale"] == 2**15 and also["taken"] and state[1].good == 1


def test_what_overflows_is_not_taken_and_halves_the_factor():
    scaled = loss_scaled(minimise(square, optax.adam(0.1), "w"), start=8.0, period=3)
    inputs = jnp.array([1.0, jnp.inf, 1.0, 1.0, 1.0, 1.0])

    def step(carry, x):
        parts, state, metrics = scaled.update(*carry, {"x": x}, CTX)
        return (parts, state), (parts["w"], state[0], state[1].factor, metrics["taken"])

    parts = {"w": jnp.arange(3.0)}
    _, (w, inner, factor, taken) = jax.lax.scan(step, (parts, scaled.init(parts)), inputs)
    assert_array_equal(taken, [True, False, True, True, True, True])
    assert_array_equal(factor, [8, 4, 4, 4, 8, 8])
    assert_array_equal(w[1], w[0])
    assert all((leaf[1] == leaf[0]).all() for leaf in jax.tree.leaves(inner))
    assert (w[2] != w[1]).any()


def test_scaling_reaches_through_wrappings():
    rule = loss_scaled(every(2, minimise(square, optax.sgd(0.1), "w")))
    parts = {"w": jnp.arange(3.0)}
    first = rule.update(parts, rule.init(parts), {"x": jnp.float32(5)}, CTX)[0]["w"]
    second = rule.update(parts, rule.init(parts), {"x": jnp.float32(5)}, CTX._replace(update=jnp.int32(1)))[0]["w"]
    assert_array_equal(first, parts["w"])
    assert_allclose(second, parts["w"] + 0.2 * (5 - parts["w"]), rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(BadInput, match="Did you mean 'bfloat16'"):
        computing("bfloat")
    with pytest.raises(BadInput, match="there is none in this rule"):
        loss_scaled(stateless(lambda parts, batch, ctx: ({}, {}), ()))
