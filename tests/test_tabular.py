"""Tabular MDPs: tables beside hand-worked values, solvers beside one another, lives beside tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.core import BadInput
from envs.tabular import TABLE, mdp, worlds

# All of one shape, so that the solvers compile once.
TABLES = {
    "chain": worlds.chain_tables(25),
    "slippery chain": worlds.chain_tables(25, 0.2, 0.2),
    "deep sea": worlds.deep_sea_tables(5),
    "river": worlds.river_swim_tables(25),
    "low rank": worlds.low_rank_tables(25, 2, 4),
}


@jax.jit
def solved(tables):
    """v by value iteration, and by each other way to it."""
    v, q = mdp.value_iteration(tables, 0.9)
    v_policy, chosen = mdp.policy_iteration(tables, 0.9)
    evaluated = mdp.evaluate(tables, jax.nn.one_hot(chosen, q.shape[1]), 0.9)
    # 0.9^200 of what is left is below 1e-8 of the largest value.
    v_horizon, q_horizon = mdp.backward_induction(tables, 200, 0.9)
    return q, [v, v_policy, evaluated, v_horizon[0], q_horizon[0].max(axis=1)]


@pytest.mark.parametrize("name", TABLES)
def test_solvers_agree(name):
    q, ways = solved(TABLES[name])
    for v in ways:
        np.testing.assert_allclose(v, q.max(axis=1), rtol=2e-5, atol=2e-5)
    assert q.max() > 0.5


def test_values_of_the_chain_by_hand():
    v, q = mdp.value_iteration(worlds.chain_tables(3), 0.5)
    # At the end 1 for ever is worth 2, one state before 1, two before 0.5; turning back is worth 0.01 + 0.25.
    np.testing.assert_allclose(v, [0.5, 1.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(q[:, 0], [0.26, 0.26, 0.26], atol=1e-5)


def test_the_slippery_chain_is_dearden_and_others():
    tables = worlds.chain_tables(5, 0.2, 0.2)
    np.testing.assert_allclose(tables.P[2, 1], [0.2, 0, 0, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(tables.P[2, 0], [0.8, 0, 0, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(tables.r[4], [0.8 * 0.2 + 0.2, 0.8 + 0.2 * 0.2], atol=1e-6)


def test_only_n_times_right_pays_in_the_deep_sea():
    v, q = mdp.backward_induction(worlds.deep_sea_tables(5), 5)
    assert float(v[0, 0]) == pytest.approx(0.99)
    # One left turn anywhere and nothing is to be had: the best is then never to pay for right again.
    assert float(q[0, 0, 0]) == 0.0
    assert float(v[1, 5 * 1]) == 0.0


def test_the_river_is_worth_swimming_up():
    tables = worlds.river_swim_tables(6)
    assert (mdp.value_iteration(tables, 0.99)[1].argmax(axis=1) == 1).all()
    policy = jax.nn.one_hot(jnp.ones(6, jnp.int32), 2)
    # Balance between neighbours by hand: flow up = flow down across each cut.
    share = np.array([1.0, 0.6 / 0.05, *[0.0] * 4])
    for s in (2, 3, 4):
        share[s] = share[s - 1] * 0.35 / 0.05
    share[5] = share[4] * 0.35 / 0.4
    np.testing.assert_allclose(mdp.stationary(tables, policy), share / share.sum(), atol=1e-4)


def test_low_rank_tables_have_their_rank():
    tables = TABLES["low rank"]
    flat = np.concatenate([np.asarray(tables.P).reshape(50, 25), np.asarray(tables.r).reshape(50, 1)], axis=1)
    singular = np.linalg.svd(flat, compute_uv=False)
    assert singular[3] > 1e-3
    assert singular[4] < 1e-5


def test_lives_follow_the_tables():
    tables = TABLES["low rank"]
    env = mdp.environment(tables, 10_000)

    def step(state, key):
        s = state["inner"]["s"]
        action = jax.random.randint(key, (), 0, 2)
        state, out = env.step(state, action)
        return state, (s, action, out.obs.argmax(), out.reward, out.obs.sum())

    state, _ = jax.jit(env.reset)(jax.random.key(0))
    run = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 8000))[1])
    s, a, after, reward, shown = (np.asarray(x) for x in run(state))
    np.testing.assert_array_equal(reward, np.asarray(tables.r)[s, a])
    assert (shown == 1).all()
    # Expected next-state counts given the (s, a) met: each a sum of independent draws, so 6 standard deviations bind.
    P = np.asarray(tables.P)[s, a]
    seen = np.bincount(after, minlength=25)
    assert (np.abs(seen - P.sum(axis=0)) < 6 * np.sqrt((P * (1 - P)).sum(axis=0)) + 1).all()


def test_the_sea_ends_at_its_floor():
    env = worlds.deep_sea(3)
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    rewards = []
    for n in range(3):
        state, out = step(state, jnp.int32(1))
        rewards.append(float(out.reward))
        assert bool(out.terminated) == (n == 2)
        assert not bool(out.truncated)
    assert sum(rewards) == pytest.approx(0.99)


@pytest.mark.parametrize("id", TABLE)
def test_tabular_tasks_pass_the_check(id):
    entry = TABLE[id]
    found = envs.check_env(envs.make(entry.target, **entry.settings), steps=0)
    assert found == []


def test_tables_that_do_not_fit_are_refused():
    tables = TABLES["chain"]
    with pytest.raises(BadInput, match="no distribution"):
        mdp.environment(tables._replace(P=2 * tables.P), 10)
    with pytest.raises(BadInput, match="do not fit"):
        mdp.environment(tables._replace(start=tables.start[:2]), 10)
    with pytest.raises(BadInput, match="n of deep_sea is 1"):
        worlds.deep_sea(1)
