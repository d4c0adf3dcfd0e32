"""An encoder whose attention starts as a convolution and may leave that (d'Ascoli et al. 2021, ConViT)."""

import math
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl.core import BadInput, PyTree
from jaxrl.nets.attention import (
    Attention,
    Block,
    attention,
    dense,
    divided,
    either,
    joined,
    multiples,
    small_normal,
)
from jaxrl.nets.conv import centred


@lru_cache(maxsize=32)
def relative_features(rows: int, columns: int) -> np.ndarray:
    """r_ij = (dx, dy, dx^2 + dy^2) from token i to token j of a grid read row by row: float32 [N, N, 3]."""
    y, x = (place.ravel() for place in np.indices((rows, columns)))
    dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
    return np.stack([dx, dy, dx**2 + dy**2], axis=-1).astype(np.float32)


def local_directions(heads: int, locality: float) -> np.ndarray:
    """u_h = locality (2 x_h, 2 y_h, -1), float32 [3, heads], with (x_h, y_h) a place of a k x k kernel, heads = k^2.

    Attention then falls as exp(-locality |(dx, dy) - (x_h, y_h)|^2). Head h1 + k h2 stands for column h2 and row h1,
    both counted from the kernel's middle, which an even k has between tokens  (d'Ascoli et al. 2021, section 2).

    Raises:
        BadInput: a number of heads that is no square; a negative locality.
    """
    k = math.isqrt(heads)
    if k < 1 or k * k != heads:
        raise BadInput(f"heads is {heads}, which is not a square number: {either([k * k, (k + 1) ** 2])} is.")
    if locality < 0:
        raise BadInput(f"locality is {locality}; it must be at least 0.")
    h2, h1 = np.divmod(np.arange(heads), k)
    middle = (k - 1) / 2
    return np.float32(locality) * np.stack([2 * (h2 - middle), 2 * (h1 - middle), -np.ones(heads)]).astype(np.float32)


def positional_attention(u: jax.Array, relative: jax.Array) -> jax.Array:
    """softmax_j(u_h . r_ij): [3, H] and [N, N, 3] -> float32 [H, N, N]; squares of distances are too large for less.

    d'Ascoli et al. 2021, section 2. A bias of u_h . r_ij would cancel, so there is none.
    """
    return jax.nn.softmax(jnp.einsum("fh,ijf->hij", u.astype(jnp.float32), relative))


def gated(content: jax.Array, positional: jax.Array, gate: jax.Array) -> jax.Array:
    """(1 - gate_h) content + gate_h positional, gate = sigmoid(lambda)  (d'Ascoli et al. 2021, section 3).

    [..., H, N, N], [H, N, N] and [H] -> [..., H, N, N]. Rows of both sum to 1, and so do the mixture's.
    """
    gate = gate.astype(jnp.float32)[:, None, None]
    return (1 - gate) * content + gate * positional


def _identity(key, shape, dtype=jnp.float32):
    return jnp.eye(*shape, dtype=dtype)


