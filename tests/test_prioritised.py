"""Prioritised replay: the tree against plain sums, draws against priorities, and what an update notes."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.core import BadInput, Ctx
from jaxrl.sources import dataset, mix, prioritised
from jaxrl.sources.prioritised import EPSILON, descend, grow, plant
from jaxrl.sources.ring import Layout, drawable

EXAMPLES = settings(max_examples=20, deadline=None, derandomize=True)
NOBODY = Ctx(None, None)


def tick(number, end, frames=1):
    """One tick [1, N] whose fields are numbers, with rewards for names."""
    stack = lambda x: jnp.broadcast_to(x[None, :, None], (1, *x.shape, frames))
    return {
        "obs": stack(number),
        "action": number[None],
        "reward": number[None],
        "discount": jnp.ones((1, *number.shape)),
        "end": end[None],
        "next_obs": stack(number + 0.5),
    }


def filled(source, ends, frames=1):
    """The source after ticks with these ends [K, N]; transition t of column c is number t * N + c."""
    numbers = jnp.arange(ends.size, dtype=jnp.float32).reshape(ends.shape)
    shapes = jax.eval_shape(lambda: tick(numbers[0], ends[0], frames))
    step = lambda s, x: (source.add(s, tick(*x, frames), NOBODY), None)
    return jax.lax.scan(step, source.init(shapes), (numbers, ends))[0]


SIZE = 300  # three levels of 16


@jax.jit
def grown(values, changed):
    tree = plant(SIZE)
    leaves = tree[0].at[:SIZE].set(values)
    return grow(tree, leaves, jnp.arange(SIZE)), grow(tree, tree[0].at[changed].set(values[changed]), changed)


@EXAMPLES
@given(st.integers(0, 2**31 - 1))
def test_each_level_sums_the_one_below(seed):
    rng = np.random.default_rng(seed)
    values = rng.random(SIZE).astype(np.float32) * rng.integers(0, 2, SIZE)
    changed = rng.integers(0, SIZE, 7)
    full, part = grown(values, changed)
    only = np.zeros(SIZE)
    only[changed] = values[changed]
    for tree, leaves in ((full, values), (part, only)):
        np.testing.assert_array_equal(tree[0][:SIZE], leaves.astype(np.float32))
        for below, above in pairwise(tree):
            sums = np.asarray(below).reshape(-1, 16).sum(axis=1)
            np.testing.assert_allclose(above[: sums.size], sums, rtol=1e-6)
        assert tree[-1].size == 16


@EXAMPLES
@given(st.integers(0, 2**31 - 1))
def test_a_descent_finds_the_leaf_that_a_cumulative_sum_finds(seed):
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 5, SIZE) * rng.integers(0, 2, SIZE)).astype(np.float32)
    values[rng.integers(SIZE)] = 1.0
    share = rng.random(64).astype(np.float32)
    found = np.asarray(jax.jit(descend)(grown(values, np.arange(7))[0], share))
    assert (values[found] > 0).all()
    ends = np.cumsum(values.astype(np.float64))
    slack = 1e-5 * ends[-1]  # a share on the border of two leaves may fall to either
    assert (share * ends[-1] <= ends[found] + slack).all()
    assert (share * ends[-1] >= ends[found] - values[found] - slack).all()


def test_extreme_shares_never_reach_an_empty_leaf():
    values = np.zeros(SIZE, np.float32)
    values[[40, 41, 250]] = [1e-8, 3.0, 1e-8]
    tree = grown(values, np.arange(7))[0]
    find = jax.jit(descend)
    found = np.asarray(find(tree, jnp.array([0.0, 1e-12, 0.5, 1 - 2**-24, 1.0])))
    assert set(found.tolist()) <= {40, 41, 250}
    assert (np.asarray(find(plant(SIZE), jnp.array([0.0, 0.9, 0.0, 0.0, 0.0]))) == 0).all()


def test_draws_follow_priorities_and_weights_undo_them():
    """Frequencies match |error|^exponent within 5 %, and weight is (size P)^-beta over the largest."""
    exponent, beta, batch = 0.7, 0.5, 16
    source = prioritised(16, batch, exponent, beta)
    ends = np.random.default_rng(0).random((12, 2)) < 0.3

    @jax.jit
    def run(ends, keys):
        s = filled(source, ends)
        everything = {"index": jnp.arange(s.ring.nodes["mark"].size), "weight": jnp.ones(s.ring.nodes["mark"].size)}
        error = s.ring.nodes["reward"].reshape(-1) - 12.0
        s = source.note(s, everything, {"critic/td_error": error})
        return s, error, jax.vmap(lambda key: source.sample(s, {}, key))(keys)

    s, error, batches = run(ends, jax.random.split(jax.random.key(0), 2000))
    alive = np.asarray(s.ring.nodes["mark"]).reshape(-1) > 0
    assert source.size(s) == alive.sum() and 0 < alive.sum() < alive.size
    priority = np.where(alive, (np.abs(error) + EPSILON) ** exponent, 0)
    expected = priority / priority.sum()
    found = np.bincount(np.ravel(batches["index"]), minlength=alive.size) / (2000 * batch)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=1e-4)
    index = np.asarray(batches["index"])
    weight = (alive.sum() * expected[index]) ** -beta
    np.testing.assert_allclose(batches["weight"], weight / weight.max(axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(batches["obs"][..., 0], batches["reward"])


def test_flashbax_draws_the_same_leaves():
    """The same priorities and stratified draws: frequencies of our tree and of flashbax's agree."""
    from flashbax.buffers import sum_tree as peer

    values = np.random.default_rng(2).random(64).astype(np.float32) ** 2
    theirs = peer.set_batch_bincount(peer.init(64), jnp.arange(64), jnp.asarray(values))
    tree = plant(64)
    ours = grow(tree, tree[0].at[:64].set(values), jnp.arange(64))

    def both(key):
        share = (jnp.arange(32) + jax.random.uniform(key, (32,))) / 32
        return descend(ours, share), peer.stratified_sample(theirs, 32, key)

    drawn = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), 1500))
    ours, theirs = (np.bincount(np.ravel(x), minlength=64) / (1500 * 32) for x in drawn)
    np.testing.assert_allclose(ours, values / values.sum(), atol=2e-3)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("frames", [None, 3])
