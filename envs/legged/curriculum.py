"""A terrain curriculum: new episodes begin at the levels to which recent ones were promoted.

An environment knows nothing of the episodes before it. What they showed is a part of the agent, kept by an observe
rule, from which the bank of starts is drawn:

    agent = levels(agent)
    Recipe(agent, ..., starts=graded(env, 256))

In Rudin et al. (2022) each robot keeps a level of its own; here levels are a distribution that all robots share.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from envs.legged.terrain import LEVELS
from jaxrl.core import Agent, Env, Key, Parts, PyTree, fold, stateless


def levels(agent: Agent, rate: float = 0.1) -> Agent:
    """The agent with a part `levels`, float32 [LEVELS], the share of new episodes at each: at first all at the lowest.

    Args:
        rate: how far one tick's ended episodes move it.
    """

    def init(key: Key) -> Parts:
        return {**agent.init(key), "levels": jnp.zeros(LEVELS).at[0].set(1.0)}

    def follow(parts, batch, ctx):
        ended = batch["end"].astype(jnp.float32)
        counts = (jax.nn.one_hot(batch["info"]["promoted"], LEVELS) * ended[..., None]).sum(axis=(0, 1))
        share = counts / jnp.maximum(counts.sum(), 1.0)
        moved = parts["levels"] + rate * jnp.where(counts.sum() > 0, share - parts["levels"], 0.0)
        return {"levels": moved}, {"level": moved @ jnp.arange(LEVELS, dtype=jnp.float32)}

    rule = stateless(follow, writes="levels", reads="levels")
    return replace(agent, init=init, observe={**agent.observe, "levels": rule})


def graded(env: Env, size: int) -> Callable[[Parts, Key], PyTree]:
    """A bank of `size` starts at levels drawn from the part `levels`, for `Recipe.starts`."""

    def starts(parts: Parts, key: Key) -> PyTree:
        states, out = jax.vmap(env.reset)(jax.random.split(key, size))
        level = jax.random.categorical(fold(key, size), jnp.log(parts["levels"]), shape=(size,)).astype(jnp.int32)
        # All begin on the same platform, so that the level changes nothing of what a start shows.
        return jax.vmap(at_level)(states, level), out

    return starts


def at_level(state: PyTree, level: jax.Array) -> PyTree:
    """The state of a `legged-*` environment, its own or a wrapped one, on terrain of another level."""
    if isinstance(state, dict) and "inner" in state:
        return {**state, "inner": at_level(state["inner"], level)}
    task = state.task
    return state._replace(task=task._replace(terrain=task.terrain._replace(level=level)))
