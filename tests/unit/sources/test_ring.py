"""The ring against lists of nodes, after every kind of end: what is held, what a slot reads as, and draws from it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput
from jaxrl.sources import ring as rings
from jaxrl.sources.ring import Layout

T, N, TICKS, SLOTS, GAMMA = 3, 3, 6, 10, 0.5
LENGTH = SLOTS + 1
KEY = jax.random.key(5)


def history(ticks: int, frames: int = 1, chance: float = 0.25):
    """Transitions [ticks, T, N] whose fields are numbers, and each column's nodes: (number, state, stack)."""
    ends = np.random.default_rng(0).random((ticks, T, N)) < [0.0, chance, 2 * chance]
    obs, after = np.zeros((2, ticks, T, N, frames), np.float32)
    columns: list[list] = []
    for c in range(N):
        number, nodes = 100 * c + 1, []
        stack = [number] * frames
        for k, t in np.ndindex(ticks, T):
            end, following = bool(ends[k, t, c]), [*stack[1:], number + 1]
            obs[k, t, c], after[k, t, c] = stack, following
            nodes.append((number, "last" if end else "on", stack))
            number += 1
            if end:
                nodes.append((number, "dead", following))
                number += 1
                following = [number] * frames
            stack = following
        columns.append(nodes if ends[-1, -1, c] else [*nodes, (number, "dead", stack)])
    number = obs[..., -1]
    fields = {"obs": obs, "next_obs": after, "action": -number, "reward": number % 7, "end": ends}
    fields |= {"discount": discount(number, ends), "memory": number + 0.5, "info": {"context": number * 3}}
    return fields, columns


def discount(number, end):
    """Every third end terminates; the others truncate."""
    return np.where(end & (np.asarray(number) % 3 == 0), 0, 1).astype(np.float32)


def filled(layout: Layout, transitions: dict):
    """The ring after all ticks."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), transitions)
    add = lambda ring, tick: (rings.write(layout, ring, tick), None)
    return jax.jit(lambda ticks: jax.lax.scan(add, rings.allocate(layout, shapes), ticks)[0])(transitions)


def kept(columns, frames: int = 1):
    """(slot, column, place in its list) of all transitions that are still whole, oldest first."""
    for c, nodes in enumerate(columns):
        # What is overwritten goes by slots; where the episode has ended, the head's slot still holds what it did.
        oldest = max(len(nodes) - LENGTH, 0)
        whole = {number for number, *_ in nodes[oldest:]}
        for p in range(oldest, len(nodes)):
            if nodes[p][1] != "dead" and whole.issuperset(nodes[p][2]):
                yield p % LENGTH, c, p


def ahead(nodes, p: int, n: int):
    """The transitions from a place on, at most n, up to the episode's end or the newest; and the node after them."""
    steps = [nodes[p]]
    while len(steps) < n and steps[-1][1] != "last" and nodes[p + len(steps)][1] != "dead":
        steps.append(nodes[p + len(steps)])
    return steps, nodes[p + len(steps)]


LAYOUTS = {
    "single": Layout(SLOTS * N, 4, keep=("memory", "info/context")),
    "three steps": Layout(SLOTS * N, 4, n=3, gamma=GAMMA),
    "stacks": Layout(SLOTS * N, 4, n=2, gamma=GAMMA, frames=3),
    "sequences": Layout(SLOTS * N, 4, sequence=3, keep=("memory", "info/context")),
    "stacked sequences": Layout(SLOTS * N, 4, sequence=3, frames=3),
    "ahead": Layout(SLOTS * N, 4, ahead=2, frames=3),
}


def depth(layout):
    return layout.frames or 1


@pytest.fixture(scope="module", params=[(name, ticks) for name in LAYOUTS for ticks in (1, TICKS)], ids=str)
def world(request):
    name, ticks = request.param
    layout = LAYOUTS[name]
    transitions, columns = history(ticks, depth(layout))
    return layout, filled(layout, transitions), columns