def test_only_what_may_be_drawn_has_a_priority(frames):
    """After each tick, ends, the head, and stacks cut by it have priority 0, and all others some."""
    source = prioritised(20, 4, frames=frames, n=2)
    layout = Layout(20, 4, frames=frames)
    rng = np.random.default_rng(3)
    ends = rng.random((40, 2)) < 0.25

    @jax.jit
    def run(ends):
        numbers = jnp.arange(ends.size, dtype=jnp.float32).reshape(ends.shape)

        def step(s, x):
            s = source.add(s, tick(*x, frames or 1), NOBODY)
            rows, columns = jnp.indices(s.ring.nodes["mark"].shape)
            return s, (s.tree, drawable(layout, s.ring, rows, columns))

        shapes = jax.eval_shape(lambda: tick(numbers[0], ends[0], frames or 1))
        return jax.lax.scan(step, source.init(shapes), (numbers, ends))[1]

    tree, good = jax.tree.map(np.asarray, run(ends))
    np.testing.assert_array_equal(tree[0][:, : good[0].size] > 0, good.reshape(40, -1))
    np.testing.assert_allclose(tree[-1].sum(axis=1), good.reshape(40, -1).sum(axis=1), rtol=1e-6)


@jax.jit
def noted(error, repeats):
    """Priorities before and after noting errors at slots 0, 1, 2, and those of a slot noted twice."""
    source = prioritised(16, 3, exponent=1.0)
    s = filled(source, jnp.zeros((8, 1), bool))
    batch = lambda index: {"index": index, "weight": jnp.ones(3)}
    once = source.note(s, batch(jnp.array([0, 1, 12])), {"critic/td_error": error})
    twice = source.note(s, batch(jnp.array([4, 4, 4])), {"critic/td_error": repeats})
    after = source.add(once, tick(jnp.array([99.0]), jnp.array([False])), NOBODY)
    return s.tree[0], once, twice.tree[0], after.tree[0]


def test_what_an_update_notes():
    before, once, twice, after = noted(jnp.array([-3.0, jnp.nan, 5.0]), jnp.array([0.1, 7.0, 2.0]))
    np.testing.assert_allclose(before[:9], [1] * 8 + [0])
    np.testing.assert_allclose(once.tree[0][:3], [3.0, 1.0, 1.0], rtol=1e-5)  # a skipped update changes nothing
    assert once.tree[0][12] == 0  # nor does what was overwritten since
    np.testing.assert_allclose(once.most, 3.0, rtol=1e-5)
    np.testing.assert_allclose(after[8], 3.0, rtol=1e-5)  # a new transition gets the largest yet
    np.testing.assert_allclose(twice[4], 7.0, rtol=1e-5)


