"""REDQ: randomised ensemble SAC at many updates a step (Chen et al. 2021).

SAC with ten critics. A target is the least of two that are drawn anew for each update, which bounds its bias; the
policy climbs the mean of all, and only with the last update of a step. Deviations: the squared errors are halved, as
SAC's are; the policy sees critics that have just been updated, not those before; a target entropy of minus the number
of action dimensions, where the paper takes MBPO's per task; SAC's initialisers and range of the log standard deviation;
and a replay of 100,000, where the paper's is ten times that.
"""

from dataclasses import dataclass, replace

import jax

from jaxrl.agents import sac
from jaxrl.agents.common import at_least
from jaxrl.core import Agent, BadInput, Recipe, Specs, every
from jaxrl.nets import Net


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers at REDQ's ratio, with an ensemble's."""

    lr: float = 3e-4
    tau: float = 0.005
    ratio: int = 20  # critic updates a tick; the policy's is with the last of them
    critics: int = 10
    members: int = 2  # of the critics, those that make a target

    def __post_init__(self):
        super().__post_init__()
        at_least(self, ratio=1, critics=1, members=1)
        if self.members > self.critics:
            raise BadInput(f"members is {self.members}, more than the {self.critics} critics: lower it.")


def build(specs: Specs, config: Config, critic: Net | None = None) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1].

    Args:
        critic: as `sac.critics` makes them; None is `config.critics` plain ones.
    """

    def some(target, key):
        """One subset for the whole batch, taken before the forward pass: the others cost nothing."""
        chosen = jax.random.choice(key, config.critics, (config.members,), replace=False)
        return jax.tree.map(lambda x: x[chosen], target)

    critic = critic or sac.critics(specs, config, n=config.critics)
    drawn = sac.whole if config.members == config.critics else some
    base = sac.build(specs, config, critic=critic, drawn=drawn, judge=lambda q: q.mean(axis=0))
    return replace(base, rules={**base.rules, "actor": every(config.ratio, base.rules["actor"])})


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)
