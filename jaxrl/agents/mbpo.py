"""MBPO, on top of an off-policy agent: it learns almost only from short rollouts of a model (Janner et al. 2019).

Every so often the model is fitted to all that was experienced, and rolled out for a few steps of the policy from many
states that were; the agent's batches are mostly of these. The horizon grows with the run, and what older models said is
forgotten. Deviations: the ensemble's (`models.ensemble`); sizes for a CPU, where the paper has 100,000 starts and
layers of 200.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, experienced, further, periodic, rows, within
from jaxrl.core import Agent, BadInput, Ctx, Parts, Recipe, Specs, fold, happening
from jaxrl.models import ensemble
from jaxrl.sources import beside, generated

# (parts, obs [B, d], ctx) -> actions [B, ...]: what is done in the model.
Choose = Callable[[Parts, jax.Array, Ctx], jax.Array]


@dataclass(frozen=True)
class Config:
    """What MBPO adds."""

    period: int = 250  # frames between fits, each followed by rollouts; rounded up to whole ticks
    starts: int = 2_000  # states that the model is rolled out from, at each fit
    horizon: tuple[int, int] = (1, 1)  # steps of a rollout, at first and in the end; the paper has up to 25
    grows: tuple[int, int] = (20_000, 150_000)  # frames between which the horizon does
    fits: int = 4  # after which a transition is forgotten
    real: float = 0.05  # share of a batch that was experienced, rounded down to transitions but to none only from 0
    model: ensemble.Config = field(default_factory=lambda: ensemble.Config(widths=(128, 128)))

    def __post_init__(self):
        at_least(self, period=1, starts=1, horizon=1, grows=0, fits=1)
        within(self, real=(0, 1))
        if self.horizon[0] > self.horizon[1]:
            raise BadInput(f"horizon is {self.horizon}; it is the first and the last, and does not shrink.")


NUMBERS = {"ratio": 20}  # updates a tick, where the model's steps are to be learned from


def steps_ahead(frames: jax.Array, config: Config) -> jax.Array:
    """The horizon at a time, int32 []: linear between two times, rounded down  (Janner et al. 2019, appendix C)."""
    (low, high), (since, until) = config.horizon, config.grows
    part = jnp.clip((frames - since) / max(until - since, 1), 0, 1)
    return jnp.floor(low + part * (high - low) + 1e-5).astype(jnp.int32)


def exploring(agent: Agent) -> Choose:
    """What the agent does to explore, without a memory."""

    def choose(parts, obs, ctx):
        act = lambda key, obs: agent.act(parts, agent.memory(), obs, ctx._replace(key=key), True)[0]
        return jax.vmap(act)(jax.random.split(ctx.key, obs.shape[0]), obs)

    return choose


def add(
    recipe: Recipe,
    specs: Specs,
    config: Config,
    base: Any,
    choose: Choose | None = None,
    bonus: Callable[..., jax.Array] | None = None,
) -> Recipe:
    """The recipe with a model and its rollouts.

    Args:
        choose: what is done in the model; None is what the agent does to explore.
        bonus: `(parts, tell, batch, key) -> scalar []`, a further term of the model's loss.

    Raises:
        BadInput: observations that are no vector, an agent with a memory, or a batch without a share for either.
    """
    agent, model = recipe.agent, ensemble.dynamics(specs, config.model)
    if jax.tree.leaves(agent.memory()):
        raise BadInput("mbpo begins rollouts anywhere, and this agent has a memory of what was before: choose another.")
    everything = experienced("mbpo", recipe)
    real = max(int(config.real * base.batch), config.real > 0)
    if real >= base.batch:
        raise BadInput(f"real is {config.real}, which leaves the model nothing of a batch of {base.batch}: lower it.")
    memory = generated(config.fits * config.horizon[1] * config.starts, base.batch - real)

    choose = choose or exploring(agent)

    def rolled_out(parts, data, pile, ctx):
        """The pile with rollouts from starts among the data, as far as their steps go on."""
        obs = data["obs"][rows(fold(ctx.key, 0), data["weight"], config.starts)]
        horizon = steps_ahead(ctx.step, config)
        window = config.fits * horizon * config.starts

        def onward(t, carry):
            obs, alive, pile = carry
            now = ctx._replace(key=fold(ctx.key, 1 + 2 * t))
            action = choose(parts, obs, now)
            out = model.step(parts["model"], obs, action, fold(ctx.key, 2 + 2 * t))
            alive = alive & jnp.isfinite(out.next_obs).all(axis=1) & jnp.isfinite(out.reward)
            pile = memory.fill(pile, {"obs": obs, "action": action, **out._asdict()}, alive, window)
            return out.next_obs, alive & (out.discount > 0), pile

        _, alive, pile = jax.lax.fori_loop(0, horizon, onward, (obs, jnp.ones(config.starts, bool), pile))
        return pile, {"model/horizon": horizon, "model/alive": alive.mean()}

    def refit(run, ctx):
        data = everything(run.source["online"])
        term = partial(bonus, run.parts) if bonus else None
        part, found = model.fit(run.parts["model"], data, fold(ctx.key, 0), term)
        parts = {**run.parts, "model": part}
        pile, seen = rolled_out(parts, data, run.source["model"], ctx._replace(key=fold(ctx.key, 1)))
        metrics = {**{f"model/{name}": value for name, value in found.items()}, **seen}
        return run._replace(parts=parts, source={**run.source, "model": pile}), metrics

    learning = happening(lambda run, ctx: ctx.clock >= recipe.warmup, refit)
    init = further("mbpo", agent, lambda key, parts: {"model": model.init(key)})
    made = beside(replace(recipe, agent=replace(agent, init=init)), real, model=memory)
    return replace(made, events=(*made.events, periodic("mbpo", config.period, learning, recipe, specs)))
