"""Terrain as data: a height is a function of a place and of a few numbers that an episode draws.

Nothing is stored, nothing has an edge, and a batch of terrains is a `vmap`. All begin with a flat square of 2 m about
the origin, on which an episode starts, and grow more difficult with their level (Rudin et al., "Learning to walk in
minutes using massively parallel deep reinforcement learning", 2022).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Key

LEVELS = 10
PLATFORM = 1.0  # m, from the origin to where the flat square ends
TREAD = 0.31  # m, depth of a step
RISER = 0.06  # m, over which a step rises: smooth, so that the plane under a foot turns without a jump
CELL = 0.25  # m, between two heights of rough ground
BUMPS = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)  # rough ground, repeated without end


class Terrain(NamedTuple):
    """Fields: level, 0 to LEVELS - 1, int32 []; sign, +1 where the way out leads up and -1 where it leads down,
    float32 []; shift, where in the bumps the origin lies, int32 [2]."""

    level: jax.Array
    sign: jax.Array
    shift: jax.Array


def draw(key: Key) -> Terrain:
    key_level, key_sign, key_shift = jax.random.split(key, 3)
    level = jax.random.randint(key_level, (), 0, LEVELS)
    sign = jnp.where(jax.random.bernoulli(key_sign), jnp.float32(1), jnp.float32(-1))
    return Terrain(level, sign, jax.random.randint(key_shift, (2,), 0, len(BUMPS)))


def smooth(x: jax.Array) -> jax.Array:
    """0 below 0, 1 above 1, and no corner between."""
    x = jnp.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def difficulty(terrain: Terrain) -> jax.Array:
    """Within [0, 0.9], as the level grows."""
    return terrain.level.astype(jnp.float32) / LEVELS


def out(xy: jax.Array) -> jax.Array:
    """How far beyond the platform, m []: terrain rises in squares about it."""
    return jnp.maximum(jnp.abs(xy).max() - PLATFORM, 0.0)


def flat(terrain: Terrain, xy: jax.Array) -> jax.Array:
    return jnp.zeros_like(xy[0])


def slopes(terrain: Terrain, xy: jax.Array) -> jax.Array:
    """A pyramid, or a pit, with sides of up to 0.36 (20 degrees)."""
    away = out(xy)
    bend = 0.1  # m, over which the slope begins
    return terrain.sign * 0.4 * difficulty(terrain) * jnp.where(away < bend, away**2 / (2 * bend), away - bend / 2)


def steps(terrain: Terrain, xy: jax.Array) -> jax.Array:
    """Stairs on all four sides, 3 to 19 cm high."""
    stair, along = jnp.divmod(out(xy), TREAD)
    return terrain.sign * (0.03 + 0.18 * difficulty(terrain)) * (stair + smooth(along / RISER))


def rough(terrain: Terrain, xy: jax.Array) -> jax.Array:
    """Bumps and hollows of up to 1 to 10 cm, smooth between points of a lattice."""
    corner = jnp.floor(xy / CELL)
    u, v = smooth(xy / CELL - corner)
    i, j = corner.astype(jnp.int32) + terrain.shift
    size = len(BUMPS)
    at = lambda i, j: jnp.asarray(BUMPS)[i % size, j % size]
    near = (1 - v) * at(i, j) + v * at(i, j + 1)
    far = (1 - v) * at(i + 1, j) + v * at(i + 1, j + 1)
    high = 0.01 + 0.1 * difficulty(terrain)
    return high * smooth(out(xy) / 0.5) * ((1 - u) * near + u * far)


def surface(height, terrain: Terrain, xy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ground below places [N, 2]: points [N, 3] (m) and upward unit normals [N, 3]."""
    z, slope = jax.vmap(jax.value_and_grad(height, argnums=1), in_axes=(None, 0))(terrain, xy)
    normal = jnp.concatenate([-slope, jnp.ones_like(z)[:, None]], axis=1)
    return jnp.concatenate([xy, z[:, None]], axis=1), normal / jnp.linalg.norm(normal, axis=1, keepdims=True)


KINDS = {"flat": flat, "slopes": slopes, "steps": steps, "rough": rough}
