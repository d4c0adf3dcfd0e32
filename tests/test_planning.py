"""Planners: known optima, an LQR, scores that are no number, noise, and candidates of a policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from envs.core import scale_action
from jaxrl.agents import pets
from jaxrl.core import BadInput
from jaxrl.loop import loop
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Step
from jaxrl.planning import cem, guided, icem, looked_ahead, mppi, random_shooting, td_mppi
from jaxrl.planning.search import Size, begun, coloured, shifted, weights, within_reach

KEY = jax.random.key(8)
near = lambda target: lambda key, actions: -((actions - target) ** 2).sum(axis=(1, 2))
ALL = {
    "cem": cem(3, 2, 100, 4),
    "icem": icem(3, 2, 60, 4, 10),
    "mppi": mppi(3, 2, 200, 4, heat=20.0),
    "td_mppi": td_mppi(3, 2, 128, 4, 16),
    "random": random_shooting(3, 2, 400),
}


def test_cem_finds_the_optimum_of_a_quadratic():
    search = cem(1, 1)
    plan = jax.jit(jax.vmap(lambda key: search.plan(key, near(0.3), search.fresh)))(jax.random.split(KEY, 20))
    assert jnp.abs(plan.action - 0.3).max() < 1e-3
    assert_allclose(within_reach(jnp.float32(0.9), jnp.float32(0.25)), 0.0025, rtol=1e-5)
    assert_allclose(within_reach(jnp.float32(0.0), jnp.float32(0.1)), 0.1)


@pytest.mark.parametrize("name", ALL)
def test_every_search_goes_uphill_and_is_the_same_side_by_side(name):
    search = ALL[name]
    plan = jax.jit(lambda key: search.plan(key, near(0.4), search.fresh, False))
    found = plan(KEY)
    start = float(near(0.4)(KEY, jnp.zeros((1, 3, 2)))[0])
    assert near(0.4)(KEY, found.mean[None])[0] > start / 2
    assert jnp.abs(found.action).max() <= 1 and found.unsound == 0
    beside = jax.jit(jax.vmap(lambda key: search.plan(key, near(0.4), search.fresh, False)))(KEY[None])
    for alone, one in zip(jax.tree.leaves(found), jax.tree.leaves(beside)):
        assert_allclose(one[0], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_what_scores_no_number_never_wins(name):
    search = ALL[name]
    spoilt = lambda key, x: jnp.where(x[:, 0, 0] > 0.0, jnp.nan, near(0.4)(key, x) - 5)  # the better half
    found = jax.jit(lambda key: search.plan(key, spoilt, search.fresh, False))(KEY)
    assert jnp.isfinite(found.action).all() and found.action[0] <= 0
    assert found.unsound > 0
    lost = jax.jit(lambda key: search.plan(key, lambda key, x: jnp.nan * x[:, 0, 0], search.fresh, False))(KEY)
    assert jnp.isfinite(lost.action).all()


def test_the_weights_of_td_mpc2_and_the_floor_of_its_spread():
    assert_allclose(weights(jnp.array([0.0, 2 * np.log(2)]), 0.5), [1 / 3, 2 / 3], rtol=1e-6)
    assert_allclose(weights(jnp.zeros(4), 0.5), 0.25)
    search = td_mppi(1, 1, 64, 40, 4)
    found = jax.jit(lambda key: search.plan(key, near(0.2), search.fresh, True))(KEY)
    assert_allclose(found.mean, 0.2, atol=0.05)
    assert 0.0 < abs(float(found.action[0]) - float(found.mean[0, 0])) < 0.3  # noise of at least 0.05 explores
    proposals = jnp.full((1, 1, 1), 0.77)
    only = lambda key, x: jnp.where(x[:, 0, 0] == jnp.float32(0.77), 0.0, -1e3)
    chosen = jax.jit(lambda key: search.plan(key, only, search.fresh, False, proposals))(KEY)
    assert_allclose(chosen.action, 0.77)


def test_cem_is_near_the_lqr_of_a_double_integrator():
    def step(state, action):
        x, v = state
        cost = x**2 + 0.1 * v**2 + 0.01 * action[0] ** 2
        return (x + 0.1 * v, v + 0.1 * action[0]), cost

    def cost(state, actions):
        last, costs = jax.lax.scan(step, state, actions)
        return costs.sum() + last[0] ** 2 + 0.1 * last[1] ** 2

    search = cem(20, 1)

    def live(carry, key):
        state, plan = carry
        score = lambda key, actions: -jax.vmap(lambda a: cost(state, a))(actions)
        plan = search.plan(key, score, plan)
        state, spent = step(state, plan.action)
        return (state, plan), spent

    start = ((jnp.float32(0.1), jnp.float32(0.0)), search.fresh)
    _, spent = jax.jit(lambda key: jax.lax.scan(live, start, jax.random.split(key, 60)))(KEY)
    assert spent.sum() < 1.08 * 0.06546


def test_a_plan_goes_on_one_step_later():
    sequence = jnp.arange(6.0).reshape(3, 2)
    assert_array_equal(shifted(sequence), [[2, 3], [4, 5], [0, 0]])
    assert begun(Size(3, 2, 10, 1, 5), 4).kept.shape == (4, 3, 2)
    # What was kept of the last step wins again where the population has nothing as good.
    search = icem(3, 2, 30, 1, 5, keep=1.0)
    sharp = lambda key, x: jnp.where(jnp.abs(x - 0.9).max(axis=(1, 2)) < 1e-6, 1.0, -1.0)
    kept = jnp.full((5, 3, 2), 0.9)
    last = search.fresh._replace(kept=kept)
    both = lambda key, x: jnp.where(jnp.abs(x[:, :-1] - 0.9).max(axis=(1, 2)) < 1e-6, 1.0, -1.0)
    assert_allclose(jax.jit(lambda key: search.plan(key, both, last))(KEY).action, 0.9)
    assert jax.jit(lambda key: search.plan(key, sharp, search.fresh))(KEY).score == -1


@pytest.mark.parametrize(("horizon", "beta"), [(1, 2.0), (2, 2.0), (7, 0.0), (30, 2.0)])
def test_coloured_noise_has_variance_one_and_memory(horizon, beta):
    x = np.asarray(jax.jit(lambda key: coloured(key, (4_000, horizon, 2), beta))(KEY))
    assert x.shape == (4_000, horizon, 2)
    assert_allclose(x.std(axis=0), 1, atol=0.06)
    if horizon > 2:
        following = (x[:, 1:] * x[:, :-1]).mean()
        assert following > 0.8 if beta else abs(following) < 0.05


# ------------------------------------------------------------------------------------------- candidates of a policy


def two_arms(weight):
    """The chosen arm where an action above 0 earns 1 with a doubt of 1, and one below earns 0.5 without."""
    policy = lambda key, obs: jnp.sign(jax.random.normal(key, (obs.shape[0], 1)))
    gain = lambda key, obs, action: (obs, jnp.where(action[:, 0] > 0, 1.0, 0.5), (action[:, 0] > 0).astype(jnp.float32))
    return guided(KEY, jnp.zeros((50, 1)), policy, gain, weight, candidates=24, horizon=1)[:, 0]


def test_doubt_is_sought_or_avoided_by_its_sign():
    assert_array_equal(two_arms(-2.0), -1)
    assert_array_equal(two_arms(1.0), 1)
    assert_array_equal(two_arms(-0.4), 1)


def test_one_candidate_is_the_policy_and_further_steps_are_discounted():
    policy = lambda key, obs: jax.random.normal(key, (obs.shape[0], 1))
    survey = lambda key, obs, action: (obs, action[:, 0], jnp.zeros(obs.shape[0]))
    obs = jnp.zeros((6, 1))
    assert_array_equal(guided(KEY, obs, policy, survey, 1.0, candidates=1), policy(KEY, obs))
    ones = lambda key, obs, action: (obs, jnp.ones(obs.shape[0]), 2 * jnp.ones(obs.shape[0]))
    gained, doubted = looked_ahead(KEY, obs, policy(KEY, obs), policy, ones, 5, 0.97)
    assert_allclose(gained, 4.7089, rtol=1e-4)
    assert_allclose(doubted, 2 * 4.7089, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: cem(0, 1), "horizon is 0"),
        (lambda: icem(3, 1, 10, elites=20), "elites is 20, more than the 10 sequences"),
        (lambda: td_mppi(3, 1, turns=0), "turns is 0"),
    ],
)
def test_bad_sizes_are_named(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


def test_a_sequence_is_worth_what_its_particles_earn_up_to_an_end():
    """A model in which the reward is the action, and the task ends where the state, the sum of actions, is above 1."""

    def step(part, obs, action, key):
        after = obs + action
        return Step(after, action[:, 0], (after[:, 0] <= 1).astype(jnp.float32))

    model = ensemble.Model(*(5 * (None,)))._replace(step=step)
    score = pets.expected(model, None, jnp.zeros(1), particles=3)
    actions = jnp.array([[0.5, 0.25, 0.25, 0.5], [0.75, 0.75, 0.75, 0.75], [-1.0, -1.0, -1.0, -1.0]])[..., None]
    assert_allclose(score(KEY, actions), [1.5, 1.5, -4.0])


def test_pets_plans_with_what_it_fitted_and_sets_out_from_its_last_plan():
    env = scale_action(envs.make("pendulum"))
    model = ensemble.Config(2, 2, widths=(8,), batch=8, passes=2)
    config = pets.Config(horizon=3, population=6, turns=2, particles=2, period=8, warmup=16, capacity=64, model=model)
    one = loop(env, pets.recipe(env.specs, config))
    run, metrics = jax.jit(lambda run: one.chunk(run, 24))(one.init(KEY))
    assert jnp.isfinite(metrics["model/error"])
    assert run.memory.mean.shape == (1, 3, 1) and bool((run.memory.mean != 0).any())
    with pytest.raises(BadInput, match="unknown search 'cemm'"):
        pets.Config(search="cemm")
    with pytest.raises(BadInput, match="horizon is 0"):
        pets.Config(horizon=0)
