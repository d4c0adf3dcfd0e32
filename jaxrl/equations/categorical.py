"""Values as distributions over fixed bins, and as quantiles; for one prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.equations.values import reached


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
    # A neighbour one beyond either end, so that an outermost bin has all weight up to itself.
    below, above = jnp.append(bins[0] - 1, bins[:-1]), jnp.append(bins[1:], bins[-1] + 1)
    rising, falling = (x - below) * (1 / (bins - below)), (above - x) * (1 / (above - bins))
    return jnp.clip(jnp.minimum(rising, falling), 0, 1)


def hl_gauss(x: Float[Array, ""], bins: Float[Array, "n"], spread: float = 0.75) -> Float[Array, "n"]:
    """What a normal around x puts on each bin, from halfway to one neighbour to halfway to the other.

    Imani and White 2018; Farebrother et al. 2024. `bins` rise by equal widths, and `spread` is the standard deviation
    in widths; x beyond the bins counts as the outermost, and what falls outside is shared out.
    """
    width = (bins[-1] - bins[0]) / (bins.shape[0] - 1)
    edges = jnp.append(bins, bins[-1] + width) - width / 2
    below = jax.scipy.stats.norm.cdf(edges, jnp.clip(x, bins[0], bins[-1]), spread * width)
    return jnp.diff(below) / (below[-1] - below[0])


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
    values, chances = bins + reached(discount_t, entropy_bonus), jax.nn.softmax(reached(discount_t, logits_t[least]))
    return projected(reward_t + discount_t * values, chances, bins)


def cross_entropy(logits: Float[Array, "n"], probabilities: Float[Array, "n"]) -> Float[Array, ""]:
    """-sum p log softmax(logits)."""
    return -(probabilities * jax.nn.log_softmax(logits)).sum()


def expected(logits: Float[Array, "n"], bins: Float[Array, "n"]) -> Float[Array, ""]:
    """The mean of softmax(logits) over the bins.

    It is summed by pairs from either end, by how far the two bins, and their two chances, are apart. Chances that are
    alike around the middle therefore leave exactly 0 of bins that lie around 0, however wide these are; bins that are
    each other's opposites but for rounding, as in `symexp(jnp.linspace(-20, 20, 255))`, count as opposites.
    """
    p, half = jax.nn.softmax(logits), bins.shape[0] // 2
    apart, level = bins - bins[::-1], bins + bins[::-1]
    innermost = jnp.abs(apart[-half % bins.shape[0]])
    level = jnp.where(jnp.abs(level) <= 1e-4 * jnp.maximum(jnp.abs(apart), innermost), 0.0, level)
    return ((p - p[::-1]) @ apart + (p + p[::-1]) @ level) / 4


@jax.custom_jvp
def quantile_huber(
    quantiles: Float[Array, "n"], targets: Float[Array, "m"], kappa: float | Float[Array, ""] = 1.0
) -> Float[Array, ""]:
    """mean_j sum_i |tau_i - 1(d_ij < 0)| huber(d_ij), d_ij = target_j - quantile_i, tau_i = (i + 1/2) / n.

    Dabney et al. 2018, eq. 10, without its division by kappa.
    """
    return _quantile_huber(quantiles, targets, kappa)[0]


def _quantile_huber(quantiles, targets, kappa):
    """The loss, and its slope in each quantile [n] and target [m], from one pass over the pairs.

    Sums run over the first axis, along which a CPU adds whole vectors.
    """
    tau = (jnp.arange(quantiles.shape[0]) + 0.5) / quantiles.shape[0]
    error = targets[:, None] - quantiles[None, :]
    inside = jnp.clip(error, -kappa, kappa)
    slope = jnp.where(error < 0, 1 - tau, tau) * inside / targets.shape[0]
    return (slope * (error - 0.5 * inside)).sum(axis=0).sum(), -slope.sum(axis=0), slope.sum(axis=1)


@quantile_huber.defjvp
def _quantile_huber_jvp(primals, tangents):
    loss, of_quantile, of_target = _quantile_huber(*primals)
    return loss, of_quantile @ tangents[0] + of_target @ tangents[1]
