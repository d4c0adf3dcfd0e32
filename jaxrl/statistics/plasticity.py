"""How able a network still is to learn: of its activations and of its weights. All inside jit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.core import PyTree


def dormant_ratio(activations: Float[Array, "batch units"], threshold: float = 0.025) -> Float[Array, ""]:
    """The share of units whose mean |activation| is at most `threshold` of the layer's  (Sokar et al. 2023, eq. 1)."""
    score = jnp.abs(activations).mean(axis=0)
    return (score <= threshold * score.mean()).mean()


def dormant_share(layers: Sequence[Float[Array, "*layers batch units"]], threshold: float = 0.025) -> Float[Array, ""]:
    """The share of all units of some layers whose mean |output| is below `threshold` of their layer's mean.

    Of outputs before the activation, as DrM measures them (Xu et al. 2024): a unit that a ReLU silences counts as awake
    where its input is far from 0. A layer of zeros has no dormant unit. Leading axes (members, experts) are layers.
    """
    score = [jnp.abs(layer).mean(axis=-2) for layer in layers]
    dormant = [(s < threshold * s.mean(axis=-1, keepdims=True)).ravel() for s in score]
    return jnp.concatenate(dormant).mean()


def active_fraction(layers: Sequence[Float[Array, "*layers batch units"]]) -> Float[Array, ""]:
    """The share of (unit, sample) pairs above 0 over some layers: FAU  (Ma et al. 2024).

    Of ReLU layers, before or after: those pairs through which a gradient flows.
    """
    return jnp.stack([(layer > 0).sum() for layer in layers]).sum() / sum(layer.size for layer in layers)


def feature_rank(features: Float[Array, "batch units"], share: float = 0.99) -> Float[Array, ""]:
    """The fewest singular values that hold `share` of the sum of all, as a float  (Kumar et al. 2021, srank)."""
    values = jnp.linalg.svd(features, compute_uv=False)
    short = jnp.cumsum(values) < share * values.sum()
    return short.sum() + 1.0 * (values.sum() > 0)


def weight_norm(parameters: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all parameters together."""
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(parameters)))
