"""Gymnasium's Hopper-v5: hop forward on one leg, without falling.

Erez, Tassa and Todorov, "Infinite-horizon model predictive control for periodic tasks with contacts" (2011).

Observation, float32 [11]: qpos without x (height, pitch, then hip, knee and ankle; m, rad), qvel (all six, clipped to
+-10; m/s, rad/s). Action [3]: torques of hip, knee and ankle, +-200 N m at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.gym import runner
from jaxrl.core import Env, Key

SUBSTEPS = 4  # of 2 ms in one control step
NOISE = 5e-3  # of a start, m, rad, m/s, rad/s


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos[1:], jnp.clip(state.qvel, -10.0, 10.0)])


def healthy(state: State) -> jax.Array:
    """Above 0.7 m, within 0.2 rad of upright, and nothing but x beyond 100."""
    height, pitch = state.qpos[1], state.qpos[2]
    rest = jnp.concatenate([state.qpos[2:], state.qvel])
    return (height > 0.7) & runner.within(pitch, -0.2, 0.2) & runner.within(rest, -100.0, 100.0)


def hopper() -> Env:
    model = runner.load("hopper")
    rest = jnp.asarray(model.c.qpos0, jnp.float32)

    def reset(key: Key) -> State:
        noise = runner.uniform(key, model.c.nq + model.c.nv, NOISE)
        return runner.start(rest + noise[: model.c.nq], noise[model.c.nq :])

    def reward(state: State, action: jax.Array) -> jax.Array:
        """The speed in m/s, 1 for health, less a thousandth of the squared action."""
        return runner.speed(model, SUBSTEPS, state) + healthy(state) - 1e-3 * runner.effort(action)

    return physics.environment(
        "gym-hopper",
        model,
        reset,
        observe,
        reward,
        limit=runner.LIMIT,
        advance=runner.advance(model, SUBSTEPS),
        terminated=lambda state: ~healthy(state),
    )
