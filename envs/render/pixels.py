"""An environment seen through a camera: its observation becomes a stack of pictures."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from envs.core import bare, frame_stack
from jaxrl.core import BadInput, Env


def pixels(env: Env, size: int, frames: int = 3, camera: str | None = None) -> Env:
    """The environment with uint8 [size, size, 3 * frames] for an observation, newest last on the last axis.

    A start shows its first frame `frames` times, as `frame_stack` does, so that a replay with `frames=frames` stores
    each frame once. A step draws one frame: the order is `pixels(action_repeat(env, n), size)`, which draws the last of
    a repeat; the other way round each of the n is drawn. A reset draws one more, which `batched` pays for only in
    steps that end an episode (and not at all from a bank of `starts`).

    Args:
        camera: a camera's name; None is the usual one.

    Raises:
        BadInput: the environment cannot be drawn or has no such camera, or size or frames is below 1.
    """
    draw = env.draw
    if draw is None:
        raise BadInput(f"{env.name} has no picture: pixels needs an environment with `draw`.")
    if size < 1:
        raise BadInput(f"image size is {size}; a picture has at least 1 pixel a side.")
    if frames < 1:
        raise BadInput(f"frames of pixels is {frames}; an observation shows at least 1.")
    see = lambda state: draw(bare(state), (size, size), camera)
    # Without compiling, so that a camera that does not exist is said here.
    seen = jax.eval_shape(lambda key: see(env.reset(key)[0]), jax.eval_shape(lambda: jax.random.key(0)))
    if (seen.shape, seen.dtype) != ((size, size, 3), jnp.uint8):
        raise BadInput(f"{env.name} draws {seen.dtype} {list(seen.shape)} where uint8 [{size}, {size}, 3] is due.")

    def shown(pair):
        state, out = pair
        return state, out._replace(obs=see(state))

    drawn = replace(
        env,
        reset=lambda key: shown(env.reset(key)),
        step=lambda state, action: shown(env.step(state, action)),
        specs=replace(env.specs, observation=jax.ShapeDtypeStruct((size, size, 3), jnp.uint8), over=None),
    )
    return frame_stack(drawn, frames)
