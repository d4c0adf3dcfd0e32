"""How a grid looks: each kind of tile has a sprite of weights, which its colour fills."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import BadInput

SPRITE = 24  # pixels on a side of a sprite; pictures take the nearest
# red, green, blue, purple, yellow, grey, and lava's orange
COLOURS = np.array(
    [[230, 60, 50], [70, 200, 80], [70, 110, 240], [150, 80, 210], [240, 210, 60], [110, 110, 118], [255, 130, 30]]
)
GROUND, LINE = np.array([18, 18, 22]), np.array([48, 48, 54])


@cache
def sprites() -> tuple[np.ndarray, np.ndarray]:
    """Weights of the colour, float32: of the 19 kinds [19, S, S], and of the agent in its 4 directions [4, S, S]."""
    fine = 4  # samples a pixel and axis
    v, u = (np.mgrid[: SPRITE * fine, : SPRITE * fine] + 0.5) / (SPRITE * fine)

    def box(left, right, top, bottom):
        return (u > left) & (u < right) & (v > top) & (v < bottom)

    def disc(x, y, radius):
        return (u - x) ** 2 + (v - y) ** 2 < radius**2

    whole = box(0, 1, 0, 1)
    chest = box(0.12, 0.88, 0.12, 0.88) & ~box(0.19, 0.81, 0.19, 0.81) | box(0.16, 0.84, 0.47, 0.54)
    key = box(0.5, 0.63, 0.31, 0.88) | box(0.38, 0.5, 0.59, 0.67) | box(0.38, 0.5, 0.8, 0.88)
    frame = whole & ~box(0.05, 0.95, 0.05, 0.95)
    shapes = {
        2: 0.9 * whole,
        3: 0.35 * whole,
        4: box(0.86, 1, 0, 1) & ~box(0.91, 0.95, 0.05, 0.95),
        5: (key | disc(0.56, 0.28, 0.19)) & ~disc(0.56, 0.28, 0.07),
        6: disc(0.5, 0.5, 0.32),
        7: chest,
        8: 0.9 * whole,
        9: 0.55 + 0.45 * (np.sin(14 * u + 3 * np.sin(9 * v)) > -0.3),
        11: frame | box(0.1, 0.9, 0.1, 0.9) & ~box(0.15, 0.85, 0.15, 0.85) | disc(0.74, 0.5, 0.08),
        12: np.maximum(frame, 0.45 * whole) * 1.0 + 0.55 * box(0.5, 0.76, 0.47, 0.55),
    }
    shapes |= dict.fromkeys(range(13, 19), chest)
    small = lambda x: np.asarray(x, np.float32).reshape(SPRITE, fine, SPRITE, fine).mean(axis=(1, 3))
    kinds = np.stack([small(shapes.get(kind, 0 * whole)) for kind in range(19)])
    east = small((u > 0.14) & (np.abs(v - 0.5) < 0.34 * (0.88 - u) / 0.74))
    return kinds, np.stack([np.rot90(east, -turns) for turns in range(4)])


def draw(state, shape: tuple[int, int], camera: str | None = None) -> jax.Array:
    """A picture uint8 [height, width, 3] of the whole grid or, by camera 'agent', of what the agent sees, ahead up."""
    if camera not in (None, "agent"):
        raise BadInput(f"camera is '{camera}'; a grid is drawn whole (None), or as its 'agent' sees it.")
    height, width = shape
    if height < 1 or width < 1:
        raise BadInput(f"a picture of {height} by {width} pixels shows nothing: give at least 1 by 1.")
    if camera == "agent":
        from envs.grid.world import seen

        cells, agent, facing = seen(state, False).T, jnp.array([3, 6]), jnp.int32(3)
    else:
        cells, agent, facing = state.grid, state.position, state.direction
    rows, columns = cells.shape
    y, v = np.divmod(np.arange(height) * rows * SPRITE // height, SPRITE)
    x, u = np.divmod(np.arange(width) * columns * SPRITE // width, SPRITE)
    shown = cells[y[:, None], x[None, :]]
    kind, colour = shown >> 3, jnp.where(shown >> 3 == 9, 6, shown & 7)
    kinds, arrows = (jnp.asarray(table) for table in sprites())
    weight = kinds[kind, v[:, None], u[None, :]][..., None]
    line = ((v[:, None] == 0) | (u[None, :] == 0))[..., None]
    picture = jnp.where(line, LINE, GROUND) * (1 - weight) + weight * jnp.asarray(COLOURS)[colour]
    picture = jnp.where((kind == 0)[..., None], 0.5 * GROUND, picture)
    here = (y[:, None] == agent[1]) & (x[None, :] == agent[0])
    arrow = jnp.where(here, arrows[facing][v[:, None], u[None, :]], 0)[..., None]
    return (picture * (1 - arrow) + arrow * COLOURS[0]).astype(jnp.uint8)
