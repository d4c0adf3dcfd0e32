"""What the control tasks share: models, the physics step, and the record that a task is built from.

Only positions, velocities and the solver's warm start pass from step to step. The rest of `mjx.Data` follows from
these, and carrying it through a scan costs more than a third of a step.
"""

import contextlib
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from jaxrl.core import Box, Env, Key, PyTree, Specs, first

with contextlib.redirect_stdout(io.StringIO()):  # it announces a missing optional back end on stdout
    from mujoco import mjx


class State(NamedTuple):
    """A simulated body between two control steps.

    Fields: qpos [nq], qvel [nv], warmstart [nv] (the acceleration from which the constraint solver starts), and task,
    what the task keeps beside the body (a target), which the physics never touches.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    task: PyTree = ()


class Model(NamedTuple):
    """A compiled model.

    Fields: c, MuJoCo's own, read for its constants; x, the same on the device; data, what each step starts from.
    """

    c: mujoco.MjModel
    x: mjx.Model
    data: mjx.Data


@functools.cache
def load(name: str) -> Model:
    """The model `name`.xml beside this file."""
    c = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name(f"{name}.xml")))
    # A factory may first be called inside `jit`: the cache must hold arrays, never tracers.
    with jax.ensure_compile_time_eval():
        x = mjx.put_model(c)
        data = mjx.make_data(x)
        # Typed like the sum that replaces it: a weak type would compile the step twice.
        return Model(c, x, data.replace(time=jnp.float32(0)))


def start(qpos: jax.Array, qvel: jax.Array, task: PyTree = ()) -> State:
    return State(qpos, qvel, jnp.zeros_like(qvel), task)


def step(model: Model, state: State, control: jax.Array, substeps: int = 1) -> State:
    """The state after `substeps` physics steps under a constant control [nu]."""

    def once(state, _):
        data = model.data.replace(qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart, ctrl=control)
        data = mjx.step(model.x, data)
        return state._replace(qpos=data.qpos, qvel=data.qvel, warmstart=data.qacc_warmstart), None

    return jax.lax.scan(once, state, None, length=substeps)[0]


class Clock(NamedTuple):
    """A task's state and the control steps since its reset, int32 []."""

    state: State
    time: jax.Array


def environment(
    name: str,
    model: Model,
    reset: Callable[[Key], State],
    observe: Callable[[State], jax.Array],
    reward: Callable[[State, jax.Array], jax.Array],
    substeps: int = 1,
    limit: int = 1000,
) -> Env:
    """The task whose observation and reward are functions of the state after the step; it ends by the clock alone.

    Args:
        reset: draws a state.
        observe: state -> float32 vector.
        reward: (the state reached, the action that led there) -> float32 [].
        substeps: physics steps in one control step.
        limit: control steps in an episode, after which it is truncated.
    """

    def begin(key):
        state = reset(key)
        return Clock(state, jnp.int32(0)), first(observe(state))

    def advance(clock, action):
        state, time = step(model, clock.state, action, substeps), clock.time + 1
        shown = first(observe(state))._replace(reward=reward(state, action), truncated=time >= limit)
        return Clock(state, time), shown

    observation = jax.eval_shape(lambda key: observe(reset(key)), jax.random.key(0))
    return Env(begin, advance, Specs(observation, Box((model.c.nu,), -1.0, 1.0), limit=limit), name)
