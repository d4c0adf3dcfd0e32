"""DroQ: dropout Q-functions at many updates a step (Hiraoka et al. 2022).

REDQ's many critics give way to two with a small dropout and LayerNorm, which draw masks of their own in each pass: in
the prediction, in the target and under the policy. Deviations: REDQ's; and the policy learns from the last batch of a
step, as in the authors' older code, not from one more.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents import redq, sac
from jaxrl.agents.common import continuous, within
from jaxrl.core import Agent, Recipe, Specs
from jaxrl.nets import MLP, Net, drawing, ensemble


@dataclass(frozen=True)
class Config(redq.Config):
    """REDQ's numbers with two critics that both make the target."""

    critics: int = 2
    dropout: float = 0.01  # share of hidden units; what is best depends on the task

    def __post_init__(self):
        super().__post_init__()
        within(self, dropout=(0, 0.99))


def critics(specs: Specs, config: Config) -> Net:
    """Dense, dropout, LayerNorm, ReLU, twice: `apply(parameters, obs [B, ...], action [B, dims], key) -> [n, B]`."""
    action = jax.ShapeDtypeStruct((continuous("droq", specs.action),), jnp.float32)
    module = MLP(config.widths, 1, norm="affine", dropout=config.dropout)
    heads = ensemble(drawing(module, specs.observation, action), config.critics)
    return Net(heads.init, lambda parameters, obs, action, key: heads.apply(parameters, key, obs, action)[..., 0])


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1]."""
    return redq.build(specs, config, critics(specs, config))


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)
