"""Replays against a plain list, with numbered observations so that any mistake shows; and the other sources."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.core import BadInput, Ctx
from jaxrl.sources import budget, dataset, footprint, latest, mix, report, rollout, uniform

TICKS, SLOTS, DRAWS, BATCH, GAMMA = 14, 10, 48, 10, 0.5
GRIDS = [(1, 1), (3, 1), (1, 3), (3, 3)]  # (T, N)
EXAMPLES = settings(max_examples=6, deadline=None, derandomize=True)
NOBODY = Ctx(None, None)


VECTOR = jax.ShapeDtypeStruct((1,), jnp.float32)


def example(time=1, envs=1, obs=VECTOR, action=()):
    """The shapes of one tick."""
    field = lambda shape=(), dtype=jnp.float32: jax.ShapeDtypeStruct((time, envs, *shape), dtype)
    seen = jax.tree.map(lambda x: field(x.shape, x.dtype), obs)
    return {
        "obs": seen,
        "action": field(action),
        "reward": field(),
        "discount": field(),
        "end": field(dtype=jnp.bool_),
        "next_obs": seen,
        "memory": field((2,)),
        "extras": {"logp": field()},
        "info": {"context": field(), "episode": field()},
    }


# ------------------------------------------------------------------------------------------ the model: lists of nodes


def lives(ends, frames=1):
    """Transitions of numbered observations [K, T, N, frames], and each column's nodes after each tick.

    Every field of a transition is a function of its observation's number. A node is (number, state, stack), with state
    'on', 'last' or 'dead' as in the ring.
    """
    ticks, time, envs = ends.shape
    obs, following = np.zeros((2, ticks, time, envs, frames), np.float32)
    nodes = [[[] for _ in range(envs)] for _ in range(ticks)]
    for c in range(envs):
        number, done = 1000 * c + 1, []
        stack = [number] * frames
        for k, t in np.ndindex(ticks, time):
            end = bool(ends[k, t, c])
            after = [*stack[1:], number + 1]
            obs[k, t, c], following[k, t, c] = stack, after
            done.append((number, "last" if end else "on", stack))
            number += 1
            if end:
                done.append((number, "dead", after))
                number += 1
                after = [number] * frames
            nodes[k][c] = done + ([] if end else [(number, "dead", after)])
            stack = after
    number = obs[..., -1]
    return {
        "obs": obs,
        "action": -number,
        "reward": reward_of(number),
        "discount": discount_of(number, ends),
        "end": ends,
        "next_obs": following,
        "memory": np.stack([number, number + 0.5], axis=-1),
        "extras": {"logp": number * 2},
        "info": {"context": number * 3, "episode": number * 4},
    }, nodes


def reward_of(number):
    return np.asarray(number % 7, np.float32)


def discount_of(number, end):
    """Every third end terminates; the others truncate."""
    return np.asarray(~(np.asarray(end) & (np.asarray(number) % 3 == 0)), np.float32)


def stored(nodes, frames=1):
    """(column, position) of each transition that a ring of SLOTS + 1 nodes a column holds whole, by number."""
    found = {}
    for c, column in enumerate(nodes):
        oldest = max(len(column) - (SLOTS + 1), 0)
        kept = {number for number, *_ in column[oldest:]}
        for p in range(oldest, len(column)):
            number, state, stack = column[p]
            if state != "dead" and kept.issuperset(stack):
                found[number] = (c, p)
    assert frames > 1 or len(found) > 0
    return found


def window(column, p, n):
    """The transitions from position p on, at most n, up to the episode's end or the newest, and the node after."""
    steps = []
    while len(steps) < n and column[p + len(steps)][1] != "dead":
        steps.append(column[p + len(steps)])
        if steps[-1][1] == "last":
            break
    return steps, column[p + len(steps)]


def played(source, time, envs, frames=1):
    """A jitted function of all ticks: the batches after each tick, DRAWS of them. One compilation a test."""

    def run(transitions, key):
        def tick(s, x):
            transitions, key = x
            s = source.add(s, transitions, NOBODY)
            return s, (jax.vmap(lambda k: source.sample(s, {}, k))(jax.random.split(key, DRAWS)), source.size(s))

        s = source.init(example(time, envs, jax.ShapeDtypeStruct((frames,), jnp.float32)))
        return jax.lax.scan(tick, s, (transitions, jax.random.split(key, TICKS)))[1]

    compiled = jax.jit(run)
    return lambda transitions: jax.tree.map(np.asarray, compiled(transitions, jax.random.key(0)))


