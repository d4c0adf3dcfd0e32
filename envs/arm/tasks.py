"""Five tasks of an arm at a table: reach, push, pick and place, insert a peg, open a door.

They stand in for Meta-World's (Yu et al., 2019), which come in no package that runs inside jit: the same deeds, with a
robot, objects, rewards and constants of our own.

Observation, one float32 vector: angles of the arm's 7 joints (rad), their velocities (rad/s), how far their servos'
targets are ahead of them (rad), the gap between the finger pads (m), the hand's position (m [3], between the pads); of
the object what the task says; the target's position (m [3]). Sizes: reach 28, push, pick and place, peg 41, door 33.
Object: of cube and peg position (m [3]), orientation (unit quaternion w, x, y, z), velocity (m/s [3]) and angular
velocity in its own frame (rad/s [3]); of the door the handle's position (m [3]), the door's angle (rad) and its speed
(rad/s). The target is where the hand, the cube, the tip of the peg or the handle should be.

Action [4]: the hand's way along x (away from the base), y (to its left) and z (up), 1.25 cm a step at 1, and the
gripper, from -1 (shut) to 1 (8 cm open). With `cartesian=False` [8]: the 7 joints' ways, 0.05 rad a step at 1, and the
gripper.

`info["success"]`, bool []. The reward is dense, within [0, 1], or with `sparse` 1 where it is a success, else 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from envs.arm import arm
from envs.arm.arm import REST, Task, hand, opening
from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

NEAR, AT = 0.05, 0.02  # m: as near to its object as the hand is asked to be, and as the object to its target
FAR = 0.2  # m, beyond these, where closeness is worth 0.1
DONE = 0.05  # m, from the target, a success
CUBE, PEG = 0.02, 0.015  # m, half of their thickness, at which their centres rest on the table
TIP = 0.075  # m, from the peg's middle to its tip
DEEP = 0.05  # m, from the mouth of the hole to where the tip should be
SNUG = 0.02  # m, from there, a success: the tip is 3 cm in the hole
MOUTH = 0.12  # m, the hole above the table
LIFTED = 0.04  # m
AJAR = 1.0  # rad, a success
HANDLE = np.float32([-0.06, -0.25, 0.135])  # m, from the foot of the hinge, the door shut


def reach(sparse: bool = False, cartesian: bool = True) -> Env:
    """The hand to a place in the air; a success within 5 cm."""
    draw = lambda key: (jnp.zeros(0), uniform(key, (0.45, -0.25, 0.05), (0.65, 0.25, 0.35)), ())
    away = lambda state: jnp.linalg.norm(hand(state) - state.task.target)
    task = Task(
        draw, lambda state: jnp.zeros(0), lambda state: close(away(state), AT), lambda state: away(state) < DONE
    )
    return arm.environment("arm-reach", arm.load("arm"), task, sparse, cartesian)


def push(sparse: bool = False, cartesian: bool = True) -> Env:
    """The cube to a place on the table; a success within 5 cm. Any way of moving it will do."""

    def draw(key: Key):
        return *resting(key, CUBE), ()

    away = lambda state: jnp.linalg.norm(thing(state) - state.task.target)
    worth = lambda state: near(state) * (1 + 4 * close(away(state), AT)) / 5
    task = Task(draw, body, worth, lambda state: away(state) < DONE)
    return arm.environment("arm-push", arm.load("cube"), task, sparse, cartesian)


def pick_and_place(sparse: bool = False, cartesian: bool = True) -> Env:
    """The cube to a place in the air; a success within 5 cm."""

    def draw(key: Key):
        key, key_height = jax.random.split(key)
        rest, target = resting(key, CUBE)
        return rest, target.at[2].set(jax.random.uniform(key_height, minval=0.1, maxval=0.25)), ()

    away = lambda state: jnp.linalg.norm(thing(state) - state.task.target)
    worth = lambda state: carrying(state, CUBE, away(state))
    task = Task(draw, body, worth, lambda state: away(state) < DONE)
    return arm.environment("arm-pick-and-place", arm.load("cube"), task, sparse, cartesian)


def peg_insertion(sparse: bool = False, cartesian: bool = True) -> Env:
    """The peg, 3 cm thick, into a hole 4 cm wide; a success with its tip within 2 cm of a place 5 cm deep."""

    def draw(key: Key):
        key_peg, key_hole = jax.random.split(key)
        rest, _ = resting(key_peg, PEG)
        mouth = uniform(key_hole, (0.6, -0.1, MOUTH), (0.65, 0.1, MOUTH))
        return rest, mouth.at[0].add(DEEP), mouth

    away = lambda state: jnp.linalg.norm(tip(state) - state.task.target)
    worth = lambda state: carrying(state, PEG, away(state))
    task = Task(draw, body, worth, lambda state: away(state) < SNUG)
    return arm.environment("arm-peg-insertion", arm.load("peg"), task, sparse, cartesian)


def door(sparse: bool = False, cartesian: bool = True) -> Env:
    """The door open by its handle; a success at 1 rad."""

    def draw(key: Key):
        hinge = uniform(key, (0.62, 0.1, 0.0), (0.68, 0.2, 0.0))
        return jnp.zeros(1), handle(hinge, jnp.float32(AJAR)), hinge

    held = lambda state: handle(state.task.fixture, state.qpos[-1])
    seen = lambda state: jnp.concatenate([held(state), state.qpos[-1:], state.qvel[-1:]])

    def worth(state: State) -> jax.Array:
        open = tolerance(state.qpos[-1], AJAR, math.inf, margin=AJAR, sigmoid="linear", at_margin=0.0)
        return close(jnp.linalg.norm(hand(state) - held(state)), NEAR) * (1 + 4 * open) / 5

    task = Task(draw, seen, worth, lambda state: state.qpos[-1] > AJAR)
    return arm.environment("arm-door", arm.load("door"), task, sparse, cartesian)


# ------------------------------------------------------------------------------------------------ what they share


def uniform(key: Key, low: tuple[float, ...], high: tuple[float, ...]) -> jax.Array:
    return jax.random.uniform(key, (len(low),), minval=jnp.float32(low), maxval=jnp.float32(high))


def resting(key: Key, height: float) -> tuple[jax.Array, jax.Array]:
    """An object that lies near the base, qpos [7], and a target for its centre on the table further out, m [3]."""
    key_near, key_far = jax.random.split(key)
    place = uniform(key_near, (0.4, -0.15, height), (0.46, 0.15, height))
    target = uniform(key_far, (0.54, -0.15, height), (0.64, 0.15, height))
    return jnp.concatenate([place, jnp.float32([1, 0, 0, 0])]), target


def close(away: jax.Array, enough: float) -> jax.Array:
    """1 within `enough` (m), 0.1 at 20 cm beyond, with a long tail."""
    return tolerance(away, 0.0, enough, margin=FAR, sigmoid="long_tail")


def thing(state: State) -> jax.Array:
    """Where the cube's or the peg's centre is, m [3]."""
    return state.qpos[REST][:3]


def body(state: State) -> jax.Array:
    """Position, orientation, velocity and angular velocity of the cube or the peg, [13]."""
    return jnp.concatenate([state.qpos[REST], state.qvel[REST]])


def tip(state: State) -> jax.Array:
    """Where the peg's tip is, m [3]."""
    return thing(state) + TIP * physics.turned(state.qpos[REST][3:])[:, 0]


