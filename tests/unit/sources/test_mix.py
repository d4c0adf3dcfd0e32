"""Mixtures: whose share is where, who stands in for the empty, what each is told, and thinned shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxrl.core import BadInput, Event, Recipe, Source, each_key, fold
from jaxrl.loop import Run
from jaxrl.sources import beside, mix, thinned

KEY = jax.random.key(6)


def named(start: float, batch: int, noting: bool = True, more: dict | None = None, everything: bool = False) -> Source:
    """A source whose state is (held, noted); it draws `start` and the key's own number, and sums what it is told."""

    def sample(s, parts, key):
        x = start + jax.random.uniform(key, (batch,))
        return {"x": x, "own": x, **(more or {})}

    def note(s, batch, metrics):
        return s[0], s[1] + batch["x"].sum() + metrics["error"].sum() + metrics["loss"]

    return Source(
        lambda example: (jnp.int32(0), jnp.float32(0)),
        lambda s, transitions, ctx: (s[0] + 1, s[1]),
        sample,
        lambda s: s[0],
        note if noting else None,
        (lambda s: {"x": jnp.full(2, start)}) if everything else None,
    )


FULL = (jnp.int32(5), jnp.float32(0))
EMPTY = (jnp.int32(0), jnp.float32(0))


def test_each_source_has_its_share_in_the_order_of_names():
    source = mix("b", a=named(10, 2), b=named(20, 3))
    batch = source.sample({"a": FULL, "b": FULL}, {}, KEY)
    expected = np.concatenate(
        [10 + jax.random.uniform(fold(KEY, 0), (2,)), 20 + jax.random.uniform(fold(KEY, 1), (3,))]
    )
    assert_array_equal(batch["x"], expected)
    assert_array_equal(batch["source"], [0, 0, 1, 1, 1])
    assert batch.keys() == {"x", "own", "source"}


def test_what_is_new_goes_to_the_one_that_is_named():
    source = mix("b", a=named(10, 2), b=named(20, 3))
    s = source.add(source.init({}), {}, None)
    assert (s["a"][0], s["b"][0]) == (0, 1)
    assert source.size({"a": FULL, "b": (jnp.int32(3), jnp.float32(0))}) == 8


