"""How able a network still is to learn: of its activations and of its weights. All inside jit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.core import PyTree


def dormant_ratio(activations: Float[Array, "batch units"], threshold: float = 0.025) -> Float[Array, ""]:
    """The share of units whose mean |activation| is at most `threshold` of the layer's  (Sokar et al. 2023, eq. 1)."""
    score = jnp.abs(activations).mean(axis=0)
    return (score <= threshold * score.mean()).mean()


def active_fraction(activations: Float[Array, "batch units"]) -> Float[Array, ""]:
    """The mean share of units above 0: of a ReLU layer, those through which a gradient flows."""
    return (activations > 0).mean()


def feature_rank(features: Float[Array, "batch units"], share: float = 0.99) -> Float[Array, ""]:
    """The fewest singular values that hold `share` of the sum of all, as a float  (Kumar et al. 2021, srank)."""
    values = jnp.linalg.svd(features, compute_uv=False)
    short = jnp.cumsum(values) < share * values.sum()
    return short.sum() + 1.0 * (values.sum() > 0)


def weight_norm(parameters: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all parameters together."""
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(parameters)))