def test_sequences_are_weighted_and_noted_over_their_real_entries():
    source = prioritised(16, 4, exponent=1.0, sequence=3)

    @jax.jit
    def run(ends, key):
        s = filled(source, ends)
        batch = source.sample(s, {}, key)
        error = jnp.where(batch["weight"] > 0, 2.0, 1e9)
        return batch, source.note(s, batch, {"critic/td_error": error})

    batch, s = run(np.arange(8)[:, None] % 2 == 1, jax.random.key(0))  # episodes of two steps
    assert batch["weight"].shape == (4, 3) and (batch["weight"][:, 2] == 0).all()
    np.testing.assert_allclose(s.tree[0][batch["index"]], 2.0, rtol=1e-5)


def test_priorities_fade_with_age():
    """Frequencies match priority x max(rate^age, floor), ages counted in transitions of all columns."""
    rate, floor, batch = 0.9, 0.3, 16
    source = prioritised(24, batch, exponent=1.0, beta=0.0, fade=(rate, floor))

    @jax.jit
    def run(keys):
        s = filled(source, jnp.zeros((15, 2), bool))  # the ring holds the last 12 of each
        slots = s.ring.nodes["mark"].size
        everything = {"index": jnp.arange(slots), "weight": jnp.ones(slots)}
        s = source.note(s, everything, {"critic/td_error": 1.0 + s.ring.nodes["reward"].reshape(-1) % 3})
        return s, jax.vmap(lambda key: source.sample(s, {}, key))(keys)

    s, batches = run(jax.random.split(jax.random.key(0), 4000))
    number = np.asarray(s.ring.nodes["reward"]).reshape(-1)
    alive = np.asarray(s.ring.nodes["mark"]).reshape(-1) > 0
    age = 28 - number + number % 2  # of the two in a tick neither is older
    expected = np.where(alive, (1 + number % 3) * np.maximum(rate**age, floor), 0)
    found = np.bincount(np.ravel(batches["index"]), minlength=alive.size) / (4000 * batch)
    assert alive.sum() == 24
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=0.06, atol=1e-4)
    np.testing.assert_array_equal(batches["weight"], 1)


def test_a_mixture_notes_each_its_own():
    """The offline source adds up the errors that it is shown; while it is empty it is shown none."""
    fixed = dataset({name: np.zeros(5, np.float32) for name in ("action", "reward", "discount")}, 2)
    summing = replace(
        fixed,
        init=lambda example: jnp.zeros(()),
        size=lambda s: jnp.where(s < 0, 0, 5),
        note=lambda s, batch, metrics: s + metrics["critic/td_error"].sum(),
    )
    source = mix("online", offline=summing, online=prioritised(16, 3, exponent=1.0))

    @jax.jit
    def run(begin, key):
        s = {**filled(source, jnp.zeros((8, 1), bool)), "offline": begin}
        batch = source.sample(s, {}, key)
        s = source.note(s, batch, {"critic/td_error": jnp.array([9.0, 9.0, 4.0, 4.0, 4.0]), "loss": jnp.float32(1)})
        return batch, s["online"].tree[0], s["offline"]

    batch, leaves, total = run(jnp.float32(0), jax.random.key(0))
    np.testing.assert_array_equal(batch["source"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(batch["weight"], [1] * 5)
    np.testing.assert_allclose(np.asarray(leaves)[batch["index"][2:]], 4.0, rtol=1e-5)
    assert not (np.asarray(leaves) > 5).any() and total == 18

    batch, _, total = run(jnp.float32(-1), jax.random.key(0))
    np.testing.assert_array_equal(batch["source"], [1] * 5)
    assert total == -1


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: prioritised(16, 4, exponent=-1), "exponent is -1"),
        (lambda: prioritised(16, 4, beta=-0.5), "beta is -0.5"),
        (lambda: prioritised(16, 4, fade=(0.9, 0.0)), "fade is"),
        (lambda: prioritised(16, 32), "more than the capacity"),
        (lambda: filled(prioritised(900, 4, budget=17_000), jnp.zeros((3, 1), bool)), "prioritised .* needs 19.. kB"),
        (lambda: wrong({"td_error": jnp.ones(4)}), "unknown metric"),
        (lambda: wrong({"critic/td_error": jnp.ones(())}), "a priority needs one value a sample"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


def wrong(metrics):
    source = prioritised(16, 4)
    s = jax.eval_shape(lambda: filled(source, jnp.zeros((3, 1), bool)))
    batch = {"index": jnp.zeros(4, jnp.int32), "weight": jnp.ones(4)}
    return jax.eval_shape(source.note, s, batch, metrics)
