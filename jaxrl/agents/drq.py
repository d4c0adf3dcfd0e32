"""DrQ: SAC from pixels (Kostrikov et al. 2021, "Image augmentation is all you need").

SAC as it is, on features of an encoder that its critic learns, from randomly shifted pictures. The maximum-entropy
policy keeps exploring where a deterministic one (`drqv2`) saturates early. Deviations: one shift a batch, not averages
over several (their K = M = 1); actor and critics share the encoder's neck too.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, image
from jaxrl.core import Agent, BadInput, Recipe, Specs, minimise, on
from jaxrl.nets import encoder_net, side_after
from jaxrl.sources import shifted, uniform


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers, with an encoder's; the defaults solve cartpole-swingup at 48 pixels on a CPU."""

    batch: int = 128  # transitions an update; the paper's is 512
    alpha: float = 0.1  # temperature at the start
    capacity: int = 20_000  # transitions kept
    channels: tuple[int, ...] = (32, 16, 16)  # of the encoder's convolutions; the paper's are four times 32
    strides: tuple[int, ...] = (3, 2, 1)
    features: int = 50  # width of the encoder's neck
    pad: int = 4  # pixels of the largest shift

    def __post_init__(self):
        super().__post_init__()
        at_least(self, features=1, pad=0)
        if len(self.channels) != len(self.strides):
            raise BadInput(f"channels has {len(self.channels)} layers and strides {len(self.strides)}: give as many.")


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows images and acts in [-1, 1]."""
    side = min(image("drq", specs.observation)[:2])
    if side_after(side, config.strides) < 1:
        raise BadInput(f"images of {side} pixels are too small for strides of {config.strides}: drop a layer.")
    encoder = encoder_net(config.channels, config.strides, config.features, specs.observation)
    base = sac.build(replace(specs, observation=jax.ShapeDtypeStruct((config.features,), jnp.float32)), config)
    critic = base.rules["critic"]

    def critic_loss(live, frozen, batch, key):
        """SAC's, through the encoder: with a gradient for what is seen now, and without for what comes next."""
        seen = {"obs": (live, batch["obs"]), "next_obs": (frozen, batch["next_obs"])}
        seen = {name: encoder.apply(parts["encoder"], pictures) for name, (parts, pictures) in seen.items()}
        return critic.loss(live, frozen, {**batch, **seen}, key)

    def encoded(parts, batch, ctx):
        return {**batch, "obs": encoder.apply(parts["encoder"], batch["obs"])}

    def init(key):
        key_encoder, key_base = jax.random.split(key)
        return {"encoder": encoder.init(key_encoder), **base.init(key_base)}

    def act(parts, memory, obs, ctx, explore):
        return base.act(parts, memory, encoder.apply(parts["encoder"], obs), ctx, explore)

    rules = {
        **base.rules,
        "critic": minimise(critic_loss, critic.tx, ("encoder", *critic.writes), critic.reads),
        "actor": on(encoded, base.rules["actor"], reads="encoder"),
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    frames = max(image("drq", specs.observation)[2] // 3, 1)  # RGB each: replay stores every one once
    source = shifted(uniform(config.capacity, config.batch, frames=frames), config.pad)
    return Recipe(build(specs, config), source, num_envs=config.num_envs, ratio=config.ratio, warmup=config.warmup)
