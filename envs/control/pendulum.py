"""DM Control's pendulum: swing a bob up with a torque that cannot lift it at once, and hold it there.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [3]: cosine and sine of the angle from upright, angular velocity (rad/s). Action [1]: the torque,
+-1 N m at +-1.
"""

import math

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key


def reset(key: Key) -> State:
    """At rest at any angle."""
    return physics.start(jax.random.uniform(key, (1,), minval=-jnp.pi, maxval=jnp.pi), jnp.zeros(1))


def observe(state: State) -> jax.Array:
    return jnp.concatenate([jnp.cos(state.qpos), jnp.sin(state.qpos), state.qvel])


def reward(state: State, action: jax.Array) -> jax.Array:
    """1 within 8 degrees of upright, else 0."""
    return tolerance(jnp.cos(state.qpos[0]), math.cos(math.radians(8)), 1.0)


def swingup() -> Env:
    return physics.environment("pendulum-swingup", physics.load("pendulum"), reset, observe, reward)
