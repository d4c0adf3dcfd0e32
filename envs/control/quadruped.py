"""DM Control's quadruped: get on four legs and walk (0.5 m/s) or run (5 m/s) forwards.

Rewards and constants as in Tunyasuvunakool et al., "dm_control: Software and tasks for continuous control" (2020).

Observation, float32 [78]: angles of the 16 joints (yaw, pitch, knee, ankle of the front left, front right, back right
and back left leg; rad); their velocities (rad/s); what the 12 actuators hold; the torso's velocity in its own frame
(m/s); the cosine of its tilt; its accelerometer (m/s^2) and gyroscope (rad/s); arcsinh of forces (N) and torques (N m)
at the toes, each x, y, z of the four. Action [12]: where yaw, lift and extension of each leg shall be, -1 to 1 over the
actuator's range, which a filter of 0.1 s follows. The state's task is what accelerometer and toes read in the last
physics step [27].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

WALK, RUN = 0.5, 5.0  # m/s
SUBSTEPS = 4  # of 5 ms in one control step
RUNG = 0.01  # m: a start is at the lowest multiple at which nothing touches the ground


class Shell(NamedTuple):
    """The body's convex parts at rest, about the torso's centre and in its frame, to find its lowest point.

    Fields: centre [geoms, 3] and frame [geoms, 3, 3] of each; its half-axes [geoms, 3] as an ellipsoid, that is drawn
    out by half a length [geoms] along its own z and grown by a radius [geoms] (all in m): a capsule has no half-axes, a
    cylinder those of its disc and no radius.
    """

    centre: np.ndarray
    frame: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    radius: np.ndarray


def shell(c: mujoco.MjModel) -> Shell:
    data = mujoco.MjData(c)
    mujoco.mj_kinematics(c, data)
    kind, size = c.geom_type[1:], c.geom_size[1:]
    ball, pill, egg, tin = (
        (kind == getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER")
    )
    axes = egg[:, None] * size + tin[:, None] * size[:, :1] * [1, 1, 0]
    parts = data.geom_xpos[1:] - data.qpos[:3], data.geom_xmat[1:].reshape(-1, 3, 3), axes
    return Shell(*(np.float32(x) for x in (*parts, (pill | tin) * size[:, 1], (ball | pill) * size[:, 0])))


def depth(parts: Shell, up: jax.Array) -> jax.Array:
    """How far the body at rest reaches below its torso's centre, m []; `up` is the vertical [3] in its own frame."""
    seen = up @ parts.frame  # from each part
    thick = jnp.linalg.norm(parts.axes * seen, axis=1) + parts.half * jnp.abs(seen[:, 2]) + parts.radius
    return (thick - parts.centre @ up).max()


def observe(state: State) -> jax.Array:
    frame = physics.turned(state.qpos[3:7])
    velocity, upright = state.qvel[:3] @ frame, frame[2, 2:]
    acceleration, toes = state.task[:3], state.task[3:]
    own = [state.qpos[7:], state.qvel[6:], state.act]
    return jnp.concatenate([*own, velocity, upright, acceleration, state.qvel[3:6], jnp.arcsinh(toes)])


def reward(state: State, speed: float) -> jax.Array:
    """Uprightness, from 0 on its back to 1, times a factor within [0, 1]: 1/2 standing, 1 at `speed` (m/s) forwards."""
    frame = physics.turned(state.qpos[3:7])
    upright = tolerance(frame[2, 2], 1.0, jnp.inf, margin=2.0, sigmoid="linear", at_margin=0.0)
    forward = state.qvel[:3] @ frame[:, 0]
    return upright * tolerance(forward, speed, jnp.inf, margin=speed, sigmoid="linear", at_margin=0.5)


def walk() -> Env:
    return _task("walk", WALK)


def run() -> Env:
    return _task("run", RUN)


def _task(name, speed) -> Env:
    model = physics.load("quadruped")
    c, parts = model.c, shell(model.c)
    middle, half = jnp.float32(c.actuator_ctrlrange.mean(axis=1)), jnp.float32(np.ptp(c.actuator_ctrlrange, axis=1) / 2)

    def reset(key: Key) -> State:
        """Joints at rest, turned any way, just above the ground. Falling freely, its sensors feel nothing."""
        turn = jax.random.normal(key, (4,))
        turn = turn / jnp.linalg.norm(turn)
        height = RUNG * jnp.ceil(depth(parts, physics.turned(turn)[2]) / RUNG)
        qpos = jnp.concatenate([jnp.zeros(2), height[None], turn, jnp.zeros(16)])
        return physics.start(qpos, jnp.zeros(c.nv), jnp.zeros(c.nsensordata))._replace(act=jnp.zeros(c.na))

    def advance(state, action):
        state, felt = physics.sensed(model, state, middle + half * action, SUBSTEPS)
        return state._replace(task=felt)

    return physics.environment(
        f"quadruped-{name}",
        model,
        reset,
        observe,
        lambda state, action: reward(state, speed),
        SUBSTEPS,
        advance=advance,
    )
