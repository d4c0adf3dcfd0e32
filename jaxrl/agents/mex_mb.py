"""MEX with a model, on top of an off-policy agent: MBPO whose model leans to what is worth more (Liu et al. 2023).

Beside their likelihood, the members are pushed towards what they draw themselves where that is worth more than the
critics expect, by the score function; nothing of it reaches critics or policy. Deviations: MBPO's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents import mbpo
from jaxrl.agents.common import at_least, viewed
from jaxrl.core import Recipe, Specs
from jaxrl.equations.distributions import normal_log_prob


@dataclass(frozen=True)
class Config(mbpo.Config):
    """MBPO's numbers, with the weight of the value."""

    push: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        at_least(self, push=0)


NUMBERS = mbpo.NUMBERS


def log_likelihood(mean: jax.Array, log_var: jax.Array, x: jax.Array) -> jax.Array:
    """Of independent normals [..., d], the mean over the last axis, as the authors' code has it."""
    return jnp.vectorize(normal_log_prob, signature="(d),(d),(d)->()")(x, mean, 0.5 * log_var) / x.shape[-1]


def pushed(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """The mean of log-probabilities, weighed by advantages that are standardised over all  (Liu et al.'s code)."""
    spread = advantage.std(ddof=1) if advantage.size > 1 else 0.0
    standard = (advantage - advantage.mean()) / (spread + 1e-8)
    return (log_prob * jax.lax.stop_gradient(standard)).mean()


def leaning(look: Mapping[str, Callable[..., Any]], gamma: float | jax.Array, push: float | jax.Array) -> Callable:
    """The further term of a model's loss, `(parts, tell, batch, key) -> scalar []`, for an agent of these views."""

    def value(parts, obs, key):
        """What the critics expect of the policy at least [B], and of which actions."""
        h = look["encode"](parts, obs)
        action = look["policy"](parts, h, key)
        return look["q"](parts, h, action).min(axis=0), action

    def bonus(parts, tell, batch, key):
        key_now, key_draw, key_next = jax.random.split(key, 3)
        expected, action = value(parts, batch["obs"], key_now)
        told = tell(batch["obs"], action)
        x = told.mean + jnp.exp(0.5 * told.log_var) * jax.random.normal(key_draw, told.mean.shape)
        x = jax.lax.stop_gradient(x)  # [M, B, 1 + d]
        worth = jax.vmap(lambda x: value(parts, batch["obs"] + x[:, 1:], key_next)[0])(x)
        advantage = x[..., 0] + gamma * worth - expected
        return -push * pushed(log_likelihood(told.mean, told.log_var, x), advantage)

    return bonus


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with a model that leans. Raises BadInput as `mbpo.add`, or where critics or policy are not shown."""
    look = viewed("mex_mb", recipe.agent, "encode", "q", "policy")
    return mbpo.add(recipe, specs, config, base, bonus=leaning(look, base.gamma, config.push))
