"""Pictures of MJX tasks: what `envs.control.physics.environment` calls `draw`."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import mujoco

from envs.render import cast
from envs.render.scene import Scene, View, poses, scene, view

_disguise: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("disguise", default=None)
LARGE = 128  # pixels a side

_table = functools.lru_cache(maxsize=64)(scene)  # of numpy: a picture may first be asked for inside `jit`


def picture(
    c: mujoco.MjModel,
    data: Any,
    shape: tuple[int, int],
    camera: str | None = None,
    marks: Mapping[str, jax.Array] | None = None,
    **how: Any,
) -> jax.Array:
    """A body as it is placed, uint8 [H, W, 3].

    Args:
        c: MuJoCo's model.
        data: where its bodies, geoms and sites are, of MJX (`envs.control.physics.placed`) or of MuJoCo.
        shape: (height, width) in pixels.
        camera: a camera of the model; None is its first, or an overview where it has none.
        marks: positions [3] in the world by the name of a site, of what is in the state alone (a target).
        **how: `shadow`, `samples` and `look` of `envs.render.render`. Unless they say otherwise, a picture for people,
            of `LARGE` pixels a side or more, has shadows, and each pixel is the mean of four rays, as MuJoCo's renderer
            is set: in a small picture the shades of edges are all that shows a motion of less than a pixel.

    Raises:
        BadInput: the model has no such camera or site, the shape is below one pixel, or a geom cannot be drawn.
    """
    cast.checked(shape)
    how = {"shadow": min(shape) >= LARGE, "samples": 2, **how}
    drawn = _table(c)
    seen, disguise = view(drawn, data, camera), _disguise.get()
    if disguise is not None:
        how["look"], seen = disguise(drawn, seen, shape)
    return cast.render(drawn, poses(drawn, data, marks), seen, shape, **how)


@contextlib.contextmanager
def disguised(disguise: Callable[[Scene, View, tuple[int, int]], tuple[cast.Look, View]]):
    """Within, pictures look as `disguise(scene, view, shape) -> (look, view)` says.

    An environment's `draw` knows nothing of looks; who calls it changes them here, while it is traced.
    """
    token = _disguise.set(disguise)
    try:
        yield
    finally:
        _disguise.reset(token)
