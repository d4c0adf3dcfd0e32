"""What causes what, from a table of samples: regressions, and the order of linear causes whose noise is not normal.

Rows [N, n] weigh `weight` [N], 0 where there is none. Columns are standardised by their callers where scales differ.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def standardised(x: Float[Array, "N n"], weight: Float[Array, "N"]) -> Float[Array, "N n"]:
    """Columns of mean 0 and variance 1 over the weighed rows; 0 where nothing varies, and in rows without weight."""
    share = weight / jnp.maximum(weight.sum(), 1e-9)
    held = weight[:, None] > 0
    x = jnp.where(held, x, 0.0)
    centred = jnp.where(held, x - share @ x, 0.0)
    std = jnp.sqrt(share @ centred**2)
    return jnp.where(std > 1e-6, centred / jnp.maximum(std, 1e-6), 0.0)


def products(
    x: Float[Array, "N n"], y: Float[Array, "N m"], weight: Float[Array, "N"]
) -> tuple[Float[Array, "n n"], Float[Array, "n m"]]:
    """The weighed means of x x' and x y'. Rows of weight 0 are not looked at."""
    share = weight / jnp.maximum(weight.sum(), 1e-9)
    x, y = (jnp.where(weight[:, None] > 0, z, 0.0) for z in (x, y))
    return jnp.einsum("k,ki,kj->ij", share, x, x), jnp.einsum("k,ki,kj->ij", share, x, y)


def least_squares(
    x: Float[Array, "N n"], y: Float[Array, "N m"], weight: Float[Array, "N"], ridge: float = 1e-4
) -> Float[Array, "m n"]:
    """The coefficients of each column of y on all of x, without a constant; `ridge` decides between equal columns."""
    gram, moment = products(x, y, weight)
    return jnp.linalg.solve(gram + ridge * jnp.eye(x.shape[1]), moment).T


def lasso(
    x: Float[Array, "N n"],
    y: Float[Array, "N m"],
    weight: Float[Array, "N"],
    penalty: float | jax.Array,
    steps: int = 200,
) -> Float[Array, "m n"]:
    """Coefficients of least half the squared error and `penalty` times their absolute sum  (Beck & Teboulle 2009)."""
    gram, moment = products(x, y, weight)
    rate = 1 / jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], 1e-6)
    shrink = lambda w: jnp.sign(w) * jnp.maximum(jnp.abs(w) - rate * penalty, 0)

    def step(i, carry):
        w, ahead, t = carry
        new = shrink(ahead - rate * (gram @ ahead - moment))
        further = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return new, new + (t - 1) / further * (new - w), further

    start = jnp.zeros_like(moment)
    return jax.lax.fori_loop(0, steps, step, (start, start, jnp.float32(1)))[0].T


def entropy(u: Float[Array, "N"], weight: Float[Array, "N"]) -> Float[Array, ""]:
    """An approximation of the entropy of a variable of mean 0 and variance 1  (Hyvarinen 1998, eq. 34)."""
    k1, k2, gamma = 79.047, 7.4129, 0.37457
    share = weight / jnp.maximum(weight.sum(), 1e-9)
    log_cosh = jnp.abs(u) + jax.nn.softplus(-2 * jnp.abs(u)) - jnp.log(2.0)
    return (
        0.5 * (1 + jnp.log(2 * jnp.pi))
        - k1 * (share @ log_cosh - gamma) ** 2
        - k2 * (share @ (u * jnp.exp(-(u**2) / 2))) ** 2
    )


def causal_order(x: Float[Array, "N n"], weight: Float[Array, "N"]) -> Int[Array, "n"]:
    """Columns from causes to effects  (Shimizu et al. 2011, DirectLiNGAM, with the pairwise measure of Hyvarinen &
    Smith 2013): again and again the one that is least told by what the others leave of it, taken out of the rest.

    Costs n^3 N operations, n N at a time.
    """
    n = x.shape[1]

    def scale(u):
        return standardised(u[:, None], weight)[:, 0]

    def choose(x, rest):
        """The next column, of standardised ones."""

        def against(i):
            def one(j):
                slope = (weight * x[:, i] * x[:, j]).sum() / jnp.maximum(weight.sum(), 1e-9)
                left, other = scale(x[:, i] - slope * x[:, j]), scale(x[:, j] - slope * x[:, i])
                forward = entropy(x[:, j], weight) + entropy(left, weight)
                back = entropy(x[:, i], weight) + entropy(other, weight)
                return jnp.minimum(forward - back, 0) ** 2 * (rest[j] & (j != i))

            return jax.lax.map(one, jnp.arange(n)).sum()

        doubt = jax.lax.map(against, jnp.arange(n))
        return jnp.where(rest, doubt, jnp.inf).argmin()

    def step(carry, _):
        x, rest = carry
        x = standardised(x, weight)
        cause = choose(x, rest)
        slope = (weight[:, None] * x * x[:, cause, None]).sum(axis=0) / jnp.maximum(weight.sum(), 1e-9)
        rest = rest.at[cause].set(False)
        return (jnp.where(rest, x - slope * x[:, cause, None], x), rest), cause

    return jax.lax.scan(step, (x, jnp.ones(n, bool)), None, length=n)[1].astype(jnp.int32)


def before(order: Int[Array, "n"], column: int | jax.Array) -> Bool[Array, "n"]:
    """Which columns come before one in an order."""
    place = jnp.argsort(order)
    return place < place[column]


def ancestors(direct: Bool[Array, "n"], edges: Bool[Array, "n n"]) -> Bool[Array, "n"]:
    """`direct`, and what has an effect on any of them by way of edges[to, from]."""
    back = lambda i, found: found | (edges & found[:, None]).any(axis=0)
    return jax.lax.fori_loop(0, direct.shape[0], back, direct)
