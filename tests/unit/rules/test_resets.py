"""Resets: when they are due, what begins anew, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Ctx, Rule, fold
from jaxrl.rules.resets import BEGUN, dense, forgetting, mixed, passing, project, restarting, shrink_and_perturb

KEY = jax.random.key(3)
PARTS = {"a": jnp.float32([1, 2]), "b": jnp.float32(5)}


def counting() -> Rule:
    """Adds 1 to 'a', and counts its updates."""
    update = lambda parts, state, batch, ctx: ({**parts, "a": parts["a"] + 1}, state + 1, {})
    return Rule(lambda parts: jnp.sum(parts["a"]), update, ("a",), ("a",))


def init(key):
    return {"a": jax.random.normal(key, (2,)), "b": jax.random.normal(key)}


def ctx(step=0, turn=0):
    return Ctx(KEY, jnp.int32(step), turn=jnp.int32(turn))


def due(ctx):
    return ctx.step == 7


def test_a_restart_makes_what_the_rule_writes_anew_and_its_state():
    rule = restarting(counting(), init, due)
    assert rule.reads == rule.writes == ("a",)
    parts, state, _ = rule.update(PARTS, jnp.float32(9), {}, ctx(6))
    assert_array_equal(parts["a"], [2, 3])
    assert state == 10 and parts["b"] == 5
    parts, state, _ = rule.update(PARTS, jnp.float32(9), {}, ctx(7))
    new = init(fold(KEY, BEGUN))["a"]
    assert_allclose(parts["a"], new + 1)
    assert_allclose(state, new.sum() + 1, rtol=1e-6)
    assert parts["b"] == 5


def test_restarts_draw_from_a_stream_that_no_rule_within_folds_in():
    """Rules within draw from the call's key folded with small numbers and with numbers of samples."""
    assert BEGUN >= 1 << 20


def test_to_forget_is_to_begin_the_state_anew_alone():
    rule = forgetting(counting(), due)
    parts, state, _ = rule.update(PARTS, jnp.float32(9), {}, ctx(7))
    assert_array_equal(parts["a"], [2, 3])
    assert state == 3 + 1
    assert rule.update(PARTS, jnp.float32(9), {}, ctx(8))[1] == 10
    assert (rule.reads, rule.writes, rule.init(PARTS)) == (("a",), ("a",), 3)
    wrapping, within = rule.around
    assert within.writes == ("a",) and wrapping(within).update(PARTS, jnp.float32(9), {}, ctx(7))[1] == 4


@pytest.mark.parametrize(
    "step, turn, expected",
    [(0, 0, False), (90, 0, False), (96, 0, False), (100, 0, True), (104, 0, True), (104, 1, False), (107, 0, True),
     (108, 0, False), (196, 0, False), (200, 0, True), (2000, 0, True)],
)  # fmt: skip
def test_a_multiple_of_the_period_is_passed_once_a_tick(step, turn, expected):
    """A period of 100 frames in ticks of 8: at 100 the clock has just passed it, at 104 in the tick before."""
    assert passing(100, 8)(ctx(step, turn)) == expected


def test_what_is_mixed_keeps_its_share():
    assert_allclose(mixed(PARTS["a"], jnp.float32([3, -2]), 0.75), [1.5, 1])
    assert_allclose(mixed(PARTS["a"], jnp.float32([3, -2]), 1.0), PARTS["a"])
    rule = shrink_and_perturb("a", init, 0.75)
    parts = rule.update(PARTS, rule.init(PARTS), {}, ctx())[0]
    assert_allclose(parts["a"], 0.75 * PARTS["a"] + 0.25 * init(KEY)["a"], rtol=1e-6)
    assert parts["b"] == 5 and rule.writes == ("a",)
    usual = shrink_and_perturb("a", init).update(PARTS, (), {}, ctx())[0]["a"]
    assert_allclose(usual, 0.8 * PARTS["a"] + 0.2 * init(KEY)["a"], rtol=1e-6)


def test_dense_layers_are_those_with_kernels():
    """What has no kernel beside it stays as it is in the first tree."""
    one = {"layer": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}, "norm": {"scale": np.ones(2)}, "free": np.ones(1)}
    other = jax.tree.map(lambda x: 3 * x, one)
    found = dense(lambda a, b: a - b, one, other)
    assert_array_equal(found["layer"]["kernel"], -2 * np.ones((2, 2)))
    assert_array_equal(found["layer"]["bias"], [-2, -2])
    assert_array_equal(found["norm"]["scale"], [1, 1])
    assert_array_equal(found["free"], [1])


def test_a_part_is_put_back_where_it_belongs():
    rule = project("a", lambda x: x / jnp.linalg.norm(x))
    parts = rule.update(PARTS, (), {}, ctx())[0]
    assert_allclose(parts["a"], np.array([1, 2]) / np.sqrt(5), rtol=1e-6)
    assert parts["b"] == 5 and rule.writes == ("a",)
