"""Integers below a bound, however large."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import below

KEY = jax.random.key(2)


@pytest.mark.parametrize("bound", [2**17 + 1, 3_000_000, 2**31 - 1], ids=["131,073", "3 million", "2^31 - 1"])
def test_integers_below_a_large_bound_are_the_scaled_words(bound):
    """floor(word * bound / 2^32), in integers of Python: no word is lost, so that chances are as even as can be."""
    words = np.asarray(jax.random.bits(KEY, (2000,), jnp.uint32)).tolist()
    scaled = [word * bound >> 32 for word in words]
    assert_array_equal(below(KEY, (2000,), bound), scaled)
    assert_array_equal(jax.jit(lambda bound: below(KEY, (2000,), bound))(bound), scaled)
    assert below(KEY, (2000,), bound).dtype == jnp.int32


def test_a_large_bound_favours_no_remainder():
    """Of 3 million integers those that leave 1 by 3 were twice as likely as others: each third is drawn alike."""
    drawn = np.asarray(jax.jit(lambda bound: below(KEY, (300_000,), bound))(3 << 21))
    assert_allclose(np.bincount(drawn % 3) / 100_000, 1, atol=0.02)
    assert drawn.min() < 100 and drawn.max() > (3 << 21) - 100


@pytest.mark.parametrize("bound", [1, 7, 2**17])
def test_integers_below_a_small_bound_are_what_uniform_numbers_make(bound):
    uniform = np.asarray(jax.random.uniform(KEY, (500,)))
    wanted = np.minimum(uniform * np.float32(bound), bound - 1).astype(np.int32)
    assert_array_equal(below(KEY, (500,), bound), wanted)
    assert_array_equal(jax.jit(lambda bound: below(KEY, (500,), bound))(bound), wanted)