def test_what_is_held_is_what_the_lists_hold(world):
    layout, ring, columns = world
    rows, cols = np.divmod(np.arange(LENGTH * N), N)
    there = np.zeros(LENGTH * N, bool)
    there[[slot * N + c for slot, c, _ in kept(columns, depth(layout))]] = True
    assert_array_equal(rings.drawable(layout, ring, jnp.array(rows), jnp.array(cols)), there)
    held = sum(state != "dead" for nodes in columns for _, state, _ in nodes[-LENGTH:])
    assert rings.held(ring) == held
    assert ring.rows == min(
        max(len(nodes) + (nodes[-1][1] == "dead" and nodes[-2][1] == "last") for nodes in columns), LENGTH
    )
    assert_array_equal(
        ring.head, [(len(nodes) - (nodes[-1][1] == "dead" and nodes[-2][1] == "on")) % LENGTH for nodes in columns]
    )


def stacked(steps, after, layout):
    """obs and next_obs of a sequence's places: past its end the last transition again, and what it led to."""
    seen = [stack for _, _, stack in steps] + [after[2]]
    places = [min(i, len(steps)) for i in range(layout.sequence + 1)]
    return [seen[i] for i in places[:-1]], [seen[i] for i in places[1:]]


def test_a_slot_reads_as_what_the_lists_say(world):
    layout, ring, columns = world
    places = list(kept(columns, depth(layout)))
    rows, cols = np.array([(slot, c) for slot, c, _ in places], np.int32).T
    batch = jax.jit(lambda *given: rings.read(layout, *given))(ring, jnp.array(rows), jnp.array(cols))
    batch = jax.tree.map(np.asarray, batch)
    assert_array_equal(batch["index"], rows * N + cols)
    for i, (_, c, p) in enumerate(places):
        one = jax.tree.map(lambda x, i=i: x[i], batch)
        if layout.sequence:
            sequenced(one, columns[c], p, layout)
        else:
            summed(one, columns[c], p, layout)


def summed(one, nodes, p, layout):
    number, _, stack = nodes[p]
    steps, after = ahead(nodes, p, layout.n)
    last = steps[-1][1] == "last"
    assert_array_equal(one["obs"], stack)
    assert_array_equal(one["next_obs"], after[2])
    assert one["action"] == -number and one["end"] == last
    assert_allclose(one["reward"], sum(layout.gamma**k * (i % 7) for k, (i, *_) in enumerate(steps)), rtol=1e-6)
    product = np.prod([discount(i, state == "last") for i, state, _ in steps])
    assert_allclose(one["discount"], layout.gamma ** (len(steps) - 1) * product, rtol=1e-6)
    if layout.keep:
        assert one["memory"] == number + 0.5 and one["info"]["context"] == 3 * number
    if layout.ahead:
        steps, after = ahead(nodes, p, layout.ahead)
        more = [*steps, *[steps[-1]] * (layout.ahead - len(steps))]
        assert_array_equal(one["ahead"]["action"], [-i for i, *_ in more])
        assert_array_equal(one["ahead"]["obs"], after[2])
        assert one["ahead"]["weight"] == (len(steps) == layout.ahead)


def sequenced(one, nodes, p, layout):
    steps, after = ahead(nodes, p, layout.sequence)
    more = layout.sequence - len(steps)
    numbers = [i for i, *_ in steps] + [steps[-1][0]] * more
    obs, following = stacked(steps, after, layout)
    assert_array_equal(one["obs"], obs)
    assert_array_equal(one["next_obs"], following)
    assert_array_equal(one["action"], [-i for i in numbers])
    assert_array_equal(one["reward"], [i % 7 for i in numbers])
    ends = [state == "last" for _, state, _ in steps] + [steps[-1][1] == "last"] * more
    assert_array_equal(one["end"], ends)
    assert_array_equal(one["discount"], [discount(i, end) for i, end in zip(numbers, ends)])
    assert_array_equal(one["weight"], [1] * len(steps) + [0] * more)
    if layout.keep:
        assert one["memory"] == nodes[p][0] + 0.5
        assert_array_equal(one["info"]["context"], [3 * i for i in numbers])


