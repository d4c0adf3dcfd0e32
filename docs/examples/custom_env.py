"""An environment of one's own: meeting a space station in orbit; docs/custom-env.md tells the story."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Box, Env, Specs, TimeStep, first, time_limit
from envs.render import flat

RATE = 1.13e-3  # rad/s, of an orbit 400 km up: once around in 93 minutes
PERIOD = 20.0  # s, a step
THRUST = 0.2  # m/s, the largest change of velocity along each axis in a step


class Orbit(NamedTuple):
    """place and velocity, float32 [2]: metres and m/s from the station, (outwards, along its orbit)."""

    place: jax.Array
    velocity: jax.Array


# Free flight beside the station, exactly (Clohessy and Wiltshire 1960).
def drift(orbit: Orbit, seconds: float) -> Orbit:
    (x, y), (u, v), n = orbit.place, orbit.velocity, RATE
    s, c = jnp.sin(n * seconds), jnp.cos(n * seconds)
    out = (4 - 3 * c) * x + s / n * u + 2 * (1 - c) / n * v
    along = y + 6 * (s - n * seconds) * x - 2 * (1 - c) / n * u + (4 * s / n - 3 * seconds) * v
    du = 3 * n * s * x + c * u + 2 * s * v
    dv = -6 * n * (1 - c) * x - 2 * s * u + (4 * c - 3) * v
    return Orbit(jnp.stack([out, along]), jnp.stack([du, dv]))


# The environment: two pure functions, what they take and give, and a clock.
def rendezvous(limit: int = 60) -> Env:
    """Come to rest within 5 m of the station. Reward: near -1 far away, 0 at the station, less what thrust costs."""

    def see(orbit):
        return jnp.concatenate([orbit.place / 100, orbit.velocity])

    def reset(key):
        angle = jax.random.uniform(key, (), minval=0.0, maxval=2 * jnp.pi)
        orbit = Orbit(150 * jnp.stack([jnp.sin(angle), jnp.cos(angle)]), jnp.zeros(2))
        return orbit, first(see(orbit))

    def step(orbit, action):
        action = jnp.clip(action, -1, 1)
        orbit = drift(orbit._replace(velocity=orbit.velocity + THRUST * action), PERIOD)
        distance, speed = jnp.linalg.norm(orbit.place), jnp.linalg.norm(orbit.velocity)
        reward = -distance / (distance + 50) - 0.05 * jnp.abs(action).sum()
        docked = (distance < 5) & (speed < 0.3)
        return orbit, TimeStep(see(orbit), reward, docked, jnp.bool_(False))

    specs = Specs(observation=jax.ShapeDtypeStruct((4,), jnp.float32), action=Box((2,)))
    return time_limit(Env(reset, step, specs, draw=draw), limit)


# A picture of a state: the orbit of the station from left to right, the Earth below.
def draw(orbit: Orbit, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    flat.only(camera)
    at = orbit.place[::-1]
    orbit_line = flat.segment((-250, 0), (250, 0), 1.5, flat.GREY)
    station = flat.box((0, 0), (14, 5), flat.TEAL, radius=2)
    wings = flat.box((0, 0), (3, 22), flat.BRASS)
    heading = flat.segment(at, at + 60 * orbit.velocity[::-1], 3, flat.RED)
    return flat.draw(orbit_line, wings, station, heading, flat.disc(at, 7), shape=shape, height=400.0)