def each_tick(source, time, envs, frames=1):
    """A hypothesis test of `check(nodes, batch, size)` after each tick, over random episode ends."""
    play = played(source, time, envs, frames)

    def over(check):
        @EXAMPLES
        @given(st.integers(0, 2 ** (TICKS * time * envs) - 1), st.sampled_from(["and", "or", "xor"]))
        def test(bits, how):
            ends = np.array([bits >> i & 1 for i in range(TICKS * time * envs)], bool).reshape(TICKS, time, envs)
            # Long episodes, short ones, and what hypothesis makes of it.
            shifted = np.roll(ends, 1, axis=0)
            ends = {"and": ends & shifted, "or": ends | shifted, "xor": ends}[how]
            transitions, nodes = lives(ends, frames)
            batches, sizes = play(transitions)
            for k in range(TICKS):
                batch = jax.tree.map(lambda x, k=k: x[k].reshape(-1, *x.shape[3:]), batches)
                check(nodes[k], batch, sizes[k])

        test()

    return over


def table(rows):
    """Arrays by number from {number: {field: value}}; NaN where there is no such transition."""
    fields = next(iter(rows.values()))
    out = {name: np.full((4000, *np.shape(value)), np.nan, np.float32) for name, value in fields.items()}
    for number, row in rows.items():
        for name, value in row.items():
            out[name][number] = value
    return out


def numbers(batch, reached):
    """The number of each sample, after checking that they are all that could be reached and no others."""
    found = batch["action"].astype(int) * -1
    assert set(found.tolist()) == set(reached)
    return found


# -------------------------------------------------------------------------------------------------------- the replay


@pytest.mark.parametrize("time, envs", GRIDS)
def test_uniform_holds_what_a_list_holds(time, envs):
    source = uniform(SLOTS * envs, BATCH, keep=("memory", "extras", "info/context"))

    def check(nodes, batch, size):
        rows = {}
        for number, (c, p) in stored(nodes).items():
            end = nodes[c][p][1] == "last"
            rows[number] = {
                "obs": [number],
                "reward": reward_of(number),
                "discount": discount_of(number, end),
                "end": end,
                "next_obs": [nodes[c][p + 1][0]],
                "memory": [number, number + 0.5],
            }
        found = numbers(batch, rows)
        assert size == len(rows)
        for name, expected in table(rows).items():
            np.testing.assert_array_equal(batch[name], expected[found], err_msg=name)
        np.testing.assert_array_equal(batch["extras"]["logp"], found * 2)
        assert set(batch["info"]) == {"context"}
        np.testing.assert_array_equal(batch["info"]["context"], found * 3)

    each_tick(source, time, envs)(check)


@pytest.mark.parametrize("time, envs", [(1, 1), (3, 3)])
def test_n_steps_stop_at_ends_and_at_the_head(time, envs):
    def check(nodes, batch, size):
        rows = {}
        for number, (c, p) in stored(nodes).items():
            steps, after = window(nodes[c], p, 3)
            discounts = [discount_of(i, state == "last") for i, state, _ in steps]
            rows[number] = {
                "obs": [number],
                "reward": sum(GAMMA**k * reward_of(i) for k, (i, *_) in enumerate(steps)),
                "discount": GAMMA ** (len(steps) - 1) * np.prod(discounts),
                "end": steps[-1][1] == "last",
                "next_obs": [after[0]],
            }
        found = numbers(batch, rows)
        for name, expected in table(rows).items():
            np.testing.assert_allclose(batch[name], expected[found], rtol=1e-6, err_msg=name)

    each_tick(uniform(SLOTS * envs, BATCH, n=3, gamma=GAMMA), time, envs)(check)


@pytest.mark.parametrize("time, envs", [(3, 1), (1, 3)])
def test_sequences_never_cross(time, envs):
    length = 4

    def check(nodes, batch, size):
        rows = {}
        for number, (c, p) in stored(nodes).items():
            steps, after = window(nodes[c], p, length)
            more = length - len(steps)
            seen = [i for i, *_ in steps]
            rows[number] = {
                "obs": np.array([*seen, *[after[0]] * more])[:, None],
                "next_obs": np.array([*seen[1:], *[after[0]] * (more + 1)])[:, None],
                "reward": reward_of(np.array(seen + seen[-1:] * more)),
                "weight": [1] * len(steps) + [0] * more,
                "end": [state == "last" for _, state, _ in steps] + [steps[-1][1] == "last"] * more,
                "memory": [number, number + 0.5],
            }
        numbers({"action": batch["action"][batch["weight"] > 0]}, rows)  # every step is seen, wherever they begin
        found = -batch["action"][:, 0].astype(int)
        for name, expected in table(rows).items():
            np.testing.assert_array_equal(batch[name], expected[found], err_msg=name)
        assert batch["extras"]["logp"].shape == (found.size, length)

    each_tick(uniform(SLOTS * envs, BATCH, sequence=length, keep=("memory", "extras")), time, envs)(check)


