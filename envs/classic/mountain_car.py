"""Mountain car: too weak for the hill, it has to go back first. Moore (1990).

As in Gymnasium's MountainCar-v0 and MountainCarContinuous-v0, whose engines, flags, rewards and limits differ.
"""

from functools import partial

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
    return time_limit(Env(reset, step, specs, "mountain-car", partial(draw, flag)), usual if limit is None else limit)


def draw(flag: float, x: jax.Array, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    """The hill, sin(3 x), with the flag and the car; there is one camera."""
    from envs.render import flat  # only where something is drawn

    flat.only(camera)
    ground = lambda at: 0.45 * jnp.sin(3 * at) + 0.55
    places = jnp.linspace(LEFT - 0.3, RIGHT + 0.3, 60)
    slope = jnp.arctan(1.35 * jnp.cos(3 * x[0]))
    off = lambda along, up: jnp.stack(  # from where the car touches the ground
        [
            x[0] + along * jnp.cos(slope) - up * jnp.sin(slope),
            ground(x[0]) + along * jnp.sin(slope) + up * jnp.cos(slope),
        ]
    )
    top = ground(flag)
    return flat.draw(
        flat.columns(places, ground(places) - 0.02, flat.SAND),
        flat.chain(jnp.stack([places, ground(places) - 0.01], axis=1), 0.035, flat.GREEN),
        flat.segment((flag, top), (flag, top + 0.24), 0.02),
        flat.box((flag + 0.06, top + 0.2), (0.06, 0.04), flat.RED),
        flat.box(off(0.0, 0.085), (0.075, 0.025), flat.TEAL, slope, 0.02),
        flat.disc(off(-0.06, 0.045), 0.035),
        flat.disc(off(0.06, 0.045), 0.035),
        shape=shape,
        centre=((LEFT + RIGHT) / 2, 0.6),
        height=1.9 * shape[0] / shape[1],
    )


def advance(x: jax.Array, push: jax.Array) -> jax.Array:
    """One step of [position, velocity]; the left wall is inelastic."""
    position, velocity = x
    velocity = jnp.clip(velocity + push - GRAVITY * jnp.cos(3 * position), -FASTEST, FASTEST)
    position = jnp.clip(position + velocity, LEFT, RIGHT)
    return jnp.stack([position, jnp.where((position == LEFT) & (velocity < 0), 0.0, velocity)])
