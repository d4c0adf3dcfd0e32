"""Sources that change what another source samples."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Key, Source


def random_shift(key: Key, images: jax.Array, pad: int) -> jax.Array:
    """Each image [B, H, W, C] moved by its own whole number of pixels within +-pad, edges repeated.

    All frames of a stack move together, so that velocities stay what they were. Yarats et al. 2022, section 3.1.
    """
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    corner = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pad + 1)
    cut = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), images.shape[1:])
    return jax.vmap(cut)(padded, corner)


def shifted(source: Source, pad: int = 4) -> Source:
    """The source with the images `obs` and `next_obs` of each batch randomly shifted, each by itself.

    Every rule of an update sees the same shift. Where a batch looks `ahead` (`ring.Layout`), that image is shifted too,
    and `batch['ahead']['again']` is `obs` under another shift.

    Raises:
        BadInput: `pad` is below 0.
    """
    if pad < 0:
        raise BadInput(f"pad is {pad}; a shift is at least 0 pixels.")

    def sample(s, parts, key):
        key_batch, *keys = jax.random.split(key, 5)
        batch = source.sample(s, parts, key_batch)
        ahead = batch.get("ahead")
        images = [batch["obs"], batch["next_obs"], *([] if ahead is None else [ahead["obs"], batch["obs"]])]
        obs, next_obs, *rest = [random_shift(key, image, pad) for key, image in zip(keys, images)]
        seen = {} if ahead is None else {"ahead": {**ahead, "obs": rest[0], "again": rest[1]}}
        return {**batch, "obs": obs, "next_obs": next_obs, **seen}

    return replace(source, sample=sample)