@pytest.mark.parametrize("time, envs, n", [(1, 1, 1), (3, 3, 2)])
def test_stacks_are_rebuilt_from_single_frames(time, envs, n):
    frames = 3

    def check(nodes, batch, size):
        rows = {}
        for number, (c, p) in stored(nodes, frames).items():
            _, after = window(nodes[c], p, n)
            rows[number] = {"obs": nodes[c][p][2], "next_obs": after[2]}
        found = numbers(batch, rows)
        for name, expected in table(rows).items():
            np.testing.assert_array_equal(batch[name], expected[found], err_msg=name)

    each_tick(uniform(SLOTS * envs, BATCH, n=n, frames=frames), time, envs, frames)(check)


def test_draws_are_uniform():
    """Short episodes leave many slots that may not be drawn; the others are drawn alike (chi-square)."""
    ends = np.random.default_rng(0).random((TICKS, 3, 3)) < 0.4
    transitions, nodes = lives(ends)
    source = uniform(SLOTS * 3, 30)

    @jax.jit
    def draw(transitions):
        s, _ = jax.lax.scan(lambda s, x: (source.add(s, x, NOBODY), None), source.init(example(3, 3)), transitions)
        return jax.vmap(lambda k: source.sample(s, {}, k)["action"])(jax.random.split(jax.random.key(1), 500))

    counts = np.unique(np.asarray(draw(transitions)), return_counts=True)[1]
    assert counts.size == len(stored(nodes[-1]))
    mean = 500 * 30 / counts.size
    assert ((counts - mean) ** 2 / mean).sum() < 1.5 * counts.size


def test_holds_the_same_as_flashbax():
    """Without ends, a ring of 12 holds the last 12 of 30 items, as flashbax's item buffer does."""
    import flashbax

    peer = flashbax.make_item_buffer(max_length=12, min_length=1, sample_batch_size=12, add_sequences=True)
    transitions, _ = lives(np.zeros((30, 1, 1), bool))
    state = peer.init({"action": jnp.float32(0)})
    state = peer.add(state, {"action": jnp.asarray(transitions["action"][:12, 0, 0])})
    state = peer.add(state, {"action": jnp.asarray(transitions["action"][12:20, 0, 0])})
    state = peer.add(state, {"action": jnp.asarray(transitions["action"][20:, 0, 0])})
    source = uniform(12, 12)
    s = added(source, transitions, 30)
    keys = jax.random.split(jax.random.key(0), 40)
    theirs = jax.jit(jax.vmap(lambda k: peer.sample(state, k).experience["action"]))(keys)
    ours = jax.jit(jax.vmap(lambda k: source.sample(s, {}, k)["action"]))(keys)
    assert set(np.ravel(ours).tolist()) == set(np.ravel(theirs).tolist())


def test_seeds_side_by_side_draw_as_alone():
    """vmap over seeds, each with episodes of its own, gives what each gives alone."""
    ends = np.random.default_rng(1).random((3, TICKS, 1, 3)) < np.array([0.0, 0.2, 0.9])[:, None, None, None]
    transitions = jax.tree.map(lambda *x: np.stack(x), *[lives(e)[0] for e in ends])
    source = uniform(SLOTS * 3, BATCH, n=2)

    def run(transitions, key):
        s, _ = jax.lax.scan(lambda s, x: (source.add(s, x, NOBODY), None), source.init(example(1, 3)), transitions)
        return source.sample(s, {}, key)

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(run))(transitions, keys)
    apart = jax.jit(lambda t, k: jax.lax.map(lambda x: run(*x), (t, k)))(transitions, keys)
    jax.tree.map(np.testing.assert_array_equal, together, apart)


