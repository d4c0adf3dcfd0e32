"""Networks whose features and weight columns live on the unit sphere (Lee et al. 2025, SimbaV2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.core import PyTree
from jaxrl.nets.mlp import orthogonal

CONSTANT = 3.0  # stands beside an input, so that its length is not lost with the norm


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """x / |x|, with a bound on how much nothing is magnified."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=axis, keepdims=True), 1e-8)


def unit_columns(parameters: PyTree) -> PyTree:
    """The parameters with each output unit's weights, of kernels [..., inputs, outputs], at norm 1; the rest stays."""

    def one(path, x):
        return unit(x, axis=-2) if path[-1] == jax.tree_util.DictKey("kernel") else x

    return jax.tree_util.tree_map_with_path(one, parameters)


class HyperDense(nn.Module):
    """A product with weights whose columns are meant to be kept at norm 1 (`unit_columns`); no bias."""

    features: int

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", orthogonal(), (x.shape[-1], self.features))


class Scaler(nn.Module):
    """x times a learned vector that starts at `start`; the smaller `scale`, the faster Adam moves it."""

    start: float
    scale: float

    @nn.compact
    def __call__(self, x):
        p = self.param("scale", nn.initializers.constant(self.scale), x.shape[-1:])
        return p * (self.start / self.scale) * x


class HyperNet(nn.Module):
    """Inputs, concatenated, onto the sphere; residual blocks that interpolate along it; linear heads.

    Attributes:
        width: features of the sphere; a block's hidden layer has four times as many.
        outputs: of each of the `heads`, which are concatenated.
    """

    width: int
    blocks: int
    outputs: int
    heads: int = 1

    @nn.compact
    def __call__(self, *inputs: Any):
        x = jnp.concatenate(inputs, axis=-1)
        x = unit(jnp.concatenate([x, jnp.full((*x.shape[:-1], 1), CONSTANT)], axis=-1))
        size = (2 / self.width) ** 0.5
        x = unit(Scaler(size, size)(HyperDense(self.width)(x)))
        for _ in range(self.blocks):
            h = nn.relu(Scaler(size / 2, size / 2)(HyperDense(4 * self.width)(x))) + 1e-8
            h = unit(HyperDense(self.width)(h))
            x = unit(x + Scaler(1 / (self.blocks + 1), self.width**-0.5)(h - x))

        def head(i):
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (self.outputs,))
            return HyperDense(self.outputs)(Scaler(1.0, 1.0)(HyperDense(self.width)(x))) + bias

        return jnp.concatenate([head(i) for i in range(self.heads)], axis=-1)
