"""DrQ: SAC from pixels (Kostrikov et al. 2021, "Image augmentation is all you need").

SAC as it is, on features of an encoder that its critic learns, from randomly shifted pictures. The maximum-entropy
policy keeps exploring where a deterministic one (`drqv2`) saturates early. Deviations: one shift a batch, not averages
over several (their K = M = 1); the target critics see through the convolutions as they are now, as in DrQ-v2; and the
running mean of the pictures is taken from each, since a small body before a background that stands still hardly changes
what the trunks' LayerNorm lets through.

The encoder is two layers of windows that do not overlap, as patches are: cheap on a CPU.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, encoder, stacked
from jaxrl.core import Agent, Recipe, Specs, minimise, on
from jaxrl.nets import TrunkMLP
from jaxrl.rules.statistics import contrast, moments, observation_statistics
from jaxrl.sources import shifted, uniform


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers, with an encoder's; the defaults are sizes for 48 pixels on a CPU."""

    batch: int = 128  # transitions an update; the paper's is 512
    alpha: float = 0.1  # temperature at the start
    capacity: int = 20_000  # transitions kept
    encoder: str = "conv"  # or impala, convit, t2t, whose sizes are their own
    channels: tuple[int, ...] = (32, 64)  # of the encoder's convolutions; the paper's are four times 32
    strides: tuple[int, ...] = (4, 2)
    sizes: tuple[int, ...] = (4, 2)  # pixels a side of their windows; the paper's are four times 3
    features: int = 50  # width of the neck that actor and critics each have on top of it
    pad: int = 2  # pixels of the largest shift; the paper has 4 of 84

    def __post_init__(self):
        super().__post_init__()
        at_least(self, features=1, pad=0)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows images and acts in [-1, 1]."""
    eye, seen = encoder("drq", specs.observation, config)
    base = sac.build(replace(specs, observation=seen), config, partial(TrunkMLP, neck=config.features))
    critic = base.rules["critic"]

    def see(parts, norm, pictures):
        return eye.apply(parts["encoder"], contrast(norm, pictures))

    def critic_loss(live, frozen, batch, key):
        """SAC's, through the encoder: with a gradient for what is seen now, and without for what comes next."""
        norm = frozen["norm"]
        seen = {"obs": see(live, norm, batch["obs"]), "next_obs": see(frozen, norm, batch["next_obs"])}
        return critic.loss(live, frozen, {**batch, **seen}, key)

    def encoded(parts, batch, ctx):
        return {**batch, "obs": see(parts, parts["norm"], batch["obs"])}

    def init(key):
        key_encoder, key_base = jax.random.split(key)
        norm = moments(specs.observation.shape)
        return {"norm": norm, "encoder": eye.init(key_encoder), **base.init(key_base)}

    def act(parts, memory, obs, ctx, explore):
        return base.act(parts, memory, see(parts, parts["norm"], obs), ctx, explore)

    rules = {
        **base.rules,
        "critic": minimise(critic_loss, critic.tx, ("encoder", *critic.writes), (*critic.reads, "norm")),
        "actor": on(encoded, base.rules["actor"], reads=("encoder", "norm")),
    }
    return Agent(init, act, rules, observe={"norm": observation_statistics()})


def recipe(specs: Specs, config: Config) -> Recipe:
    frames = stacked("drq", specs)
    source = shifted(uniform(config.capacity, config.batch, frames=frames), config.pad)
    return Recipe(build(specs, config), source, num_envs=config.num_envs, ratio=config.ratio, warmup=config.warmup)
