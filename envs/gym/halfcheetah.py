"""Gymnasium's HalfCheetah-v5: run forward in a plane, as fast as can be.

After Wawrzynski, "A cat-like robot real-time learning to run" (2009).

Observation, float32 [17]: qpos without x (height from rest, pitch, then back thigh, shin, foot and front thigh, shin,
foot; m, rad), qvel (all nine; m/s, rad/s). Action [6]: torques of those six joints, each up to its gear (120, 90, 60,
120, 60, 30 N m).
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.gym import runner
from jaxrl.core import Env, Key

SUBSTEPS = 5  # of 10 ms in one control step
NOISE = 0.1  # of a start: half the width in qpos, the standard deviation in qvel


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos[1:], state.qvel])


def halfcheetah() -> Env:
    model = runner.load("halfcheetah")

    def reset(key: Key) -> State:
        key_position, key_velocity = jax.random.split(key)
        velocity = NOISE * jax.random.normal(key_velocity, (model.c.nv,))
        return runner.start(runner.uniform(key_position, model.c.nq, NOISE), velocity)

    def reward(state: State, action: jax.Array) -> jax.Array:
        """The speed in m/s, less a tenth of the squared action."""
        return runner.speed(model, SUBSTEPS, state) - 0.1 * runner.effort(action)

    return physics.environment(
        "gym-halfcheetah",
        model,
        reset,
        observe,
        reward,
        limit=runner.LIMIT,
        advance=runner.advance(model, SUBSTEPS),
    )
