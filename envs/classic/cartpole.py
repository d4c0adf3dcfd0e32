"""CartPole: keep a pole upright by pushing its cart left or right.

Barto, Sutton & Anderson (1983), with the constants, starts and limit of Gymnasium's CartPole-v1. SI units.
"""

import jax
import jax.numpy as jnp

from envs.core import Discrete, Env, Specs, TimeStep, first, time_limit

GRAVITY = 9.8
CART, POLE = 1.0, 0.1  # masses
LENGTH = 0.5  # half the pole's
FORCE = 10.0
DT = 0.02  # seconds a step
FAR = 2.4  # metres from the middle at which the episode ends
TILT = 12 * 2 * jnp.pi / 360  # radians from upright at which it ends
LIMIT = 500


def cartpole(masked: bool = False, limit: int = LIMIT) -> Env:
    """Actions: 0 pushes left, 1 right. Observation float32 [4]: position, velocity, angle, angular velocity.

    Reward 1 each step, the ending one too. Terminates where the cart leaves the track or the pole falls.

    Args:
        masked: hide both velocities, so that a memory is needed: observation [2], position and angle.
        limit: steps after which an episode is truncated.
    """
    show = (lambda x: x[::2]) if masked else (lambda x: x)

    def reset(key):
        x = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return x, first(show(x))

    def step(x, action):
        x = advance(x, jnp.where(action == 1, FORCE, -FORCE))
        fell = (jnp.abs(x[0]) > FAR) | (jnp.abs(x[2]) > TILT)
        return x, TimeStep(show(x), jnp.float32(1), fell, jnp.bool_(False))

    observation = jax.ShapeDtypeStruct((2 if masked else 4,), jnp.float32)
    return time_limit(Env(reset, step, Specs(observation, Discrete(2)), "cartpole"), limit)


def advance(x: jax.Array, force: jax.Array) -> jax.Array:
    """One explicit Euler step of [position, velocity, angle, angular velocity]."""
    _, velocity, angle, spin = x
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    total = CART + POLE
    push = (force + POLE * LENGTH * spin**2 * sin) / total
    turn = (GRAVITY * sin - cos * push) / (LENGTH * (4 / 3 - POLE * cos**2 / total))
    acceleration = push - POLE * LENGTH * turn * cos / total
    return x + DT * jnp.stack([velocity, acceleration, spin, turn])