def test_adding_in_a_scan_copies_no_ring():
    """The compiled program of a donated scan holds no copy as large as a field of the ring."""
    length = 12_345
    source = uniform(length - 1, 8)

    def tick(s, key):
        obs = jax.random.normal(key, (1, 1, 1))
        one = jnp.ones((1, 1))
        s = source.add(
            s, {"obs": obs, "next_obs": obs, "action": one, "reward": one, "discount": one, "end": one < 0}, NOBODY
        )
        return s, source.sample(s, {}, key)["obs"].sum()

    run = jax.jit(lambda s, keys: jax.lax.scan(tick, s, keys), donate_argnums=0)
    text = run.lower(source.init(example()), jax.random.split(jax.random.key(0), 5)).compile().as_text()
    assert f"[{length}," in text
    assert not [line for line in text.splitlines() if f"[{length}," in line and " copy(" in line]


def test_trees_of_observations_and_teams_of_rewards():
    """Observations may be pytrees with dtypes of their own; rewards and discounts may have an axis of agents."""
    ticks = 5
    shapes = example(1, 2, {"image": jax.ShapeDtypeStruct((4, 4, 6), jnp.uint8), "speed": VECTOR})
    shapes["obs"]["speed"] = shapes["next_obs"]["speed"] = jax.ShapeDtypeStruct((1, 2, 2), jnp.float16)
    team = jax.ShapeDtypeStruct((1, 2, 3), jnp.float32)
    shapes |= {"reward": team, "discount": team}
    full = lambda value: jax.tree.map(lambda x: jnp.full((ticks, *x.shape), value, x.dtype), shapes)
    source = uniform(20, 4, n=2, gamma=0.5, frames=2)
    transitions = full(1) | {"end": jnp.zeros((ticks, 1, 2), bool), "next_obs": full(1)["obs"]}
    s = added(source, transitions, ticks)
    batch = jax.jit(source.sample)(s, {}, jax.random.key(0))
    assert batch["obs"]["image"].shape == (4, 4, 4, 6) and batch["obs"]["image"].dtype == jnp.uint8
    assert batch["next_obs"]["speed"].shape == (4, 2) and batch["next_obs"]["speed"].dtype == jnp.float16
    assert batch["reward"].shape == batch["discount"].shape == (4, 3)
    assert set(np.ravel(batch["reward"]).tolist()) <= {1.0, 1.5}
    assert s.nodes["obs"]["image"].shape == (11, 2, 4, 4, 3)


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "obs, frames",
    [
        (jax.ShapeDtypeStruct((5,), jnp.float32), None),
        (jax.ShapeDtypeStruct((), jnp.float32), None),
        (jax.ShapeDtypeStruct((48, 48, 9), jnp.uint8), 3),
    ],
)
def test_memory_is_that_of_each_thing_stored_once(obs, frames):
    """Within 5 % of one (single-frame) observation, action, reward, discount and end a transition."""
    capacity = 100_000
    each = obs.size * obs.dtype.itemsize // (frames or 1) + 4 + 4 + 4 + 1
    size = footprint(jax.eval_shape(uniform(capacity, 32, frames=frames, budget=10**12).init, example(1, 16, obs)))
    assert each * capacity <= size <= 1.05 * each * capacity


def test_what_does_not_fit_is_refused_before_it_is_allocated():
    pixels = example(1, 1, jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8))
    huge = uniform(100_000_000, 32)
    with pytest.raises(
        BadInput, match=r"capacity 100000000 needs 2\.1 TB \(2,11\d,\d{3},\d{3},\d{3} bytes\).*lower cap"
    ):
        huge.init(pixels)
    with pytest.raises(BadInput, match=r"needs 21\.0 kB .* more than the budget of 20\.0 kB"):
        uniform(1_000, 32, budget=20_000).init(example(action=(2,)))


