"""Gymnasium's Humanoid-v5: walk forward on two legs, without falling.

Tassa, Erez and Todorov, "Synthesis and stabilization of complex behaviors through online trajectory optimization"
(2012).

Observation, float32 [348]: qpos without x and y (height, quaternion, 17 joints; 22), qvel (23); for each of the
thirteen bodies about the centre of mass of all: inertia (rotational 6, mass times offset 3, mass; 130) and velocity
(rad/s then m/s; 78); the actuators' torques on the joints (N m; 17); and the force of contact on each body (torque then
force, N m and N; 78). Action [17]: torques, +-0.4 of each gear (25 to 300 N m).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import Model, State, mjx
from envs.gym import runner
from envs.gym.contact import forces
from jaxrl.core import Box, Env, Key

SUBSTEPS = 5  # of 3 ms in one control step
NOISE = 1e-2  # of a start, in qpos and qvel
REACH = 0.4  # the largest action


class Task(NamedTuple):
    """Fields: before and after, x of the centre of mass around the last step, m []; torques [17], of the actuators, and
    forces [bodies, 6], of contact, in its last physics step; inertia [bodies, 10] and velocity [bodies, 6] after it."""

    before: jax.Array
    after: jax.Array
    torques: jax.Array
    forces: jax.Array
    inertia: jax.Array
    velocity: jax.Array


def observe(state: State) -> jax.Array:
    task = state.task
    bodies = (task.inertia[1:], task.velocity[1:])
    parts = [state.qpos[2:], state.qvel, *bodies, task.torques, task.forces[1:]]
    return jnp.concatenate([part.ravel() for part in parts])


def healthy(state: State) -> jax.Array:
    """Between 1 and 2 m."""
    return runner.within(state.qpos[2], 1.0, 2.0)


def contact_cost(state: State) -> jax.Array:
    return jnp.minimum(5e-7 * jnp.sum(state.task.forces**2), 10.0)


# Traced once, however often it is met.
_placed = jax.jit(lambda x, data: mjx.com_vel(x, mjx.com_pos(x, mjx.kinematics(x, data))))


def seen(model: Model, state: State) -> State:
    """The state with its task brought up to where the body is now."""
    data = _placed(physics.under(model.x, state.context), model.data.replace(qpos=state.qpos, qvel=state.qvel))
    after = data.xipos[:, 0] @ jnp.asarray(model.c.body_mass, jnp.float32) / float(model.c.body_mass.sum())
    return state._replace(task=state.task._replace(after=after, inertia=data._impl.cinert, velocity=data.cvel))


def humanoid() -> Env:
    model = runner.load("humanoid")
    dt = SUBSTEPS * float(model.c.opt.timestep)
    rest = jnp.asarray(model.c.qpos0, jnp.float32)
    bodies, zero = model.c.nbody, jnp.float32(0)
    nothing = Task(zero, zero, *(jnp.zeros(shape) for shape in (model.c.nu, (bodies, 6), (bodies, 10), (bodies, 6))))

    def reset(key: Key) -> State:
        noise = runner.uniform(key, model.c.nq + model.c.nv, NOISE)
        return seen(model, physics.start(rest + noise[: model.c.nq], noise[model.c.nq :], nothing))

    def advance(state: State, action: jax.Array) -> State:
        state = state._replace(task=state.task._replace(before=state.task.after))
        keep = lambda task, x, data: task._replace(torques=data.qfrc_actuator[6:], forces=forces(x, data))
        return seen(model, physics.step(model, state, action, SUBSTEPS, keep))

    def reward(state: State, action: jax.Array) -> jax.Array:
        """1.25 a m/s of the centre of mass, 5 for health, less a tenth of the squared action and contact's cost."""
        speed = (state.task.after - state.task.before) / dt
        return 1.25 * speed + 5.0 * healthy(state) - 0.1 * runner.effort(action) - contact_cost(state)

    env = physics.environment(
        "gym-humanoid",
        model,
        reset,
        observe,
        reward,
        limit=runner.LIMIT,
        advance=advance,
        terminated=lambda state: ~healthy(state),
        over=lambda obs: ~runner.within(obs[0], 1.0, 2.0),
    )
    return replace(env, specs=replace(env.specs, action=Box((model.c.nu,), -REACH, REACH)))
