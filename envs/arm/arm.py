"""The arm: where its hand is, how an action moves it, and what its five tasks have in common.

A task keeps its own in `Kept`; the rest of an episode is the body's. Lengths in m, angles in rad.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.control import physics
from envs.control.physics import Model, State
from jaxrl.core import Env, Key, PyTree

SUBSTEPS, DT = 5, 0.025  # physics steps of 5 ms; s
LIMIT = 200  # control steps
ARM, FINGERS, REST = slice(0, 7), slice(7, 9), slice(9, None)  # in qpos and qvel; REST is the task's object
HOME = np.float32([0.0, -0.267, 0.0, -2.744, 0.0, 2.477, 0.0])  # rad: the hand at (0.38, 0, 0.2), straight down
SPREAD = 0.02  # rad, by which the joints of a start differ from HOME
OPEN = 0.04  # m, each finger from the middle
LOW, HIGH = np.float32([0.3, -0.3, 0.015]), np.float32([0.7, 0.3, 0.4])  # m, where Cartesian actions take the hand
MOVE = 0.0125  # m a control step, along each axis, at a Cartesian action of 1
TURN = 0.05  # rad a control step, at a joint action of 1
LEAD = 0.15  # rad, by which a servo's target can be ahead of its joint
DAMPING = 1e-3  # of the inverse kinematics, m2 and rad2
POSTURE = 0.05  # share of the way to HOME that a step goes with what its hand does not need


class Kept(NamedTuple):
    """What the state keeps beside the body.

    Fields: servo [7], the angles that the servos hold (rad); target [3] (m); fixture [3], where what stands on the
    table does (m), () in a task that has nothing such.
    """

    servo: jax.Array
    target: jax.Array
    fixture: PyTree = ()


class Frames(NamedTuple):
    """Fields: anchors [7, 3] of the joints (m), axes [7, 3] (unit), hand [3] (m), between the pads, and turned [3, 3],
    the hand's axes as columns; it points along minus the third."""

    anchors: jax.Array
    axes: jax.Array
    hand: jax.Array
    turned: jax.Array


class Task(NamedTuple):
    """What makes a task of the arm, functions of a State but for the first.

    Fields: draw, key -> (qpos of the object [nq - 9], target [3], fixture [3] or ()); object, what is observed of it
    (float32 vector); worth, the dense reward, float32 [] in [0, 1]; success, bool [].
    """

    draw: Callable[[Key], tuple[jax.Array, jax.Array, PyTree]]
    object: Callable[[State], jax.Array]
    worth: Callable[[State], jax.Array]
    success: Callable[[State], jax.Array]


def load(name: str) -> Model:
    return physics.load(name, Path(__file__).parent)


@cache
def chain() -> tuple[np.ndarray, ...]:
    """From each joint's frame to the next (m [7, 3]), the joints' axes [7, 3], from the last to the hand (m [3])."""
    c = load("arm").c
    return tuple(np.asarray(x, np.float32) for x in (c.body_pos[1:8], c.jnt_axis[:7], c.site("hand").pos))


def frames(angles: jax.Array) -> Frames:
    """The kinematics of the arm alone, of joint angles [7]: at 0 all its frames are parallel to the world's."""
    offsets, axes, reach = chain()
    at, turned, anchors, directions = jnp.zeros(3), jnp.eye(3), [], []
    for offset, axis, angle in zip(offsets, axes, angles, strict=True):
        at = at + turned @ offset
        quat = jnp.concatenate([jnp.cos(angle / 2)[None], jnp.sin(angle / 2) * axis])
        anchors.append(at)
        directions.append(turned @ axis)
        turned = turned @ physics.turned(quat)
    return Frames(jnp.stack(anchors), jnp.stack(directions), at + turned @ reach, turned)


def hand(state: State) -> jax.Array:
    """Where the middle between the pads is, m [3]."""
    return frames(state.qpos[ARM]).hand


