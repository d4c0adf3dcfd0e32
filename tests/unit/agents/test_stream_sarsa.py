"""Stream SARSA(lambda): the next action is drawn before the update, by the weights of then, and is the one done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxrl.agents import stream_q, stream_sarsa
from jaxrl.core import Ctx, Discrete, Specs
from tests.pinned import KEY, OBS, explores, same
from tests.streams import LIMIT, STREAM, Traced, experience, follows, network, seen, started, x_of

ACTIONS = 3
SPECS = Specs(OBS, Discrete(ACTIONS), limit=LIMIT)
Q = network(ACTIONS)


@pytest.fixture(scope="module")
def agent():
    return stream_sarsa.build(SPECS, stream_sarsa.Config(**STREAM, epsilon=0.1, epsilon_frames=90))


def test_steps_follow_the_gradient_of_the_action_done(agent):
    """delta = r + gamma (1 - done) q(s', a') - q(s, a), with the action planned; traces end with episodes alone."""

    def told(parts, now):
        q, q_next = (Q.apply(parts["critic"], now[x]) for x in ("x", "x_next"))
        return now["reward"] + now["discount"] * q_next[parts["plan"]] - q[now["action"]], now["done"], {}

    assert list(agent.rules) == ["plan", "critic"]
    traced = Traced("critic", told, lambda critic, now: Q.apply(critic, now["x"])[now["action"]])
    follows(agent, started(agent, "critic"), {"critic": traced}, experience(actions=[0, 2, 1, 2, 0, 1]))
    assert agent.rules["critic"].writes == ("critic",) and agent.rules["plan"].writes == ("plan",)


def test_the_next_action_is_planned(agent):
    """Epsilon-greedily, at what the transition led to."""
    parts = started(agent, "critic")
    best = lambda batch, x: Q.apply(parts["critic"], seen(batch)[x]).argmax()
    batch = next(b for b in experience(actions=[0] * 6) if best(b, "x") != best(b, "x_next"))
    q = Q.apply(parts["critic"], seen(batch)["x_next"])
    plan = lambda key, step: agent.rules["plan"].update(parts, (), batch, Ctx(key, step))[0]["plan"]
    explores(plan, q, 0.1, 90)
    after = agent.rules["plan"].update(parts, (), batch, Ctx(KEY, jnp.int32(0)))[0]
    same({**after, "plan": parts["plan"]}, parts)


def test_it_does_what_was_planned(agent):
    """But for an episode's first step, for which nothing was; asked not to explore it does the best."""
    parts, obs = started(agent, "critic"), 2 * jax.random.normal(KEY, (12, 3))
    act = lambda plan, t, obs, key, explore: agent.act(
        {**parts, "plan": plan}, t, obs, Ctx(key, jnp.int32(30)), explore
    )
    done = jax.jit(jax.vmap(lambda plan, obs: act(plan, jnp.int32(4), obs, KEY, True)))
    plans = jnp.arange(12, dtype=jnp.int32) % ACTIONS
    action, memory, extras = done(plans, obs)
    assert_array_equal(action, plans)
    assert_array_equal(memory, np.full(12, 5))
    assert extras == {}
    q = Q.apply(parts["critic"], x_of(obs[0], 0))
    explores(lambda key, step: agent.act(parts, jnp.int32(0), obs[0], Ctx(key, step), True)[0], q, 0.1, 90)
    greedy, memory, extras = jax.jit(jax.vmap(lambda obs: act(jnp.int32(0), jnp.int32(4), obs, KEY, False)))(obs)
    best = Q.apply(parts["critic"], jnp.stack([x_of(o, 4) for o in obs])).argmax(axis=1)
    assert_array_equal(greedy, best)
    assert len(set(best.tolist())) > 1 and greedy.dtype == jnp.int32
    assert_array_equal(memory, np.full(12, 5))
    assert extras == {}


def test_a_recipe_is_one_environment_and_one_step(agent):
    recipe = stream_sarsa.recipe(SPECS, stream_sarsa.Config())
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (1, 1, 1, 0)
    assert recipe.agent.memory() == 0
    assert set(recipe.agent.shapes) == {"critic", "plan", "norm", "reward_norm"}
    assert jax.jit(agent.init)(KEY)["plan"] == 0 and stream_sarsa.Config is stream_q.Config
