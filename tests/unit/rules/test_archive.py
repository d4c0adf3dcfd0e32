"""The archive of what served best: whose place is taken, and draws like those that are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Ctx
from jaxrl.rules.archive import EMPTY, Archive, archive, keep_best, like_them

CTX = Ctx(jax.random.key(0), jnp.int32(0))
PARTS = {"actor": {"w": jnp.float32([[1, 2], [3, 4]])}, "std": jnp.float32(0.5), "critic": jnp.zeros(3)}


def test_an_archive_begins_empty():
    kept = archive(PARTS, ("actor", "std"), 3)
    assert_array_equal(kept.returns, [EMPTY] * 3)
    assert jax.tree.map(jnp.shape, kept.members) == {"actor": {"w": (3, 2, 2)}, "std": (3,)}
    assert not any(leaf.any() for leaf in jax.tree.leaves(kept.members))


def batch(returns, end):
    return {"end": jnp.array(end), "info": {"episode": {"return": jnp.float32(returns)}}}


@pytest.mark.parametrize(
    "returns, end, expected",
    [
        ([[5, 9], [7, 100]], [[True, True], [True, False]], [9, 8, 4]),  # the best that ended takes the least's place
        ([[5, 9], [7, 2]], [[False, False], [True, False]], [7, 8, 4]),
        ([[3.5, 1]], [[True, True]], [3.5, 8, 4]),
        ([[3, 1]], [[True, True]], [3, 8, 4]),  # as good as the least: not above it
        ([[2, 1]], [[True, True]], [3, 8, 4]),
        ([[50, 60]], [[False, False]], [3, 8, 4]),  # nothing ended
    ],
)
def test_the_best_episode_of_a_tick_takes_the_place_of_the_least(returns, end, expected):
    members = {"actor": {"w": jnp.zeros((3, 2, 2))}, "std": jnp.zeros(3)}
    parts = {**PARTS, "kept": Archive(jnp.float32([3, 8, 4]), members)}
    rule = keep_best("kept", ("actor", "std"))
    found = rule.update(parts, (), batch(returns, end), CTX)[0]["kept"]
    assert_array_equal(found.returns, expected)
    taken = expected[0] != 3
    assert_array_equal(found.members["actor"]["w"][0], PARTS["actor"]["w"] * taken)
    assert_array_equal(found.members["std"], [0.5 * taken, 0, 0])
    assert rule.writes == ("kept",) and {"actor", "std"} <= set(rule.reads)


def test_nothing_is_drawn_from_fewer_than_two():
    like = {"w": jnp.float32([1, 2])}
    for returns in ([EMPTY] * 3, [4, EMPTY, EMPTY]):
        kept = Archive(jnp.float32(returns), {"w": jnp.full((3, 2), 7.0)})
        assert_array_equal(like_them(kept, like, CTX.key)["w"], like["w"])


def test_draws_have_the_mean_and_spread_of_what_is_kept():
    """Of three places two are filled, and what the third holds is not looked at."""
    w = np.array([[1.0, 5.0], [100.0, 100.0], [3.0, 5.0]], np.float32)
    kept = Archive(jnp.float32([4, EMPTY, -2]), {"w": jnp.array(w)})
    otherwise = {"w": jnp.zeros(2)}
    draws = np.asarray(jax.vmap(lambda key: like_them(kept, otherwise, key)["w"])(jax.random.split(CTX.key, 2000)))
    assert_allclose(draws.mean(axis=0), [2, 5], atol=0.12)
    assert_allclose(draws.std(axis=0)[0], np.sqrt(2), rtol=0.06)
    assert_allclose(draws[:, 1], 5, atol=1e-5)
    noise = np.asarray(jax.random.normal(CTX.key, (2,)))
    assert_allclose(like_them(kept, otherwise, CTX.key)["w"], [2 + np.sqrt(2) * noise[0], 5], rtol=1e-5)


def test_of_three_the_spread_is_unbiased_and_no_number_stands_quite_still():
    w = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]], np.float32)
    kept = Archive(jnp.float32([1, 2, 3]), {"w": jnp.array(w)})
    noise = np.asarray(jax.random.normal(CTX.key, (2,)))
    expected = [3 + noise[0] * w[:, 0].std(ddof=1), 1e-7 * noise[1]]
    assert_allclose(like_them(kept, {"w": jnp.zeros(2)}, CTX.key)["w"], expected, rtol=1e-5)
