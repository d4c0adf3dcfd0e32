"""Pendulum: swing a rod up with too little torque, and hold it there. Gymnasium's Pendulum-v1. SI units."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Box, Env, Specs, TimeStep, first, never, time_limit

# What `contextual` can change: gravity, mass and length of the rod, and how far off the torque is from what was asked.
CONTEXT = {"gravity": 10.0, "mass": 1.0, "length": 1.0, "strength": 1.0}
TORQUE = 2.0
DT = 0.05  # seconds a step
FASTEST = 8.0  # radians a second
LIMIT = 200


class Body(NamedTuple):
    """What moves, and in what circumstances: x float32 [2] (angle from upright, velocity), context."""

    x: jax.Array
    context: dict[str, jax.Array] = {}  # noqa: RUF012  (never mutated)


def pendulum(limit: int = LIMIT) -> Env:
    """Action: torque in [-2, 2], float32 [1]. Observation float32 [3]: cos and sin of the angle from upright, velocity.

    The reward is minus the cost of the state before the step: angle^2 + velocity^2 / 10 + torque^2 / 1000. Only the
    limit ends an episode.
    """

    def see(x):
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), x[1]])

    def reset(key):
        x = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])
        return Body(x), first(see(x))

    def step(body, action):
        x = body.x
        torque = jnp.clip(action[0], -TORQUE, TORQUE)
        cost = x[0] ** 2 + 0.1 * x[1] ** 2 + 0.001 * torque**2
        x = advance(x, torque, {**CONTEXT, **body.context})
        return body._replace(x=x), TimeStep(see(x), -cost, jnp.bool_(False), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((1,), -TORQUE, TORQUE), over=never)
    return time_limit(Env(reset, step, specs, "pendulum", draw, CONTEXT), limit)


def draw(body: Body, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    """The rod on its axle, within the circle of its usual tip; there is one camera."""
    from envs.render import flat  # only where something is drawn

    flat.only(camera)
    angle, length = body.x[0], body.context.get("length", CONTEXT["length"])
    tip = (-length * jnp.sin(angle), length * jnp.cos(angle))
    return flat.draw(
        flat.disc((0.0, 0.0), CONTEXT["length"] + 0.1, flat.CHALK),
        flat.segment((0.0, 0.0), tip, 0.2, flat.BRASS),
        flat.disc((0.0, 0.0), 0.05, flat.INK),
        shape=shape,
        height=2.6,
    )


def advance(x: jax.Array, torque: jax.Array, context: dict[str, jax.Array | float]) -> jax.Array:
    """One semi-implicit Euler step of [angle, velocity] of a uniform rod."""
    gravity, mass, length, strength = (context[name] for name in CONTEXT)
    angle, velocity = x
    pull = 3 * gravity / (2 * length) * jnp.sin(angle) + 3 / (mass * length**2) * strength * torque
    velocity = jnp.clip(velocity + pull * DT, -FASTEST, FASTEST)
    angle = angle + velocity * DT
    # Kept in [-pi, pi), where the cost is measured; Gymnasium lets it grow and wraps it in the cost.
    return jnp.stack([(angle + jnp.pi) % (2 * jnp.pi) - jnp.pi, velocity])
