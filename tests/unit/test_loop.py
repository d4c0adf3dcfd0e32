"""The loop against a simulation of it in Python: clocks and keys that reach each call, resets, averages and events."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import (
    Agent,
    BadInput,
    Box,
    Env,
    Event,
    Recipe,
    Rule,
    Source,
    Specs,
    TimeStep,
    each_key,
    fold,
    stateless,
)
from jaxrl.loop import (
    ACT,
    HAPPEN,
    LEARN,
    OBSERVE,
    RATIO,
    REFRESH,
    SAMPLE,
    average,
    check_lengths,
    evaluate,
    fit,
    loop,
    over_chunk,
    over_seeds,
    tally,
    train,
)

KEY = jax.random.key(17)
ENVS, UNROLL, FRAMES = 2, 3, 2
TICK = ENVS * UNROLL * FRAMES
LENGTH = 4  # of an episode
number = lambda key: jax.random.key_data(key)[1].astype(jnp.uint32)


def world(limit: int | None = LENGTH) -> Env:
    """Observes a draw and the steps since; the action is the reward; it ends after LENGTH steps, terminated if odd."""

    def shown(state, reward):
        over = state["t"] == LENGTH
        odd = state["odd"]
        info = {"t": state["t"]}
        return TimeStep(
            jnp.stack([state["start"], state["t"].astype(jnp.float32)]), reward, over & odd, over & ~odd, info
        )

    def reset(key):
        start = jax.random.uniform(key)
        state = {"start": start, "t": jnp.int32(0), "odd": start > 0.5}
        return state, shown(state, jnp.float32(0))

    def step(state, action):
        state = {**state, "t": state["t"] + 1}
        return state, shown(state, action)

    return Env(reset, step, Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box(()), FRAMES, limit))


def diary(name: str) -> Rule:
    """A rule that writes down what reaches it: a row a call of its key, clock, number, turn, and the batch's sum."""

    def update(parts, state, batch, ctx):
        row = jnp.stack([ctx.step, ctx.update % 1000, ctx.turn, batch["reward"].sum()]).astype(jnp.float32)
        lines = parts[name].at[state].set(row)
        keys = parts[f"{name}_keys"].at[state].set(number(ctx.key))
        return {**parts, name: lines, f"{name}_keys": keys}, state + 1, {"turn": ctx.turn, "two": jnp.float32([1, 3])}

    return Rule(lambda parts: jnp.int32(0), update, (name, f"{name}_keys"), (name, f"{name}_keys"))


def agent(size: int = 40) -> Agent:
    """Acts by its key and what it remembers, half as strongly when it does not explore."""

    def init(key):
        pages = {name: jnp.zeros((size, 4)) for name in ("seen", "learned")}
        keys = {f"{name}_keys": jnp.zeros(size, jnp.uint32) for name in pages}
        return {**pages, **keys, "w": jax.random.normal(key)}

    def act(parts, memory, obs, ctx, explore):
        action = parts["w"] + jax.random.normal(ctx.key) + memory + obs[1] + 100 * (ctx.step + 0.0)
        return action * (1.0 if explore else 0.5), memory + 1, {"key": number(ctx.key)}

    return Agent(init, act, {"learn": diary("learned")}, {"look": diary("seen")}, lambda: jnp.float32(0.5))


def log() -> Source:
    """Counts what is added and noted; a batch is that count, and its key's number."""

    def sample(s, parts, key):
        same = {name: jnp.zeros(2) for name in ("obs", "next_obs", "action")}
        return {
            **same,
            "reward": jnp.stack([s["added"], jax.random.uniform(key)]),
            "discount": jnp.ones(2),
            "end": jnp.zeros(2) > 0,
        }

    return Source(
        lambda example: {"added": jnp.float32(0), "noted": jnp.float32(0)},
        lambda s, transitions, ctx: {**s, "added": s["added"] + 1},
        sample,
        lambda s: s["added"],
        lambda s, batch, metrics: {**s, "noted": s["noted"] + batch["reward"][0] + metrics["learn/two"].sum()},
    )


RECIPE = Recipe(agent(), log(), ENVS, UNROLL, ratio=2, warmup=TICK)


