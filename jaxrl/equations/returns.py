"""Returns and advantages along one sequence of length T.

`reward_t` and `discount_t` belong to the step from x_{t-1} to x_t, as in Sutton and Barto; `discount_t` already holds
gamma, and is 0 where the step terminated: nothing that follows is looked at then. `cut_t` is True where the sequence
breaks off (a time limit): nothing is accumulated across it, and the value of what would have followed still counts.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl.equations.values import reached


def n_step_return(
    reward_t: Float[Array, "n"], discount_t: Float[Array, "n"], value_n: Float[Array, ""]
) -> Float[Array, ""]:
    """r_1 + d_1 r_2 + d_1 d_2 r_3 + ... + (d_1 ... d_n) v_n  (Sutton and Barto 2018, eq. 7.1). Returns float32 []."""
    before = jnp.concatenate([jnp.ones(1), jnp.cumprod(discount_t)])
    return (before[:-1] * reached(before[:-1], reward_t)).sum() + before[-1] * reached(before[-1], value_n)


def lambda_returns(
    reward_t: Float[Array, "T"],
    discount_t: Float[Array, "T"],
    value_t: Float[Array, "T"],
    lambda_: float | Float[Array, ""],
    cut_t: Bool[Array, "T"] | None = None,
) -> Float[Array, "T"]:
    """G_t = r_t + d_t ((1 - lambda) v_t + lambda G_{t+1}), with G_T = r_T + d_T v_T  (ibid., eq. 12.3 recursively).

    Args:
        value_t: the value of what each step led to, v(x_t), also past a reset.
    Returns:
        float32 [T], the return from each step's start.
    """
    cut_t = jnp.zeros(reward_t.shape, bool) if cut_t is None else cut_t

    def back(following, step):
        reward, discount, value, cut = step
        carried = jnp.where(cut, value, (1 - lambda_) * value + lambda_ * following)
        total = reward + discount * reached(discount, carried)
        return total, total

    return jax.lax.scan(back, value_t[-1], (reward_t, discount_t, value_t, cut_t), reverse=True)[1]


def gae(
    reward_t: Float[Array, "T"],
    discount_t: Float[Array, "T"],
    value_tm1: Float[Array, "T"],
    value_t: Float[Array, "T"],
    lambda_: float | Float[Array, ""],
    cut_t: Bool[Array, "T"] | None = None,
) -> Float[Array, "T"]:
    """A_t = delta_t + d_t lambda A_{t+1},  delta_t = r_t + d_t v(x_t) - v(x_{t-1})  (Schulman et al. 2016, eq. 16).

    Args:
        value_tm1: the value of each step's start, v(x_{t-1}).
        value_t: the value of what each step led to, v(x_t), also past a reset.
    Returns:
        float32 [T], the advantage of each step.
    """
    cut_t = jnp.zeros(reward_t.shape, bool) if cut_t is None else cut_t
    delta_t = reward_t + discount_t * reached(discount_t, value_t) - value_tm1
    decay_t = jnp.where(cut_t, 0.0, discount_t * lambda_)

    def back(following, step):
        delta, decay = step
        advantage = delta + decay * reached(decay, following)
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta_t[0]), (delta_t, decay_t), reverse=True)[1]
