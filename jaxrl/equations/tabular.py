"""Plans in finite worlds that last a number of steps; a row of chances may lack to 1 what ends the episode."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def planned(
    P: Float[Array, "S A S"],
    r: Float[Array, "S A"],
    horizon: int,
    most: float | jax.Array = jnp.inf,
    best: Callable[[jax.Array], jax.Array] = lambda q: q.max(axis=-1),
) -> Float[Array, "H S A"]:
    """What actions are worth with H, H - 1, ..., 1 steps to go, by backward induction.

    Args:
        most: no value is above it, [] or [H], of the same steps to go: the optimist's bound.
        best: what a state is worth from what its actions are, [S, A] -> [S]; `soft_best` of a temperature has a
            gradient for actions that are not the best.
    """

    def back(v, most):
        q = jnp.minimum(r + P @ v, most)
        return best(q), q

    bounds = jnp.broadcast_to(jnp.asarray(most, jnp.float32), (horizon,))
    return jax.lax.scan(back, jnp.zeros(r.shape[0]), bounds, reverse=True)[1]


def soft_best(temperature: float | jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The mean of what actions are worth, each weighed by the softmax of its own."""
    return lambda q: (jax.nn.softmax(q / temperature, axis=-1) * q).sum(axis=-1)


def hoeffding_bonus(
    n: Float[Array, "*x"], horizon: int, confidence: float | jax.Array, scale: float | jax.Array = 7.0
) -> Float[Array, "*x"]:
    """scale H L / sqrt(n), for L of `confidence` = ln(5 S A T / delta)  (Azar et al. 2017, algorithm 3, UCBVI-CH)."""
    return scale * horizon * confidence / jnp.sqrt(jnp.maximum(n, 1))
