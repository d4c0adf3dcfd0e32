"""DM Control's manipulator: a planar arm with a gripper brings a ball to a target and holds it there.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [44]: sine and cosine of the arm's 8 joints (root, shoulder, elbow, wrist, finger, fingertip,
thumb, thumbtip); their velocities (rad/s); log(1 + force in N) on palm, finger, thumb, fingertip, thumbtip; poses of
hand and ball, the ball's velocity (x, z, about y; m/s, rad/s) and the target's pose, where a pose is x, z (m) and the
cosine and sine of half the angle about y. Action [5]: torques of root, shoulder, elbow, wrist (12, 8, 4, 2 N m at 1)
and of the grasp (2).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

ROOT = np.float32([0.0, 0.4])  # m, (x, z) of the arm's root
LINKS = np.float32([0.18, 0.15, 0.12])  # m
ORDER = np.array([0, 1, 2, 3, 6, 7, 4, 5])  # in the model the thumb comes first
ARM, BALL = slice(0, 8), slice(8, 11)  # in qpos and qvel
CLOSE = 0.01  # m, from the target, worth 1
ASIDE = 0.001  # m, out of the arm's plane, where DM Control has its target
IN_HAND, AT_TARGET = 0.1, 0.1  # shares of the starts
FASTEST = 5.0  # m/s, along x, of the ball at the start
NEAREST, FARTHEST = np.float32([-0.4, 0.1, -np.pi]), np.float32([0.4, 0.4, np.pi])  # target: x, z (m), angle (rad)
STARTS = 2048
SUBSTEPS = 10  # of 1 ms in one control step


class Kept(NamedTuple):
    """What the state keeps beside the bodies: touch [5], forces on the hand in the last physics step (N), and target
    [3] (x, z in m, angle in rad)."""

    touch: jax.Array
    target: jax.Array


class Starts(NamedTuple):
    """Fields: qpos [STARTS, 11]; bool [STARTS] each: moving, the ball is; placed, the ball is at the target."""

    qpos: np.ndarray
    moving: np.ndarray
    placed: np.ndarray


@functools.cache
def starts() -> Starts:
    """Postures and places of the ball at which nothing touches anything, drawn by MuJoCo with all contacts in force.

    As in DM Control, where a ball put into the hand or at the target keeps the speed that it was given in a draw before
    that failed, so that most of these move, too.
    """
    c = physics.colliding(physics.load("manipulator").c, aside="arm_root")
    data, random = mujoco.MjData(c), np.random.default_rng(0)
    low, high = np.where(c.jnt_limited[ARM, None], c.jnt_range[ARM], [-np.pi, np.pi]).T
    finger, thumb = c.joint("finger").qposadr[0], c.joint("thumb").qposadr[0]
    found, moving = [], False
    while len(found) < STARTS:
        data.qpos[ARM] = random.uniform(low, high)
        data.qpos[finger] = data.qpos[thumb]
        target = random.uniform(NEAREST, FARTHEST)
        kind = random.choice(["hand", "target", "anywhere"], p=[IN_HAND, AT_TARGET, 1 - IN_HAND - AT_TARGET])
        if kind == "target":
            data.qpos[BALL] = target
        elif kind == "hand":
            mujoco.mj_kinematics(c, data)
            grasp = data.site("grasp")
            data.qpos[BALL] = *grasp.xpos[[0, 2]], np.pi - np.arctan2(grasp.xmat[6], grasp.xmat[0])
        else:
            data.qpos[BALL] = random.uniform([-0.5, 0.0, 0.0], [0.5, 0.7, 2 * np.pi])
            moving = True
        mujoco.mj_fwdPosition(c, data)
        if data.ncon == 0:
            found.append((np.float32(data.qpos), moving, kind == "target"))
            moving = False
    return Starts(*(np.array(column) for column in zip(*found, strict=True)))


def pose(place: jax.Array, angle: jax.Array) -> jax.Array:
    """(x, z, cosine and sine of half the angle about +y), [4]."""
    return jnp.concatenate([place, jnp.cos(angle / 2)[None], jnp.sin(angle / 2)[None]])


def hand(qpos: jax.Array) -> jax.Array:
    """The pose of the hand, [4]: the links turn about -y and stand upright at 0."""
    angle = jnp.cumsum(qpos[:4])
    links = jnp.stack([-jnp.sin(angle[:3]), jnp.cos(angle[:3])])
    return pose(ROOT + links @ LINKS, -angle[3])


def observe(state: State) -> jax.Array:
    arm, ball, target = state.qpos[ARM][ORDER], state.qpos[BALL], state.task.target
    bent = jnp.stack([jnp.sin(arm), jnp.cos(arm)], axis=1).ravel()
    felt = jnp.log1p(state.task.touch)
    poses = [hand(state.qpos), pose(ball[:2], ball[2]), state.qvel[BALL], pose(target[:2], target[2])]
    return jnp.concatenate([bent, state.qvel[ARM][ORDER], felt, *poses])


def reward(state: State) -> jax.Array:
    """1 where the ball's centre is within 1 cm of the target's, 0.1 at 3 cm."""
    away = jnp.append(state.qpos[BALL][:2] - state.task.target[:2], ASIDE)
    return tolerance(jnp.linalg.norm(away), 0.0, CLOSE, margin=2 * CLOSE)


def bring_ball() -> Env:
    model = physics.load("manipulator")
    bank = starts()

    def reset(key: Key) -> State:
        """A free posture; the ball anywhere and moving, or in the hand, or at the target, which may be anywhere."""
        key_start, key_speed, key_target = jax.random.split(key, 3)
        at = jax.random.randint(key_start, (), 0, STARTS)
        qpos, moving, placed = (jnp.asarray(x)[at] for x in bank)
        speed = jax.random.uniform(key_speed, minval=-FASTEST, maxval=FASTEST) * moving
        target = jax.random.uniform(key_target, (3,), minval=NEAREST, maxval=FARTHEST)
        task = Kept(jnp.zeros(5), jnp.where(placed, qpos[BALL], target))
        return physics.start(qpos, jnp.zeros(model.c.nv).at[BALL.start].set(speed), task)

    def advance(state, action):
        state, touch = physics.sensed(model, state, action, SUBSTEPS)
        return state._replace(task=state.task._replace(touch=touch))

    return physics.environment(
        "manipulator-bring-ball",
        model,
        reset,
        observe,
        lambda state, action: reward(state),
        SUBSTEPS,
        advance=advance,
        marks=lambda state: {"target": jnp.stack([state.task.target[0], jnp.float32(ASIDE), state.task.target[1]])},
    )