def lived(key, ticks: int, warmup: int):
    """The transitions of so many ticks, a step of an environment at a time: [ticks * UNROLL, ENVS] of each field."""
    key_parts, key_envs, key_run = jax.random.split(key, 3)
    w = float(jax.random.normal(key_parts))
    state = [dict(zip(("key", "draw"), jax.random.split(one))) for one in each_key(key_envs, ENVS)]
    for one in state:
        one.update(start=float(jax.random.uniform(one["draw"])), t=0, memory=0.5, total=0.0)
    rows = []
    for tick in range(ticks):
        for t in range(UNROLL):
            keys = each_key(fold(fold(fold(key_run, tick * TICK), ACT), t), ENVS)
            row = []
            for one, own in zip(state, keys):
                action = w + float(jax.random.normal(own)) + one["memory"] + one["t"] + 100.0 * tick * TICK
                if tick * TICK < warmup:
                    action = float(Box(()).sample(fold(own, 1)))
                seen = {
                    "obs": [one["start"], one["t"]],
                    "memory": one["memory"],
                    "action": action,
                    "key": int(number(own)),
                }
                one["t"] += 1
                one["memory"] += 1
                one["total"] += action
                end = one["t"] == LENGTH
                discount = 0.0 if end and one["start"] > 0.5 else 1.0
                seen |= {"next_obs": [one["start"], one["t"]], "end": end, "discount": discount, "reward": action}
                row.append(seen | {"return": one["total"], "length": one["t"]})
            ended = [one["t"] == LENGTH for one in state]
            for one, end in zip(state, ended):
                if end:
                    one["key"], draw = jax.random.split(one["key"])
                    one.update(start=float(jax.random.uniform(draw)), t=0, memory=0.5, total=0.0)
            rows.append(row)
    return {name: np.array([[one[name] for one in row] for row in rows]) for name in rows[0][0]}


@pytest.fixture(scope="module")
def one():
    return loop(world(), RECIPE)


@pytest.fixture(scope="module")
def start(one):
    return jax.jit(one.init)(KEY)


@pytest.fixture(scope="module")
def chunk(one):
    return jax.jit(one.chunk, static_argnums=1)


@pytest.mark.parametrize("warmup", [0, TICK])
def test_each_step_of_each_environment(warmup):
    one = loop(world(), replace(RECIPE, warmup=warmup))

    def tick(run, _):
        run, transitions = one.collect(run)
        return one.learn(run, transitions)[0], transitions

    _, found = jax.jit(lambda key: jax.lax.scan(tick, one.init(key), None, length=3))(KEY)
    found = jax.tree.map(lambda x: np.asarray(x).reshape(9, *x.shape[2:]), found)
    expected = lived(KEY, 3, warmup)
    for name in ("obs", "next_obs", "action", "reward", "discount", "end", "memory"):
        assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)
    assert_array_equal(found["extras"]["key"], expected["key"])
    assert_allclose(found["info"]["episode"]["return"], expected["return"], rtol=1e-5)
    assert_array_equal(found["info"]["episode"]["length"], expected["length"])
    assert_array_equal(found["info"]["t"], expected["length"])


def test_clocks_and_keys_of_rules(one, start, chunk):
    """Updates begin in the second tick: the first one is warm-up to its last frame."""
    run, metrics = chunk(start, 3)
    key_run = jax.random.split(KEY, 3)[2]
    rewards = lived(KEY, 3, TICK)["reward"].reshape(3, UNROLL * ENVS).sum(axis=1)
    for tick in range(3):
        began = tick * TICK
        key = fold(fold(fold(key_run, began), OBSERVE), 0)
        assert run.parts["seen_keys"][tick] == number(key)
        assert_allclose(run.parts["seen"][tick], [began, tick, 0, rewards[tick]], rtol=1e-4)
    assert not run.parts["seen_keys"][3:].any()
    row = 0
    for tick in (1, 2):
        began = tick * TICK
        for i in range(2):
            key = fold(fold(fold(fold(key_run, began), LEARN), i), 0)
            drawn = jax.random.uniform(fold(fold(fold(key_run, began), SAMPLE), i))
            assert run.parts["learned_keys"][row] == number(key)
            assert_allclose(run.parts["learned"][row], [began, 2 * tick + i, i, tick + 1 + drawn], rtol=1e-5)
            row += 1
    assert not run.parts["learned_keys"][4:].any()
    assert run.source["added"] == 3
    assert_allclose(run.source["noted"], 2 * 2 + 2 * 3 + 4 * 4)
    assert one.frames == TICK and one.updates == 2 and metrics["learn/two"] == 2
    assert_allclose(metrics["learn/turn"], 0.5)


