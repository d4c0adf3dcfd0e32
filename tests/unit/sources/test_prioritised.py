"""Prioritised replay against lists: sums of a tree, where shares fall, what an update notes, and what a draw weighs."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Ctx, fold
from jaxrl.sources import prioritised
from jaxrl.sources import ring as rings
from jaxrl.sources.prioritised import EPSILON, descend, grow, per_sample, plant

KEY = jax.random.key(2)
NOBODY = Ctx(None, None)
RNG = np.random.default_rng(4)


@pytest.mark.parametrize(
    "size, levels",
    [(1, [16]), (16, [16]), (17, [32, 16]), (256, [256, 16]), (257, [272, 32, 16]), (5000, [5008, 320, 32, 16])],
)
def test_a_tree_has_sixteen_children_a_node_up_to_the_roots(size, levels):
    tree = plant(size)
    assert [level.size for level in tree] == levels
    assert not any(level.any() for level in tree)


def sums(leaves, size=300):
    """A tree of these leaves."""
    tree = plant(size)
    leaves = tree[0].at[: len(leaves)].set(jnp.asarray(leaves, jnp.float32))
    return grow(tree, leaves, jnp.arange(size))


def test_each_node_is_the_sum_of_its_children():
    leaves = RNG.uniform(size=300).astype(np.float32)
    tree = sums(leaves)
    for below, above in pairwise(tree):
        expected = np.zeros(above.size)
        expected[: below.size // 16] = np.asarray(below, np.float64).reshape(-1, 16).sum(axis=1)
        assert_allclose(above, expected, rtol=1e-5)
    # Only what is above a changed leaf is summed anew.
    changed = tree[0].at[200].set(9.0).at[3].set(7.0)
    found = grow(tree, changed, jnp.array([200]))
    assert_allclose(found[1][12], tree[0][192:208].sum() - tree[0][200] + 9, rtol=1e-5)
    assert found[1][0] == tree[1][0]


@pytest.mark.parametrize("zeros", [0.0, 0.7])
def test_shares_fall_where_their_priority_is(zeros):
    """The leaf in whose stretch of the cumulated priorities a share of the total lies."""
    leaves = RNG.uniform(0.1, 1, 300) * (RNG.uniform(size=300) >= zeros)
    share = np.concatenate([np.linspace(0.001, 0.999, 200), [0.0]]).astype(np.float32)
    ends = np.cumsum(leaves)
    found = np.asarray(descend(sums(leaves), jnp.array(share)))
    exact = np.searchsorted(ends, share * ends[-1], side="right")
    near = np.minimum(abs(ends[exact] - share * ends[-1]), abs(ends[exact] - leaves[exact] - share * ends[-1])) < 1e-3
    assert (found == exact)[~near].all() and near.mean() < 0.1
    assert (leaves[found] > 0).all()
    assert found.dtype == np.int32


def test_no_leaf_without_priority_is_returned():
    """Not at either end of the shares, where rounding would reach beyond, and of an empty tree the first."""
    leaves = np.zeros(300)
    leaves[[17, 40, 250]] = [1e-3, 5, 1e-3]
    edge = np.nextafter(np.float32(1), np.float32(0))
    found = np.asarray(descend(sums(leaves), jnp.array([0.0, 0.5, edge, 1.0], jnp.float32)))
    assert found[0] == 17 and found[1] == 40 and set(found[2:]) <= {40, 250}
    assert_array_equal(descend(plant(300), jnp.array([0.0, 0.5, edge])), [0, 0, 0])
    one = np.zeros(300)
    one[299] = 2.0
    assert_array_equal(descend(sums(one), jnp.array([0.0, 0.5, edge])), [299] * 3)


def tick(number, end, frames=1):
    """One tick [1, N] whose fields are numbers."""
    stack = lambda x: jnp.broadcast_to(x[None, :, None], (1, *x.shape, frames))
    one = {"obs": stack(number), "next_obs": stack(number + 0.5), "discount": jnp.ones((1, *number.shape))}
    return {**one, "action": number[None], "reward": number[None], "end": end[None]}


def filled(source, ends, frames=1):
    """The source after ticks with these ends [K, N]; transition t of column c is number t * N + c."""
    numbers = jnp.arange(ends.size, dtype=jnp.float32).reshape(ends.shape)
    shapes = jax.eval_shape(lambda: tick(numbers[0], ends[0], frames))
    step = lambda s, x: (source.add(s, tick(*x, frames), NOBODY), None)
    return jax.jit(lambda *x: jax.lax.scan(step, source.init(shapes), x)[0])(numbers, ends)


@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize("ticks", [3, 17])
def test_what_may_be_drawn_has_the_largest_priority_yet_and_all_else_none(ticks, frames):
    """A ring of 10 slots a column, before it is full and after it has gone round; a column whose episodes are short."""
    ends = jnp.array(RNG.uniform(size=(ticks, 2)) < [0.1, 0.4])
    layout = rings.Layout(18, 4, frames=frames)
    s = filled(prioritised(18, 4, frames=frames), ends, frames or 1)
    rows, columns = jnp.divmod(jnp.arange(20), 2)
    assert_array_equal(s.tree[0][:20], rings.drawable(layout, s.ring, rows, columns).astype(jnp.float32))
    assert s.most == 1 and prioritised(18, 4).size(s) == rings.held(s.ring)


def test_new_ones_count_as_much_as_the_largest():
    source = prioritised(18, 4)
    none = jnp.zeros((3, 2), bool)
    s = filled(source, none)
    after = source.add(s._replace(most=jnp.float32(2.5)), tick(jnp.float32([90, 91]), none[0]), NOBODY)
    new = after.tree[0] == 2.5
    assert new.sum() == 2
    assert_array_equal(after.ring.nodes["reward"].reshape(-1)[new[:20]], [90, 91])
    assert_allclose(after.tree[1].sum() if len(after.tree) > 1 else after.tree[0].sum(), 6 + 2 * 2.5)


@pytest.fixture(scope="module")
def uneven():
    """Six transitions in a column of 9 slots, with priorities that differ, and a source that draws four."""
    source = prioritised(8, 4, exponent=0.5, beta=0.7, metric="error")
    s = filled(source, jnp.zeros((6, 1), bool))
    batch = {"index": jnp.arange(6), "weight": jnp.ones(6)}
    s = source.note(s, batch, {"error": jnp.float32([0, 1, -4, 9, 16, 25])})
    return source, s


def test_errors_become_priorities_by_the_exponent(uneven):
    _, s = uneven
    expected = np.sqrt(np.array([0, 1, 4, 9, 16, 25]) + EPSILON)
    assert_allclose(s.tree[0][:6], expected, rtol=1e-6)
    assert_allclose(s.most, expected[-1], rtol=1e-6)
    assert_array_equal(s.tree[0][6:], np.zeros(10))


def test_what_was_drawn_twice_takes_the_larger_and_what_is_no_error_changes_nothing(uneven):
    source, s = uneven
    error = jnp.float32([1, 36, jnp.nan, 49, 2, jnp.inf])
    batch = {"index": jnp.array([1, 1, 2, 7, 3, 4]), "weight": jnp.ones(6)}  # nothing is at 7
    after = source.note(s, batch, {"error": error})
    old = np.asarray(s.tree[0])
    expected = old.copy()
    expected[1], expected[3] = 6, np.sqrt(2)
    assert_allclose(after.tree[0], expected, rtol=1e-5)
    assert_allclose(after.most, 6, rtol=1e-6)
    assert source.note(s, {**batch, "index": jnp.full(6, 3)}, {"error": 0 * jnp.ones(6)}).most == s.most


def test_draws_take_one_of_each_stratum_and_weigh_what_is_rare(uneven):
    source, s = uneven
    batch = source.sample(s, {}, KEY)
    share = (np.arange(4) + np.asarray(jax.random.uniform(KEY, (4,)))) / 4
    priority = np.asarray(s.tree[0][:6], np.float64)
    expected = np.searchsorted(np.cumsum(priority), share * priority.sum())
    assert_array_equal(batch["index"], expected)
    assert_array_equal(batch["reward"], expected)
    weight = (1 / priority[expected]) ** 0.7
    assert_allclose(batch["weight"], weight / weight.max(), rtol=1e-5)


def test_draws_are_in_proportion_with_two_columns():
    source = prioritised(16, 3, exponent=1.0, metric="error")
    s = filled(source, jnp.zeros((4, 2), bool))
    error = jnp.float32([1, 2, 3, 4, 5, 6, 7, 8])
    s = source.note(s, {"index": jnp.arange(8), "weight": jnp.ones(8)}, {"error": error})
    drawn = jax.jit(jax.vmap(lambda key: source.sample(s, {}, key)["reward"]))(jax.random.split(KEY, 1500))
    share = np.bincount(np.asarray(drawn, int).reshape(-1), minlength=8) / 4500
    assert_allclose(share, np.asarray(error) / 36, atol=0.02)


def test_sequences_weigh_by_their_mask_too():
    source = prioritised(16, 3, sequence=3, metric="error", exponent=1.0, beta=1.0)
    s = filled(source, jnp.zeros((4, 1), bool))
    s = source.note(s, {"index": jnp.arange(4), "weight": jnp.ones((4, 3))}, {"error": jnp.float32([1, 2, 3, 4])})
    batch = source.sample(s, {}, KEY)
    start = np.asarray(batch["index"])
    mask = start[:, None] + np.arange(3) < 4
    rarity = 1 / (start + 1)
    assert_allclose(batch["weight"], (rarity / rarity.max())[:, None] * mask, rtol=1e-5)
    assert (mask.sum(axis=1) < 3).any()


@pytest.mark.parametrize("rate, floor", [(0.5, 0.05), (0.9, 0.6)])
def test_priorities_fade_with_age_down_to_a_floor(rate, floor):
    source = prioritised(16, 4, exponent=1.0, metric="error", fade=(rate, floor))
    s = filled(source, jnp.zeros((6, 1), bool))
    error = np.array([5, 1, 4, 2, 3, 1], np.float32)
    s = source.note(s, {"index": jnp.arange(6), "weight": jnp.ones(6)}, {"error": jnp.array(error)})
    drawn = jax.jit(jax.vmap(lambda key: source.sample(s, {}, key)["index"]))(jax.random.split(KEY, 1000))
    counted = error * np.maximum(rate ** np.arange(5, -1, -1.0), floor)
    share = np.bincount(np.asarray(drawn).reshape(-1), minlength=6) / 4000
    assert_allclose(share, counted / counted.sum(), atol=0.025)
    weight = 1 / error[np.asarray(source.sample(s, {}, KEY)["index"])]
    assert_allclose(source.sample(s, {}, KEY)["weight"], (weight / weight.max()) ** 0.4, rtol=1e-5)


def test_faded_draws_come_in_lots_of_twice_the_batch(uneven):
    """The first four that are accepted of eight proposals."""
    _, s = uneven
    source = prioritised(8, 4, exponent=0.5, metric="error", fade=(0.8, 0.1))
    share, accepted = np.asarray(jax.random.uniform(fold(KEY, 0), (2, 8)))
    priority = np.asarray(s.tree[0][:6], np.float64)
    index = np.searchsorted(np.cumsum(priority), share * priority.sum())
    taken = index[accepted < np.maximum(0.8 ** (5.0 - index), 0.1)]
    assert len(taken) >= 4
    assert_array_equal(source.sample(s, {}, KEY)["index"], taken[:4])


def test_an_empty_replay_gives_its_first_slot():
    for fade in (None, (0.5, 0.1)):
        source = prioritised(8, 4, fade=fade)
        shapes = jax.eval_shape(lambda: tick(jnp.zeros(1), jnp.zeros(1, bool)))
        assert_array_equal(source.sample(source.init(shapes), {}, KEY)["index"], np.zeros(4))


def test_it_is_proportional_by_0_6_and_corrects_by_0_4_where_nobody_says():
    usual, named = prioritised(8, 4), prioritised(8, 4, 0.6, 0.4, "critic/td_error", gamma=0.99)
    s = filled(usual, jnp.zeros((6, 1), bool))
    batch, error = {"index": jnp.arange(6), "weight": jnp.ones(6)}, {"critic/td_error": jnp.arange(6.0)}
    one, other = (source.note(s, batch, error) for source in (usual, named))
    assert_allclose(one.tree[0][:6], (np.arange(6) + 1e-6) ** 0.6, rtol=1e-5)
    jax.tree.map(assert_array_equal, usual.sample(one, {}, KEY), named.sample(other, {}, KEY))
    drawn = usual.sample(one, {}, KEY)
    rarity = 1 / np.asarray(one.tree[0])[np.asarray(drawn["index"])]
    assert_allclose(drawn["weight"], (rarity / rarity.max()) ** 0.4, rtol=1e-4)
    several = prioritised(8, 4, n=3)
    assert_allclose(
        several.sample(one, {}, KEY)["reward"],
        [sum(0.99**k * (i + k) for k in range(3) if i + k < 6) for i in np.asarray(drawn["index"])],
        rtol=1e-6,
    )


def test_an_error_a_sample_is_a_mean_over_what_is_real():
    index = jnp.arange(2)
    single, masked = (
        {"index": index, "weight": jnp.float32([0, 2])},
        {"index": index, "weight": jnp.float32([[1, 2, 0], [0, 0, 0]])},
    )
    assert_allclose(per_sample(jnp.float32([3, 4]), single, "error"), [0, 4])  # of weight 0: nothing is known
    error = jnp.float32([[1, 3, 50], [7, 8, 9]])
    assert_allclose(per_sample(error, masked, "error"), [2, 0])
    assert_allclose(per_sample(jnp.stack([error, 3 * error], axis=-1), masked, "error"), [4, 0])
    assert_allclose(per_sample(jnp.float32([[1, 3], [4, 8]]), masked, "error"), [2, 6])  # no axis of the mask's length
    with pytest.raises(BadInput, match="one value a sample"):
        per_sample(jnp.float32(3), single, "error")