class GPSA(nn.Module):
    """Gated positional self-attention [..., N, D] -> [..., N, D]  (d'Ascoli et al. 2021, section 3).

    W_o concat_h(A_h V_h), A_h = `gated` of what queries and keys say and of where tokens lie. Locality goes with weight
    decay: leave the parameters 'u' and 'lambda' out of it.

    Attributes:
        heads: a square number, k^2: with much locality they start as the places of a k x k kernel.
        grid: (rows, columns) of the tokens, N of them, read row by row.
        locality: the paper's alpha, at least 0; the larger, the closer heads start to single places.
        use_local_init: starts u as `local_directions` and values as the tokens themselves; else both are small noise.

    Raises:
        BadInput: heads that are no square or do not divide D; a negative locality.
    """

    heads: int
    grid: tuple[int, int]
    locality: float = 1.0
    use_local_init: bool = True

    @nn.compact
    def __call__(self, x):
        width, heads = x.shape[-1], self.heads
        directions, relative = local_directions(heads, self.locality), relative_features(*self.grid)
        u_init = nn.initializers.constant(directions) if self.use_local_init else small_normal
        u = self.param("u", u_init, (3, heads))
        gate = nn.sigmoid(self.param("lambda", nn.initializers.ones, (heads,)))
        q, k = jnp.split(dense(2 * width, use_bias=False, name="query_key")(x), 2, axis=-1)
        v_init = _identity if self.use_local_init else small_normal
        v = divided(dense(width, use_bias=False, kernel_init=v_init, name="value")(x), heads)
        content = attention(divided(q, heads), divided(k, heads), (width // heads) ** -0.5)
        weights = gated(content, positional_attention(u, relative), gate)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "gate", gate)
            self.sow("intermediates", "distance", attended_distance(weights, relative))
        return dense(width, name="out")(joined(weights.astype(v.dtype) @ v))


def attended_distance(weights: jax.Array, relative: np.ndarray) -> jax.Array:
    """mean_i sum_j A_ij |d_ij| in tokens, and over leading axes: [..., H, N, N] and [N, N, 3] -> float32 [H]."""
    far = jnp.einsum("...ij,ij->...i", weights, np.sqrt(relative[..., 2]))
    return far.reshape(-1, *far.shape[-2:]).mean(axis=(0, 2))


class ConViT(nn.Module):
    """Patches, blocks of `GPSA`, blocks of `Attention`, LayerNorm, mean over tokens: [..., H, W, C] -> [..., width].

    Pictures of uint8 are taken to [-0.5, 0.5], those of floats as they are; features are float32. d'Ascoli et al.
    2021, with the mean in place of a token for the class, and sizes for pictures of 48 to 84 pixels. `local` = 0 is the
    plain vision transformer, whose heads may be any number.

    Attributes:
        patch: pixels a side of a token.
        width: features of a token.
        heads, locality, use_local_init: of `GPSA`; plain attention has as many heads.
        local, plain: blocks of each kind, the local ones first.
        ratio: hidden units of a block's MLP for each of `width`.

    Raises:
        BadInput: a side that is no multiple of the patch; heads that are no square or do not divide the width; a
            negative locality.
    """

    patch: int = 8
    width: int = 144
    heads: int = 9
    local: int = 3
    plain: int = 1
    ratio: int = 4
    locality: float = 1.0
    use_local_init: bool = True

    @nn.compact
    def __call__(self, image):
        x = patches(centred(image), self.patch)
        grid = x.shape[-3:-1]
        x = nn.Dense(self.width)(x.reshape(*x.shape[:-3], -1, x.shape[-1]))
        x = x + self.param("positions", small_normal, x.shape[-2:])
        near = partial(GPSA, self.heads, grid, self.locality, self.use_local_init)
        for mixer in [near] * self.local + [partial(Attention, self.heads)] * self.plain:
            x = Block(mixer, self.ratio)(x)
        return nn.LayerNorm()(x).mean(axis=-2)


def patches(x: jax.Array, patch: int) -> jax.Array:
    """[..., H, W, C] -> [..., H / patch, W / patch, patch x patch x C]; what a strided convolution sees, by reshaping.

    Raises:
        BadInput: a side that is no multiple of the patch.
    """
    height, width, channels = x.shape[-3:]
    for side in (height, width):
        if side % patch:
            whole = math.gcd(height, width)
            sizes = [size for size in range(1, whole + 1) if whole % size == 0]
            near = either([size for size in sizes if size < patch][-1:] + [size for size in sizes if size > patch][:1])
            raise BadInput(
                f"patch is {patch}, and a side of {side} pixels is not a multiple of it: a patch of {near} fits "
                f"pictures of {height} x {width}, or a side of {multiples(patch, side)} fits this patch."
            )
    rows, columns = height // patch, width // patch
    x = x.reshape(*x.shape[:-3], rows, patch, columns, patch, channels)
    return jnp.swapaxes(x, -4, -3).reshape(*x.shape[:-5], rows, columns, patch * patch * channels)


def head_locality(encoder: ConViT, parameters: PyTree, image: jax.Array) -> dict[str, jax.Array]:
    """How local each head of each `GPSA` block is on these pictures: 'gate' and 'distance', float32 [local, heads].

    'gate' is sigmoid(lambda), the share of position in attention: 0.73 at first, less where locality was dropped.
    'distance' is `attended_distance`.
    """
    _, state = encoder.apply({"params": parameters}, image, mutable=["intermediates"])
    blocks = [state["intermediates"][f"Block_{i}"]["GPSA_0"] for i in range(encoder.local)]
    return {name: jnp.stack([block[name][0] for block in blocks]) for name in ("gate", "distance")}