def test_metrics_are_means_over_a_chunk(start, chunk):
    _, metrics = chunk(start, 3)
    found = lived(KEY, 3, TICK)
    assert_allclose(metrics["episode/return"], found["return"][found["end"]].mean(), rtol=1e-5)
    assert metrics["episode/length"] == LENGTH
    assert metrics["look/two"] == 2
    _, metrics = chunk(start, 1)
    assert jnp.isnan(metrics["learn/two"]) and jnp.isnan(metrics["episode/return"])  # 3 steps: nothing ended


def test_what_will_be_done_can_be_asked(one, start):
    action, memory, extras = one.act(start, jnp.int32(0))
    expected = lived(KEY, 1, TICK)
    assert_allclose(action, expected["action"][0], rtol=1e-5)
    assert_array_equal(extras["key"], expected["key"][0])
    assert_array_equal(memory, [1.5, 1.5])


def counted(ratio, **settings):
    """How many updates a run of three ticks makes, and at which numbers and turns."""
    one = loop(world(), replace(RECIPE, ratio=ratio, warmup=0, **settings))
    run, _ = jax.jit(lambda key: one.chunk(one.init(key), 3))(KEY)
    return [tuple(int(x) for x in row[:3]) for row, key in zip(run.parts["learned"], run.parts["learned_keys"]) if key]


