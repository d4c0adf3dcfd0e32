"""Policy losses, for one step; the caller averages."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def ppo_surrogate(
    log_prob: Float[Array, ""],
    log_prob_old: Float[Array, ""],
    advantage: Float[Array, ""],
    epsilon: float | Float[Array, ""],
) -> Float[Array, ""]:
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A), a loss  (Schulman et al. 2017, eq. 7)."""
    rho = jnp.exp(log_prob - log_prob_old)
    return -jnp.minimum(rho * advantage, jnp.clip(rho, 1 - epsilon, 1 + epsilon) * advantage)


def clipped_value_loss(
    value: Float[Array, ""],
    value_old: Float[Array, ""],
    target: Float[Array, ""],
    epsilon: float | Float[Array, ""] | None,
) -> Float[Array, ""]:
    """max[(v - R)^2, (v_old + clip(v - v_old, -eps, eps) - R)^2] / 2; the plain half square where eps is None."""
    plain = (value - target) ** 2
    if epsilon is None:
        return 0.5 * plain
    near = value_old + jnp.clip(value - value_old, -epsilon, epsilon)
    return 0.5 * jnp.maximum(plain, (near - target) ** 2)


def soft_policy_loss(
    log_prob: Float[Array, ""], q: Float[Array, ""], alpha: float | Float[Array, ""]
) -> Float[Array, ""]:
    """alpha log pi(a|s) - q(s, a), a loss of a reparameterised action  (Haarnoja et al. 2018b, eq. 7)."""
    return alpha * log_prob - q


def temperature_loss(
    alpha: Float[Array, ""], log_prob: Float[Array, ""], target_entropy: float | Float[Array, ""]
) -> Float[Array, ""]:
    """-alpha (log pi + H_target): alpha rises where entropy is below its target  (Haarnoja et al. 2018b, eq. 18).

    Their code has log alpha in place of alpha: the sign of the gradient is the same, and its size does not vanish with
    alpha.
    """
    return -alpha * (log_prob + target_entropy)
