"""Encoders of images, and the bottleneck that agents put on top of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.nets.mlp import MLP, orthogonal


def convolution(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any = "VALID", **how: Any) -> jax.Array:
    """[B, H, W, C] by [k, k, C, D], without padding: `lax.conv_general_dilated` as flax calls it, fast on a CPU too.

    Inside a scan XLA's CPU back end differentiates convolutions by plain loops, and those with strides slowest. There
    it is written as what that back end does well, a product of matrices for each entry of the kernel.
    """
    stride = strides if isinstance(strides, int) else strides[0]
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, **how)
    return _by_products(*_unstrided(x, kernel, stride))


def padded(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any = "SAME", **how: Any) -> jax.Array:
    """As `convolution`, with zeros around the image, so that at a stride of 1 it stays as large as it is."""
    before, after = (kernel.shape[0] - 1) // 2, kernel.shape[0] // 2
    around = ((0, 0), (before, after), (before, after), (0, 0))
    return convolution(jnp.pad(x, around), kernel, strides, "VALID", **how)


def _unstrided(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Image and kernel of an equal convolution of stride 1: blocks of `stride` pixels a side become channels."""
    if stride == 1:
        return x, kernel
    (batch, height, width, channels), size = x.shape, kernel.shape[0]
    blocks = -(-size // stride)
    rows, columns = ((side - size) // stride + blocks for side in (height, width))
    # Pixels that no window reaches are cut off, and missing ones of the last blocks meet zeros of the kernel.
    grown = [max(blocked * stride - side, 0) for blocked, side in ((rows, height), (columns, width))]
    x = jnp.pad(x, ((0, 0), (0, grown[0]), (0, grown[1]), (0, 0)))[:, : rows * stride, : columns * stride]
    x = x.reshape(batch, rows, stride, columns, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    grown = blocks * stride - size
    kernel = jnp.pad(kernel, ((0, grown), (0, grown), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    deep = stride * stride * channels
    return x.reshape(batch, rows, columns, deep), kernel.reshape(blocks, blocks, deep, -1)


def _by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of stride 1: for each entry of the kernel, the image that passes under it times that entry."""
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    under = lambda i, j: x[:, i : i + height, j : j + width].reshape(-1, x.shape[-1])
    y = sum(under(i, j) @ kernel[i, j] for i in range(rows) for j in range(columns))
    return y.reshape(x.shape[0], height, width, -1)


def centred(image: jax.Array) -> jax.Array:
    """Pictures of uint8 as float32 in [-0.5, 0.5]; those of floats as they are."""
    return image.astype(jnp.float32) / 255 - 0.5 if image.dtype == jnp.uint8 else image


class Conv(nn.Module):
    """Convolutions without padding, a ReLU after each: [..., H, W, C] -> float32 [..., features].

    Pictures of uint8 are taken to [-0.5, 0.5], those of floats as they are. Yarats et al. 2022 (DrQ-v2), with 32
    channels four times and a stride of 2 in the first layer.

    Attributes, each of every layer:
        channels: that it makes.
        strides: pixels from one window to the next.
        sizes: pixels a side of a window.
    """

    channels: Sequence[int] = (32, 32, 32, 32)
    strides: Sequence[int] = (2, 1, 1, 1)
    sizes: Sequence[int] = (3, 3, 3, 3)

    @nn.compact
    def __call__(self, image):
        x = centred(image)
        how = {"kernel_init": orthogonal(2**0.5), "conv_general_dilated": convolution}
        for channels, stride, size in zip(self.channels, self.strides, self.sizes, strict=True):
            x = nn.relu(nn.Conv(channels, (size, size), stride, "VALID", **how)(x))
        return x.reshape(*x.shape[:-3], -1)


class Impala(nn.Module):
    """Convolutions with residual blocks: [..., H, W, C] -> float32 [..., features]  (Espeholt et al. 2018, figure 3).

    For each number of channels a convolution, the largest of each 3 x 3 window two pixels apart, and two blocks
    x + conv(ReLU(conv(ReLU x))); all of 3 x 3, with zeros around. Pictures are taken as `Conv` takes them.
    """

    channels: Sequence[int] = (16, 32, 32)

    @nn.compact
    def __call__(self, image):
        x = centred(image)
        for channels in self.channels:
            conv = partial(nn.Conv, channels, (3, 3), kernel_init=orthogonal(2**0.5), conv_general_dilated=padded)
            x = nn.max_pool(conv()(x), (3, 3), (2, 2), "SAME")
            for _ in range(2):
                x = x + conv()(nn.relu(conv()(nn.relu(x))))
        return nn.relu(x).reshape(*x.shape[:-3], -1)


class Trunk(nn.Module):
    """A narrow neck between an encoder and a head: Dense, LayerNorm, tanh (Yarats et al. 2022)."""

    width: int = 50

    @nn.compact
    def __call__(self, features):
        return nn.tanh(nn.LayerNorm(epsilon=1e-5)(nn.Dense(self.width, kernel_init=orthogonal())(features)))


class TrunkMLP(nn.Module):
    """A `Trunk` on the first input, what is seen, and an `MLP` on that and the others.

    Attributes:
        widths, outputs: of the MLP.
        neck: width of the trunk.
    """

    widths: Sequence[int]
    outputs: int
    neck: int = 50
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, seen, *others):
        return MLP(self.widths, self.outputs, kernel_init=self.kernel_init)(Trunk(self.neck)(seen), *others)


def side_after(side: int, strides: Sequence[int], sizes: Sequence[int]) -> int:
    """The side of a square image after those layers; below 1 where the image is too small."""
    for stride, size in zip(strides, sizes):
        side = (side - size) // stride + 1 if side >= size else 0
    return side
