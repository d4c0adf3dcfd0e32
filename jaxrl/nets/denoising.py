"""A residual network that is told a noise level, for denoisers and flows of vectors."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Denoising(nn.Module):
    """(x [..., n], noise or time [...]) -> [..., outputs]  (Lu et al. 2023, appendix B; Lu et al.'s code).

    Fixed random frequencies embed the noise, a linear layer the data, and their sum goes through blocks of
    x + Dense(ReLU(x)).

    Attributes:
        width, blocks: of the residual stream.
        embedding: width of what both are embedded in.
    """

    outputs: int
    width: int
    blocks: int
    embedding: int
    frequencies: int = 8

    @nn.compact
    def __call__(self, x, noise):
        f = jax.random.normal(jax.random.key(0), (self.frequencies,))  # fixed: nothing learns them
        phase = 2 * jnp.pi * f * noise[..., None]
        seen = jnp.concatenate([noise[..., None], jnp.sin(phase), jnp.cos(phase)], axis=-1)
        told = nn.Dense(self.embedding)(nn.silu(nn.Dense(self.embedding)(seen)))
        h = nn.Dense(self.width)(nn.Dense(self.embedding)(x) + told)
        for _ in range(self.blocks):
            h = h + nn.Dense(self.width)(nn.relu(h))
        return nn.Dense(self.outputs)(nn.relu(h))
