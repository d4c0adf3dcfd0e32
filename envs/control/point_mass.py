"""DM Control's point mass: bring a damped ball to the middle of a tray and hold it there with little force.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [4]: position x, y (m), velocity x, y (m/s). Action [2]: forces along x and y, +-0.1 N at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

EDGE = 0.29  # m, either way
TARGET = 0.015  # m, the radius of the middle


def reset(key: Key) -> State:
    """At rest anywhere in the tray."""
    return physics.start(jax.random.uniform(key, (2,), minval=-EDGE, maxval=EDGE), jnp.zeros(2))


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos, state.qvel])


def reward(state: State, action: jax.Array) -> jax.Array:
    """Nearness to the middle, times a factor within [4/5, 1] for little force."""
    near = tolerance(jnp.linalg.norm(state.qpos), 0.0, TARGET, margin=TARGET)
    gentle = tolerance(action, margin=1.0, sigmoid="quadratic", at_margin=0.0).mean()
    return near * (4 + gentle) / 5


def easy() -> Env:
    return physics.environment("point-mass-easy", physics.load("point_mass"), reset, observe, reward)
