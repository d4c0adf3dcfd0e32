"""Adaptive replay ratio, on top of an off-policy agent: more updates once the critics' activity is stable.

Ma et al. 2024 ("Revisiting plasticity in visual reinforcement learning"), as their code has it: the fraction of active
units of the critics' hidden layers over the last episode before a check is compared with that of the check before; when
they are near, the ratio rises for good. Deviation: episodes are counted by the clock, so that many environments and
seeds have one. Rules that go by the number of an update (`every`) meet only the first of a tick until the ratio has
risen; seeds side by side make as many updates as the one that makes most (`Ctx`).
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, further, present, tick, viewed
from jaxrl.core import BadInput, Recipe, Specs, also, stateless
from jaxrl.statistics.plasticity import active_fraction


@dataclass(frozen=True)
class Config:
    """What decides the ratio; the defaults are the paper's, in which episodes last 1000 frames."""

    factor: int = 4  # what the ratio rises by: from half an update a step to two
    period: int = 50_000  # frames between checks
    window: int = 1_000  # frames before a check over which activity is averaged
    gap: float | None = 0.001  # largest change of the activity at which the ratio rises; None never lets it

    def __post_init__(self):
        at_least(self, factor=1, period=1, window=1)
        if self.gap is not None:
            at_least(self, gap=0)
        if self.window > self.period:
            raise BadInput(f"window is {self.window} frames, longer than the {self.period} between checks: shorten it.")


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe, whose ratio rises. Raises BadInput where it is a function already, or no critics are shown."""
    agent, ratio = recipe.agent, recipe.ratio
    look = viewed("adaptive_rr", agent, "encode", "critic")
    if callable(ratio):
        raise BadInput("adaptive_rr raises a number of updates a tick, and here that is a function already.")
    one = tick(recipe, specs)
    if config.window < one:
        raise BadInput(f"window is {config.window} frames, shorter than a tick of {one}: lengthen it to as many.")

    def active(live, frozen, batch, key):
        """Nothing to descend: how active the critics' hidden layers are before the update, handed on."""
        parts, seen = {**frozen, **live}, frozen["activity"]
        layers = look["critic"](parts, look["encode"](parts, batch["obs"]), batch["action"])["layers"]
        now = active_fraction(layers[:-1])
        last = jnp.where(seen["last"] < 0, now, seen["last"])
        counted = {"sum": seen["sum"] + now, "count": seen["count"] + 1, "last": last}
        return 0.0, {"active": now, "activity": {**seen, **counted}}

    def check(parts, batch, ctx):
        seen = parts["activity"]
        passing = lambda clock: (clock >= config.period) & (clock % config.period < one)
        due = passing(ctx.clock) & (seen["count"] > 0)
        mean = seen["sum"] / jnp.maximum(seen["count"], 1)
        near = jnp.abs(mean - seen["last"]) <= (-1 if config.gap is None else config.gap)
        kept = jnp.where(due | passing(ctx.clock + config.window), 0.0, 1.0)  # the average begins anew at both
        risen = jnp.maximum(seen["risen"], due & near)
        new = {"sum": kept * seen["sum"], "count": kept * seen["count"], "risen": risen}
        return {"activity": {**new, "last": jnp.where(due, mean, seen["last"])}}, {"risen": risen}

    def ratio_now(parts, ctx):
        return jnp.where(parts["activity"]["risen"] > 0, config.factor * ratio, ratio)

    zero = jnp.float32(0)
    own = {"sum": zero, "count": zero, "risen": zero, "last": jnp.float32(-1)}
    init = further("adaptive_rr", agent, lambda key, parts: {"activity": jax.tree.map(jnp.copy, own)})
    watched = also(agent.rules["critic"], active, reads=present(agent, "code"), sets="activity")
    agent = replace(
        agent,
        init=init,
        rules={**agent.rules, "critic": watched},
        observe={**agent.observe, "ratio": stateless(check, "activity")},
    )
    return replace(recipe, agent=agent, ratio=ratio_now, most=config.factor * ratio)
