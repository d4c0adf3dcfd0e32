"""Pendulum: swing a rod up with too little torque, and hold it there. Gymnasium's Pendulum-v1. SI units."""

import jax
import jax.numpy as jnp

from envs.core import Box, Env, Specs, TimeStep, first, time_limit

GRAVITY = 10.0
MASS = LENGTH = 1.0
TORQUE = 2.0
DT = 0.05  # seconds a step
FASTEST = 8.0  # radians a second
LIMIT = 200


def pendulum(limit: int = LIMIT) -> Env:
    """Action: torque in [-2, 2], float32 [1]. Observation float32 [3]: cos and sin of the angle from upright, velocity.

    The reward is minus the cost of the state before the step: angle^2 + velocity^2 / 10 + torque^2 / 1000. Only the
    limit ends an episode.
    """

    def see(x):
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), x[1]])

    def reset(key):
        x = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])
        return x, first(see(x))

    def step(x, action):
        torque = jnp.clip(action[0], -TORQUE, TORQUE)
        cost = x[0] ** 2 + 0.1 * x[1] ** 2 + 0.001 * torque**2
        x = advance(x, torque)
        return x, TimeStep(see(x), -cost, jnp.bool_(False), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((1,), -TORQUE, TORQUE))
    return time_limit(Env(reset, step, specs, "pendulum"), limit)


def advance(x: jax.Array, torque: jax.Array) -> jax.Array:
    """One semi-implicit Euler step of [angle, velocity] of a uniform rod."""
    angle, velocity = x
    pull = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
    velocity = jnp.clip(velocity + pull * DT, -FASTEST, FASTEST)
    angle = angle + velocity * DT
    # Kept in [-pi, pi), where the cost is measured; Gymnasium lets it grow and wraps it in the cost.
    return jnp.stack([(angle + jnp.pi) % (2 * jnp.pi) - jnp.pi, velocity])