def test_budgets_in_words(tmp_path):
    assert [budget.human(x) for x in (12, 999_960, 34_000_000, 2.5e13)] == ["12 B", "1.0 MB", "34.0 MB", "25.0 TB"]
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:     2048 kB\n")
    assert budget.available(str(meminfo)) == 2048 * 1024
    assert budget.available(str(tmp_path / "absent")) > 2**20
    line = report(uniform(1000, 32), example(), seeds=4)
    assert line.startswith("The source takes 68.1 kB (17,0") and line.endswith("4 seeds).")


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: uniform(10, 32), "batch is 32, more than the capacity of 10"),
        (lambda: uniform(0, 1), "capacity is 0"),
        (lambda: uniform(10, 1, n=0), "n is 0"),
        (lambda: uniform(10, 1, gamma=1.5), "gamma is 1.5"),
        (lambda: uniform(10, 1, n=2, sequence=3), "choose one of n and sequence"),
        (lambda: uniform(10, 1).init(example(20)), "at least 40 is needed"),
        (lambda: uniform(10, 1).init(()), "use dataset"),
        (lambda: uniform(2**31, 1).init(example()), "more than an int32 can count"),
        (lambda: uniform(10, 1, keep="extra").init(example()), "Did you mean 'extras'"),
        (lambda: uniform(10, 1, frames=2).init(example()), "no such stack"),
        (lambda: rollout(0), "ticks is 0"),
        (lambda: dataset({}, 1), "no arrays"),
        (lambda: dataset({"x": jnp.ones(())}, 1), r"data\['x'\] has shape \(\)"),
        (lambda: dataset({"x": jnp.ones(3), "y": jnp.ones(4)}, 1), r"data\['y'\] has 4 samples"),
        (lambda: dataset({"x": jnp.ones(3)}, 4), "batch is 4, but the data hold 3"),
        (lambda: mix("onlin", online=latest()), "Did you mean 'online'"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


# -------------------------------------------------------------------------------------------------- the other sources


def added(source, transitions, ticks):
    """The source's state after some ticks."""
    first = jax.tree.map(lambda x: x[:ticks], transitions)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), transitions)
    fill = lambda first: jax.lax.scan(lambda s, x: (source.add(s, x, NOBODY), None), source.init(shapes), first)[0]
    return jax.jit(fill)(first)


def test_rollouts_are_the_last_ticks_in_order():
    transitions, _ = lives(np.zeros((4, 2, 3), bool))
    one, two = rollout(), rollout(2)
    s = added(one, transitions, 3)
    jax.tree.map(np.testing.assert_array_equal, one.sample(s, {}, None), jax.tree.map(lambda x: x[2], transitions))
    assert one.size(s) == 6

    s = added(two, transitions, 1)
    batch = two.sample(s, {}, None)
    np.testing.assert_array_equal(batch["weight"], np.repeat([0, 1], 2)[:, None] * np.ones((1, 3)))
    np.testing.assert_array_equal(batch["action"][2:], transitions["action"][0])
    assert two.size(s) == 6
    s = added(two, transitions, 3)
    batch = two.sample(s, {}, None)
    np.testing.assert_array_equal(batch["action"], transitions["action"][1:3].reshape(4, 3))
    assert batch["weight"].all() and two.size(s) == 12


def test_latest_is_the_newest_tick_flat():
    transitions, _ = lives(np.zeros((4, 2, 3), bool))
    s = added(latest(), transitions, 4)
    np.testing.assert_array_equal(latest().sample(s, {}, None)["action"], transitions["action"][3].reshape(-1))
    assert latest().size(s) == 6


def test_a_dataset_draws_rows_of_all_its_arrays():
    source = dataset({"obs": np.arange(6)[:, None] * np.ones(2), "reward": np.arange(6) * 10.0}, 4)
    s = source.add(source.init(()), {"ignored": 1}, NOBODY)
    batch = jax.vmap(lambda k: source.sample(s, {}, k))(jax.random.split(jax.random.key(0), 30))
    np.testing.assert_array_equal(batch["reward"], batch["obs"][..., 1] * 10)
    assert set(np.ravel(batch["obs"]).tolist()) == set(range(6)) and source.size(s) == 6


def test_a_mixture_joins_shares_and_stands_in_for_the_empty():
    transitions, _ = lives(np.zeros((4, 1, 2), bool))
    old = {"obs": -np.ones((5, 1)), "action": -np.ones(5) * 0.5, "reward": np.ones(5), "demo": np.ones(5)}
    old = jax.tree.map(lambda x: x.astype(np.float32), old)
    source = mix("online", offline=dataset(old, 3), online=uniform(20, 2), spare=uniform(20, 5))
    s = added(source, transitions, 4)
    batch = jax.jit(source.sample)(s, {}, jax.random.key(0))
    assert set(batch) == {"obs", "action", "reward", "index", "source"}
    np.testing.assert_array_equal(batch["source"], [0] * 3 + [1] * 7)  # the spare one is empty for ever
    np.testing.assert_array_equal(batch["action"][:3], [-0.5] * 3)
    np.testing.assert_array_equal(batch["action"][3:], -batch["obs"][3:, 0])
    assert source.size(s) == 5 + 8 and source.note is None

    with pytest.raises(BadInput, match="field 'obs' of a mix"):
        wide = dataset({**old, "obs": np.ones((5, 2), np.float32)}, 3)
        other = mix("online", offline=wide, online=uniform(20, 2))
        jax.eval_shape(other.sample, added(other, transitions, 1), {}, jax.random.key(0))
