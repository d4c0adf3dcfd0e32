"""The verbs one by one: keys and clocks that reach a rule, what is averaged and what masked, and automatic resets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import (
    ADDED,
    MAPPED,
    Agent,
    BadInput,
    Box,
    Ctx,
    Discrete,
    Env,
    Rule,
    Specs,
    TimeStep,
    adam,
    add,
    also,
    batched,
    below,
    by_frames,
    chain,
    clipped,
    describe,
    each,
    each_key,
    epochs,
    every,
    first,
    fold,
    happening,
    inside,
    mean,
    minimise,
    on,
    repeat,
    scoped,
    shuffled,
    stateless,
    track,
    when,
    where,
)

KEY = jax.random.key(13)
CTX = Ctx(KEY, jnp.int32(40), jnp.int32(5), turn=jnp.int32(2))
data = jax.random.key_data


# ---------------------------------------------------------------------------------------------------- environments


def test_boxes_and_integers_are_drawn_over_all_their_values():
    keys = jax.random.split(KEY, 300)
    draw = lambda box: np.asarray(jax.vmap(box.sample)(keys))
    assert draw(Box((2,))).min() < -0.95 and draw(Box((2,))).max() > 0.95
    x = draw(Box((2,), np.array([0.0, 5.0]), np.array([1.0, 9.0])))
    assert (x.min(axis=0) >= [0, 5]).all() and (x.max(axis=0) <= [1, 9]).all()
    assert_allclose(x.mean(axis=0), [0.5, 7], atol=0.2)
    assert_array_equal(np.unique(draw(Box((), -1, 2, jnp.int32))), [-1, 0, 1, 2])
    assert_array_equal(np.unique(draw(Discrete(3))), [0, 1, 2])


@pytest.mark.parametrize(
    "terminated, truncated, discount, end",
    [
        (False, False, 1, False),
        (True, False, 0, True),
        (False, True, 1, True),
        (True, True, 0, True),
        ([False, True], False, [1, 0], False),
        ([True, True], False, [0, 0], True),
        ([True, False], True, [0, 1], True),
    ],
)
def test_a_step_discounts_what_terminated_and_ends_for_either_reason(terminated, truncated, discount, end):
    one = TimeStep(None, jnp.float32(0), jnp.array(terminated), jnp.array(truncated))
    assert_array_equal(one.discount, discount)
    assert one.end == end
    start = first("seen")
    assert (start.obs, start.reward, start.discount, bool(start.end), start.info) == ("seen", 0, 1, False, {})


def counting(length: int = 3, team: bool = False) -> Env:
    """Counts its steps from a random start; the action is the reward; it ends after so many steps."""

    def shown(state, reward, over):
        reward = jnp.stack([reward, 2 * reward]) if team else reward
        return TimeStep(state["start"] + state["t"], reward, jnp.bool_(False), over)

    def reset(key):
        state = {"start": jax.random.uniform(key), "t": jnp.int32(0)}
        return state, shown(state, jnp.float32(0), jnp.bool_(False))

    def step(state, action):
        state = {**state, "t": state["t"] + 1}
        return state, shown(state, action, state["t"] == length)

    return Env(reset, step, Specs(jax.ShapeDtypeStruct((), jnp.float32), Box(())))


def start_of(key):
    return jax.random.uniform(key)


@pytest.mark.parametrize("team", [False, True])
def test_episodes_begin_again_by_themselves(team):
    """Two environments that start three apart: returns, lengths, true last observations and fresh starts."""
    envs = batched(counting(team=team), 2)
    state, obs = envs.reset(KEY)
    keys, draws = zip(*(jax.random.split(key) for key in each_key(KEY, 2)))
    assert_array_equal(obs, [start_of(key) for key in draws])
    state["env"]["t"] = jnp.int32([0, 1])
    step = jax.jit(envs.step)
    starts, t, returns, lengths = [float(x) for x in obs], [0, 1], [0.0, 0.0], [0, 0]
    keys = list(keys)
    for turn in range(1, 7):
        before = list(starts)
        state, out, obs = step(state, jnp.float32([turn, 10 * turn]))
        t = [x + 1 for x in t]
        returns = [returns[i] + (turn, 10 * turn)[i] * (3 if team else 1) for i in range(2)]
        lengths = [x + 1 for x in lengths]
        assert_allclose(out.info["episode"]["return"], returns)
        assert_array_equal(out.info["episode"]["length"], lengths)
        assert_allclose(out.obs, [before[i] + t[i] for i in range(2)], rtol=1e-6)
        assert_array_equal(out.end, [x == 3 for x in t])
        if 3 in t:  # the keys of all are split where any episode ends, and taken where it did
            for i in range(2):
                if t[i] == 3:
                    keys[i], draw = jax.random.split(keys[i])
                    starts[i], t[i], returns[i], lengths[i] = float(start_of(draw)), 0, 0.0, 0
        assert_allclose(obs, [starts[i] + t[i] for i in range(2)], rtol=1e-6)


def test_environments_are_numbered_from_the_first():
    """The same draws in every layout."""
    envs = batched(counting(), 3)
    whole = envs.reset(KEY)[1]
    assert_array_equal(batched(counting(), 2).reset(KEY, {}, 1)[1], whole[1:])
    assert envs.refresh("state", {}, KEY) == "state"


@pytest.mark.parametrize("starts", [4, lambda parts, key: jax.vmap(counting().reset)(jax.random.split(key, 4))])
def test_a_bank_of_starts_is_drawn_from_and_drawn_anew(starts):
    envs = batched(counting(1), 60, starts)
    state, _ = envs.reset(KEY)
    bank = jax.vmap(start_of)(jax.random.split(fold(KEY, 60), 4))
    assert_array_equal(state["bank"][0]["start"], bank)
    _, _, obs = jax.jit(envs.step)(state, jnp.zeros(60))
    assert set(np.asarray(obs).tolist()) == set(np.asarray(bank).tolist())
    later = envs.refresh(state, {}, fold(KEY, 1))
    assert_array_equal(later["bank"][0]["start"], jax.vmap(start_of)(jax.random.split(fold(KEY, 1), 4)))
    assert later["env"] is state["env"]


# ----------------------------------------------------------------------------------------------------------- rules

PARTS = {"w": jnp.float32([1, 2]), "v": jnp.float32([3.0]), "other": jnp.float32(7)}
BATCH = {"x": jnp.float32([1, -1])}


def square(live, frozen, batch, key):
    value = 0.5 * ((live["w"] + batch["x"]) ** 2).sum()
    return value, {"size": value}


def noisy(live, frozen, batch, key):
    return (live["w"] * jax.random.normal(key, (2,))).sum() + (live["v"] ** 2).sum(), {"noise": jax.random.normal(key)}


def step(rule, parts=PARTS, batch=BATCH, ctx=CTX, state=None):
    return rule.update(parts, rule.init(parts) if state is None else state, batch, ctx)


def test_a_further_loss_draws_from_a_stream_of_its_own():
    alone = step(minimise(noisy, optax.sgd(0.1), ("w", "v")))
    first_of = step(also(minimise(noisy, optax.sgd(0.1), ("w", "v")), square))
    assert_array_equal(first_of[2]["noise"], alone[2]["noise"])
    second = step(also(minimise(square, optax.sgd(0.1), "w"), noisy, wrt="v"))
    key = fold(KEY, ADDED + 1)
    assert_array_equal(second[2]["noise"], jax.random.normal(key))
    assert_allclose(
        second[0]["w"], PARTS["w"] - 0.1 * (PARTS["w"] + BATCH["x"] + jax.random.normal(key, (2,))), rtol=1e-6
    )
    assert_allclose(second[0]["v"], 3 - 0.1 * 6, rtol=1e-6)
    assert_allclose(second[2]["loss"], square(PARTS, {}, BATCH, KEY)[0] + noisy(PARTS, {}, BATCH, key)[0], rtol=1e-6)
    third = lambda live, frozen, batch, key: (0.0 * live["w"].sum(), {"third": jax.random.normal(key)})
    found = step(minimise(add(square, third, noisy), optax.sgd(0.1), ("w", "v")))[2]
    assert_array_equal(found["third"], jax.random.normal(fold(KEY, ADDED + 1)))
    assert_array_equal(found["noise"], jax.random.normal(fold(KEY, ADDED + 2)))


def test_streams_are_beyond_every_number_of_samples():
    """`split(key, n)[i]` is `fold_in(key, i)`: a batch never has 2^30 rows."""
    assert min(ADDED, MAPPED) >= 1 << 30 and abs(ADDED - MAPPED) >= 1 << 29


def test_a_part_is_clipped_by_its_own_norm():
    rule = clipped(minimise(add(square, noisy), optax.sgd(1.0), ("w", "v")), "v", 0.5)
    parts = step(rule)[0]
    assert_allclose(parts["v"], 2.5, rtol=1e-6)  # a gradient of 6
    free = step(minimise(add(square, noisy), optax.sgd(1.0), ("w", "v")))[0]
    assert_allclose(parts["w"], free["w"])


def test_what_descends_is_found_within_and_wrapped_again():
    inner = minimise(square, optax.sgd(0.1), "w", reads="other")
    wrapped = every(2, repeat(3, on(lambda parts, batch, ctx: batch, inner)))
    seen = []
    again = inside(wrapped, lambda old: seen.append(old) or minimise(square, optax.sgd(0.0), "w"))
    assert seen == [inner]
    same = step(again)[0]
    assert_array_equal(same["w"], PARTS["w"])
    with pytest.raises(BadInput, match="there is none in this rule"):
        inside(every(2, track("w", "w", 0.1)), lambda old: old)


def watch(name: str = "seen") -> Rule:
    """A rule that adds 1 to 'other' and tells what reaches it."""

    def update(parts, state, batch, ctx):
        told = {"key": data(ctx.key), "step": ctx.step, "update": ctx.update, "turn": ctx.turn, "x": batch["x"].sum()}
        return {**parts, "other": parts["other"] + 1}, state + 1, told

    return Rule(lambda parts: jnp.int32(0), update, ("other",), ("other",))


def test_rules_in_a_row_have_keys_of_their_own():
    rule = chain({"a": watch(), "b": watch()})
    parts, state, metrics = step(rule)
    for i, name in enumerate("ab"):
        assert_array_equal(metrics[f"{name}/key"], data(fold(KEY, i)))
        assert (metrics[f"{name}/step"], metrics[f"{name}/update"], metrics[f"{name}/turn"]) == (40, 5, 2)
    assert parts["other"] == 9 and state == {"a": 1, "b": 1}
    assert (rule.reads, rule.writes) == (("other",), ("other",))


@pytest.mark.parametrize("n, due", [(1, True), (2, True), (3, True), (4, False), (5, False), (6, True)])
def test_each_nth_update_is_the_last_of_n(n, due):
    """The sixth update, of number 5."""
    parts, state, metrics = jax.jit(lambda: step(every(n, watch())))()
    assert parts["other"] == 7 + due and state == due
    assert metrics["x"].dtype == metrics["update"].dtype == jnp.float32
    assert_array_equal(metrics["update"], 5 if due else np.nan)


def test_when_is_by_the_clock():
    for at in (40, 41):
        found = step(when(lambda ctx, at=at: ctx.step == at, watch()))
        assert found[0]["other"] == 7 + (at == 40)


def test_a_repeated_rule_counts_its_updates_on():
    parts, state, metrics = step(repeat(4, watch()))
    assert parts["other"] == 11 and state == 4
    # Updates 20 to 23 of a run whose updates before were of four each, turns 8 to 11; means over the row.
    assert_allclose([metrics["update"], metrics["turn"], metrics["step"]], [21.5, 9.5, 40])
    keys = np.stack([data(fold(KEY, i)) for i in range(4)]).astype(np.float32)
    assert_allclose(metrics["key"], keys.mean(axis=0), rtol=1e-5)


def test_what_was_skipped_in_a_row_is_not_averaged():
    metrics = step(repeat(4, every(2, watch())))[2]
    assert_allclose(metrics["update"], 22)  # the mean of 21 and 23


@pytest.mark.parametrize("axis", ["sample", "env"])
def test_each_pass_sees_every_row_once(axis):
    """A rollout of [3, 4] in two passes of two minibatches."""
    rows = jnp.arange(12.0).reshape(3, 4)

    def update(parts, state, batch, ctx):
        at = (ctx.update - 4 * 5) % 4
        return parts, state.at[at].set(batch["x"].reshape(-1)), {"shape": jnp.float32(batch["x"].shape[0])}

    rule = epochs(2, 2, Rule(lambda parts: jnp.zeros((4, 6)), update), axis)
    _, state, metrics = step(rule, batch={"x": rows, "reward": rows})
    order = np.asarray(shuffled(fold(KEY, 4), 2, 12 if axis == "sample" else 4)).reshape(4, -1)
    for i in range(4):
        expected = np.arange(12)[order[i]] if axis == "sample" else np.asarray(rows)[:, order[i]].reshape(-1)
        assert_array_equal(state[i], expected)
    for one in (state[:2], state[2:]):
        assert_array_equal(np.sort(np.asarray(one).reshape(-1)), np.arange(12))
    assert metrics["shape"] == (6 if axis == "sample" else 3)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 4096, 4097])
def test_orders_are_permutations_and_differ(size):
    found = np.asarray(shuffled(KEY, 3, size))
    assert found.dtype == np.int32 and found.shape == (3, size)
    assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(size), (3, 1)))
    if size > 8:
        assert len({tuple(row) for row in found}) == 3


def test_every_order_is_as_likely():
    found = np.asarray(jax.vmap(lambda key: shuffled(key, 1, 3)[0])(jax.random.split(KEY, 1200)))
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert_allclose(counts / 1200, 1 / 6, atol=0.04)


def test_a_batch_is_made_with_a_key_of_its_own():
    def twice(parts, batch, ctx):
        return {"x": 2 * batch["x"] + parts["v"] + jax.random.normal(ctx.key)}

    rule = on(twice, watch(), "v")
    metrics = step(rule)[2]
    assert_allclose(metrics["x"], 2 * (3 + jax.random.normal(fold(KEY, MAPPED))), rtol=1e-6)
    assert_array_equal(metrics["key"], data(KEY))
    assert rule.reads == ("v", "other")


def test_averages_follow_their_source():
    parts = {"w": jnp.float32([1, 2]), "slow": jnp.float32([10, -10])}
    rule = track("w", "slow", 0.25)
    assert_allclose(step(rule, parts)[0]["slow"], [0.75 * 10 + 0.25, 0.75 * -10 + 0.5])
    assert rule.writes == ("slow",) and set(rule.reads) == {"w", "slow"}


def test_an_event_that_is_not_due_changes_nothing():
    event = happening(
        lambda run, ctx: run["step"] == 3, lambda run, ctx: ({**run, "x": run["x"] + 1}, {"n": jnp.int32(4)})
    )
    run, metrics = event({"step": 3, "x": 1}, CTX)
    assert run["x"] == 2 and metrics["n"] == 4 and metrics["n"].dtype == jnp.float32
    run, metrics = event({"step": 4, "x": 1}, CTX)
    assert run["x"] == 1 and jnp.isnan(metrics["n"])


def agent() -> Agent:
    init = lambda key: {"w": jnp.zeros((2, 3)), "deep": [jnp.zeros(1, jnp.int8) for _ in range(7)]}
    act = lambda parts, memory, obs, ctx, explore: (parts["w"].sum() + obs, memory, {"explore": explore})
    rule = stateless(
        lambda parts, batch, ctx: ({"w": parts["w"] + batch["x"].sum()}, {"n": jnp.float32(1)}), "w", "deep"
    )
    return Agent(init, act, {"learn": rule}, {"look": rule}, views={"head": lambda parts, x: parts["w"][0] * x})


def test_a_description_counts_bytes_and_shows_six_shapes():
    lines = describe(agent()).splitlines()
    assert lines[0] == "parts"
    assert lines[2].split() == ["w", "24", "bytes", "(2,", "3)"]
    assert lines[1].split()[:3] == ["deep", "7", "bytes"]
    assert lines[1].count("(1,)") == 6 and lines[1].endswith(", ...")
    assert lines[3:] == [
        "observe (each tick's fresh transitions)", "  look           reads w, deep; writes w",
        "rules (in order)", "  learn          reads w, deep; writes w",
    ]  # fmt: skip
    six = Agent(lambda key: {"p": [jnp.zeros(1)] * 6}, None)
    assert describe(six).splitlines()[1].count("(1,)") == 6 and "..." not in describe(six)


def test_an_agent_in_another_keeps_its_parts_apart():
    one = scoped("a", agent())
    parts = {**one.init(KEY), "w": jnp.float32(5)}
    assert {"a/w", "a/deep", "w"} == set(parts)
    after = one.rules["a/learn"].update(parts, (), {"x": jnp.float32([2])}, CTX)
    assert_array_equal(after[0]["a/w"], np.full((2, 3), 2))
    assert after[0]["w"] == 5 and after[2] == {"n": 1}
    assert one.rules["a/learn"].reads == ("a/w", "a/deep") and one.observe["a/look"].writes == ("a/w",)
    assert one.act(after[0], (), 1.0, CTX, True) == (13, (), {"explore": True})
    assert_array_equal(one.views["head"](after[0], 3), [6, 6, 6])


# --------------------------------------------------------------------------------------------------- small helpers


def test_optimisers_descend():
    gradient, at = {"w": jnp.float32([2, -4])}, {"w": jnp.float32([1, 1])}
    moved = lambda tx: tx.update(gradient, tx.init(at), at, frames=jnp.int32(30))[0]["w"]
    assert_allclose(moved(by_frames(0.5)), [-1, 2])
    assert_allclose(moved(by_frames(lambda frames: frames / 10)), [-6, 12])
    # Adam's first step is the sign of the gradient: m / sqrt(v) of both corrected, less what eps adds.
    assert_allclose(moved(adam(0.1, eps=1.0)), [-0.1 * 2 / 3, 0.1 * 4 / 5], rtol=1e-5)
    assert_allclose(moved(adam(0.1, decay=0.5)), [-0.1 * 1.5, 0.1 * 0.5], rtol=3e-5)
    clip = np.array([2, -4]) / np.sqrt(20)
    assert_allclose(moved(adam(0.1, clip=1.0, eps=1.0)), -0.1 * clip / (abs(clip) + 1), rtol=1e-5)


def test_adam_remembers_as_kingma_and_ba_say_where_nobody_says():
    usual, named = adam(0.1), optax.adam(0.1, b1=0.9, b2=0.999, eps=1e-8)
    at = {"w": jnp.float32([1, 1])}
    one, other = usual.init(at), named.init(at)
    for gradient in ([2e-8, -4], [1.0, 3], [-5, 0.1]):
        steps, one = usual.update({"w": jnp.float32(gradient)}, one, at, frames=jnp.int32(0))
        expected, other = named.update({"w": jnp.float32(gradient)}, other, at)
        assert_allclose(steps["w"], expected["w"], rtol=1e-5)
    slow = adam(0.1, b1=0.5, b2=0.9)
    state = slow.init(at)
    for gradient in ([2.0, -4], [1.0, 3]):
        steps, state = slow.update({"w": jnp.float32(gradient)}, state, at, frames=jnp.int32(0))
    m, v = (0.5 * 0.5 * 2 + 0.5 * 1) / (1 - 0.25), (0.9 * 0.1 * 4 + 0.1 * 1) / (1 - 0.81)
    assert_allclose(steps["w"][0], -0.1 * m / np.sqrt(v), rtol=1e-5)


def test_each_part_has_its_own_optimiser():
    tx = each(w=optax.sgd(1.0), v=optax.sgd(0.1))
    at = {"w": jnp.float32([1]), "v": jnp.float32([1])}
    steps = tx.update(at, tx.init(at), at)[0]
    assert_allclose([steps["w"][0], steps["v"][0]], [-1, -0.1])


def test_means_leave_out_what_is_masked():
    x = jnp.float32([[1, 2], [3, 5], [100, jnp.nan]])
    assert mean(x[:2], {}) == 2.75
    assert_allclose(mean(x, {"weight": jnp.float32([2, 0.5, 0])}), (2 * 1.5 + 0.5 * 4) / 2)
    assert_allclose(mean(x, {"weight": jnp.float32([[1, 2], [0, 1], [0, 0]])}), (1 + 4 + 5) / 3)
    assert mean(x[:2, 0], {"weight": jnp.zeros(2)}) == 0
    assert_allclose(mean(x[:2, 0], {"weight": jnp.float32([0, 4])}), 12)


def test_where_picks_whole_rows_and_keys():
    mask = jnp.array([True, False])
    yes, no = (
        {"a": jnp.ones((2, 3)), "k": jax.random.split(KEY)},
        {"a": jnp.zeros((2, 3)), "k": jax.random.split(fold(KEY, 1))},
    )
    found = where(mask, yes, no)
    assert_array_equal(found["a"], [[1, 1, 1], [0, 0, 0]])
    assert_array_equal(data(found["k"]), np.stack([data(yes["k"])[0], data(no["k"])[1]]))


def test_integers_below_a_bound():
    found = np.asarray(below(KEY, (2000,), 4))
    assert found.dtype == np.int32
    assert_allclose(np.bincount(found) / 2000, [0.25] * 4, atol=0.04)
    assert_array_equal(found, np.floor(np.asarray(jax.random.uniform(KEY, (2000,))) * 4))
    assert (np.asarray(below(KEY, (50,), 1)) == 0).all()
    assert below(KEY, (20000,), jnp.int32(1 << 23)).max() < 1 << 23


def test_keys_by_number():
    assert_array_equal(data(each_key(KEY, 3)), [data(fold(KEY, i)) for i in range(3)])
    assert_array_equal(data(each_key(KEY, 2, 5)), [data(fold(KEY, i)) for i in (5, 6)])
    assert_array_equal(data(CTX.own_key), data(KEY))
    assert CTX.shared("x") == "x"