def test_a_ratio_may_follow_the_clock():
    """As many as there were ticks, five at most; numbered by the most that there may be."""
    key_run = jax.random.split(KEY, 3)[2]

    def ratio(parts, ctx):
        return ctx.step // TICK * 3 + jnp.where(number(ctx.key) == seen_key(ctx.step), 1, 0)

    keys = jnp.stack([number(fold(fold(key_run, step), RATIO)) for step in (0, TICK, 2 * TICK)])
    seen_key = lambda step: keys[step // TICK]
    expected = [(0, 0, 0), *((12, 5 + i, i) for i in range(4)), *((24, 10 + i, i) for i in range(5))]
    assert counted(ratio, most=5) == expected
    with pytest.raises(BadInput, match="`most` has to say"):
        loop(world(), replace(RECIPE, ratio=ratio))


def test_a_source_that_notes_nothing_learns_the_same(start, chunk):
    quiet = loop(world(), replace(RECIPE, source=replace(log(), note=None)))
    run, _ = jax.jit(lambda run: quiet.chunk(run, 3))(start)
    loud, _ = chunk(start, 3)
    jax.tree.map(assert_array_equal, run.parts, loud.parts)
    assert run.source["noted"] == 0 and run.source["added"] == 3


def test_a_bank_of_starts_is_redrawn_before_each_chunk():
    """From the stream of its own: the next episodes begin in it."""
    one = loop(world(), replace(RECIPE, starts=3))
    run, _ = jax.jit(lambda key: one.chunk(one.init(key), 1))(KEY)
    key = fold(fold(jax.random.split(KEY, 3)[2], 0), REFRESH)
    bank = jax.vmap(jax.random.uniform)(jax.random.split(key, 3))
    assert_array_equal(run.envs["bank"][0]["start"], bank)


def marking(period: int, name: str) -> Event:
    """Writes the clock into the part 'w', after what is there."""
    add = lambda run, ctx: (
        run._replace(parts={**run.parts, "w": 1000 * run.parts["w"] + ctx.step + jnp.where(number(ctx.key) > 0, 0, 1)}),
        {f"{name}/key": jax.random.uniform(ctx.key)},
    )
    return Event(period, add, name)


def test_events_happen_by_the_clock():
    """Of periods of 2 and 3 ticks, in six ticks in two chunks; each with its own key, in the order of the recipe."""
    recipe = replace(RECIPE, ratio=0, events=(marking(2 * TICK, "two"), marking(3 * TICK, "three")))
    one = loop(world(), recipe)
    start = jax.jit(one.init)(KEY)
    start = start._replace(parts={**start.parts, "w": jnp.float32(0)})
    chunk = jax.jit(lambda run: one.chunk(run, 3))
    run, metrics = chunk(start)
    assert one.periods == (24, 36)
    assert run.parts["w"] == 24036
    key_run = jax.random.split(KEY, 3)[2]
    drawn = lambda step, i: jax.random.uniform(fold(fold(key_run, step), HAPPEN + i))
    assert_allclose([metrics["two/key"], metrics["three/key"]], [drawn(24, 0), drawn(36, 1)], rtol=1e-6)
    run, metrics = chunk(run._replace(parts={**run.parts, "w": jnp.float32(0)}))
    assert run.parts["w"] == (48 * 1000 + 72) * 1000 + 72
    assert_allclose(metrics["two/key"], (drawn(48, 0) + drawn(72, 0)) / 2, rtol=1e-6)
    assert_allclose(metrics["three/key"], drawn(72, 1), rtol=1e-6)
    assert run.source["added"] == 6 and metrics["look/two"] == 2


def test_averages_leave_out_what_is_none():
    assert_allclose(average({"a": jnp.float32([[1, jnp.nan], [3, 5]]), "b": jnp.int32(4)})["a"], 3)
    total = {"a": jnp.float32([10, 2]), "b": jnp.float32([1, 1])}
    found = tally(total, {"a": jnp.float32([4, 6]), "b": jnp.float32(jnp.nan)})
    assert_allclose(found["a"], [15, 3])
    assert_allclose(found["b"], [1, 1])
    assert over_chunk(jnp.float32([1, jnp.nan, 3, 5])) == 3
    assert jnp.isnan(over_chunk(jnp.float32([jnp.nan, jnp.nan])))
    assert over_chunk(jnp.float32([[6, 2], [0, 0], [3, 1]])) == 3
    assert jnp.isnan(over_chunk(jnp.zeros((2, 2))))


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_seeds_side_by_side_are_what_each_is_alone(one, start, chunk, how):
    many = over_seeds(one, how)
    begun = jax.jit(many.init)(jnp.stack([KEY, fold(KEY, 1)]))
    run, metrics = jax.jit(many.chunk, static_argnums=1)(begun, 3)
    for i, alone in enumerate((start, jax.jit(one.init)(fold(KEY, 1)))):
        alone, told = chunk(alone, 3)
        assert_array_equal(run.parts["learned_keys"][i], alone.parts["learned_keys"])
        assert_allclose(run.parts["learned"][i], alone.parts["learned"], rtol=1e-5)
        assert_allclose(metrics["episode/return"][i], told["episode/return"], rtol=1e-5)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), run.step, alone.step))
    assert (many.frames, many.updates, many.periods) == (TICK, 2, ())
    if how == "vmap":
        collect, learn, run = jax.jit(many.collect), jax.jit(many.learn), begun
        for tick in range(2):
            run, transitions = collect(run)
            assert transitions["reward"].shape == (2, UNROLL, ENVS)
            run, _ = learn(run, transitions)
            assert_array_equal(run.parts["seen"][:, tick, 0], [tick * TICK] * 2)
        assert_array_equal(run.source["added"], [2, 2])


def test_train_is_chunks_in_a_row():
    recipe = Recipe(agent(), log(), num_envs=ENVS, unroll=UNROLL, ratio=2, warmup=TICK)
    run, metrics = jax.jit(lambda key: train(world(), recipe, key, steps=50, chunk=24))(KEY)
    assert metrics["episode/return"].shape == (2,) and run.source["added"] == 4
    shape = jax.eval_shape(lambda key: train(world(), recipe, key, steps=36), KEY)[1]
    assert shape["episode/return"].shape == (1,)


def test_a_source_alone_counts_updates():
    """Without an environment nothing is observed or added, and a tick is one update."""
    run, metrics = jax.jit(lambda key: fit(Recipe(agent(), log()), key, steps=6, chunk=2))(KEY)
    assert_array_equal(run.parts["learned"][:7, :3], [*([i, i, 0] for i in range(6)), [0, 0, 0]])
    assert not run.parts["seen_keys"].any()
    assert run.source["added"] == 0 and metrics["learn/two"].shape == (3,)
    quiet = replace(log(), note=None)
    assert jax.eval_shape(lambda key: fit(Recipe(agent(), quiet), key, steps=2), KEY)[1]["learn/two"].shape == (1,)
    several = loop(None, Recipe(agent(), log(), ratio=3))
    assert several.frames == 3 and several.updates == 3
    assert loop(None, Recipe(agent(), log(), ratio=0)).frames == 1


