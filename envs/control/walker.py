"""DM Control's planar walker: stand up, then walk (1 m/s) or run (8 m/s).

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [24]: for each of the seven bodies (torso, then thigh, leg and foot of the right and of the left)
the cosine and sine of its angle about y; the torso's height (m); qvel (vertical, horizontal, pitch, then hip, knee and
ankle of the right and of the left; m/s, rad/s). Action [6]: torques of those six joints (100, 50, 20 N m at 1).
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import Planar, State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

HEIGHT = 1.3  # m, of the torso where qpos is 0
STAND = 1.2  # m, above which the torso's height is worth 1
WALK, RUN = 1.0, 8.0  # m/s
SUBSTEPS = 10  # of 2.5 ms in one control step


def observe(plane: Planar, state: State) -> jax.Array:
    angle = physics.angles(plane, state.qpos)
    turned = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1).ravel()
    return jnp.concatenate([turned, HEIGHT + state.qpos[:1], state.qvel])


def reward(plane: Planar, state: State, speed: float) -> jax.Array:
    """Three parts height, one part uprightness; times a factor within [1/6, 1] for `speed` (m/s) where it is not 0."""
    standing = tolerance(HEIGHT + state.qpos[0], STAND, jnp.inf, margin=STAND / 2)
    upright = (1 + jnp.cos(state.qpos[2])) / 2
    stand = (3 * standing + upright) / 4
    if speed == 0:
        return stand
    forward = physics.forward_speed(plane, state)
    moving = tolerance(forward, speed, jnp.inf, margin=speed / 2, sigmoid="linear", at_margin=0.5)
    return stand * (5 * moving + 1) / 6


def stand() -> Env:
    return _task("stand", 0.0)


def walk() -> Env:
    return _task("walk", WALK)


def run() -> Env:
    return _task("run", RUN)


def _task(name, speed) -> Env:
    model = physics.load("walker")
    plane = physics.planar(model.c)
    low, high = jnp.asarray(model.c.jnt_range[3:], jnp.float32).T

    def reset(key: Key) -> State:
        """Any pitch and any posture, the torso at its height: it falls."""
        key_pitch, key_joints = jax.random.split(key)
        pitch = jax.random.uniform(key_pitch, (1,), minval=-jnp.pi, maxval=jnp.pi)
        joints = jax.random.uniform(key_joints, low.shape, minval=low, maxval=high)
        qpos = jnp.concatenate([jnp.zeros(2), pitch, joints])
        return physics.start(qpos, jnp.zeros(model.c.nv))

    return physics.environment(
        f"walker-{name}",
        model,
        reset,
        lambda state: observe(plane, state),
        lambda state, action: reward(plane, state, speed),
        SUBSTEPS,
    )
