"""SynthER, on top of an off-policy agent: half of what it learns from, a denoiser has dreamt up (Lu et al. 2023).

Now and then a denoiser learns from nothing what transitions are like, from all that were experienced, and fills a
replay with its own, in place of those of the one before. Deviations: sizes for a CPU; where `Specs.over` tells from an
observation that the task ends, it does, and nothing else is asked; what is drawn is clipped to the space of actions.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, experienced, further, periodic, vector, within
from jaxrl.core import BadInput, Recipe, Specs, every, fold, happening
from jaxrl.models import diffusion
from jaxrl.sources import beside, generated


@dataclass(frozen=True)
class Config:
    """What SynthER adds."""

    period: int = 10_000  # frames between refits; rounded up to whole ticks
    samples: int = 20_000  # transitions that each draws; the paper's is 200,000 to 1,000,000
    share: float = 0.5  # of a batch that is drawn
    least: int = 1_000  # transitions that have to be there for a refit
    delay: int = 20  # updates of the critics for one of the actor, where there is one
    plain_reward: bool = True  # whether rewards are left as they are, as ends always are; all else is standardised
    model: diffusion.Config = field(default_factory=diffusion.Config)

    def __post_init__(self):
        at_least(self, period=1, samples=1, least=2, delay=1)
        within(self, share=(0, 1))


NUMBERS = {"ratio": 20}  # updates a tick, which drawn transitions make bearable


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with a denoiser and what it draws.

    Raises:
        BadInput: observations that are no vector, actions that are no Box, a source that does not keep what was
            experienced, or a batch without a share for either.
    """
    agent, d, dims = recipe.agent, vector("synther", specs.observation), continuous("synther", specs.action)
    everything = experienced("synther", recipe)
    drawn = round(config.share * base.batch)
    if not 0 < drawn < base.batch:
        raise BadInput(f"share is {config.share}: of a batch of {base.batch} it leaves nothing to one of the two.")
    asked = specs.over is None  # whether an end is one more number
    columns = (d, dims, 1, d, 1)[: 5 if asked else 4]
    raw = (*((d + dims,) if config.plain_reward else ()), *((sum(columns) - 1,) if asked else ()))
    model = diffusion.generator(sum(columns), config.model, raw)
    memory = generated(config.samples, drawn)

    def rows(data):
        """Transitions [S] as vectors [S, n]."""
        parts = [data["obs"], data["action"], data["reward"][:, None], data["next_obs"], 1 - data["discount"][:, None]]
        return jnp.concatenate(parts[: len(columns)], axis=1)

    def transitions(x):
        """Vectors [S, n] as transitions."""
        cuts = [sum(columns[: i + 1]) for i in range(len(columns) - 1)]
        obs, action, reward, next_obs, *end = jnp.split(x, cuts, axis=1)
        over = end[0][:, 0] > 0.5 if asked else jax.vmap(specs.over)(next_obs)
        action = jnp.clip(action, -1, 1)
        return {"obs": obs, "action": action, "reward": reward[:, 0], "discount": 1.0 - over, "next_obs": next_obs}

    def refit(run, ctx):
        data = everything(run.source["online"])
        part, found = model.fit(run.parts["denoiser"], rows(data), data["weight"], fold(ctx.key, 0))
        new = transitions(model.draw(part, fold(ctx.key, 1), config.samples))
        sound = jnp.isfinite(rows(new)).all(axis=1)
        pile = memory.fill(memory.empty(run.source["synthetic"]), new, sound)
        run = run._replace(parts={**run.parts, "denoiser": part}, source={**run.source, "synthetic": pile})
        return run, {f"denoiser/{name}": value for name, value in found.items()}

    def enough(run, ctx):
        return (everything(run.source["online"])["weight"] > 0).sum() >= config.least

    init = further("synther", agent, lambda key, parts: {"denoiser": model.init(key)})
    slower = {"actor": every(config.delay, agent.rules["actor"])} if "actor" in agent.rules and config.delay > 1 else {}
    made = replace(recipe, agent=replace(agent, init=init, rules={**agent.rules, **slower}))
    made = beside(made, base.batch - drawn, synthetic=memory)
    event = periodic("synther", config.period, happening(enough, refit), recipe, specs)
    return replace(made, events=(*made.events, event))
