"""UCBVI: plan in the mean of what was seen, with a bonus for what was seen little (Azar et al. 2017, algorithms 1-3).

The bonus is Chernoff-Hoeffding's. With a scale of 0 and some epsilon it is the greedy planner that explores by chance.
Deviations: rewards are learned, as their means; no value is above what can be earned in the steps that are left, where
the paper's are not above all steps' worth; and values are not held below those of the last plan.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxrl.agents import tabular
from jaxrl.agents.common import at_least
from jaxrl.core import Recipe, Specs, stateless
from jaxrl.equations.tabular import hoeffding_bonus, planned


@dataclass(frozen=True)
class Config(tabular.Config):
    """What UCBVI can be told."""

    scale: float = 7.0  # of the bonus; the paper's, which its proof asks for: far smaller ones serve
    confidence: float = 10.0  # ln(5 S A T / delta)
    most: float = 1.0  # the largest reward of a step

    def __post_init__(self):
        super().__post_init__()
        at_least(self, scale=0, confidence=0, most=0)


def recipe(specs: Specs, config: Config) -> Recipe:
    """Raises BadInput as `tabular.world`."""

    def plan(w):
        bound = config.most * jnp.arange(w.horizon, 0, -1)

        def update(parts, batch, ctx):
            n, P, r = tabular.tables(parts["counts"])
            bonus = config.most * hoeffding_bonus(n, w.horizon, config.confidence, config.scale)
            unseen = jnp.where(n > 0, 0.0, jnp.where(config.scale > 0, jnp.inf, 0.0))
            return {"plan": planned(P, r + bonus + unseen, w.horizon, bound)}, {}

        return stateless(update, writes="plan", reads="counts")

    return tabular.planning("ucbvi", specs, config, lambda w: {}, plan)
