"""PETS: plan in an ensemble of dynamics at every step, and learn nothing else (Chua et al. 2018).

The model is fitted now and then to all that was experienced; a search looks for the sequence of actions that its
members expect most of, does the first, and sets out from the rest at the next step, by way of the agent's memory. Each
particle of a sequence has a new member at every step, and earns nothing behind an end. Deviations: the ensemble is
fitted as MBPO's; sizes for a CPU, where the authors have 350 to 500 sequences of 20 particles.
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, experienced, periodic, vector
from jaxrl.core import Agent, BadInput, Recipe, Specs, fold, happening, unknown
from jaxrl.models import ensemble
from jaxrl.planning import cem, icem, mppi, random_shooting
from jaxrl.sources import uniform

SEARCHES = {
    "cem": lambda c, dims: cem(c.horizon, dims, c.population, c.turns),
    "icem": lambda c, dims: icem(c.horizon, dims, c.population, c.turns, max(c.population // 10, 2)),
    "mppi": lambda c, dims: mppi(c.horizon, dims, c.population, c.turns),
    "random": lambda c, dims: random_shooting(c.horizon, dims, c.population * c.turns),
}


@dataclass(frozen=True)
class Config:
    """What PETS can be told."""

    search: str = "cem"  # cem, icem, mppi or random
    horizon: int = 15  # steps of a sequence
    population: int = 100  # sequences of a turn
    turns: int = 4
    particles: int = 5  # of each sequence
    period: int = 250  # frames between fits; rounded up to whole ticks
    capacity: int = 20_000  # transitions kept
    warmup: int = 250  # frames of uniform actions before the first fit
    num_envs: int = 1
    model: ensemble.Config = field(default_factory=lambda: ensemble.Config(5, 5, widths=(64, 64), batch=32))

    def __post_init__(self):
        at_least(self, horizon=1, population=1, turns=1, particles=1, period=1, capacity=1, warmup=1, num_envs=1)
        if self.search not in SEARCHES:
            raise unknown("search", self.search, SEARCHES)
        if self.warmup > self.capacity:
            raise BadInput(f"warmup is {self.warmup}, more than the {self.capacity} transitions kept: lower it.")


def expected(model: ensemble.Model, part, obs: jax.Array, particles: int):
    """The score of sequences [N, H, A] from an observation: rewards up to an end, summed, over particles averaged."""

    def score(key, actions):
        count = actions.shape[0] * particles
        many = jnp.repeat(actions, particles, axis=0)  # [N * particles, H, A]

        def onward(carry, given):
            now, alive, total = carry
            action, key = given
            out = model.step(part, now, action, key)
            return (out.next_obs, alive * out.discount, total + alive * out.reward), None

        start = (jnp.broadcast_to(obs, (count, *obs.shape)), jnp.ones(count), jnp.zeros(count))
        keys = jax.random.split(key, actions.shape[1])
        (_, _, total), _ = jax.lax.scan(onward, start, (jnp.moveaxis(many, 1, 0), keys))
        return total.reshape(-1, particles).mean(axis=1)

    return score


def recipe(specs: Specs, config: Config) -> Recipe:
    """Raises BadInput unless observations are one vector and actions a Box of [-1, 1]."""
    vector("pets", specs.observation)
    dims, model = continuous("pets", specs.action), ensemble.dynamics(specs, config.model)
    search = SEARCHES[config.search](config, dims)

    def act(parts, memory, obs, ctx, explore):
        plan = search.plan(ctx.key, expected(model, parts["model"], obs, config.particles), memory, explore)
        return plan.action, plan, {}

    made = Recipe(
        Agent(
            lambda key: {"model": model.init(key)},
            act,
            memory=lambda: search.fresh,
            told=lambda plan, extras, action: (plan._replace(action=action), extras),
        ),
        uniform(config.capacity, 1),
        num_envs=config.num_envs,
        ratio=0,
        warmup=config.warmup,
    )
    everything = experienced("pets", made)

    def refit(run, ctx):
        part, found = model.fit(run.parts["model"], everything(run.source), fold(ctx.key, 0))
        metrics = {f"model/{name}": value for name, value in found.items()}
        return run._replace(parts={**run.parts, "model": part}), metrics

    event = happening(lambda run, ctx: ctx.clock >= config.warmup, refit)
    return replace(made, events=(periodic("pets", config.period, event, made, specs),))