def test_chunks_and_periods_have_to_fit(one):
    with pytest.raises(BadInput, match=f"steps is {TICK}, all of them within the warm-up of {TICK} frames"):
        check_lengths(one, TICK, TICK)
    one = one._replace(warmup=0)
    for steps, chunk in ((TICK, TICK), (TICK + 5, TICK), (4 * TICK, 2 * TICK)):
        check_lengths(one, steps, chunk)
    told = [
        ((0, TICK), "both are at least"),
        ((TICK, 0), "both are at least"),
        ((5 * TICK, TICK + 1), "not a multiple"),
    ]
    for settings, words in [*told, ((TICK, 2 * TICK), "shorten it")]:
        with pytest.raises(BadInput, match=words):
            check_lengths(one, *settings)
    eventful = one._replace(periods=(4 * TICK,))
    for chunk in (1, 2, 4, 8):
        check_lengths(eventful, 8 * TICK, chunk * TICK)
    for chunk in (3, 6):
        with pytest.raises(BadInput, match="neither a multiple nor a divisor"):
            check_lengths(eventful, 8 * TICK, chunk * TICK)


def test_evaluation_plays_whole_episodes_without_exploring():
    parts = {"w": jnp.float32(2)}
    found = jax.jit(lambda key: evaluate(world(), agent(), parts, key, 3))(KEY)
    key_act = jax.random.split(KEY)[1]
    for i in range(3):
        memory, total = 0.5, 0.0
        for t in range(LENGTH):
            own = fold(fold(key_act, t), i)
            total += 0.5 * (2 + float(jax.random.normal(own)) + memory + t)
            memory += 1
        assert_allclose(found["return"][i], total, rtol=1e-5)
        assert found["length"][i] == LENGTH
    # A limit below an episode's length is where it is broken off; without one it might never end.
    short = jax.jit(lambda key: evaluate(world(2), agent(), parts, key))(KEY)
    assert_array_equal(short["length"], np.full(8, 2))
    with pytest.raises(BadInput, match="endless"):
        evaluate(world(None), agent(), parts, KEY)


def test_evaluation_counts_each_until_its_own_end():
    """Episodes of different lengths, from states that end at different times; rewards of a team are summed."""

    def reset(key):
        state = {"left": jax.random.randint(key, (), 1, 6), "length": jnp.int32(0)}
        return state, TimeStep(jnp.zeros(2), jnp.zeros(2), jnp.bool_(False), jnp.bool_(False))

    def step(state, action):
        state = {"left": state["left"] - 1, "length": state["length"] + 1}
        return state, TimeStep(jnp.zeros(2), jnp.float32([1, 10]), state["left"] <= 0, jnp.bool_(False))

    env = Env(reset, step, Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box(()), 1, 9))
    still = Agent(
        lambda key: {"w": jnp.zeros(())}, lambda parts, memory, obs, ctx, explore: (jnp.float32(0), memory, {})
    )
    found = jax.jit(lambda key: evaluate(env, still, {"w": jnp.zeros(())}, key, 6))(KEY)
    keys = each_key(jax.random.split(KEY)[0], 6)
    lengths = [int(jax.random.randint(key, (), 1, 6)) for key in keys]
    assert_array_equal(found["length"], lengths)
    assert_allclose(found["return"], 11 * np.array(lengths))
    assert len(set(lengths)) > 1 and found["length"].dtype == jnp.int32


def test_streams_are_apart():
    streams = (ACT, SAMPLE, LEARN, OBSERVE, REFRESH, RATIO)
    assert len(set(streams)) == 6 and max(streams) < HAPPEN


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"unroll": 0}, "unroll is 0"),
        ({"ratio": -1}, "ratio is -1"),
        ({"warmup": -1}, "warmup is -1"),
        ({"events": (marking(TICK + 1, "e"),)}, "period is 13"),
        ({"events": (marking(0, "e"),)}, "period is 0"),
    ],
)
def test_what_cannot_run_is_named(settings, words):
    with pytest.raises(BadInput, match=words):
        loop(world(), replace(RECIPE, **settings))


def test_rules_are_stateless_where_they_say_so():
    rule = stateless(lambda parts, batch, ctx: ({"w": ctx.step}, {}), "w")
    assert rule.init({}) == ()
