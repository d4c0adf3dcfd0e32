"""What learners of small worlds share: they count what was seen, and make a plan before each episode.

A world shows its state one-hot, nothing after an end. A tick is an episode's worth of steps in one environment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agents.common import discrete, vector, within
from jaxrl.core import Agent, BadInput, Ctx, Parts, Recipe, Rule, Specs, stateless
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.sources import latest


class World(NamedTuple):
    """States, actions and the steps of an episode."""

    states: int
    actions: int
    horizon: int


@dataclass(frozen=True)
class Config:
    """What all of them can be told."""

    epsilon: float = 0.0  # share of uniform actions

    def __post_init__(self):
        within(self, epsilon=(0, 1))


def world(name: str, specs: Specs) -> World:
    """The sizes that specs tell. Raises BadInput unless states are vectors, actions Discrete and episodes bounded."""
    if specs.limit is None:
        raise BadInput(f"{name} plans whole episodes, and nothing bounds these: wrap the environment in time_limit.")
    return World(vector(name, specs.observation), discrete(name, specs.action), specs.limit)


def tables(counts: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How often each pair was met [S, A], and as it was then, chances [S, A, S] and rewards [S, A]; 0 where it was not.

    Args:
        counts: the part: next [S, A, S + 1], whose last column are ends, reward [S, A], the sum, first [S].
    """
    n = counts["next"].sum(axis=-1)
    return n, counts["next"][..., :-1] / jnp.maximum(n, 1)[..., None], counts["reward"] / jnp.maximum(n, 1)


def counting() -> Rule:
    """Adds a tick's transitions [T, 1] to the counts."""

    def count(parts, batch, ctx):
        seen = parts["counts"]
        s, a, s_next = batch["obs"][:, 0], batch["action"][:, 0], batch["next_obs"][:, 0]
        to = jnp.concatenate([s_next, 1 - s_next.sum(axis=-1, keepdims=True)], axis=-1)
        at = (s.argmax(axis=-1), a)
        begins = s * (batch["memory"][:, 0] == 0)[:, None]
        new = {
            "next": seen["next"].at[at].add(to),
            "reward": seen["reward"].at[at].add(batch["reward"][:, 0]),
            "first": seen["first"] + begins.sum(axis=0),
        }
        return {"counts": new}, {"pairs": (new["next"].sum(axis=-1) > 0).mean()}

    return stateless(count, writes="counts")


def planning(
    name: str, specs: Specs, config: Config, own: Callable[[World], Parts], plan: Callable[[World], Rule]
) -> Recipe:
    """The recipe of a learner that acts by the part 'plan' [H, S, A], made anew by a rule after each episode.

    Args:
        own: its further parts, which the first plan is made from.
        plan: the rule that writes 'plan'; it reads 'counts'.
    """
    w = world(name, specs)
    rule = plan(w)

    def init(key):
        counts = {
            "next": jnp.zeros((w.states, w.actions, w.states + 1)),
            "reward": jnp.zeros((w.states, w.actions)),
            "first": jnp.zeros(w.states),
        }
        # Before anything is known all actions are alike: the first plan is the rule's own.
        parts = {"counts": counts, "plan": jnp.zeros((w.horizon, w.states, w.actions)), **own(w)}
        return rule.update(parts, rule.init(parts), {}, Ctx(key, jnp.int32(0)))[0]

    def act(parts, memory, obs, ctx, explore):
        values = parts["plan"][jnp.minimum(memory, w.horizon - 1), obs.argmax()]
        action = epsilon_greedy(ctx.key, values, config.epsilon) if explore else values.argmax().astype(jnp.int32)
        return action, memory + 1, {}

    agent = Agent(init, act, observe={"counts": counting(), "plan": rule}, memory=lambda: jnp.int32(0))
    return Recipe(agent, latest(), num_envs=1, unroll=w.horizon, ratio=0)
