"""Loss scaling: the same step whatever the factor, none after an overflow, and when the factor changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Ctx, minimise, stateless
from jaxrl.rules.precision import LossScale, loss_scaled

CTX = Ctx(jax.random.key(0), jnp.int32(0))
PARTS = {"w": jnp.float32([1, -2]), "b": jnp.float32(3)}


def loss(live, frozen, batch, key):
    value = batch["x"] * (live["w"] ** 2).sum() * frozen["b"]
    return value, {"seen": value}


@pytest.fixture(scope="module")
def rule():
    return loss_scaled(minimise(loss, optax.sgd(0.1, momentum=0.5), "w", reads="b"), start=8.0, period=2)


@pytest.fixture(scope="module")
def update(rule):
    return jax.jit(lambda parts, state, x: rule.update(parts, state, {"x": x}, CTX))


def test_what_is_scaled_is_put_back_before_the_step(rule, update):
    plain = minimise(loss, optax.sgd(0.1, momentum=0.5), "w", reads="b")
    one, other = (PARTS, plain.init(PARTS)), (PARTS, rule.init(PARTS))
    for x in (0.3, -0.2, 0.1):
        one = plain.update(*one, {"x": jnp.float32(x)}, CTX)
        other = update(*other, jnp.float32(x))
        assert_allclose(other[0]["w"], one[0]["w"], rtol=1e-6)
        assert_allclose(other[2]["loss"], one[2]["loss"], rtol=1e-6)
        assert other[2]["taken"]
        one, other = one[:2], other[:2]
    assert rule.reads == plain.reads and rule.writes == plain.writes == ("w",)


def test_the_network_sees_the_loss_times_the_factor(rule):
    """A gradient that float32 loses below 1e-38 is still there when lifted by 2^15."""
    faint = lambda live, frozen, batch, key: ((live["w"] * 1e-30 * batch["x"]).sum(), {})
    lift = loss_scaled(minimise(faint, optax.sgd(1e30), "w"), start=2.0**40)
    found = lift.update(PARTS, lift.init(PARTS), {"x": jnp.float32(1e-15)}, CTX)[0]["w"]
    assert_allclose(found, np.array([1, -2]) - 1e-15, rtol=1e-6)


def test_a_step_that_overflows_is_not_taken_and_halves_the_factor(rule, update):
    parts, state, _ = update(PARTS, rule.init(PARTS), jnp.float32(0.3))
    assert (state[1].factor, state[1].good) == (8, 1)
    for x in (jnp.inf, jnp.nan):
        after, new, metrics = update(parts, state, jnp.float32(x))
        assert_array_equal(after["w"], parts["w"])
        assert jax.tree.all(jax.tree.map(jnp.array_equal, new[0], state[0]))
        assert (new[1].factor, new[1].good) == (4, 0)
        assert not metrics["taken"] and metrics["loss_scale"] == 8


def test_steps_in_a_row_double_it(rule, update):
    parts, state, factors = PARTS, rule.init(PARTS), []
    for x in (0.1, 0.1, 0.1, jnp.inf, 0.1, 0.1, 0.1):
        parts, state, _ = update(parts, state, jnp.float32(x))
        factors.append((float(state[1].factor), int(state[1].good)))
    assert factors == [(8, 1), (16, 0), (16, 1), (8, 0), (8, 1), (16, 0), (16, 1)]


def test_it_starts_at_2_to_the_15_and_waits_2000_steps_where_nobody_says(rule):
    usual = loss_scaled(minimise(loss, optax.sgd(0.1), "w", reads="b"))
    inner, scale = usual.init(PARTS)
    assert (scale.factor, scale.good) == (2**15, 0)
    step = jax.jit(lambda good: usual.update(PARTS, (inner, LossScale(scale.factor, good)), {"x": 0.1}, CTX)[1][1])
    assert (step(jnp.int32(1998)).factor, step(jnp.int32(1999)).factor) == (2**15, 2**16)


def test_moments_that_overflow_are_no_step_either():
    """The parameters stay finite where a clip is in front, and a state of integers is no matter."""
    rule = loss_scaled(minimise(loss, optax.adam(0.1), "w", reads="b"), start=1.0)
    after, state, metrics = rule.update(PARTS, rule.init(PARTS), {"x": jnp.float32(1e30)}, CTX)
    assert not metrics["taken"]
    assert_array_equal(after["w"], PARTS["w"])
    assert state[1].factor == 0.5


def test_what_descends_nothing_is_refused():
    with pytest.raises(BadInput, match="minimise"):
        loss_scaled(stateless(lambda parts, batch, ctx: ({}, {}), "w"))
