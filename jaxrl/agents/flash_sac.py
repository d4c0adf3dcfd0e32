"""FlashSAC: SAC on batch-normalised residual networks, for one environment or a thousand (Holiday-Robot/FlashSAC).

XQC's joined batch and categorical critics on wider residual networks, all of whose weights, scales and shifts keep
their norms; an entropy target from a wished-for spread of actions; and exploration whose noise is held for some steps.
Deviations: XQC's; each environment holds a noise of its own, and draws anew as an episode begins, where the authors' is
one for all; critics are updated before the actor, not after; and sizes for a CPU.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agents import sac, xqc
from jaxrl.agents.common import at_least, continuous, vector
from jaxrl.agents.simba_v2 import BINS, bounded
from jaxrl.core import Agent, Recipe, Specs
from jaxrl.nets import NormedResidual, normed, normed_ensemble, unit_weights

LONGEST = 16  # steps that a noise is held; n of them with a probability like 1 / n^2
HOLDS = -2 * np.log(np.arange(1, LONGEST + 1)).astype(np.float32)


@dataclass(frozen=True)
class Config(xqc.Config):
    """XQC's numbers, as FlashSAC has them."""

    widths: tuple[int] = (64,)  # of the actor's residual stream; the paper's is 128
    critic_widths: tuple[int] = (128,)  # of the critics'; the paper's is 256
    blocks: int = 2  # of each
    tau: float = 0.01
    ratio: int = 1
    delay: int = 2
    sigma: float = 0.15  # spread of each action whose entropy is the target
    target_entropy: float | None = None  # nats; None is that of a normal of `sigma`

    def __post_init__(self):
        super().__post_init__()
        at_least(self, blocks=1, sigma=1e-6)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1]."""
    dims = continuous("flash_sac", specs.action)
    vector("flash_sac", specs.observation)
    obs, action = specs.observation, jax.ShapeDtypeStruct((dims,), jnp.float32)
    if config.target_entropy is None:
        config = replace(config, target_entropy=0.5 * dims * jnp.log(2 * jnp.pi * jnp.e * config.sigma**2))
    actor = normed(NormedResidual(config.widths[0], config.blocks, dims, heads=2), obs)
    critic = normed_ensemble(normed(NormedResidual(config.critic_widths[0], config.blocks, BINS), obs, action), 2)
    both = lambda batch: jnp.concatenate([batch["obs"], batch["next_obs"]])
    base = xqc.build(specs, config, actor, critic, unit_weights, bounded, rows=both)

    def act(parts, memory, obs, ctx, explore):
        if not explore:
            return base.act(parts, (), obs, ctx, explore)[0], memory, {}
        center, log_std = sac.gaussian(actor.apply(parts["actor"], parts["actor_running"], obs))
        noise, left = held(memory, ctx.key)
        return jnp.tanh(center + jnp.exp(log_std) * noise), {"noise": noise, "left": left}, {}

    memory = lambda: {"noise": jnp.zeros(dims), "left": jnp.int32(0)}
    return Agent(base.init, act, base.rules, base.observe, memory)


def held(memory, key):
    """The noise of a step [dims], and for how many more it stays: drawn anew where none are left."""
    key_noise, key_hold = jax.random.split(key)
    over = memory["left"] == 0
    noise = jnp.where(over, jax.random.normal(key_noise, memory["noise"].shape), memory["noise"])
    left = jnp.where(over, jax.random.categorical(key_hold, HOLDS), memory["left"] - 1)  # beside this one
    return noise, left.astype(jnp.int32)


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)
