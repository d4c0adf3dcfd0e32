"""Acrobot: swing a two-link arm above a height with a motor in its elbow only.

Sutton (1996), with the book's equations, as in Gymnasium's Acrobot-v1. SI units; both links are alike.
"""

import jax
import jax.numpy as jnp

from envs.core import Discrete, Env, Specs, TimeStep, first, time_limit

GRAVITY = 9.8
MASS = LENGTH = INERTIA = 1.0
CENTRE = 0.5  # from a link's joint to its centre of mass
DT = 0.2  # seconds a step
FASTEST = (4 * jnp.pi, 9 * jnp.pi)  # radians a second, of each joint
LIMIT = 500


def acrobot(limit: int = LIMIT) -> Env:
    """Actions 0, 1, 2: torque -1, 0, 1 on the elbow.

    Observation float32 [6]: cos and sin of the shoulder's angle from hanging, of the elbow's angle relative to the
    upper link, and both velocities. Reward -1 a step, and 0 on the one that brings the tip a link's length above the
    shoulder, which terminates.
    """

    def see(x):
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), jnp.cos(x[1]), jnp.sin(x[1]), x[2], x[3]])

    def reset(key):
        x = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
        return x, first(see(x))

    def step(x, action):
        x = advance(x, action.astype(jnp.float32) - 1)
        done = -jnp.cos(x[0]) - jnp.cos(x[0] + x[1]) > 1
        return x, TimeStep(see(x), jnp.where(done, 0.0, -1.0), done, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((6,), jnp.float32), Discrete(3))
    return time_limit(Env(reset, step, specs, "acrobot", draw), limit)


def draw(x: jax.Array, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    """Both links and the height that the tip is to reach; there is one camera."""
    from envs.render import flat  # only where something is drawn

    flat.only(camera)
    along = lambda angle: LENGTH * jnp.stack([jnp.sin(angle), -jnp.cos(angle)])
    elbow = along(x[0])
    tip = elbow + along(x[0] + x[1])
    return flat.draw(
        flat.segment((-2.3, 1.0), (2.3, 1.0), 0.03, flat.RED),
        flat.segment((0.0, 0.0), elbow, 0.2, flat.TEAL),
        flat.segment(elbow, tip, 0.2, flat.BRASS),
        flat.disc((0.0, 0.0), 0.06),
        flat.disc(elbow, 0.06),
        shape=shape,
        height=4.6,
    )


def derivative(x: jax.Array, torque: jax.Array) -> jax.Array:
    """Time derivative of [shoulder, elbow, and their velocities]: the manipulator equation M a = b, solved by hand."""
    shoulder, elbow, v1, v2 = x
    swing = MASS * LENGTH * CENTRE * jnp.cos(elbow)
    whirl = MASS * LENGTH * CENTRE * jnp.sin(elbow)
    m22 = MASS * CENTRE**2 + INERTIA
    m12 = m22 + swing
    m11 = m22 + MASS * (CENTRE**2 + LENGTH**2) + 2 * swing + INERTIA
    g2 = MASS * CENTRE * GRAVITY * jnp.sin(shoulder + elbow)
    g1 = MASS * (CENTRE + LENGTH) * GRAVITY * jnp.sin(shoulder) + g2
    b1 = whirl * (v2**2 + 2 * v1 * v2) - g1
    b2 = torque - whirl * v1**2 - g2
    a2 = (b2 - m12 / m11 * b1) / (m22 - m12**2 / m11)
    a1 = (b1 - m12 * a2) / m11
    return jnp.stack([v1, v2, a1, a2])


def advance(x: jax.Array, torque: jax.Array) -> jax.Array:
    """One classical Runge-Kutta step with the torque held, then angles wrapped and velocities bounded."""
    k1 = derivative(x, torque)
    k2 = derivative(x + DT / 2 * k1, torque)
    k3 = derivative(x + DT / 2 * k2, torque)
    k4 = derivative(x + DT * k3, torque)
    x = x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    angles = (x[:2] + jnp.pi) % (2 * jnp.pi) - jnp.pi
    fastest = jnp.array(FASTEST)
    return jnp.concatenate([angles, jnp.clip(x[2:], -fastest, fastest)])
