"""Backward induction against loops over states, and the bonus of optimism."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from jaxrl.equations import tabular
from tests.pinned import taking_numpy

hoeffding_bonus = tabular.hoeffding_bonus
planned = taking_numpy(tabular.planned)
soft_best = tabular.soft_best

RNG = np.random.default_rng(5)
P = RNG.dirichlet(np.ones(4), (3, 2))[..., :3].astype(np.float32)  # the fourth share ends the episode
R = RNG.normal(size=(3, 2)).astype(np.float32)


def induction(horizon, most=None, best=lambda q: max(q)):
    """What actions are worth, the most steps to go first, state by state and action by action."""
    v, found = np.zeros(3), []
    for h in reversed(range(horizon)):
        q = np.zeros((3, 2))
        for state in range(3):
            for action in range(2):
                q[state, action] = R[state, action] + sum(P[state, action, after] * v[after] for after in range(3))
                if most is not None:
                    q[state, action] = min(q[state, action], most[h])
        v = np.array([best(row) for row in q])
        found.insert(0, q)
    return np.stack(found)


def test_values_are_those_of_backward_induction():
    assert_allclose(planned(P, R, 4), induction(4), rtol=1e-5)


def test_no_value_is_above_its_bound():
    most = np.array([0.4, 0.3, 0.2], np.float32)
    assert_allclose(planned(P, R, 3, most), induction(3, most), rtol=1e-5)
    assert_allclose(planned(P, R, 3, 0.1), induction(3, [0.1] * 3), rtol=1e-5)


def test_a_soft_best_weighs_each_action_by_its_own_worth():
    def soft(row, temperature=0.5):
        weight = np.exp(row / temperature)
        return (weight / weight.sum() * row).sum()

    assert_allclose(planned(P, R, 4, best=soft_best(0.5)), induction(4, best=soft), rtol=1e-5)
    slope = jax.grad(lambda q: soft_best(0.5)(q)[0])(jnp.array(R))
    assert (slope[0] != 0).all() and (slope[1:] == 0).all()


def test_the_bonus_falls_with_the_root_of_visits():
    n = jnp.array([0.0, 1.0, 4.0, 100.0])
    assert_allclose(hoeffding_bonus(n, 5, 2.0), 7 * 5 * 2 / np.sqrt([1, 1, 4, 100]), rtol=1e-6)
    assert_allclose(hoeffding_bonus(n, 5, 2.0, 0.1), 0.1 * 5 * 2 / np.sqrt([1, 1, 4, 100]), rtol=1e-6)
