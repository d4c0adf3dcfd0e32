"""Dyna, on top of an off-policy agent: it learns from a model alone, rolled out anew at every update.

Young et al. 2023 ("The benefits of model-based generalisation"): a batch of experience teaches the model, and is where
rollouts of the policy begin, of which the agent's own batch is made. Beside replay of batches as large as all that is
imagined, the two differ in where data come from alone. A further step counts as far as the model says that the task
goes on until then. Deviation: the latent models of the paper are not here.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, fading, further
from jaxrl.agents.mbpo import exploring
from jaxrl.core import BadInput, Recipe, Specs, adam, fold, minimise, on
from jaxrl.models import bits


@dataclass(frozen=True)
class Config:
    """What Dyna adds; a batch is as many starts, each with a rollout."""

    horizon: int = 10  # steps of a rollout
    model: bits.Config = field(default_factory=bits.Config)

    def __post_init__(self):
        at_least(self, horizon=1)


NUMBERS = {"eps": 1e-5, "b2": 0.99, "decay": 1e-6}  # AdamW's, of the base and of the model alike


def add(recipe: Recipe, specs: Specs, config: Config, base: Any, model: bits.Model | None = None) -> Recipe:
    """The recipe that learns from rollouts.

    Args:
        model: what is rolled out and learned; None is one of bits.

    Raises:
        BadInput: observations that are no vector, an agent with a memory, or returns of several steps.
    """
    agent, model = recipe.agent, model or bits.dynamics(specs, config.model)
    if jax.tree.leaves(agent.memory()):
        raise BadInput("dyna begins rollouts anywhere, and this agent has a memory of what was before: choose another.")
    if getattr(base, "n", 1) != 1:
        raise BadInput(f"n is {base.n}, and the model of dyna learns what follows one step: set it to 1.")
    choose = exploring(agent)

    def imagined(parts, batch, ctx):
        """The transitions [B * horizon] of rollouts from the batch's [B] observations."""

        def onward(carry, t):
            obs, weight = carry
            action = choose(parts, obs, ctx._replace(key=fold(ctx.key, 2 * t)))
            out = model.step(parts["model"], obs, action, fold(ctx.key, 2 * t + 1))
            return (out.next_obs, weight * out.discount), {
                "obs": obs,
                "action": action,
                "weight": weight,
                **out._asdict(),
            }

        begin = (batch["obs"], jnp.ones_like(batch["reward"]))
        _, made = jax.lax.scan(onward, begin, jnp.arange(config.horizon))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made)

    def likelihood(live, frozen, batch, key):
        return model.loss(live["model"], batch), {}

    init = further("dyna", agent, lambda key, parts: {"model": model.init(key)})
    everything = (*agent.shapes, "model")
    learned = {name: on(imagined, rule, reads=everything) for name, rule in agent.rules.items()}
    how = config.model
    descend = fading(adam(how.lr, eps=how.eps, b2=how.b2), how.decay)
    rules = {"model": minimise(likelihood, descend, "model"), **learned}
    return replace(recipe, agent=replace(agent, init=init, rules=rules))
