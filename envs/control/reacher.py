"""DM Control's reacher: bring the tip of a two-link arm onto a target in the plane.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [6]: angles of shoulder and wrist (rad), the vector from the finger to the target (x, y; m),
angular velocities (rad/s). Action [2]: torques, +-0.05 N m at +-1. The state's task is the target's position [2].
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

LINK = 0.12  # m, of both links, up to the centre of the finger
FINGER = 0.01  # m, its radius
WRIST = jnp.deg2rad(160)  # either way


def reset(key: Key) -> State:
    """The arm at rest in any posture, the target 5 to 20 cm from the shoulder."""
    key_arm, key_angle, key_radius = jax.random.split(key, 3)
    qpos = jax.random.uniform(key_arm, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, WRIST])
    angle = jax.random.uniform(key_angle, maxval=2 * jnp.pi)
    radius = jax.random.uniform(key_radius, minval=0.05, maxval=0.2)
    return physics.start(qpos, jnp.zeros(2), radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)]))


def to_target(state: State) -> jax.Array:
    """From the finger to the target, m [2]."""
    arm, hand = state.qpos[0], state.qpos.sum()
    finger = LINK * jnp.stack([jnp.cos(arm) + jnp.cos(hand), jnp.sin(arm) + jnp.sin(hand)])
    return state.task - finger


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos, to_target(state), state.qvel])


def reward(state: State, size: float) -> jax.Array:
    """1 where the finger overlaps the target, a disc of radius `size` (m), else 0."""
    return tolerance(jnp.linalg.norm(to_target(state)), 0.0, size + FINGER)


def easy() -> Env:
    return _task("easy", 0.05)


def hard() -> Env:
    return _task("hard", 0.015)


def _task(name, size) -> Env:
    model = physics.load("reacher")
    site = {"easy": "target", "hard": "small_target"}[name]  # of that size
    return physics.environment(
        f"reacher-{name}",
        model,
        reset,
        observe,
        lambda state, action: reward(state, size),
        marks=lambda state: {site: jnp.append(state.task, FINGER)},
    )
