"""Who solves the arm's tasks: Cartesian actions that bring the hand to one waypoint after another.

The expert sees the whole state and remembers nothing: what is done already tells what comes next.
"""

import jax
import jax.numpy as jnp

from envs.arm import tasks
from envs.arm.arm import MOVE, frames, hand, opening
from envs.control.physics import State

OVER = 0.08  # m, above an object, from where the hand comes down on it
SHUT, WIDE = -1.0, 1.0
ONWARDS = 0.04  # m, ahead of the handle, along its way


def toward(state: State, waypoint: jax.Array, grip: jax.Array | float) -> jax.Array:
    """The action [4] that brings the hand that the servos hold to a waypoint (m [3]), as fast as it may."""
    way = jnp.clip((waypoint - frames(state.task.servo).hand) / MOVE, -1, 1)
    return jnp.append(way, grip)


def reach(state: State) -> jax.Array:
    return toward(state, state.task.target, SHUT)


def taken(state: State, half: float, goal: jax.Array) -> jax.Array:
    """Take the object of that half thickness from above and bring its centre to `goal` (m [3])."""
    thing, at = tasks.thing(state), hand(state)
    aside = jnp.linalg.norm((thing - at)[:2])
    above = thing + jnp.array([0.0, 0.0, OVER])
    # Once it shuts it does not let go for a small slip.
    beside = jnp.linalg.norm(thing - at) < jnp.where(opening(state) < 0.07, 0.025, 0.008)
    held = beside & (opening(state) < 2 * half + 0.003)
    waypoint = jnp.where(aside > 0.012, above, thing)
    waypoint = jnp.where(held, at + goal - thing, waypoint)
    return toward(state, waypoint, jnp.where(beside, SHUT, WIDE))


def push(state: State) -> jax.Array:
    """Drags the cube, between its pads."""
    return taken(state, tasks.CUBE, state.task.target)


pick_and_place = push


def peg_insertion(state: State) -> jax.Array:
    """Lifts the peg before the hole, and goes in where it is level with it."""
    goal = state.task.target - jnp.array([tasks.TIP, 0.0, 0.0])
    off = jnp.linalg.norm((tasks.tip(state) - goal)[1:])
    before = goal.at[0].add(-tasks.DEEP - 0.03)
    aligned = (off < 0.006) | (tasks.tip(state)[0] > state.task.fixture[0] + 0.01)
    return taken(state, tasks.PEG, jnp.where(aligned, goal, before))


def door(state: State) -> jax.Array:
    """Goes down behind the handle, shut, and draws it along its arc."""
    hinge, angle = state.task.fixture, state.qpos[-1]
    bar = tasks.handle(hinge, angle)
    normal = jnp.stack([jnp.cos(angle), -jnp.sin(angle), 0.0])  # from the handle to the door
    behind = bar + 0.03 * normal
    at = hand(state)
    aside = jnp.linalg.norm((behind - at)[:2])
    low = at[2] < bar[2] + 0.02
    ahead = behind - ONWARDS * normal
    waypoint = jnp.where(aside > 0.015, behind.at[2].add(0.1), behind)
    waypoint = jnp.where(low, jnp.where(angle > tasks.AJAR + 0.1, at, ahead), waypoint)
    return toward(state, waypoint, SHUT)


EXPERTS = {
    "arm-reach": reach,
    "arm-push": push,
    "arm-pick-and-place": pick_and_place,
    "arm-peg-insertion": peg_insertion,
    "arm-door": door,
}
