"""MEX with a model: the push of the members against Liu et al.'s, written out, and where its numbers come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import mbpo, mex_mb
from jaxrl.core import BadInput
from jaxrl.models.ensemble import Told
from tests.pinned import DIMS, KEY, LENGTH, bounded, near, transitions
from tests.small import config, small, specs

MEMBERS, BATCH = 3, transitions(4)
GAMMA, PUSH = 0.8, 0.2
W = np.random.default_rng(5).normal(size=(MEMBERS, LENGTH + DIMS, 2 * (1 + LENGTH))).astype(np.float32)


def look_at(trained):
    """Views of a policy and of two critics, linear in what they see; `trained` makes what they are of."""
    draw = lambda obs, key: jnp.tanh(obs[..., :DIMS]) + 0.3 * jax.random.normal(key, (*obs.shape[:-1], DIMS))
    first = lambda obs, action: obs.sum(axis=-1) + action[..., 0]
    second = lambda obs, action: 2 * obs[..., 0] - action[..., 1]
    return {
        "encode": lambda parts, obs: obs,
        "policy": lambda parts, obs, key: draw(obs, key) * trained(parts),
        "q": lambda parts, obs, action: jnp.stack([first(obs, action), second(obs, action)]) * trained(parts),
    }


LOOK = look_at(lambda parts: parts["scale"])
PARTS = {"scale": jnp.float32(1.0)}


def tell(w, obs, action):
    """Members that are linear: means and log variances of (reward, change of the observation)."""
    out = 0.3 * jnp.einsum("bi,mio->mbo", jnp.concatenate([obs, action], axis=-1), w)
    return Told(out[..., : 1 + LENGTH], out[..., 1 + LENGTH :] - 1, None)


def test_the_push_is_the_authors():
    """- c mean[log p(x | s, a) A], each number of x = (r, change) by itself; A standardised over all that is drawn.

    A = r + gamma min Q(s + change, a') - min Q(s, a), with a and a' of the policy, and neither x nor A with a gradient.
    """
    key_now, key_draw, key_next = jax.random.split(KEY, 3)
    obs = BATCH["obs"]
    action = LOOK["policy"](PARTS, obs, key_now)
    told = tell(W, obs, action)
    mean, log_var = np.asarray(told.mean), np.asarray(told.log_var)
    x = mean + np.exp(log_var / 2) * np.asarray(jax.random.normal(key_draw, mean.shape))
    ahead = obs + x[..., 1:]
    best = lambda obs, action: np.asarray(LOOK["q"](PARTS, obs, action)).min(axis=0)
    worth = np.stack([best(one, LOOK["policy"](PARTS, one, key_next)) for one in ahead])
    advantage = x[..., 0] + GAMMA * worth - best(obs, action)
    standard = (advantage - advantage.mean()) / (np.std(advantage, ddof=1) + 1e-8)

    def theirs(w):
        told = tell(w, obs, action)
        log_p = -0.5 * (x - told.mean) ** 2 / jnp.exp(told.log_var) - 0.5 * told.log_var - 0.5 * jnp.log(2 * jnp.pi)
        return -PUSH * (log_p * standard[..., None]).mean()

    bonus = mex_mb.leaning(LOOK, GAMMA, PUSH)
    ours = lambda w: bonus(PARTS, lambda obs, action: tell(w, obs, action), BATCH, KEY)
    found, wanted = (jax.jit(jax.value_and_grad(loss))(W) for loss in (ours, theirs))
    near(found, wanted)


def test_critics_and_policy_feel_nothing_of_it():
    """Where the members are held, nothing flows through the values and the draws."""
    bonus = mex_mb.leaning(LOOK, GAMMA, PUSH)
    held = lambda obs, action: jax.lax.stop_gradient(tell(W, obs, action))
    slope = jax.jit(jax.grad(lambda parts: bonus(parts, held, BATCH, KEY)))(PARTS)
    assert slope["scale"] == 0


def test_advantages_that_are_alike_push_nowhere():
    log_prob = jnp.array([[1.0, 2.0, -4.0]])
    assert mex_mb.pushed(log_prob, jnp.full((1, 3), 7.0)) == 0
    assert mex_mb.pushed(log_prob[:, :1], jnp.array([[7.0]])) == 0  # one alone has no spread
    by_hand = np.array([1, 2, -4]) @ np.array([1, 0, -1]) / 3  # 5, 3, 1 are 2 apart
    assert_allclose(mex_mb.pushed(log_prob, jnp.array([[5.0, 3.0, 1.0]])), by_hand, rtol=1e-5)
    slight = mex_mb.pushed(log_prob, 1e-8 * jnp.array([[1.0, 0.0, -1.0]]))
    assert_allclose(slight, by_hand / 2, rtol=1e-4)  # as much again is added to a spread of 1e-8
    two = mex_mb.pushed(log_prob[:, :2], jnp.array([[5.0, 3.0]]))
    assert_allclose(two, (1 - 2) / 2**0.5 / 2, rtol=1e-5)
    assert jax.grad(lambda a: mex_mb.pushed(log_prob, a))(jnp.array([[5.0, 3.0, 1.0]])).sum() == 0


def test_its_likelihood_is_the_mean_over_what_is_told():
    x, mean, log_var = np.array([1.0, -2.0]), np.array([0.5, 1.0]), np.array([0.3, -0.6])
    each = -0.5 * (x - mean) ** 2 / np.exp(log_var) - 0.5 * log_var - 0.5 * np.log(2 * np.pi)
    assert_allclose(mex_mb.log_likelihood(mean, log_var, jnp.asarray(x)), each.mean(), rtol=1e-5)


def test_the_agents_discount_and_views_and_the_weight_are_what_pushes(monkeypatch):
    given = {}
    monkeypatch.setattr(mbpo, "add", lambda recipe, specs, config, base, **more: given.update(more) or recipe)
    recipe = small("sac+mex_mb", gamma=0.7, mex_mb={"push": 0.4})
    parts = jax.jit(recipe.agent.init)(KEY)
    tells = lambda obs, action: tell(W, obs, action)
    wanted = mex_mb.leaning(recipe.agent.views, 0.7, 0.4)
    run = jax.jit(lambda parts: [fn(parts, tells, BATCH, KEY) for fn in (given["bonus"], wanted)])
    assert_allclose(*run(parts), rtol=1e-6)
    assert list(given) == ["bonus"]


def test_configuration():
    assert mex_mb.Config().push == 0.001
    assert {**vars(mex_mb.Config()), "push": 0} == {**vars(mbpo.Config()), "push": 0}
    bounded(mex_mb.Config, {"push": 0.0, "starts": 1})
    assert mex_mb.NUMBERS == {"ratio": 20}


def test_an_agent_without_critics_to_look_at_is_refused():
    with pytest.raises(BadInput, match="mex_mb looks at an agent's encode"):
        mex_mb.add(small("dqn"), specs("dqn"), mex_mb.Config(), config("dqn"))