def opening(state: State) -> jax.Array:
    """The gap between the pads, m []."""
    return state.qpos[FINGERS].sum()


def followed(servo: jax.Array, move: jax.Array) -> jax.Array:
    """Joint angles [7] with which the hand is `move` (m [3]) further and points straight down: one step of damped least
    squares; what freedom is left draws the arm to its posture at HOME."""
    at = frames(servo)
    jacobian = jnp.concatenate([jnp.cross(at.axes, at.hand - at.anchors), at.axes], axis=1).T  # [6, 7]
    skew = at.turned - at.turned.T
    tilt = jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]]) / 2  # axis times sine of the angle from straight down
    twist = jnp.concatenate([jnp.clip(at.hand + move, LOW, HIGH) - at.hand, -tilt])
    pull = POSTURE * (HOME - servo)
    return (
        servo
        + pull
        + jacobian.T @ jnp.linalg.solve(jacobian @ jacobian.T + DAMPING * jnp.eye(6), twist - jacobian @ pull)
    )


def limits() -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest angle of each joint, rad [7] each."""
    low, high = np.asarray(load("arm").c.jnt_range[ARM], np.float32).T
    return low, high


def laid(model: Model, state: State) -> Model:
    """The model with its fixture where this episode has it."""
    if isinstance(state.task.fixture, tuple):
        return model
    places = model.x.body_pos.at[model.c.body("fixture").id].set(state.task.fixture)
    return model._replace(x=model.x.replace(body_pos=places))


def moved(model: Model, state: State, action: jax.Array) -> State:
    """The state after a control step under an action: [4], the hand's way and the gripper, or [8], the joints' and the
    gripper. Servos stay within the joints' limits and near the joints, so that a push against the table is bounded."""
    action, servo = jnp.clip(action, -1, 1), state.task.servo
    way, grip = action[:-1], action[-1]
    servo = followed(servo, MOVE * way) if len(way) == 3 else servo + TURN * way
    servo = jnp.clip(servo, state.qpos[ARM] - LEAD, state.qpos[ARM] + LEAD)
    servo = jnp.clip(servo, *limits())
    state = state._replace(task=state.task._replace(servo=servo))
    fingers = jnp.broadcast_to(OPEN * (1 + grip) / 2, 2)
    return physics.step(laid(model, state), state, jnp.concatenate([servo, fingers]), SUBSTEPS)


def environment(name: str, model: Model, task: Task, sparse: bool, cartesian: bool) -> Env:
    """The environment of a task; see `envs.arm.tasks` for what it takes and shows."""

    def reset(key: Key) -> State:
        """The arm at HOME but for SPREAD, the gripper open, all at rest."""
        key_arm, key_task = jax.random.split(key)
        angles = HOME + jax.random.uniform(key_arm, (7,), minval=-SPREAD, maxval=SPREAD)
        rest, target, fixture = task.draw(key_task)
        qpos = jnp.concatenate([angles, jnp.full(2, OPEN), rest])
        return physics.start(qpos, jnp.zeros(model.c.nv), Kept(angles, target, fixture))

    def observe(state: State) -> jax.Array:
        own = [state.qpos[ARM], state.qvel[ARM], state.task.servo - state.qpos[ARM], opening(state)[None], hand(state)]
        return jnp.concatenate([*own, task.object(state), state.task.target])

    worth = (lambda state: task.success(state).astype(jnp.float32)) if sparse else task.worth

    def draw(state: State, shape, camera):
        from envs.render import picture  # only where something is drawn

        data = physics.placed(laid(model, state), state)
        return picture(model.c, data, shape, camera, {"target": state.task.target})

    env = physics.environment(
        name,
        model,
        reset,
        observe,
        lambda state, action: worth(state),
        limit=LIMIT,
        advance=lambda state, action: moved(model, state, action),
        info=lambda state: {"success": task.success(state)},
        actions=4 if cartesian else 8,
    )
    return replace(env, draw=draw)
