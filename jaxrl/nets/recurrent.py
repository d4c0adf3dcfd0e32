"""Networks that may remember: one `step` signature with and without a GRU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.core import Key, PyTree, where
from jaxrl.nets.mlp import net, orthogonal


class MemoryNet(NamedTuple):
    """`init(key) -> parameters`; `step(parameters, memory, obs) -> (memory, output)`; `memory()`, the first memory."""

    init: Callable[[Key], PyTree]
    step: Callable[[PyTree, PyTree, Any], tuple[PyTree, jax.Array]]
    memory: Callable[[], PyTree]


def mlp_net(head: nn.Module, obs: Any) -> MemoryNet:
    """A network that remembers nothing; `obs` is an example of one observation."""
    made = net(head, obs)
    return MemoryNet(made.init, lambda parameters, memory, x: (memory, made.apply(parameters, x)), tuple)


class Recurrent(nn.Module):
    """obs -> Dense, ReLU -> GRU -> head: `(memory [width], obs) -> (memory [width], output)`."""

    width: int
    head: nn.Module
    kernel_init: Callable = orthogonal(2**0.5)

    @nn.compact
    def __call__(self, memory, obs):
        x = nn.relu(nn.Dense(self.width, kernel_init=self.kernel_init)(obs))
        memory, x = nn.GRUCell(self.width, kernel_init=orthogonal(), recurrent_kernel_init=orthogonal())(memory, x)
        return memory, self.head(x)


def gru_net(head: nn.Module, width: int, obs: Any) -> MemoryNet:
    """A network with a GRU of that width before its head; memory begins at zero."""
    memory = lambda: jnp.zeros(width)
    made = net(Recurrent(width, head), jax.eval_shape(memory), obs)
    return MemoryNet(made.init, made.apply, memory)


def unrolled(network: MemoryNet, parameters: PyTree, memory: PyTree, obs: Any, began: jax.Array) -> jax.Array:
    """Outputs along sequences `[T, B, ...]` from the memory stored at their first step.

    Args:
        memory: `[T, B, ...]` as stored while acting; only the first entry is used, the rest is recomputed.
        began: bool [T, B], True where a step begins an episode: there memory is fresh.
    """

    def step(memory, now):
        obs, began = now
        fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (began.shape[0], *x.shape)), network.memory())
        return network.step(parameters, where(began, fresh, memory), obs)

    return jax.lax.scan(step, jax.tree.map(lambda m: m[0], memory), (obs, began))[1]
