"""An encoder that makes tokens of a picture step by step, of overlapping windows (Yuan et al. 2021, T2T-ViT)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from jaxrl.core import BadInput, unknown
from jaxrl.nets.attention import Attention, Block, FeedForward, attention, dense
from jaxrl.nets.conv import centred

# (k, s, p) of each soft split: the paper's take a side to a sixteenth; two of them, for small pictures, to an eighth.
T2T_FULL = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
T2T_SMALL = ((7, 4, 2), (3, 2, 1))


def soft_split(x: jax.Array, k: int, s: int, p: int) -> jax.Array:
    """Windows of k x k, s apart, of an image with p zeros around it: [..., H, W, C] -> [..., H', W', C x k x k].

    H' = floor((H + 2 p - k) / s) + 1, W' likewise; channels go first in a token: C, then rows, then columns of the
    window. Yuan et al. 2021, section 3.1.
    """
    # A convolution with ones and zeros: it copies exactly where its products are exact, which is not a GPU's default.
    tokens = jax.lax.conv_general_dilated_patches(
        x.reshape(-1, *x.shape[-3:]),
        (k, k),
        (s, s),
        [(p, p), (p, p)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return tokens.reshape(*x.shape[:-3], *tokens.shape[1:])


def grid_after(height: int, width: int, stages: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """Rows and columns of the tokens after those soft splits; each of them rounds down.

    Raises:
        BadInput: fewer than 2 x 2 tokens after any of them.
    """
    rows, columns = height, width
    for k, s, p in stages:
        rows, columns = ((side + 2 * p - k) // s + 1 for side in (rows, columns))
        if min(rows, columns) < 2:
            raise BadInput(
                f"stages is {tuple(stages)}, after which a picture of {height} x {width} pixels is fewer than 2 x 2 "
                f"tokens: drop a stage or lower a stride."
            )
    return rows, columns


class TokenTransformer(nn.Module):
    """One head of attention that makes tokens narrower: [..., N, in] -> [..., N, width].

    q, k, v of LN(x), z = v + W_o softmax(q k' / sqrt(in)) v, then z + MLP(LN z). The widths of x and z differ, so v is
    what skips; the scale is that of the wider input. Yuan et al. 2021, section 3.1, and their public model.
    """

    width: int = 64

    @nn.compact
    def __call__(self, x):
        together = dense(3 * self.width, use_bias=False, name="query_key_value")(nn.LayerNorm()(x))
        q, k, v = jnp.split(together, 3, axis=-1)
        seen = attention(q, k, x.shape[-1] ** -0.5).astype(v.dtype) @ v
        z = v + dense(self.width, name="out")(seen)
        return z + FeedForward(1)(nn.LayerNorm()(z))


@lru_cache(maxsize=32)
def orthogonal_features(m: int, d: int, seed: int) -> np.ndarray:
    """W, float32 [m, d]: orthonormal rows or columns, whichever are fewer, times sqrt(m), random but fixed by the seed.

    With m >= d rows are as long as those of a standard normal matrix, on average, and `performer_attention` estimates
    softmax attention. With m < d, as in the paper's 32 for 64, they are shorter, and what it estimates is flatter: its
    weights go as exp((m / d) q . k - (1 - m / d) |k|^2 / 2).
    """
    tall = np.random.default_rng(seed).normal(size=(max(m, d), min(m, d)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diagonal(r))
    return (m**0.5 * (q if m >= d else q.T)).astype(np.float32)


def log_features(x: jax.Array, w: jax.Array) -> jax.Array:
    """log phi(x) = W x - |x|^2 / 2, up to a constant: [..., d] and [m, d] -> float32 [..., m].

    The mean over features of phi(q) phi(k) estimates exp(q . k)  (Choromanski et al. 2021, lemma 1).
    """
    x = x.astype(jnp.float32)
    return x @ w.T - (x**2).sum(axis=-1, keepdims=True) / 2


def performer_attention(q: jax.Array, k: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
    """sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j): [..., N, d] thrice and [m, d] -> float32 [..., N, d].

    Linear in N (Choromanski et al. 2021, section 2). For every token the exponents' largest is taken from them first,
    which cancels: nothing overflows, and the denominator is at least 1 and needs no guard.
    """
    log_q, log_k = log_features(q, w), log_features(k, w)
    # Each feature's largest over keys is moved to the queries; one for all features could leave a token with 0 / 0.
    most = jax.lax.stop_gradient(log_k.max(axis=-2, keepdims=True))
    log_q, phi_k = log_q + most, jnp.exp(log_k - most)
    phi_q = jnp.exp(log_q - jax.lax.stop_gradient(log_q.max(axis=-1, keepdims=True)))
    total = (phi_q * phi_k.sum(axis=-2, keepdims=True)).sum(axis=-1, keepdims=True)
    return phi_q @ (jnp.swapaxes(phi_k, -1, -2) @ v) / total


class TokenPerformer(nn.Module):
    """As `TokenTransformer`, by `performer_attention`: its cost is linear in N.

    k, q, v of LN(x) have biases, and the product is not scaled, as in the authors' public model; there is no dropout.

    Attributes:
        width: of the tokens made.
        features: m, rows of W. W is a constant drawn from `seed` and no parameter, so neither optimisers nor target
            networks nor resets move it, and a checkpoint holds it with the configuration.
    """

    width: int = 64
    features: int = 32
    seed: int = 0

    @nn.compact
    def __call__(self, x):
        together = dense(3 * self.width, name="key_query_value")(nn.LayerNorm()(x))
        k, q, v = jnp.split(together, 3, axis=-1)
        seen = performer_attention(q, k, v, orthogonal_features(self.features, self.width, self.seed))
        z = v + dense(self.width, name="out")(seen.astype(v.dtype))
        return z + FeedForward(1)(nn.LayerNorm()(z))


class T2TStem(nn.Module):
    """Soft splits, with tokens that see each other in between, then Dense: [..., H, W, C] -> [..., rows, columns, D].

    Attributes:
        width: D.
        stages: (k, s, p) of each soft split.
        kind: 'performer' or 'transformer', what is between two splits.
        token_width: of the tokens between two splits.
        features, seed: of `TokenPerformer`; each stage draws its own W.

    Raises:
        BadInput: any other kind; fewer than 2 x 2 tokens.
    """

    width: int
    stages: Sequence[tuple[int, int, int]] = T2T_SMALL
    kind: str = "performer"
    token_width: int = 64
    features: int = 32
    seed: int = 0

    @nn.compact
    def __call__(self, image):
        if self.kind not in (known := ("performer", "transformer")):
            raise unknown("kind", self.kind, known)
        grid_after(*image.shape[-3:-1], self.stages)
        x = centred(image)
        for i, (k, s, p) in enumerate(self.stages):
            if i:
                tokens = x.reshape(*x.shape[:-3], -1, x.shape[-1])
                x = self.between(i)(tokens).reshape(*x.shape[:-1], self.token_width)
            x = soft_split(x, k, s, p)
        return dense(self.width)(x)

    def between(self, stage: int) -> nn.Module:
        """The module between two soft splits."""
        if self.kind == "transformer":
            return TokenTransformer(self.token_width)
        return TokenPerformer(self.token_width, self.features, self.seed + stage)


@lru_cache(maxsize=32)
def sinusoids(tokens: int, width: int) -> np.ndarray:
    """float32 [tokens, width]: sin in even places i, cos in odd ones, of position / 10000^(2 floor(i / 2) / width).

    Vaswani et al. 2017, section 3.5.
    """
    place = np.arange(width)
    angle = np.arange(tokens)[:, None] / 10000 ** (2 * (place // 2) / width)
    return np.where(place % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


class T2T(nn.Module):
    """`T2TStem`, fixed positions, blocks of `Attention`, LayerNorm, mean over tokens: [..., H, W, C] -> [..., width].

    Pictures of uint8 are taken to [-0.5, 0.5], those of floats as they are; features are float32. Yuan et al. 2021,
    deep and narrow, with the mean in place of a token for the class; sizes and two stages for pictures of 48 to 84
    pixels. T2T-ViT-14 is `T2T(384, 14, 6, 3, {"stages": T2T_FULL})`.

    Attributes:
        width: features of a token.
        depth, heads: blocks, and heads of each.
        ratio: hidden units of a block's MLP for each of `width`.
        stem: what else `T2TStem` is told.

    Raises:
        BadInput: an unknown kind; stages that leave fewer than 2 x 2 tokens; heads that do not divide the width.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    ratio: int = 2
    stem: Mapping[str, Any] = FrozenDict()

    @nn.compact
    def __call__(self, image):
        x = T2TStem(self.width, **self.stem)(image)
        x = x.reshape(*x.shape[:-3], -1, self.width)
        x = x + jnp.asarray(sinusoids(*x.shape[-2:]), x.dtype)
        for _ in range(self.depth):
            x = Block(partial(Attention, self.heads), self.ratio)(x)
        return nn.LayerNorm()(x).mean(axis=-2)
