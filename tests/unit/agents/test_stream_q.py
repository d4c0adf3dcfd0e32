"""Stream Q(lambda): greedy targets, traces that end at other actions, and exploration that falls, by the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxrl.agents import stream_q
from jaxrl.core import Ctx, Discrete, Specs
from tests.pinned import KEY, OBS, bounded, defaults, explores
from tests.streams import LIMIT, STREAM, Traced, experience, follows, network, started, x_of

ACTIONS = 3
SPECS = Specs(OBS, Discrete(ACTIONS), limit=LIMIT)
Q = network(ACTIONS)


@pytest.fixture(scope="module")
def agent():
    return stream_q.build(SPECS, stream_q.Config(**STREAM, epsilon=0.1, epsilon_frames=90))


def test_steps_follow_the_gradient_of_the_action_done(agent):
    """delta = r + gamma (1 - done) max_a q(s', a) - q(s, a); the trace ends where the action was not the best."""

    def told(parts, now):
        q = Q.apply(parts["critic"], now["x"])[now["action"]]
        target = now["reward"] + now["discount"] * Q.apply(parts["critic"], now["x_next"]).max()
        return target - q, now["done"] or now["extras"]["explored"], {}

    batches = experience(actions=[0, 2, 1, 2, 0, 1])
    for i, batch in enumerate(batches):
        batch["extras"] = {"explored": np.array([i in (0, 4)])}  # one amid an episode, one at its end
    traced = Traced("critic", told, lambda critic, now: Q.apply(critic, now["x"])[now["action"]])
    follows(agent, started(agent, "critic"), {"critic": traced}, batches)
    assert agent.rules["critic"].writes == ("critic",)


def test_explores_less_and_less_and_tells_where_it_did(agent):
    """An action drawn by chance that is the best one counts as the best."""
    parts, obs = started(agent, "critic"), jnp.array([0.3, -1.0, 2.0])
    q = Q.apply(parts["critic"], x_of(obs, 6))
    explores(lambda key, step: agent.act(parts, jnp.int32(6), obs, Ctx(key, step), True)[0], q, 0.1, 90)
    keys = jax.random.split(KEY, 30)
    act = lambda key: agent.act(parts, jnp.int32(6), obs, Ctx(key, jnp.int32(30)), True)
    action, memory, extras = jax.jit(jax.vmap(act))(keys)
    assert_array_equal(extras["explored"], action != q.argmax())
    assert 0 < extras["explored"].sum() < 30
    assert_array_equal(memory, np.full(30, 7))
    greedy = jax.jit(jax.vmap(lambda key: agent.act(parts, jnp.int32(6), obs, Ctx(key, jnp.int32(0)), False)[0]))
    assert_array_equal(greedy(keys), np.full(30, q.argmax()))


def test_a_recipe_is_one_environment_and_one_step():
    recipe = stream_q.recipe(SPECS, stream_q.Config())
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (1, 1, 1, 0)
    assert recipe.agent.memory() == 0
    assert set(recipe.agent.shapes) == {"critic", "norm", "reward_norm"}


def test_configuration():
    defaults(
        stream_q.Config(), width=32, lr=1.0, kappa=2.0, gamma=0.99, lambda_=0.8, sparsity=0.9, bound=True,
        normalise=True, layer_norm=True, bootstrap_truncated=False, epsilon=0.01, epsilon_frames=20_000,
    )  # fmt: skip
    bounded(stream_q.Config, {"epsilon_frames": 1, "width": 1}, {"epsilon": (0.0, 1.0)})
