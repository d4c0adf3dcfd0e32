"""Contrastive objectives of a batch, in which each row's own target has to be told from all others'."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def info_nce(logits: Float[Array, "batch batch"]) -> Float[Array, "batch"]:
    """-log of the softmax share of each row's diagonal entry  (van den Oord et al. 2018, eq. 4)."""
    return -jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
