"""Values as distributions over fixed bins, and as quantiles; for one prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.equations.values import huber


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) log(1 + |x|)  (Hafner et al. 2023, eq. 9)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) (exp|x| - 1), the inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(x: Float[Array, ""], bins: Float[Array, "n"]) -> Float[Array, "n"]:
    """Weights of the two bins around x whose mean is x; x beyond the bins counts as the outermost.

    `bins` rise, at any distances: the weights are linear in x itself, not in what the bins were made from.
    """
    x = jnp.clip(x, bins[0], bins[-1])
    gaps = jnp.diff(bins)
    one = jnp.ones(1)
    rising = jnp.concatenate([one, (x - bins[:-1]) / gaps])
    falling = jnp.concatenate([(bins[1:] - x) / gaps, one])
    return jnp.clip(jnp.minimum(rising, falling), 0, 1)


def projected(
    values: Float[Array, "m"], probabilities: Float[Array, "m"], bins: Float[Array, "n"]
) -> Float[Array, "n"]:
    """The distribution of `values` on the bins, each split between its neighbours  (Bellemare et al. 2017, eq. 7)."""
    return probabilities @ jax.vmap(two_hot, in_axes=(0, None))(values, bins)


def clipped_distribution(
    reward_t: Float[Array, ""],
    discount_t: Float[Array, ""],
    logits_t: Float[Array, "critics n"],
    entropy_bonus: float | Float[Array, ""],
    bins: Float[Array, "n"],
) -> Float[Array, "n"]:
    """The distribution of r + d (z + bonus), with z of the critic that expects the least, on the bins.

    `clipped_q_target` for value distributions, as SimbaV2 and XQC take it; what is beyond the bins counts as outermost.
    """
    least = jax.vmap(expected, in_axes=(0, None))(logits_t, bins).argmin()
    return projected(reward_t + discount_t * (bins + entropy_bonus), jax.nn.softmax(logits_t[least]), bins)


def cross_entropy(logits: Float[Array, "n"], probabilities: Float[Array, "n"]) -> Float[Array, ""]:
    """-sum p log softmax(logits)."""
    return -(probabilities * jax.nn.log_softmax(logits)).sum()


def expected(logits: Float[Array, "n"], bins: Float[Array, "n"]) -> Float[Array, ""]:
    """The mean of softmax(logits) over the bins."""
    return jax.nn.softmax(logits) @ bins


def quantile_huber(quantiles: Float[Array, "n"], targets: Float[Array, "m"], kappa: float = 1.0) -> Float[Array, ""]:
    """mean_j sum_i |tau_i - 1(d_ij < 0)| huber(d_ij), d_ij = target_j - quantile_i, tau_i = (i + 1/2) / n.

    Dabney et al. 2018, eq. 10, without its division by kappa.
    """
    n = quantiles.shape[0]
    tau = (jnp.arange(n) + 0.5) / n
    error = targets[None, :] - quantiles[:, None]
    weight = jnp.abs(tau[:, None] - (error < 0))
    return (weight * huber(error, kappa)).sum(axis=0).mean()