@pytest.fixture(scope="module")
def full():
    layout = LAYOUTS["single"]
    transitions, columns = history(TICKS)
    return layout, filled(layout, transitions), columns


def test_everything_is_read_once_as_single_transitions(full):
    _, ring, columns = full
    whole = rings.everything(LAYOUTS["three steps"], ring)
    numbers = {columns[c][p][0] for _, c, p in kept(columns)}
    assert whole["weight"].shape == (LENGTH * N,) and whole["weight"].dtype == jnp.float32
    there = np.asarray(whole["weight"]) == 1
    assert sorted(-np.asarray(whole["action"])[there]) == sorted(numbers)
    assert_array_equal(np.asarray(whole["reward"])[there], -np.asarray(whole["action"])[there] % 7)
    assert (np.asarray(whole["weight"])[~there] == 0).all()


@pytest.mark.parametrize("ticks", [1, 2, TICKS])
def test_draws_are_alike_among_all_that_are_held(ticks):
    """Also before the ring is full, when slots that were never written are not looked at."""
    layout = replace(LAYOUTS["single"], batch=9)
    transitions, columns = history(ticks)
    ring = filled(layout, transitions)
    drawn = jax.jit(jax.vmap(lambda key: jnp.stack(rings.draw(layout, ring, key))))(jax.random.split(KEY, 400))
    rows, cols = np.moveaxis(np.asarray(drawn), 1, 0).reshape(2, -1)
    places = {(slot, c) for slot, c, _ in kept(columns)}
    found, counts = np.unique(rows * N + cols, return_counts=True)
    assert set(found.tolist()) == {slot * N + c for slot, c in places}
    mean = 400 * 9 / len(places)
    assert ((counts - mean) ** 2 / mean).sum() < 2 * len(places) + 10


def test_an_empty_ring_gives_its_first_slot():
    layout = LAYOUTS["single"]
    transitions, _ = history(1)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), transitions)
    rows, cols = rings.draw(layout, rings.allocate(layout, shapes), KEY)
    assert_array_equal((rows, cols), np.zeros((2, 4)))


def test_a_lot_holds_an_eighth_more_than_a_batch(full, monkeypatch):
    sizes = []
    monkeypatch.setattr(rings, "below", lambda key, size, bound: sizes.append(size) or jnp.arange(size) % bound)
    rings.draw(replace(LAYOUTS["single"], batch=16), full[1], KEY)
    assert set(sizes) == {16 + 2 + 1}


def test_the_first_accepted_are_taken_in_order():
    """Lots of 3, of which those of even numbers count: the second lot's come after the first's."""

    def propose(key):
        start = 3 * jax.random.randint(key, (), 0, 100)
        slots = start + jnp.arange(3, dtype=jnp.int32)
        return slots, slots % 2 == 0

    lots = [np.asarray(propose(jax.random.fold_in(KEY, i))[0]) for i in range(8)]
    expected = [slot for lot in lots for slot in lot if slot % 2 == 0][:7]
    assert_array_equal(rings.first_accepted(propose, 7, KEY, jnp.bool_(True)), expected)
    assert_array_equal(rings.first_accepted(propose, 7, KEY, jnp.bool_(False)), np.zeros(7))


@pytest.mark.parametrize("bound", [1, 7, 3 << 29, (1 << 30) + 1])
def test_integers_below_a_bound_have_no_bias(bound):
    """Of 2^32 draws the last 2^32 mod bound would be too many: those alone give -1."""
    bits = np.asarray(jax.random.bits(KEY, (512,), jnp.uint32)).astype(np.int64)
    fair = bits < 2**32 - 2**32 % bound
    found = rings.below(KEY, 512, jnp.int32(bound))
    assert_array_equal(found, np.where(fair, bits % bound, -1))
    assert found.dtype == jnp.int32
    if bound == 3 << 29:
        assert 0.2 < 1 - fair.mean() < 0.3


