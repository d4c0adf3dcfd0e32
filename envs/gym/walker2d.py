"""Gymnasium's Walker2d-v5: walk forward on two legs in a plane, without falling.

Erez, Tassa and Todorov, "Infinite-horizon model predictive control for periodic tasks with contacts" (2011).

Observation, float32 [17]: qpos without x (height, pitch, then hip, knee and ankle of the right and of the left leg; m,
rad), qvel (all nine, clipped to +-10; m/s, rad/s). Action [6]: torques of those six joints, +-100 N m at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.gym import runner
from envs.gym.hopper import NOISE, observe
from jaxrl.core import Env, Key

SUBSTEPS = 4  # of 2 ms in one control step


def healthy(state: State) -> jax.Array:
    """Between 0.8 and 2 m, within 1 rad of upright."""
    return runner.within(state.qpos[1], 0.8, 2.0) & runner.within(state.qpos[2], -1.0, 1.0)


def walker2d() -> Env:
    model = runner.load("walker2d")
    rest = jnp.asarray(model.c.qpos0, jnp.float32)

    def reset(key: Key) -> State:
        noise = runner.uniform(key, model.c.nq + model.c.nv, NOISE)
        return runner.start(rest + noise[: model.c.nq], noise[model.c.nq :])

    def reward(state: State, action: jax.Array) -> jax.Array:
        """The speed in m/s, 1 for health, less a thousandth of the squared action."""
        return runner.speed(model, SUBSTEPS, state) + healthy(state) - 1e-3 * runner.effort(action)

    return physics.environment(
        "gym-walker2d",
        model,
        reset,
        observe,
        reward,
        limit=runner.LIMIT,
        advance=runner.advance(model, SUBSTEPS),
        terminated=lambda state: ~healthy(state),
    )
