"""DM Control's finger: spin a body on a hinge, or turn it until its tip is in a target.

After Tassa, Erez and Smart, "Receding horizon differential dynamic programming" (2007), without gravity; rewards and
constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [9] in spin: angles of the two joints of the finger (rad), the spinner's tip from its hinge (x, z;
m), angular velocities of the finger's joints and of the hinge (rad/s), log(1 + force in N) on the two sides of the
fingertip. Turn adds the target from the hinge (x, z; m) and the distance from the tip to the target's surface (m,
negative within it): [12]. Action [2]: torques of the finger's joints, +-30 and +-15 N m at +-1.
"""

import copy
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import Model, State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key, PyTree

SUBSTEPS = 2  # of 10 ms in one control step
TIP = 0.13  # m, from the hinge; the target is as far
SPIN = 15.0  # rad/s
FREE = 0.03  # N m s, the hinge's damping in spin; turn has the file's 0.5
EASY, HARD = 0.07, 0.03  # m, the target's radius
DRAWS = 8  # of a start: 8 % touch the spinner


class Kept(NamedTuple):
    """What the state keeps beside the body: touch [2], forces on the two sides of the fingertip in the last physics
    step (N), and target [2] from the hinge (x, z; m), () in spin."""

    touch: jax.Array
    target: PyTree


@functools.cache
def machine(damping: float, size: float) -> Model:
    """The model with that damping of the hinge; `size` of the target (m) is only for the eye, 0 to hide it."""
    c = copy.copy(physics.load("finger").c)
    c.dof_damping[c.joint("hinge").dofadr] = damping
    c.site("target").size = size
    c.site("target").rgba[3] = c.site("tip").rgba[3] = float(size > 0)
    return physics.compiled(c)


def tip(state: State) -> jax.Array:
    """The spinner's tip from its hinge, (x, z) in m."""
    angle = state.qpos[2]
    return TIP * jnp.stack([-jnp.sin(angle), jnp.cos(angle)])


def to_surface(state: State, size: float) -> jax.Array:
    """From the tip to the surface of the target of radius `size`, m []; negative within it."""
    return jnp.linalg.norm(state.task.target - tip(state)) - size


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos[:2], tip(state), state.qvel, jnp.log1p(state.task.touch)])


def observe_target(state: State, size: float) -> jax.Array:
    return jnp.concatenate([observe(state), state.task.target, to_surface(state, size)[None]])


def spin() -> Env:
    """Paid 1 where the hinge turns backwards at 15 rad/s or more, else 0."""
    return _task("spin", machine(FREE, 0.0), observe, lambda state: tolerance(-state.qvel[2], SPIN, jnp.inf))


def turn_easy() -> Env:
    return _turn("turn-easy", EASY)


def turn_hard() -> Env:
    return _turn("turn-hard", HARD)


def _turn(name, size) -> Env:
    """Paid 1 where the tip is in the target, else 0."""
    observe = lambda state: observe_target(state, size)
    reward = lambda state: tolerance(to_surface(state, size), -jnp.inf, 0.0)
    return _task(name, machine(0.5, size), observe, reward, target=True)


def _task(name, model: Model, observe, reward, target: bool = False) -> Env:
    low, high = jnp.asarray(model.c.jnt_range, jnp.float32).at[2].set(jnp.array([-jnp.pi, jnp.pi])).T
    hinge = jnp.asarray(model.c.body("spinner").pos, jnp.float32)

    def reset(key: Key) -> State:
        """At rest in any posture in which finger and spinner do not touch; the target at any angle."""
        key_pose, key_target = jax.random.split(key)
        qpos = physics.first_free(model, jax.random.uniform(key_pose, (DRAWS, 3), minval=low, maxval=high))
        angle = jax.random.uniform(key_target, minval=-jnp.pi, maxval=jnp.pi)
        at = TIP * jnp.stack([jnp.sin(angle), jnp.cos(angle)]) if target else ()
        return physics.start(qpos, jnp.zeros(3), Kept(jnp.zeros(2), at))

    def advance(state: State, action: jax.Array) -> State:
        state, touch = physics.sensed(model, state, action, SUBSTEPS)
        return state._replace(task=state.task._replace(touch=touch))

    def marks(state: State) -> dict[str, jax.Array]:
        return {"target": hinge + jnp.insert(state.task.target, 1, 0.0)} if target else {}

    return physics.environment(
        f"finger-{name}", model, reset, observe, lambda state, action: reward(state), advance=advance, marks=marks
    )
