"""Mountain car: too weak for the hill, it has to go back first. Moore (1990).

As in Gymnasium's MountainCar-v0 and MountainCarContinuous-v0, whose engines, flags, rewards and limits differ.
"""

import jax
import jax.numpy as jnp

from envs.core import Box, Discrete, Env, Specs, TimeStep, first, time_limit

LEFT, RIGHT = -1.2, 0.6  # walls; the left one stops the car
FASTEST = 0.07  # a step
GRAVITY = 0.0025


def mountain_car(continuous: bool = False, limit: int | None = None) -> Env:
    """Observation float32 [2]: position, velocity. Terminates at the flag, when not rolling back.

    Discrete: actions 0, 1, 2 push left, not, right; reward -1 a step; flag at 0.5; 200 steps.
    Continuous: the action in [-1, 1], float32 [1], is the force; its cost is force^2 / 10 a step; reaching the flag,
    at 0.45, gives 100; 999 steps.
    """
    flag, engine, usual = (0.45, 0.0015, 999) if continuous else (0.5, 0.001, 200)

    def reset(key):
        x = jnp.stack([jax.random.uniform(key, minval=-0.6, maxval=-0.4), jnp.float32(0)])
        return x, first(x)

    def step(x, action):
        # Clipped before its cost, too: Gymnasium charges for force beyond the bounds, which no agent of ours may use.
        force = jnp.clip(action[0], -1, 1) if continuous else action.astype(jnp.float32) - 1
        x = advance(x, engine * force)
        done = (x[0] >= flag) & (x[1] >= 0)
        reward = jnp.where(done, 100.0, 0.0) - 0.1 * force**2 if continuous else jnp.float32(-1)
        return x, TimeStep(x, reward, done, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((1,)) if continuous else Discrete(3))
    return time_limit(Env(reset, step, specs, "mountain-car"), usual if limit is None else limit)


def advance(x: jax.Array, push: jax.Array) -> jax.Array:
    """One step of [position, velocity]; the left wall is inelastic."""
    position, velocity = x
    velocity = jnp.clip(velocity + push - GRAVITY * jnp.cos(3 * position), -FASTEST, FASTEST)
    position = jnp.clip(position + velocity, LEFT, RIGHT)
    return jnp.stack([position, jnp.where((position == LEFT) & (velocity < 0), 0.0, velocity)])
