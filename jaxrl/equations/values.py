"""Targets of value learning, for one transition; `discount_t` holds gamma and is 0 where the step terminated.

Where it is 0 nothing that follows is looked at, were it NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def reached(discount_t: Shaped[Array, "..."], following: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """What follows, and 0 where the discount is 0: NaN times 0 would be NaN.

    It selects before it multiplies, `discount_t * reached(discount_t, v)`, so that a sum with that product stays one
    operation of the processor and its bits are those without the selection.
    """
    return jnp.where(discount_t != 0, following, 0.0)


def td_target(reward_t: Float[Array, ""], discount_t: Float[Array, ""], value_t: Float[Array, ""]) -> Float[Array, ""]:
    """r + d v(x')  (Sutton and Barto 2018, eq. 6.2)."""
    return reward_t + discount_t * reached(discount_t, value_t)


def q_target(
    reward_t: Float[Array, ""], discount_t: Float[Array, ""], q_t: Float[Array, "actions"]
) -> Float[Array, ""]:
    """r + d max_a q(x', a)  (Watkins 1989; with a target network, Mnih et al. 2015)."""
    return td_target(reward_t, discount_t, q_t.max())


def double_q_target(
    reward_t: Float[Array, ""],
    discount_t: Float[Array, ""],
    q_t_target: Float[Array, "actions"],
    q_t_online: Float[Array, "actions"],
) -> Float[Array, ""]:
    """r + d q_target(x', argmax_a q_online(x', a))  (van Hasselt et al. 2016, eq. 4)."""
    return td_target(reward_t, discount_t, q_t_target[q_t_online.argmax()])


def clipped_q_target(
    reward_t: Float[Array, ""],
    discount_t: Float[Array, ""],
    q_t: Float[Array, "critics"],
    entropy_bonus: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    """r + d (min_i q_i(x', a') + bonus)  (Fujimoto et al. 2018, eq. 10; bonus = -alpha log pi in SAC, eq. 5)."""
    return td_target(reward_t, discount_t, q_t.min() + entropy_bonus)


def sarsa_target(reward_t: Float[Array, ""], discount_t: Float[Array, ""], q_t_a: Float[Array, ""]) -> Float[Array, ""]:
    """r + d q(x', a') of the action taken next  (Sutton and Barto 2018, eq. 6.7)."""
    return td_target(reward_t, discount_t, q_t_a)


def huber(error: Float[Array, "..."], delta: float = 1.0) -> Float[Array, "..."]:
    """e^2 / 2 up to |e| = delta and linear beyond: its gradient is the error clipped to +-delta."""
    inside = jnp.minimum(jnp.abs(error), delta)
    return 0.5 * inside**2 + delta * (jnp.abs(error) - inside)


def expectile_loss(error: Float[Array, "..."], tau: float) -> Float[Array, "..."]:
    """|tau - 1(e < 0)| e^2 of e = target - guess, least at the tau-expectile  (Kostrikov et al. 2022, eq. 5)."""
    return jnp.where(error < 0, 1 - tau, tau) * error**2
