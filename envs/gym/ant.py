"""Gymnasium's Ant-v5: walk forward on four legs, without falling or leaping.

Schulman et al., "High-dimensional continuous control using generalized advantage estimation" (2015).

Observation, float32 [105]: qpos without x and y (height, quaternion, then hip and ankle of the front left, front right,
back left and back right leg; m, rad), qvel (root 3 m/s and 3 rad/s, then the joints; 14), and the force that contact
exerts on each of the thirteen bodies (torque then force about the centre of mass, each clipped to +-1; N m, N; 78).
Action [8]: torques of hip and ankle of the back right, front left, front right and back left leg, +-150 N m at +-1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.gym import runner
from envs.gym.contact import forces
from jaxrl.core import Env, Key

SUBSTEPS = 5  # of 10 ms in one control step
NOISE = 0.1  # of a start: half the width in qpos, the standard deviation in qvel


class Task(NamedTuple):
    """Fields: before, the root's x before the step, m []; forces [bodies, 6], of contact in its last physics step."""

    before: jax.Array
    forces: jax.Array


def observe(state: State) -> jax.Array:
    felt = jnp.clip(state.task.forces[1:], -1.0, 1.0)  # the world's own is left out
    return jnp.concatenate([state.qpos[2:], state.qvel, felt.ravel()])


def healthy(state: State) -> jax.Array:
    """Between 0.2 and 1 m, and everything finite."""
    height, finite = state.qpos[2], jnp.isfinite(state.qpos).all() & jnp.isfinite(state.qvel).all()
    return finite & (height >= 0.2) & (height <= 1.0)


def contact_cost(state: State) -> jax.Array:
    return 5e-4 * jnp.sum(jnp.clip(state.task.forces, -1.0, 1.0) ** 2)


def ant() -> Env:
    model = runner.load("ant")
    dt = SUBSTEPS * float(model.c.opt.timestep)
    rest = jnp.asarray(model.c.qpos0, jnp.float32)

    def reset(key: Key) -> State:
        key_position, key_velocity = jax.random.split(key)
        qpos = rest + runner.uniform(key_position, model.c.nq, NOISE)
        qvel = NOISE * jax.random.normal(key_velocity, (model.c.nv,))
        return physics.start(qpos, qvel, Task(qpos[0], jnp.zeros((model.c.nbody, 6))))

    def advance(state: State, action: jax.Array) -> State:
        state = state._replace(task=state.task._replace(before=state.qpos[0]))
        keep = lambda task, x, data: task._replace(forces=forces(x, data))
        return physics.step(model, state, action, SUBSTEPS, keep)

    def reward(state: State, action: jax.Array) -> jax.Array:
        """The speed in m/s, 1 for health, less half the squared action and the cost of contact."""
        speed = (state.qpos[0] - state.task.before) / dt
        return speed + healthy(state) - 0.5 * runner.effort(action) - contact_cost(state)

    return physics.environment(
        "gym-ant",
        model,
        reset,
        observe,
        reward,
        limit=runner.LIMIT,
        advance=advance,
        terminated=lambda state: ~healthy(state),
        over=lambda obs: ~(jnp.isfinite(obs).all() & (obs[0] >= 0.2) & (obs[0] <= 1.0)),
    )