def handle(hinge: jax.Array, angle: jax.Array) -> jax.Array:
    """Where the middle of the handle is, m [3]: the door turns about -z."""
    quat = jnp.stack([jnp.cos(angle / 2), 0.0, 0.0, -jnp.sin(angle / 2)])
    return hinge + physics.turned(quat) @ HANDLE


def near(state: State) -> jax.Array:
    """The hand's closeness to the object, in [0, 1]."""
    return close(jnp.linalg.norm(hand(state) - thing(state)), NEAR)


def gripped(state: State, half: float) -> jax.Array:
    """How nearly the pads are shut on an object of that half thickness (m) between them, in [0, 1]."""
    about = tolerance(jnp.linalg.norm(hand(state) - thing(state)), 0.0, half, margin=half)
    return about * tolerance(opening(state), 0.0, 2 * half + 0.004, margin=2 * arm.OPEN - 2 * half)


def carrying(state: State, half: float, away: jax.Array) -> jax.Array:
    """Paid for a hand near the object, in stages of a tenth, a tenth, two and six: near it, shut on it, with it off the
    table, and with it `away` (m) from its target."""
    lifted = tolerance(thing(state)[2] - half, LIFTED, math.inf, margin=LIFTED, sigmoid="linear", at_margin=0.0)
    return near(state) * (1 + gripped(state, half) + lifted * (2 + 6 * close(away, AT))) / 10
