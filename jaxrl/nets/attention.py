"""Self-attention among the tokens of a picture: what the encoders `convit` and `t2t` share.

Tokens are [..., N, D]. There is no dropout, no mask and no cache: pictures are seen whole, and once.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.core import BadInput

small_normal = nn.initializers.truncated_normal(0.02)  # of all matrices that the two papers do not treat specially
dense = partial(nn.Dense, kernel_init=small_normal)


def either(numbers: list[int]) -> str:
    """'a or b', of those numbers that are above 0."""
    return " or ".join(str(number) for number in numbers if number > 0)


def multiples(size: int, near: int) -> str:
    """The multiples of `size` on both sides of `near`, for a sentence: '48 or 56'."""
    below = near // size * size
    return either([below, below + size])


def divided(x: jax.Array, heads: int) -> jax.Array:
    """[..., N, D] -> [..., heads, N, D / heads].

    Raises:
        BadInput: heads that do not divide D.
    """
    width = x.shape[-1]
    if width % heads:
        raise BadInput(f"heads is {heads}, which does not divide a width of {width}: {multiples(heads, width)} fits.")
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, width // heads), -3, -2)


def joined(x: jax.Array) -> jax.Array:
    """[..., heads, N, d] -> [..., N, heads x d], what `divided` took apart."""
    x = jnp.swapaxes(x, -3, -2)
    return x.reshape(*x.shape[:-2], -1)


def attention(q: jax.Array, k: jax.Array, scale: float) -> jax.Array:
    """softmax_j(scale q_i . k_j): [..., N, d] twice -> float32 [..., N, N]; scores are float32 whatever q and k are.

    Vaswani et al. 2017, eq. 1.
    """
    scores = jnp.einsum("...id,...jd->...ij", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scale * scores)


class FeedForward(nn.Module):
    """Dense, GELU, Dense, for each token alone: [..., N, D] -> [..., N, D], with `ratio` x D hidden units."""

    ratio: int

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        return dense(width)(nn.gelu(dense(self.ratio * width)(x), approximate=False))


class Attention(nn.Module):
    """Multi-head self-attention [..., N, D] -> [..., N, D]: W_o concat_h(A_h V_h), A_h by `attention`.

    Vaswani et al. 2017, section 3.2.2, scaled by (D / heads)^-1/2; queries, keys and values without biases.

    Raises:
        BadInput: heads that do not divide D.
    """

    heads: int

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        together = dense(3 * width, use_bias=False, name="query_key_value")(x)
        q, k, v = (divided(part, self.heads) for part in jnp.split(together, 3, axis=-1))
        weights = attention(q, k, (width // self.heads) ** -0.5)
        return dense(width, name="out")(joined(weights.astype(v.dtype) @ v))


class Block(nn.Module):
    """x + mixer(LN x), then x + MLP(LN x): [..., N, D] -> [..., N, D]  (Dosovitskiy et al. 2021, eqs. 2 and 3).

    Attributes:
        mixer: makes the module through which tokens see each other, [..., N, D] -> [..., N, D].
        ratio: hidden units of the MLP for each of D.
    """

    mixer: Callable[[], nn.Module]
    ratio: int = 4

    @nn.compact
    def __call__(self, x):
        x = x + self.mixer()(nn.LayerNorm()(x))
        return x + FeedForward(self.ratio)(nn.LayerNorm()(x))