@pytest.mark.parametrize("own", [3, 5, 2])
def test_an_empty_share_is_drawn_from_the_one_that_is_added_to(own):
    """Five samples, in as many draws of 3, 5 or 2 as that takes."""
    source = mix("b", a=named(10, 5), b=named(20, own))
    batch = source.sample({"a": EMPTY, "b": FULL}, {}, KEY)
    draws = -(-5 // own)
    stood = np.concatenate([20 + jax.random.uniform(key, (own,)) for key in each_key(fold(KEY, 0), draws)])[:5]
    assert_array_equal(batch["x"][:5], stood)
    assert_array_equal(batch["source"], np.ones(5 + own))
    # The one that is added to is never stood in for, empty or not.
    own_share = source.sample({"a": FULL, "b": EMPTY}, {}, KEY)
    assert_array_equal(own_share["source"], [0] * 5 + [1] * own)


def test_another_source_may_stand_in():
    source = mix("b", named(30, 4), a=named(10, 5), b=named(20, 3))
    batch = source.sample({"a": EMPTY, "b": FULL}, {}, KEY)
    assert ((batch["x"][:5] > 30) & (batch["x"][:5] < 31)).all()
    assert ((batch["x"][5:] > 20) & (batch["x"][5:] < 21)).all()


def test_bookkeeping_is_filled_in_and_what_is_not_shared_left_out():
    weight, index = jnp.float32([0.5, 0.25]), jnp.int32([7, 8])
    one = named(10, 2, more={"weight": weight, "index": index, "extra": weight})
    batch = mix("b", a=one, b=named(20, 3)).sample({"a": FULL, "b": FULL}, {}, KEY)
    assert_array_equal(batch["weight"], [0.5, 0.25, 1, 1, 1])
    assert_array_equal(batch["index"], [7, 8, 0, 0, 0])
    assert batch["index"].dtype == jnp.int32 and "extra" not in batch


def test_of_sequences_a_weight_that_is_filled_in_has_their_length():
    one = named(10, 2, more={"weight": jnp.zeros((2, 4))})
    batch = mix("b", a=one, b=named(20, 3)).sample({"a": FULL, "b": FULL}, {}, KEY)
    assert_array_equal(batch["weight"], [[0] * 4] * 2 + [[1] * 4] * 3)


def test_each_is_told_of_its_own_share():
    source = mix("b", a=named(10, 2), b=named(20, 3), c=named(30, 1, noting=False))
    s = {"a": FULL, "b": FULL, "c": FULL}
    batch = source.sample(s, {}, KEY)
    error = jnp.float32([1, 2, 4, 8, 16, 32])
    after = source.note(s, batch, {"error": error, "loss": jnp.float32(100)})
    x = np.asarray(batch["x"])
    assert after["a"][1] == np.float32(x[:2].sum() + 3 + 100)
    np.testing.assert_allclose(after["b"][1], x[2:5].sum() + 28 + 100, rtol=1e-6)
    assert after["c"][1] == 0


def test_nothing_is_learned_of_what_stood_in():
    source = mix("b", a=named(10, 2), b=named(20, 3))
    s = {"a": EMPTY, "b": FULL}
    batch = source.sample(s, {}, KEY)
    after = source.note(s, batch, {"error": jnp.arange(5.0), "loss": jnp.float32(100)})
    assert after["a"][1] == 0 and after["b"][1] > 100


def test_what_a_mixture_can_do_follows_from_its_sources():
    assert mix("b", a=named(10, 2, noting=False), b=named(20, 3, noting=False)).note is None
    assert mix("b", a=named(10, 2), b=named(20, 3, noting=False)).note is not None
    assert mix("b", a=named(10, 2), b=named(20, 3)).everything is None
    whole = mix("b", a=named(10, 2), b=named(20, 3, everything=True)).everything
    assert_array_equal(whole({"a": FULL, "b": FULL})["x"], [20, 20])


def test_sources_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="onlin"):
        mix("onlin", online=named(10, 2))
    other = Source(lambda e: FULL, lambda s, t, c: s, lambda s, p, k: {"y": jnp.zeros(2)}, lambda s: s[0])
    with pytest.raises(BadInput, match="share no field"):
        mix("a", a=named(10, 2), b=other).sample({"a": FULL, "b": FULL}, {}, KEY)
    wrong = named(20, 3, more={"x": jnp.zeros((3, 2))})
    with pytest.raises(BadInput, match="field 'x'"):
        mix("a", a=named(10, 2), b=wrong).sample({"a": FULL, "b": FULL}, {}, KEY)


def test_a_thinned_share_is_evenly_spread():
    source = named(10, 9, more={"i": jnp.arange(9)})
    assert_array_equal(thinned(source, 3).sample(FULL, {}, KEY)["i"], [0, 4, 8])
    assert_array_equal(thinned(source, 4).sample(FULL, {}, KEY)["i"], [0, 3, 5, 8])
    assert thinned(source, 0).sample(FULL, {}, KEY)["x"].shape == (0,)
    assert thinned(source, 3).size(FULL) == 5


def test_events_go_on_to_see_the_recipes_own_source():
    def fill(run, ctx):
        return run._replace(source=(run.source[0] + 10, run.source[1]), step=run.step + ctx), {"filled": jnp.float32(1)}

    recipe = Recipe(None, named(10, 4), events=(Event(8, fill, "fill"),))
    more = beside(recipe, 2, models=named(20, 3))
    run = Run(*[()] * len(Run._fields))._replace(source={"online": FULL, "models": EMPTY}, step=jnp.int32(3))
    after, metrics = more.events[0].fn(run, 2)
    assert (after.source["online"][0], after.source["models"][0], after.step) == (15, 0, 5)
    assert metrics == {"filled": 1} and more.events[0].period == 8
    batch = more.source.sample({"online": FULL, "models": FULL}, {}, KEY)
    assert_array_equal(batch["source"], [0, 0, 1, 1, 1])
    empty = more.source.sample({"online": FULL, "models": EMPTY}, {}, KEY)
    assert ((empty["x"] > 10) & (empty["x"] < 11)).all() and empty["x"].shape == (5,)


def test_a_source_of_no_share_stands_in_for_the_empty():
    recipe = beside(Recipe(None, named(10, 4)), 0, models=named(20, 3))
    s = {"online": FULL, "models": FULL}
    assert_array_equal(recipe.source.sample(s, {}, KEY)["source"], [1, 1, 1])
    found = recipe.source.sample({**s, "models": EMPTY}, {}, KEY)
    assert_array_equal(found["source"], [0, 0, 0])
    assert ((found["x"] > 10) & (found["x"] < 11)).all()
