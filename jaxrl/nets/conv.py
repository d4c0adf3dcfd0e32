"""Encoders of images, and the bottleneck that agents put on top of them."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from jaxrl.nets.mlp import orthogonal


class Conv(nn.Module):
    """3x3 convolutions without padding, a ReLU after each: uint8 [..., H, W, C] -> float32 [..., features].

    Yarats et al. 2022 (DrQ-v2), with 32 channels four times and a stride of 2 in the first layer.

    Attributes:
        channels: of each layer.
        strides: of each layer.
    """

    channels: Sequence[int] = (32, 32, 32, 32)
    strides: Sequence[int] = (2, 1, 1, 1)

    @nn.compact
    def __call__(self, image):
        x = image.astype(jnp.float32) / 255 - 0.5
        for channels, stride in zip(self.channels, self.strides, strict=True):
            x = nn.Conv(channels, (3, 3), stride, padding="VALID", kernel_init=orthogonal(2**0.5))(x)
            x = nn.relu(x)
        return x.reshape(*x.shape[:-3], -1)


class Trunk(nn.Module):
    """A narrow neck between an encoder and a head: Dense, LayerNorm, tanh (Yarats et al. 2022)."""

    width: int = 50

    @nn.compact
    def __call__(self, features):
        return nn.tanh(nn.LayerNorm(epsilon=1e-5)(nn.Dense(self.width, kernel_init=orthogonal())(features)))


def side_after(side: int, strides: Sequence[int]) -> int:
    """The side of a square image after those layers; below 1 where the image is too small."""
    for stride in strides:
        side = (side - 3) // stride + 1 if side >= 3 else 0
    return side
