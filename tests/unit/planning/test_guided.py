"""Candidates of a policy against a loop over rows and candidates in NumPy."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.planning import guided, looked_ahead

KEY = jax.random.key(5)
OBS = jnp.float32(np.random.default_rng(0).normal(size=(4, 2)))


def policy(key, obs):
    return jnp.tanh(obs + jax.random.normal(key, obs.shape))


def survey(key, obs, action):
    """A model whose every number depends on its key, and one of whose rewards is none."""
    after = 0.9 * obs + action + 0.1 * jax.random.normal(key, obs.shape)
    reward = jnp.where(after[:, 0] > 2.2, jnp.nan, -(after**2).sum(axis=1))
    return after, reward, jnp.abs(after[:, 1])


def ahead(key, obs, action, horizon, gamma):
    """Discounted sums of reward and doubt, a step at a time."""
    gained = doubted = np.zeros(len(obs))
    for i in range(horizon):
        key_survey, key_policy = jax.random.split(jax.random.fold_in(key, i))
        obs, reward, doubt = survey(key_survey, obs, action)
        action = policy(key_policy, obs)
        gained, doubted = gained + gamma**i * np.asarray(reward), doubted + gamma**i * np.asarray(doubt)
    return gained, doubted


@pytest.mark.parametrize("horizon, gamma", [(1, 0.5), (3, 0.9)])
def test_what_follows_an_action_is_summed_and_discounted(horizon, gamma):
    found = looked_ahead(KEY, OBS, policy(KEY, OBS), policy, survey, horizon, gamma)
    for one, expected in zip(found, ahead(KEY, OBS, policy(KEY, OBS), horizon, gamma)):
        assert_allclose(one, expected, rtol=1e-4)


@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_each_row_has_its_best_candidate(weight):
    keys = [KEY, *jax.random.split(jax.random.fold_in(KEY, 0), 4)]
    first = np.stack([policy(key, OBS) for key in keys])
    tiled = jnp.tile(OBS, (5, 1))
    gained, doubted = ahead(jax.random.fold_in(KEY, 1), tiled, jnp.array(first.reshape(-1, 2)), 2, 0.8)
    total = (gained + weight * doubted).reshape(5, 4)
    assert np.isnan(total).any()
    best = np.nanargmax(total, axis=0)
    assert len(set(best)) > 1
    found = guided(KEY, OBS, policy, survey, weight, 5, 2, 0.8)
    assert_allclose(found, first[best, np.arange(4)], rtol=1e-5)


def test_the_policys_own_action_is_among_them():
    """Where all are worth the same, it is what is done."""
    alike = lambda key, obs, action: (obs, jnp.zeros(len(obs)), jnp.zeros(len(obs)))
    assert_array_equal(guided(KEY, OBS, policy, alike, 1.0), policy(KEY, OBS))
    assert_array_equal(guided(KEY, OBS, policy, survey, 1.0, candidates=1), policy(KEY, OBS))


def test_settings_are_the_papers_where_nobody_says():
    given = inspect.signature(guided).parameters
    assert [given[name].default for name in ("candidates", "horizon", "gamma")] == [5, 5, 0.97]
