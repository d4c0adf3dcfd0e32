"""Gymnasium's Hopper-v5: hop forward on one leg, without falling.

Erez, Tassa and Todorov, "Infinite-horizon model predictive control for periodic tasks with contacts" (2011).

Observation, float32 [11]: qpos without x (height, pitch, then hip, knee and ankle; m, rad), qvel (all six, clipped to
+-10; m/s, rad/s). Action [3]: torques of hip, knee and ankle, +-200 N m at +-1.
"""

import jax
import jax.numpy as jnp

from envs.gym import runner
from jaxrl.core import Env


def healthy(pose: jax.Array, velocity: jax.Array) -> jax.Array:
    """Above 0.7 m, within 0.2 rad of upright, and nothing but x beyond 100."""
    height, pitch = pose[0], pose[1]
    rest = jnp.concatenate([pose[1:], velocity])
    return (height > 0.7) & runner.within(pitch, -0.2, 0.2) & runner.within(rest, -100.0, 100.0)


def hopper() -> Env:
    return runner.upright("hopper", healthy)
