"""DM Control's soft indicator, of which all its rewards are products.

Source: Tassa et al., "DeepMind Control Suite" (2018), section 2; dm_control (Apache-2.0) defines the sigmoids.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, unknown

# Each takes the distance from the bounds in margins (d >= 0) and the value wanted at d = 1, and is 1 at d = 0.
SIGMOIDS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "gaussian": lambda d, at_margin: jnp.exp(math.log(at_margin) * d**2),
    "hyperbolic": lambda d, at_margin: 1 / jnp.cosh(math.acosh(1 / at_margin) * d),
    "long_tail": lambda d, at_margin: 1 / (1 + (1 / at_margin - 1) * d**2),
    "reciprocal": lambda d, at_margin: 1 / (1 + (1 / at_margin - 1) * d),
    "tanh_squared": lambda d, at_margin: 1 - jnp.tanh(math.atanh(math.sqrt(1 - at_margin)) * d) ** 2,
    "cosine": lambda d, at_margin: (1 + jnp.cos(jnp.minimum(math.acos(2 * at_margin - 1) * d, math.pi))) / 2,
    "linear": lambda d, at_margin: jnp.maximum(1 - (1 - at_margin) * d, 0),
    "quadratic": lambda d, at_margin: jnp.maximum(1 - (1 - at_margin) * d**2, 0),
}
REACH_ZERO = ("cosine", "linear", "quadratic")  # those that may be 0 at the margin


def tolerance(
    x: jax.Array,
    lower: float = 0.0,
    upper: float = 0.0,
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    at_margin: float = 0.1,
) -> jax.Array:
    """1 where `lower <= x <= upper`, falling to `at_margin` at a distance of `margin` outside.

    Args:
        x: any shape.
        margin: in the units of x; 0 makes it a hard indicator.
        sigmoid: the shape of the fall, a name in `SIGMOIDS`.

    Returns:
        float32, the shape of x, within [0, 1].

    Raises:
        BadInput: bounds in the wrong order, a negative margin, an unknown sigmoid, or a value that it cannot reach.
    """
    if lower > upper:
        raise BadInput(f"tolerance has lower {lower} above upper {upper}: exchange them.")
    if margin < 0:
        raise BadInput(f"tolerance has margin {margin}; a distance is at least 0.")
    if sigmoid not in SIGMOIDS:
        raise unknown("sigmoid", sigmoid, SIGMOIDS)
    if not 0 <= at_margin < 1 or (at_margin == 0 and sigmoid not in REACH_ZERO):
        raise BadInput(f"at_margin is {at_margin}, which '{sigmoid}' cannot take: choose a value between 0 and 1.")
    inside = (lower <= x) & (x <= upper)
    if margin == 0:
        return inside.astype(jnp.float32)
    # Inside the bounds the distance is 0, where every sigmoid is 1: no second `where` is needed, nor its gradient.
    distance = jnp.where(inside, 0, jnp.where(x < lower, lower - x, x - upper)) / margin
    return SIGMOIDS[sigmoid](distance, at_margin)
