"""Learners of small worlds: counts by loops, the model that they make, and acting by the plan of each step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import tabular
from jaxrl.core import BadInput, Box, Ctx, Specs, stateless
from jaxrl.sources import latest
from tests.pinned import KEY, bounded, defaults, same
from tests.small import ACTIONS, STATES, TABLE

H = 10
CTX = Ctx(KEY, jnp.int32(0))


def walk():
    """Five steps: one pair three times, an end that shows nothing, and the first step of another episode."""
    s, a, to, t = [0, 1, 0, 0, 2], [1, 2, 1, 1, 0], [1, 0, 1, None, 3], [0, 1, 2, 3, 0]
    one_hot = lambda i: np.zeros(STATES, np.float32) if i is None else np.eye(STATES, dtype=np.float32)[i]
    batch = {"obs": [one_hot(i) for i in s], "next_obs": [one_hot(i) for i in to], "action": a, "memory": t}
    batch = {name: np.asarray(x)[:, None] for name, x in batch.items()}
    return {**batch, "reward": np.array([[0.5], [1.0], [0.25], [2.0], [-1.0]], np.float32)}


def counted():
    batch = walk()
    counts = {"next": np.zeros((STATES, ACTIONS, STATES + 1)), "reward": np.zeros((STATES, ACTIONS))}
    counts["first"] = np.zeros(STATES)
    for i in range(5):
        s, a, seen = batch["obs"][i, 0].argmax(), batch["action"][i, 0], batch["next_obs"][i, 0]
        counts["next"][s, a, seen.argmax() if seen.any() else STATES] += 1
        counts["reward"][s, a] += batch["reward"][i, 0]
        counts["first"][s] += batch["memory"][i, 0] == 0
    return counts


def test_what_was_seen_is_added():
    rule = tabular.counting()
    more = jax.tree.map(lambda x: 1 + jnp.zeros(x.shape), counted())
    update = jax.jit(lambda parts: rule.update(parts, (), walk(), CTX))
    after, _, metrics = update({"counts": more, "other": 3})
    jax.tree.map(lambda a, b: assert_allclose(a, 1 + b), after["counts"], counted())
    assert after["other"] == 3 and metrics["pairs"] == 1
    none = jax.tree.map(lambda x: 0 * x, more)
    assert_allclose(update({"counts": none, "other": 3})[2]["pairs"], 3 / (STATES * ACTIONS))
    assert rule.writes == ("counts",)


def test_the_model_is_what_was_seen_on_average():
    """Chances may lack to 1 what ended; what was never met leads nowhere and earns nothing."""
    n, P, r = tabular.tables(jax.tree.map(jnp.float32, counted()))
    assert_array_equal(n, [[0, 3, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    wanted = np.zeros((STATES, ACTIONS, STATES))
    wanted[0, 1, 1], wanted[1, 2, 0], wanted[2, 0, 3] = 2 / 3, 1, 1
    assert_allclose(P, wanted, rtol=1e-6)
    assert_allclose(r, [[0, 2.75 / 3, 0], [0, 0, 1], [-1, 0, 0], [0, 0, 0]], rtol=1e-6)


def planner(epsilon=0.0):
    """Whose plan says, with so many steps to go, what state and action are."""
    made = []

    def own(world):
        made.append(world)
        return {"offset": jnp.float32(0.5)}

    def plan(world):
        def update(parts, batch, ctx):
            shift = parts["counts"]["first"].sum() + parts["offset"] + ctx.step
            q = jnp.cos(jnp.arange(H * STATES * ACTIONS) + shift)
            return {"plan": q.reshape(H, STATES, ACTIONS)}, {}

        return stateless(update, writes="plan", reads=("counts", "offset"))

    return tabular.planning("me", TABLE, tabular.Config(epsilon), own, plan), made


def test_a_plan_is_made_before_anything_is_seen_and_after_each_episode():
    recipe, made = planner()
    assert made[0] == (STATES, ACTIONS, H)
    parts = jax.jit(recipe.agent.init)(KEY)
    assert set(parts) == {"counts", "plan", "offset"}
    shapes = {"next": (STATES, ACTIONS, STATES + 1), "reward": (STATES, ACTIONS), "first": (STATES,)}
    same(parts["counts"], {name: np.zeros(shape) for name, shape in shapes.items()})
    assert_allclose(parts["plan"].ravel(), np.cos(np.arange(H * STATES * ACTIONS) + 0.5), rtol=1e-4, atol=1e-6)
    assert list(recipe.agent.observe) == ["counts", "plan"] and not recipe.agent.rules
    for rule in recipe.agent.observe.values():
        parts, _, _ = rule.update(parts, (), walk(), CTX)
    assert_allclose(parts["plan"].ravel(), np.cos(np.arange(H * STATES * ACTIONS) + 2.5), rtol=1e-4, atol=1e-5)


def test_acts_by_the_plan_of_its_step():
    """Beyond the last step by that of the last."""
    recipe, _ = planner(0.3)
    agent, parts = recipe.agent, jax.jit(recipe.agent.init)(KEY)
    for memory, step in ((0, 0), (4, 4), (9, 9), (12, 9)):
        for s in range(STATES):
            action, after, extras = agent.act(parts, jnp.int32(memory), jnp.eye(STATES)[s], CTX, False)
            assert (action, after, extras) == (parts["plan"][step, s].argmax(), memory + 1, {})
            assert action.dtype == jnp.int32
    act = lambda key, step: agent.act(parts, jnp.int32(3), jnp.eye(STATES)[1], Ctx(key, step), True)[0]
    still = lambda key, step: act(key, 0 * step)
    keys = jax.random.split(KEY, 60)
    actions = jax.vmap(lambda key: still(key, jnp.int32(0)))(keys)
    pairs = jax.vmap(jax.random.split)(keys)
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, ACTIONS, jnp.int32))(pairs[:, 1])
    chance = jax.vmap(jax.random.uniform)(pairs[:, 0]) < 0.3
    assert_array_equal(actions, np.where(chance, drawn, parts["plan"][3, 1].argmax()))
    assert 0 < chance.sum() < 60


def test_a_tick_is_an_episodes_worth_of_one_environment():
    recipe, _ = planner()
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (1, H, 0, 0)
    assert recipe.agent.memory() == 0 and recipe.agent.memory().dtype == jnp.int32
    assert recipe.source.sample.__qualname__ == latest().sample.__qualname__


def test_configuration():
    defaults(tabular.Config(), epsilon=0.0)
    bounded(tabular.Config, {}, {"epsilon": (0.0, 1.0)})
    assert tabular.world("me", TABLE) == tabular.World(STATES, ACTIONS, H)
    for specs, sentence in (
        (Specs(TABLE.observation, TABLE.action), "me plans whole episodes"),
        (Specs(jax.ShapeDtypeStruct((2, 2), jnp.float32), TABLE.action, limit=H), "me needs observations"),
        (Specs(TABLE.observation, Box((2,)), limit=H), "me chooses among discrete actions"),
    ):
        with pytest.raises(BadInput, match=sentence):
            tabular.world("me", specs)
