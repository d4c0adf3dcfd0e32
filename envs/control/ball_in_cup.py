"""DM Control's ball in cup: swing a ball on a string up and catch it in the cup that the string hangs from.

Rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [8]: qpos (x, z of the cup from the rest of its springs, x, z of the ball from its own; m), qvel.
Action [2]: forces on the cup along x and z, +-5 N at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from jaxrl.core import Env, Key

SUBSTEPS = 10  # of 2 ms in one control step
LOW, HIGH = jnp.array([-0.2, 0.2]), jnp.array([0.2, 0.5])  # m, where the ball may begin
INSIDE = 0.35  # m, from the ball's rest up to the middle of the cup's inside
ROOM = 0.025  # m, either way, by which the ball may be off that
DRAWS = 8  # of a start: 17 % touch the cup


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos, state.qvel])


def reward(state: State, action: jax.Array) -> jax.Array:
    """1 where the whole ball is inside the cup, else 0."""
    cup, ball = state.qpos[:2], state.qpos[2:]
    off = jnp.abs(cup + jnp.array([0.0, INSIDE]) - ball)
    return (off < ROOM).all().astype(jnp.float32)


def catch() -> Env:
    model = physics.load("ball_in_cup")

    def reset(key: Key) -> State:
        """The cup at rest, the ball anywhere about it where it does not touch."""
        ball = jax.random.uniform(key, (DRAWS, 2), minval=LOW, maxval=HIGH)
        qpos = physics.first_free(model, jnp.pad(ball, ((0, 0), (2, 0))))
        return physics.start(qpos, jnp.zeros(4))

    return physics.environment("ball-in-cup-catch", model, reset, observe, reward, SUBSTEPS)
