"""Shifts of pictures: every one that is drawn, pixel by pixel, and the same for all of a batch's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxrl.core import BadInput, Source
from jaxrl.sources import random_shift, shifted

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 255, (40, 5, 6, 2), np.uint8)


def moved(images, key, pad):
    """Each picture moved by its own corner of the padded one, pixel by pixel."""
    corners = np.asarray(jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1))
    out = np.zeros_like(images)
    for i, (down, right) in enumerate(corners):
        for y, x in np.ndindex(images.shape[1:3]):
            out[i, y, x] = images[i, np.clip(y + down - pad, 0, 4), np.clip(x + right - pad, 0, 5)]
    return out, corners


def test_pictures_move_by_whole_pixels_and_repeat_their_edges():
    found = random_shift(KEY, jnp.array(IMAGES), 1)
    expected, corners = moved(IMAGES, KEY, 1)
    assert_array_equal(found, expected)
    assert set(corners.reshape(-1)) == {0, 1, 2}
    assert found.dtype == jnp.uint8
    assert_array_equal(random_shift(KEY, jnp.array(IMAGES), 0), IMAGES)


def source(ahead: bool):
    def sample(s, parts, key):
        batch = {"obs": jnp.array(IMAGES[:8]), "next_obs": jnp.array(IMAGES[8:16]), "key": jax.random.key_data(key)}
        return {**batch, "ahead": {"obs": jnp.array(IMAGES[16:24]), "weight": jnp.ones(8)}} if ahead else batch

    return Source(lambda e: (), lambda s, t, c: s, sample, lambda s: jnp.int32(9))


def test_each_picture_of_a_batch_is_shifted_by_itself():
    batch = shifted(source(False), 2).sample((), {}, KEY)
    keys = jax.random.split(KEY, 5)
    assert_array_equal(batch["key"], jax.random.key_data(keys[0]))
    assert_array_equal(batch["obs"], moved(IMAGES[:8], keys[1], 2)[0])
    assert_array_equal(batch["next_obs"], moved(IMAGES[8:16], keys[2], 2)[0])
    assert "ahead" not in batch and shifted(source(False), 2).size(()) == 9


def test_what_is_ahead_is_shifted_too_and_what_is_seen_once_more():
    ahead = shifted(source(True), 2).sample((), {}, KEY)["ahead"]
    keys = jax.random.split(KEY, 5)
    assert_array_equal(ahead["obs"], moved(IMAGES[16:24], keys[3], 2)[0])
    assert_array_equal(ahead["again"], moved(IMAGES[:8], keys[4], 2)[0])
    assert_array_equal(ahead["weight"], np.ones(8))


def test_four_pixels_where_nobody_says_and_none_is_allowed():
    keys = jax.random.split(KEY, 5)
    assert_array_equal(shifted(source(False)).sample((), {}, KEY)["obs"], moved(IMAGES[:8], keys[1], 4)[0])
    assert_array_equal(shifted(source(False), 0).sample((), {}, KEY)["obs"], IMAGES[:8])
    with pytest.raises(BadInput, match="pad is -1"):
        shifted(source(False), -1)
