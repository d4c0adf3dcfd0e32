"""CartPole: keep a pole upright by pushing its cart left or right.

Barto, Sutton & Anderson (1983), with the constants, starts and limit of Gymnasium's CartPole-v1. SI units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Discrete, Env, Specs, TimeStep, first, time_limit

# What `contextual` can change: gravity, the masses of cart and pole, half the pole's length, the force of a push.
CONTEXT = {"gravity": 9.8, "cart": 1.0, "pole": 0.1, "length": 0.5, "force": 10.0}
DT = 0.02  # seconds a step
FAR = 2.4  # metres from the middle at which the episode ends
TILT = 12 * 2 * jnp.pi / 360  # radians from upright at which it ends
LIMIT = 500


class Body(NamedTuple):
    """What moves, and in what circumstances: x float32 [4] (position, velocity, angle, angular velocity), context."""

    x: jax.Array
    context: dict[str, jax.Array] = {}  # noqa: RUF012  (never mutated)


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
        return Body(x), first(show(x))

    def step(body, action):
        x = advance(body.x, jnp.where(action == 1, 1.0, -1.0), {**CONTEXT, **body.context})
        fell = (jnp.abs(x[0]) > FAR) | (jnp.abs(x[2]) > TILT)
        return body._replace(x=x), TimeStep(show(x), jnp.float32(1), fell, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((2 if masked else 4,), jnp.float32), Discrete(2))
    return time_limit(Env(reset, step, specs, "cartpole", draw, CONTEXT), limit)


def draw(body: Body, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    """The track between the places where an episode ends, the cart and the pole; there is one camera."""
    from envs.render import flat  # only where something is drawn

    flat.only(camera)
    at, _, angle, _ = body.x
    length = 2 * body.context.get("length", CONTEXT["length"])
    return flat.draw(
        flat.segment((-FAR, 0.0), (FAR, 0.0), 0.03, flat.GREY),
        flat.box((at, 0.0), (0.22, 0.1), flat.TEAL, radius=0.04),
        flat.segment((at, 0.1), (at + length * jnp.sin(angle), 0.1 + length * jnp.cos(angle)), 0.12, flat.BRASS),
        flat.disc((at, 0.1), 0.045, flat.INK),
        shape=shape,
        centre=(0.0, 0.55),
        height=2 * FAR * shape[0] / shape[1],
    )


def advance(x: jax.Array, push: jax.Array, context: dict[str, jax.Array | float]) -> jax.Array:
    """One explicit Euler step of [position, velocity, angle, angular velocity] under a push of -1 or 1."""
    gravity, cart, pole, length, force = (context[name] for name in CONTEXT)
    _, velocity, angle, spin = x
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    total = cart + pole
    thrust = (push * force + pole * length * spin**2 * sin) / total
    turn = (gravity * sin - cos * thrust) / (length * (4 / 3 - pole * cos**2 / total))
    acceleration = thrust - pole * length * turn * cos / total
    return x + DT * jnp.stack([velocity, acceleration, spin, turn])
