"""DM Control's fish: turn upright, or swim to a target.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [21] in upright: angles of the 7 joints (tail, its twist, its tip; roll and pitch of the right fin
and of the left; rad), the cosine of the torso's tilt, qvel (13: velocity of the torso, its angular velocity in its own
frame, then the joints'; m/s, rad/s). Swim puts the vector from mouth to target, in the mouth's frame (m), before qvel:
[24]. Action [5]: where tail, its twist, the flap of both fins and the pitch of each shall be, in rad. The state's task
is the target's position [3], () in upright.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

BEND = 0.2  # rad, either way, of each joint at the start
NEAREST, FARTHEST = np.float32([-0.4, -0.4, 0.1]), np.float32([0.4, 0.4, 0.3])  # m, of the target
TOUCH = 0.005 + 0.04  # m, radii of mouth and target
AWAY = (0.0, 0.0, -1.0)  # m, below the ground: where the target is not seen
SUBSTEPS = 10  # of 4 ms in one control step


def mouth(c: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Where the mouth is in the torso's frame, m [3], and its own axes there, the columns of [3, 3]."""
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, c.geom("mouth").quat)
    return np.asarray(c.geom("mouth").pos, np.float32), axes.reshape(3, 3).astype(np.float32)


def uprightness(state: State) -> jax.Array:
    """The cosine of the torso's tilt, []."""
    return physics.turned(state.qpos[3:7])[2, 2]


def to_target(place: np.ndarray, axes: np.ndarray, state: State) -> jax.Array:
    """From the mouth to the target, in the mouth's frame, m [3]."""
    frame = physics.turned(state.qpos[3:7])
    return (state.task - state.qpos[:3] - frame @ place) @ (frame @ axes)


def upright() -> Env:
    """Paid for the cosine of the tilt alone."""
    look = lambda state: jnp.concatenate([state.qpos[7:], uprightness(state)[None], state.qvel])
    reward = lambda state: tolerance(uprightness(state), 1.0, 1.0, margin=1.0)
    return _task("upright", lambda key: (), look, reward, lambda state: {"target": jnp.float32(AWAY)})


def swim() -> Env:
    """Seven parts nearness of the mouth to the target, one part uprightness."""
    place, axes = mouth(physics.load("fish").c)

    def look(state):
        seen = [uprightness(state)[None], to_target(place, axes, state)]
        return jnp.concatenate([state.qpos[7:], *seen, state.qvel])

    def reward(state):
        near = tolerance(jnp.linalg.norm(to_target(place, axes, state)), 0.0, TOUCH, margin=2 * TOUCH)
        return (7 * near + (1 + uprightness(state)) / 2) / 8

    target = lambda key: jax.random.uniform(key, (3,), minval=NEAREST, maxval=FARTHEST)
    return _task("swim", target, look, reward, lambda state: {"target": state.task})


def _task(name, target: Callable, look, reward, marks) -> Env:
    model = physics.load("fish")

    def reset(key: Key) -> State:
        """At its place and at rest, turned any way, a little bent."""
        key_turn, key_bend, key_target = jax.random.split(key, 3)
        turn = jax.random.normal(key_turn, (4,))
        bend = jax.random.uniform(key_bend, (7,), minval=-BEND, maxval=BEND)
        place = jnp.asarray(model.c.qpos0[:3], jnp.float32)
        qpos = jnp.concatenate([place, turn / jnp.linalg.norm(turn), bend])
        return physics.start(qpos, jnp.zeros(model.c.nv), target(key_target))

    return physics.environment(
        f"fish-{name}", model, reset, look, lambda state, action: reward(state), SUBSTEPS, marks=marks
    )
