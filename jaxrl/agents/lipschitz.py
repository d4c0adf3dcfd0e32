"""Critics that change little where observations do, on top of an actor-critic (Zheng et al. 2023).

What a model gets wrong about the next state matters as far as the value differs there: with values that are smooth, one
model serves as well as an ensemble (`sac+mbpo+lipschitz` with one member). Two ways: the spectra of the critics' hidden
layers are bounded, or the worst noise near an observation must change little. No code of the authors is known: sizes
and weights are ours. Deviations: kernels are scaled down after each update, where the paper divides in each pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, present, viewed
from jaxrl.core import BadInput, Key, Recipe, Specs, also, mean, stateless
from jaxrl.nets import bounded_spectra


@dataclass(frozen=True)
class Config:
    """What smooth critics are."""

    noise: float = 0.05  # largest noise of an observation, in standard deviations of the batch; 0 for none
    weight: float = 1.0  # of the squared change that it makes, in variances of what the critics say
    steps: int = 1  # towards the worst noise: 0 is any noise, 1 a step by the sign of the gradient, more are shorter
    cap: float | None = None  # largest singular value of a hidden layer of the critics; None bounds none

    def __post_init__(self):
        at_least(self, noise=0, weight=0, steps=0)
        if self.cap is not None and self.cap <= 0:
            raise BadInput(f"cap is {self.cap}; it bounds a singular value, so it is above 0 (None bounds none).")


def worst_noise(
    change: Callable[[jax.Array], jax.Array], reach: jax.Array, shape: tuple[int, ...], key: Key, steps: int
) -> jax.Array:
    """Noise within +-reach, near the one that makes `change(noise) -> []` largest.

    Goodfellow et al. 2015 for one step, Madry et al. 2018 for more: by the sign of the gradient, from random noise,
    since none has no gradient.
    """
    drawn = jax.random.uniform(key, shape, minval=-1) * reach
    if steps == 0:
        return drawn
    size = reach if steps == 1 else 2.5 * reach / steps

    def climb(i, noise):
        onward = 0.0 if steps == 1 else noise
        return jnp.clip(onward + size * jnp.sign(jax.grad(change)(noise)), -reach, reach)

    return jax.lax.fori_loop(0, steps, climb, 0.1 * drawn if steps == 1 else drawn)


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with smooth critics. Raises BadInput where an agent shows none, or none that can be bounded."""
    agent = recipe.agent
    look = viewed("lipschitz", agent, "encode", "q")
    rules = dict(agent.rules)

    def smooth(live, frozen, batch, key):
        q = lambda parts, obs: look["q"](parts, look["encode"](parts, obs), batch["action"])
        parts = {**frozen, **live}
        obs, still = batch["obs"], q(frozen, batch["obs"])
        change = lambda noise: ((q(frozen, obs + noise) - still) ** 2).sum()
        noise = worst_noise(change, config.noise * (obs.std(axis=0) + 1e-6), obs.shape, key, config.steps)
        moved = ((q(parts, obs + noise) - q(parts, obs)) ** 2).sum(axis=0)
        return config.weight * mean(moved, batch) / (still.var() + 1e-6), {"moved": moved}

    if config.noise > 0:
        rules["critic"] = also(rules["critic"], smooth, reads=present(agent, "encoder", "code"))
    if config.cap is not None:
        layers = sorted(agent.shapes["critic"], key=lambda name: (len(name), name))
        if not all("kernel" in agent.shapes["critic"][name] for name in layers):
            raise BadInput("cap bounds critics of dense layers, and this agent's are others: leave it away.")
        hidden = layers[:-1]

        def bound(parts, batch, ctx):
            critic = parts["critic"]
            inner = {name: critic[name] for name in hidden}
            kept = jax.vmap(lambda one: bounded_spectra(one, config.cap, turns=30))(inner)
            return {"critic": {**critic, **kept}}, {}

        at = list(rules).index("critic") + 1
        names = list(rules)
        bounds = {"spectra": stateless(bound, "critic")}
        rules = {**{n: rules[n] for n in names[:at]}, **bounds, **{n: rules[n] for n in names[at:]}}
    return replace(recipe, agent=replace(agent, rules=rules))
