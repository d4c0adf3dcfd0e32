"""Gymnasium's Walker2d-v5: walk forward on two legs in a plane, without falling.

Erez, Tassa and Todorov, "Infinite-horizon model predictive control for periodic tasks with contacts" (2011).

Observation, float32 [17]: qpos without x (height, pitch, then hip, knee and ankle of the right and of the left leg; m,
rad), qvel (all nine, clipped to +-10; m/s, rad/s). Action [6]: torques of those six joints, +-100 N m at +-1.
"""

import jax

from envs.gym import runner
from jaxrl.core import Env


def healthy(pose: jax.Array, velocity: jax.Array) -> jax.Array:
    """Between 0.8 and 2 m, within 1 rad of upright."""
    return runner.within(pose[0], 0.8, 2.0) & runner.within(pose[1], -1.0, 1.0)


def walker2d() -> Env:
    return runner.upright("walker2d", healthy)
