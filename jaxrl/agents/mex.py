"""MEX, on top of an actor-critic: critics that fit the data and would rather see more in them (Liu et al. 2023).

Estimation, planning and exploration are one objective: the least error, less a little of the value. This is its form
without a model; `mex_mb` is the one with a model. The bonus is the authors' code's, of which two forms are there: the
value of what was done, or how far the policy's action stands out from others. The weight is against squared errors, as
the authors' is: where an agent's critics descend half of a square, the bonus is half as large. Deviation: each critic
stands out from what it says itself, where the authors' code compares the second with what the first says of the data.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, present, viewed
from jaxrl.core import Recipe, Specs, also, mean


@dataclass(frozen=True)
class Config:
    """What MEX adds."""

    eta: float = 0.001  # weight of the value, where a squared error has 1; the authors' for sparse rewards is 0.005
    standing_out: bool = False  # whether it is of the policy's action, less log sum exp over others, rather than of all

    def __post_init__(self):
        at_least(self, eta=0)


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe whose critics are optimists. Raises BadInput where an agent shows no critics or no policy."""
    agent, dims = recipe.agent, continuous("mex", specs.action)
    look = viewed("mex", agent, "encode", "q", "policy")

    def bonus(live, frozen, batch, key):
        parts = {**frozen, **live}
        h = look["encode"](parts, batch["obs"])
        q = look["q"](parts, h, batch["action"])  # [n, B]
        if config.standing_out:
            key_now, key_next, key_any = jax.random.split(key, 3)
            # What the policy would do next, judged here: so the authors' code has it.
            following = look["policy"](parts, look["encode"](parts, batch["next_obs"]), key_next)
            anything = jax.random.uniform(key_any, (q.shape[1], dims), minval=-1)
            others = jnp.stack([q, *(look["q"](parts, h, action) for action in (following, anything))])
            q = look["q"](parts, h, look["policy"](parts, h, key_now)) - jax.nn.logsumexp(others, axis=0)
        # Of an error's cost, so that a fixed target is met eta / 2 higher whatever the critics descend.
        weight = config.eta * (look["cost"](parts, 1.0) if "cost" in look else 1.0)
        return -weight * mean(q.sum(axis=0), batch), {"optimism": q.mean(axis=0)}

    reads = present(agent, "encoder", "code", *(("actor", "std") if config.standing_out else ()))
    return replace(
        recipe, agent=replace(agent, rules={**agent.rules, "critic": also(agent.rules["critic"], bonus, reads=reads)})
    )
