"""Dynamics of observations that are bits: a network for what follows, one for the reward and one for an end.

The simple learned model of Young et al. 2023: each bit is a Bernoulli of its own given what is seen and done, the
reward a normal of variance 1, of which rollouts have the mean, and an end one more Bernoulli. Deviations: a bit is
drawn with its probability, where the paper's code hands the logit to the draw.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.core import BadInput, Batch, Key, PyTree, Specs, mean
from jaxrl.models.ensemble import Step, encoded, flat
from jaxrl.nets import MLP, net


@dataclass(frozen=True)
class Config:
    """What the model is and how it learns; the paper's has three layers of 200."""

    widths: tuple[int, ...] = (64, 64)  # hidden widths of each of the three networks
    lr: float = 1e-3  # AdamW
    eps: float = 1e-5  # of it, as the authors have it
    b2: float = 0.99
    decay: float = 1e-6  # share of itself by which every weight falls at an update, whatever lr is

    def __post_init__(self):
        if not all(width >= 1 for width in self.widths):
            raise BadInput(f"widths is {self.widths}; each layer of a model is at least 1 wide.")


class Model(NamedTuple):
    """A model as functions of its part.

    `init(key) -> part`; `loss(part, batch) -> scalar []`, of real transitions [B]; `step(part, obs [B, d], action [B],
    key) -> Step`, whose discount is the chance that the task goes on.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Batch], jax.Array]
    step: Callable[[PyTree, jax.Array, jax.Array, Key], Step]


def dynamics(specs: Specs, config: Config = Config()) -> Model:
    """The model for an environment. Raises BadInput unless its observations are one vector, taken to be of 0 and 1."""
    d = flat(specs.observation)
    given = jax.eval_shape(
        lambda obs: jnp.concatenate([obs, encoded(specs.action, jnp.zeros((), jnp.int32))]), specs.observation
    )
    sizes = {"bits": d, "reward": 1, "over": 1}
    nets = {name: net(MLP(config.widths, size, jax.nn.elu), given) for name, size in sizes.items()}

    def init(key):
        keys = jax.random.split(key, len(nets))
        return {name: one.init(key) for (name, one), key in zip(nets.items(), keys)}

    def tell(part, obs, action):
        """Logits of bits [B, d], rewards [B] and the logit of an end [B]."""
        x = jnp.concatenate([obs, encoded(specs.action, action)], axis=-1)
        bits, reward, over = (one.apply(part[name], x) for name, one in nets.items())
        return bits, reward[..., 0], over[..., 0]

    def loss(part, batch):
        bits, reward, over = tell(part, batch["obs"], batch["action"])
        missed = optax.sigmoid_binary_cross_entropy(bits, batch["next_obs"]).sum(axis=-1) * batch["discount"]
        ends = optax.sigmoid_binary_cross_entropy(over, 1 - batch["discount"])
        return mean(missed + 0.5 * (reward - batch["reward"]) ** 2 + ends, batch)

    def step(part, obs, action, key):
        bits, reward, over = tell(part, obs, action)
        drawn = jax.random.uniform(key, bits.shape) < jax.nn.sigmoid(bits)
        return Step(drawn.astype(obs.dtype), reward, jax.nn.sigmoid(-over))

    return Model(init, loss, step)
