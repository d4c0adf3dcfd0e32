"""Replays of generated transitions against a list: what is kept, what is overwritten, and the window that is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput
from jaxrl.sources import generated

KEY = jax.random.key(1)
one = lambda *shape: jax.ShapeDtypeStruct((2, 3, *shape), jnp.float32)
EXAMPLE = {"obs": one(2), "next_obs": one(2), "action": one(), "reward": one(), "discount": one(), "end": one()}


def rows(numbers):
    x = jnp.asarray(numbers, jnp.float32)
    pair = jnp.stack([x, -x], axis=1)
    return {"obs": pair, "next_obs": pair + 0.5, "action": x, "reward": 2 * x, "discount": x / 100, "end": x}


@pytest.fixture(scope="module")
def source():
    return generated(7, 5)


@pytest.fixture(scope="module")
def draws(source):
    """The numbers that are drawn, with how often, in 400 batches."""
    many = jax.jit(jax.vmap(lambda s, key: source.sample(s, {}, key)["action"], in_axes=(None, 0)))
    return lambda s: np.unique(np.asarray(many(s, jax.random.split(KEY, 400))), return_counts=True)


def test_what_is_kept_goes_round(source, draws):
    s, lived, rng = source.init(EXAMPLE), [], np.random.default_rng(0)
    assert source.size(s) == 0
    for turn in range(6):
        numbers, kept = np.arange(1, 6) + 10 * turn, rng.uniform(size=5) < 0.6
        s = source.fill(s, rows(numbers), jnp.array(kept))
        lived = [*lived, *numbers[kept]][-7:]
        assert source.size(s) == len(lived)
        found, counts = draws(s)
        assert_array_equal(found, lived)
        assert_allclose(counts / 2000, 1 / len(lived), atol=0.05)
    batch = source.sample(s, {}, KEY)
    assert batch.keys() == {"obs", "next_obs", "action", "reward", "discount"}
    assert_array_equal(batch["reward"], 2 * batch["action"])
    assert_array_equal(batch["obs"], np.stack([batch["action"], -batch["action"]], axis=1))
    assert_array_equal(batch["next_obs"], batch["obs"] + 0.5)
    assert source.sample(s, {}, jax.random.key(9))["action"].shape == (5,)


def test_only_the_newest_within_the_window_are_drawn(source, draws):
    all_kept = jnp.ones(5, bool)
    s = source.fill(source.init(EXAMPLE), rows(range(1, 6)), all_kept)
    narrow = source.fill(s, rows(range(6, 11)), all_kept, 3)
    assert_array_equal(draws(narrow)[0], [8, 9, 10])
    assert source.size(narrow) == 7
    # It stays as it was set, and is held between 1 and the capacity.
    later = source.fill(narrow, rows(range(11, 16)), all_kept)
    assert_array_equal(draws(later)[0], [13, 14, 15])
    assert_array_equal(draws(source.fill(narrow, rows(range(11, 16)), all_kept, 0))[0], [15])
    assert source.fill(narrow, rows(range(11, 16)), all_kept, 50).window == 7
    assert source.init(EXAMPLE).window == 7


def test_emptied_it_begins_anew(source, draws):
    s = source.fill(source.init(EXAMPLE), rows(range(1, 6)), jnp.ones(5, bool), 4)
    s = source.empty(s)
    assert (source.size(s), s.head, s.window) == (0, 0, 4)
    s = source.fill(s, rows(range(6, 11)), jnp.array([True, False, True, False, False]))
    assert_array_equal(draws(s)[0], [6, 8])


def test_nothing_of_an_environment_is_added(source):
    s = source.fill(source.init(EXAMPLE), rows(range(1, 6)), jnp.ones(5, bool))
    assert source.add(s, rows(range(3)), None) is s


def test_what_does_not_go_in_is_refused(source):
    with pytest.raises(BadInput, match="8 transitions"):
        source.fill(source.init(EXAMPLE), rows(range(8)), jnp.ones(8, bool))
    assert source.size(source.fill(source.init(EXAMPLE), rows(range(7)), jnp.ones(7, bool))) == 7
    for settings in ((0, 5), (7, 0)):
        with pytest.raises(BadInput, match="at least 1"):
            generated(*settings)
    assert generated(1, 1).init(EXAMPLE).window == 1
