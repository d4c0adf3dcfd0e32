"""Distractors: what a policy that acts on pictures should learn to overlook.

In the spirit of Stone et al., "The Distracting Control Suite" (2021), but procedural: where that plays films behind the
scene, waves of colour drift here, so that nothing is loaded and everything follows from a key. Bodies move, and rewards
are paid, as without.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import bare
from envs.render import pictures
from envs.render.cast import Look
from envs.render.scene import Scene, View
from jaxrl.core import BadInput, Env, Key, PyTree

WAVES = 6  # that make a background
SLOW, FAST = 0.02, 0.15  # rad a step, how fast they and the camera's swing go


class Seen(NamedTuple):
    """A state and how it looks in this episode. Fields: state, key (of the episode's looks), t float32 [] (steps)."""

    state: PyTree
    key: Key
    t: jax.Array


def distracted(env: Env, background: float = 1.0, colour: float = 0.3, camera: float = 0.1, floor: float = 0.0) -> Env:
    """The environment in other looks each episode; `pixels(distracted(env), size)` shows them.

    Args:
        background: contrast of the waves that drift in place of the sky, 0 (none, the sky as it is) to 1.
        colour: how far each channel of a body's colour may be off, of 1.
        camera: radians by which the camera's direction swings.
        floor: share of the waves in floors' colour, 0 to 1.

    Raises:
        BadInput: a strength that is not between 0 and 1, or an environment that is no MuJoCo model seen by a camera.
    """
    for name, value in {"background": background, "colour": colour, "camera": camera, "floor": floor}.items():
        if not 0 <= value <= 1:
            raise BadInput(f"{name} of distracted is {value}; it is between 0 and 1.")
    inner = env.draw
    if inner is None:
        raise BadInput(f"{env.name} has no picture: there is nothing to distract from.")
    asked = []

    def disguise(seen: Seen, scene: Scene, view: View, shape: tuple[int, int]) -> tuple[Look, View]:
        asked.append(scene)
        key_colour, key_waves, key_camera = jax.random.split(seen.key, 3)
        off = colour * jax.random.uniform(key_colour, scene.colour.shape, minval=-1.0, maxval=1.0)
        sky = waves(key_waves, seen.t, shape, background) if background > 0 else None
        look = Look(jnp.clip(scene.colour + off, 0.0, 1.0), sky, jnp.float32(floor if background > 0 else 0.0))
        return look, swung(key_camera, seen.t, view, camera)

    def draw(seen: Seen, shape: tuple[int, int], name: str | None = None) -> jax.Array:
        with pictures.disguised(lambda *args: disguise(seen, *args)):
            return inner(bare(seen.state), shape, name)

    def reset(key):
        key_start, key_looks = jax.random.split(key)
        state, out = env.reset(key_start)
        return Seen(state, key_looks, jnp.float32(0)), out

    def step(seen, action):
        state, out = env.step(seen.state, action)
        return seen._replace(state=state, t=seen.t + 1), out

    jax.eval_shape(lambda key: draw(reset(key)[0], (1, 1)), jax.eval_shape(lambda: jax.random.key(0)))
    if not asked:
        raise BadInput(
            f"{env.name} is not drawn from a MuJoCo model: distracted changes the looks of such models only."
        )
    return replace(env, reset=reset, step=step, draw=draw)


def waves(key: Key, t: jax.Array, shape: tuple[int, int], contrast: float) -> jax.Array:
    """Plane waves of colour that drift across a picture: sRGB float32 [H, W, 3]."""
    ways, speeds, phases, colours = jax.random.split(key, 4)
    way = jax.random.normal(ways, (WAVES, 2)) * 6.0  # rad across the picture's height
    phase = jax.random.uniform(phases, (WAVES,), maxval=2 * jnp.pi) + t * _speed(speeds, WAVES)
    tint = jax.random.normal(colours, (WAVES, 3)) * WAVES**-0.5
    y, x = (jnp.arange(n, dtype=jnp.float32) / shape[0] for n in shape)
    field = jnp.sin(way[:, 0] * x[None, :, None] + way[:, 1] * y[:, None, None] + phase)
    return jnp.clip(0.5 + 0.4 * contrast * field @ tint, 0.0, 1.0)


def swung(key: Key, t: jax.Array, view: View, most: float) -> View:
    """The view with its direction swinging, up to `most` rad to the side and half as far up, down and around."""
    speeds, phases = jax.random.split(key)
    phase = jax.random.uniform(phases, (3,), maxval=2 * jnp.pi) + t * _speed(speeds, 3)
    yaw, pitch, roll = most * jnp.sin(phase) * jnp.array([1.0, 0.5, 0.5])
    turn = lambda angle, i, j: (
        jnp.eye(3).at[i, i].set(jnp.cos(angle)).at[j, j].set(jnp.cos(angle)).at[i, j].set(-jnp.sin(angle))
        .at[j, i].set(jnp.sin(angle))
    )  # fmt: skip
    return replace(view, rotation=view.rotation @ turn(yaw, 0, 2) @ turn(pitch, 1, 2) @ turn(roll, 0, 1))


def _speed(key: Key, count: int) -> jax.Array:
    """Rad a step, either way round, float32 [count]."""
    size, sign = jax.random.split(key)
    return jax.random.rademacher(sign, (count,), jnp.float32) * jax.random.uniform(
        size, (count,), minval=SLOW, maxval=FAST
    )