def test_ages_count_slots_written_since(full):
    """0 for the newest of each column; one for each slot that followed, over all columns."""
    _, ring, columns = full
    for slot, c, p in kept(columns):
        later = int(ring.head[c] - slot - 1) % LENGTH
        assert rings.since(ring, jnp.int32(slot * N + c)) == later * N
        newest = len(columns[c]) - 2 if columns[c][-1][1] == "dead" else len(columns[c]) - 1
        if p == newest and columns[c][p][1] == "on":
            assert later == 0


def test_the_oldest_slots_are_those_from_the_head_on(full):
    ring = full[1]
    expected = (np.asarray(ring.head) + np.arange(3)[:, None]) % LENGTH
    assert_array_equal(rings.oldest(LAYOUTS["stacks"], ring), expected)


def test_rewards_and_discounts_of_steps():
    inside = jnp.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    reward = jnp.float32([[1, 2, 4], [1, 2, 4], [1, 2, 4]])
    assert_allclose(rings.discounted(0.5, reward, inside), [1 + 1 + 1, 1 + 1, 1])
    shares = jnp.float32([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.25, 9, 9]])
    assert_allclose(rings.bootstrap(0.9, shares, inside), [0, 0.9 * 0.25, 0.25], rtol=1e-6)
    team = jnp.stack([reward, 10 * reward], axis=-1)
    assert_allclose(rings.discounted(0.5, team, inside), [[3, 30], [2, 20], [1, 10]])
    assert_allclose(
        rings.bootstrap(0.9, jnp.ones((3, 3, 2)), inside), np.repeat([[0.81], [0.9], [1]], 2, axis=1), rtol=1e-6
    )


def test_the_size_of_a_ring():
    """A slot more than the capacity's share, a column an environment; of stacks the newest frame alone."""
    one = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct((T, N, *shape), dtype)
    example = {"obs": one(4, 6, dtype=jnp.uint8), "next_obs": one(4, 6, dtype=jnp.uint8), "action": one(2)}
    example |= {"reward": one(), "discount": one(), "end": one(dtype=jnp.bool_), "extras": {"log_prob": one()}}
    nodes = rings.shapes(Layout(31, 4, frames=3, keep="extras"), example)
    assert jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype).name), nodes) == {
        "action": ((12, N, 2), "float32"),
        "reward": ((12, N), "float32"),
        "discount": ((12, N), "float32"),
        "keep": {"extras": {"log_prob": ((12, N), "float32")}},
        "obs": ((12, N, 4, 2), "uint8"),
        "mark": ((12, N), "int8"),
        "age": ((12, N), "uint8"),
    }
    assert "age" not in rings.shapes(Layout(30, 4), example)
    with pytest.raises(BadInput, match="at least 18 is"):
        rings.shapes(Layout(15, 4), example)  # 6 slots a column, where two ticks of 3 and the newest take 7
    assert rings.shapes(Layout(18, 4), example)["mark"].shape == (7, N)
    with pytest.raises(BadInput, match="at most"):
        rings.shapes(Layout(2**31, 4), example)


def test_a_field_to_keep_and_a_stack_have_to_be_there():
    one = jnp.zeros((T, N, 4))
    with pytest.raises(BadInput, match="log_porb"):
        rings.at({"extras": {"log_prob": one}}, "extras/log_porb")
    for obs in (jnp.zeros((T, N)), one):
        with pytest.raises(BadInput, match="no such stack"):
            rings.newest(Layout(30, 4, frames=3), obs)
    assert_array_equal(rings.newest(Layout(30, 4, frames=2), jnp.arange(36.0).reshape(T, N, 4))[0, 1], [6, 7])
    assert rings.newest(Layout(30, 4), one) is one
