"""Learners of small worlds: plans against the exact solver, what they count, and that optimists find what is far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from envs.probes import drifting_series
from envs.tabular.mdp import backward_induction
from envs.tabular.worlds import deep_sea_tables, river_swim_tables
from jaxrl.agents import mex_tabular, tabular, ucbvi
from jaxrl.core import BadInput
from jaxrl.equations.tabular import hoeffding_bonus, planned, soft_best
from jaxrl.loop import loop

KEY = jax.random.key(15)


@pytest.mark.parametrize("tables", [river_swim_tables(), deep_sea_tables(4)], ids=["river", "sea"])
def test_a_plan_is_the_exact_one(tables):
    q = jax.jit(planned, static_argnums=2)(tables.P, tables.r, 4)
    assert_allclose(q, backward_induction(tables, 4)[1], atol=1e-6)


def test_an_optimist_believes_in_no_more_than_there_can_be():
    P, r = jnp.ones((1, 2, 1)), jnp.array([[5.0, 0.0]])
    q = planned(P, r, 3, most=jnp.array([3.0, 2.0, 1.0]))
    assert_allclose(q[:, 0], [[3, 2], [2, 1], [1, 0]])


def test_a_soft_best_is_near_the_best_and_has_a_gradient_for_the_others():
    q = jnp.array([[1.0, 0.5]])
    assert_allclose(soft_best(1e-3)(q), [1.0])
    assert_allclose(soft_best(1e9)(q), [0.75])
    assert jax.grad(lambda q: soft_best(0.5)(q).sum())(q)[0, 1] != 0


def test_the_bonus_is_azars():
    assert_allclose(hoeffding_bonus(jnp.array([4.0, 0.0]), 10, 2.0), [7 * 10 * 2 / 2, 7 * 10 * 2])


def run(name, config, module, episodes):
    """The state of a run and the returns of its episodes."""
    env = envs.make(name)
    one = loop(env, module.recipe(env.specs, config))
    tick = jax.jit(lambda run: jax.lax.scan(lambda run, _: one.chunk(run, 1), run, None, length=episodes))
    state, metrics = tick(one.init(KEY))
    return state, np.asarray(metrics["episode/return"])


def test_what_was_seen_is_counted():
    state, _ = run("tabular-deep-sea", ucbvi.Config(), ucbvi, 7)
    counts = state.parts["counts"]
    assert counts["next"].sum() == 70 and counts["next"][..., -1].sum() == 7  # each episode has one end
    assert_array_equal(counts["first"], 7.0 * (jnp.arange(100) == 0))
    n, P, r = tabular.tables(counts)
    truth = deep_sea_tables()
    assert_allclose(jnp.where(n[..., None] > 0, P - truth.P, 0), 0, atol=1e-6)
    assert_allclose(jnp.where(n > 0, r - truth.r, 0), 0, atol=1e-6)


def test_optimists_find_the_treasure_and_chance_does_not():
    found = {
        "mex": run("tabular-deep-sea", mex_tabular.Config(), mex_tabular, 150)[1],
        "ucbvi": run("tabular-deep-sea", ucbvi.Config(scale=0.001), ucbvi, 150)[1],
        "chance": run("tabular-deep-sea", ucbvi.Config(scale=0.0, epsilon=0.1), ucbvi, 150)[1],
    }
    assert found["mex"][-50:].mean() > 0.9 and found["ucbvi"][-50:].mean() > 0.9
    assert found["chance"].max() < 0.5


def test_a_hypothesis_that_fits_is_found_where_value_does_not_count():
    counts = {
        "next": jnp.array([[[6.0, 2.0, 0.0]], [[0.0, 0.0, 4.0]]]),
        "reward": jnp.array([[4.0], [1.0]]),
        "first": jnp.array([1.0, 0.0]),
    }
    truth = {"next": jnp.log(jnp.array([[[0.75, 0.25, 1e-9]], [[1e-9, 1e-9, 1.0]]])), "reward": jnp.zeros((2, 1))}
    least = mex_tabular.misfit(truth, counts, 1.0)
    assert_allclose(least, -(6 * np.log(0.75) + 2 * np.log(0.25)) + 4 * (0.5 - 0.25) ** 2, rtol=1e-5)
    assert mex_tabular.misfit({**truth, "next": jnp.zeros((2, 1, 3))}, counts, 1.0) > least


def test_a_world_without_an_end_is_refused():
    with pytest.raises(BadInput, match="ucbvi plans whole episodes"):
        ucbvi.recipe(drifting_series(limit=None).specs, ucbvi.Config())
    with pytest.raises(BadInput, match="epsilon is 2"):
        mex_tabular.Config(epsilon=2)
