"""Runs whose clocks pass what 32 bits hold, actions that were done, and what fits the specs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.probes import probe
from jaxrl.agents.mrq import Config, phases
from jaxrl.core import (
    Agent,
    BadInput,
    Box,
    Ctx,
    Discrete,
    Env,
    Event,
    Recipe,
    Specs,
    TimeStep,
    Wide,
    adam,
    every,
    first,
    minimise,
    repeat,
    stateless,
    when,
)
from jaxrl.host import Host, Hosted, Player, Step, host_loop
from jaxrl.loop import LONGEST, Loop, check_lengths, evaluate, fit, loop, over_seeds, train
from jaxrl.rules.resets import passing
from jaxrl.sources import latest

KEY = jax.random.key(5)
# The first tick of frames from which a run crosses: int32, uint32, and the end of the longest run.
EDGES = [2**31, 2**32, 2**40]
TICKS, FRAMES, RATIO, PERIOD, RESET = 12, 7, 2, 3 * 7, 5 * 7  # a tick of 7 frames divides no power of two


def world(frames: int = FRAMES, obs=1) -> Env:
    """Two actions, an observation of zeros, no end."""
    see = jnp.zeros(obs)
    specs = Specs(jax.ShapeDtypeStruct(see.shape, jnp.float32), Discrete(2), frames, limit=100)
    step = lambda state, action: (state, TimeStep(see, jnp.float32(1), jnp.bool_(False), jnp.bool_(False)))
    return Env(lambda key: ((), first(see)), step, specs, "zeros")


def watching() -> Agent:
    """Every kind of thing that a clock decides, written down at each tick or update in parts of logs."""

    def note(name, rows):
        def update(parts, batch, ctx):
            row = jnp.stack([ctx.clock % 1000, ctx.update % 1000, ctx.turn])
            return {name: {"n": parts[name]["n"] + 1, "log": parts[name]["log"].at[parts[name]["n"]].set(row)}}, {}

        return stateless(update, name), {"n": jnp.int32(0), "log": jnp.full((rows, 3), -1, jnp.int32)}

    noted = {
        "all": note("all", 60),
        "third": note("third", 60),
        "passed": note("passed", 60),
        "twice": note("twice", 60),
        "seen": note("seen", 60),
    }
    loss = lambda live, frozen, batch, key: (-live["w"], {})
    rules = {
        "all": noted["all"][0],
        "third": every(3, noted["third"][0]),
        "passed": when(passing(RESET, FRAMES), noted["passed"][0]),
        "twice": repeat(2, every(3, noted["twice"][0])),
        "w": minimise(loss, adam(lambda frames: frames), "w"),
    }
    init = lambda key: {"w": jnp.float32(0), **{name: log for name, (_, log) in noted.items()}}
    act = lambda parts, memory, obs, ctx, explore: (jnp.int32(1), memory, {})
    return Agent(init, act, rules, {"seen": noted["seen"][0]})


def happened(run, ctx):
    return run, {"event/at": ctx.clock % 1000}


RECIPE = Recipe(watching(), latest(), ratio=RATIO, events=(Event(PERIOD, happened),))


@pytest.fixture(scope="module")
def chunk():
    one = loop(world(), RECIPE)
    return jax.jit(lambda run: one.chunk(run, 3)), jax.jit(one.init)(KEY)


@pytest.mark.parametrize("edge", EDGES)
def test_a_run_crosses_what_a_word_can_count(chunk, edge):
    """Updates go on, and periods, events and numbers come at the frames at which Python's integers have them."""
    turn, run = chunk
    start = edge // PERIOD * PERIOD - PERIOD  # the third and fourth tick lie on either side
    run = run._replace(step=Wide.of(start))
    events = []
    for _ in range(TICKS // 3):
        run, metrics = turn(run)
        events.append(float(metrics["event/at"]))
    clocks = [start + FRAMES * t for t in range(TICKS)]
    assert clocks[0] < edge < clocks[-1] and int(run.step) == clocks[-1] + FRAMES
    assert events == [(clock + FRAMES) % 1000 for clock in clocks if (clock + FRAMES) % PERIOD == 0]
    updates = [(c, c // FRAMES * RATIO + turn, turn) for c in clocks for turn in range(RATIO)]
    log = lambda rows: [[c % 1000, u % 1000, turn] for c, u, turn in rows]
    found = {name: run.parts[name]["log"][: run.parts[name]["n"]].tolist() for name in run.parts if name != "w"}
    assert found["all"] == log(updates)
    assert found["third"] == log((c, u, t) for c, u, t in updates if u % 3 == 2)
    assert found["passed"] == log((c, u, t) for c, u, t in updates if c % RESET < FRAMES and t == 0)
    inner = [(c, 2 * u + i, 2 * t + i) for c, u, t in updates for i in range(2)]
    assert found["twice"] == log((c, u, t) for c, u, t in inner if u % 3 == 2)
    assert found["seen"] == log((c, c // FRAMES, 0) for c in clocks)


def test_a_schedule_is_of_all_frames(chunk):
    """A learning rate that is the number of frames: Adam's first step is as long."""
    turn, run = chunk
    for start in (PERIOD, 2**24 + 2**4, 2**31 - PERIOD, 3 * 10**9, 2**40):
        run, _ = turn(chunk[1]._replace(step=Wide.of(start)))
        assert_allclose(run.parts["w"], sum(RATIO * (start + FRAMES * t) for t in range(3)), rtol=1e-5)


def test_chunks_and_seeds_compose_across_the_edge():
    env, recipe = probe(5), Recipe(replace(small_learner(), observe={}), latest())
    one = loop(env, recipe)
    many = over_seeds(one, "map")
    runs = jax.jit(many.init)(jax.random.split(KEY, 2))._replace(step=Wide.of(2**31 - 10))
    whole, _ = jax.jit(many.chunk, static_argnums=1)(runs, 20)
    assert int(whole.step) == 2**31 + 10
    run = jax.jit(one.init)(jax.random.split(KEY, 2)[1])._replace(step=Wide.of(2**31 - 10))
    half = jax.jit(one.chunk, static_argnums=1)
    run, _ = half(half(run, 10)[0], 10)
    assert_array_equal(whole.parts["w"][1], run.parts["w"])


def test_what_is_drawn_does_not_begin_again():
    """The keys of ticks that lie a word apart differ, and so do the actions."""

    def act(parts, memory, obs, ctx, explore):
        return jax.random.randint(ctx.key, (), 0, 2), memory, {}

    one = loop(world(), Recipe(Agent(lambda key: {}, act), latest(), unroll=64, ratio=0))
    run, actions = jax.jit(one.init)(KEY), jax.jit(lambda run: one.collect(run)[1]["action"])
    drawn = [actions(run._replace(step=Wide.of(5 + high))) for high in (0, 2**31, 2**32, 2**40)]
    assert len({np.asarray(a).tobytes() for a in drawn}) == 4


def test_bursts_of_many_updates_come_at_their_ticks():
    """MR.Q counts updates by the most that a tick may have: its phases of updates beyond 2^31."""
    config = Config(period=7, warmup=33, num_envs=2)
    most, start = 8, 33 // 2
    for tick in (start, start + 1, start + 7, 2**28 - 1, 2**28 + start % 7, 2**36 + 3, 2**37 // 7 * 7 + start):
        for turn in (0, 3, 7):
            count, starts, codes, values = phases(Specs(None, Box((1,))), config)
            ctx = Ctx(KEY, Wide.of(2 * tick), Wide.of(tick) * most + jnp.int32(turn), None, jnp.int32(turn))
            burst = (tick - start) % 7 == 0
            assert int(count({}, ctx)) == (most if burst else 1)
            assert bool(starts(ctx)) == (burst and turn == 0) and bool(codes(ctx)) == (burst and turn < 7)
            assert bool(values(ctx)) == (not (burst and turn < 7))


def test_lengths_that_no_run_can_have_are_refused():
    one = Loop(None, None, None, None, 4, 1, periods=(8,), warmup=1_000)
    check_lengths(one, LONGEST, 40_000)
    for steps, length, sentence in [
        (LONGEST + 4 * 10**6, 4, r"more than the 2\^40 frames"),
        (1_000, 8, "steps is 1000, all of them within the warm-up of 1000 frames.*raise steps or lower warmup"),
        (8, 8, "within the warm-up of 1000"),
        (LONGEST, LONGEST, r"which are 2\^31 ticks of 4 or more: shorten it"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            check_lengths(one, steps, length)
    with pytest.raises(BadInput, match=r"period is 4294967296 frames; it must be a multiple of a tick's 7 below 2\^31"):
        loop(world(), replace(RECIPE, events=(Event(2**32, happened),)))


# ------------------------------------------------------------------------------------------------ recipes and warm-up


def small_learner() -> Agent:
    """Its one weight learns the reward."""

    def loss(live, frozen, batch, key):
        return ((batch["reward"] - live["w"]) ** 2).mean(), {}

    act = lambda parts, memory, obs, ctx, explore: (jnp.int32(0), memory, {})
    return Agent(lambda key: {"w": jnp.float32(0)}, act, {"w": minimise(loss, optax.sgd(0.1), "w")})


def test_train_takes_all_of_a_recipe():
    """Environments, ratio, warm-up and events: none of them is dropped on the way."""
    counted = lambda parts, batch, ctx: ({"n": parts["n"] + 1, "rows": jnp.int32(batch["reward"].size)}, {})
    init = lambda key: {"n": jnp.int32(0), "rows": jnp.int32(0)}
    agent = replace(small_learner(), init=init, rules={"count": stateless(counted, ("n", "rows"))})
    bump = lambda run, ctx: (run._replace(parts={**run.parts, "n": run.parts["n"] + 100}), {})
    recipe = Recipe(agent, latest(), num_envs=4, unroll=1, ratio=3, warmup=4 * 7 * 2, events=(Event(56, bump),))
    run, _ = train(world(), recipe, KEY, steps=4 * 7 * 6)
    assert run.parts["n"] == 3 * 4 + 300 and run.parts["rows"] == 4
    with pytest.raises(BadInput, match="steps is 56, all of them within the warm-up of 56 frames"):
        train(world(), recipe, KEY, steps=56)


def test_fit_takes_a_recipe_and_waits_for_no_actions():
    rules = {"count": stateless(lambda parts, batch, ctx: ({"n": parts["n"] + 1}, {}), "n")}
    agent = replace(small_learner(), rules=rules, init=lambda key: {"n": jnp.int32(0)})
    source = replace(latest(), init=lambda example: (), sample=lambda s, parts, key: {})
    run, _ = fit(Recipe(agent, source, ratio=5, warmup=1_000), KEY, steps=20)
    assert run.parts["n"] == 20 and int(run.step) == 20


def remembering(told: bool = True) -> Agent:
    """An agent whose memory and extras are the action, which by its own choice is always 0."""
    act = lambda parts, memory, obs, ctx, explore: (jnp.int32(0), jnp.int32(0), {"did": jnp.int32(0)})
    mend = (lambda memory, extras, action: (action, {"did": action})) if told else None
    return Agent(lambda key: {}, act, memory=lambda: jnp.int32(0), told=mend)


def test_what_was_done_in_a_warm_up_is_remembered():
    one = loop(world(), Recipe(remembering(), latest(), num_envs=2, unroll=16, ratio=0, warmup=2 * 16 * 7))
    run, early = jax.jit(one.collect)(one.init(KEY))
    assert set(np.unique(early["action"])) == {0, 1}
    assert_array_equal(early["memory"][1:], early["action"][:-1])
    assert_array_equal(early["extras"]["did"], early["action"])
    assert_array_equal(run.memory, early["action"][-1])
    run, late = jax.jit(one.collect)(run)
    assert_array_equal(late["memory"][0], early["action"][-1])
    assert not late["action"].any() and not late["memory"][1:].any()


class Zeros:
    """`world` as a simulator."""

    reset = lambda self, seed: np.zeros(1, np.float32)
    step = lambda self, action: Step(np.zeros(1, np.float32), 1.0, False, False)


HOST = Host(Zeros, world().specs, "zeros on the host")


def test_on_the_host_it_is_the_same_and_the_clock_goes_on():
    recipe = Recipe(remembering(), latest(), num_envs=2, unroll=4, ratio=0, warmup=2**31)
    hosted = Hosted(HOST, recipe, host_loop(HOST, recipe), 0)
    run = jax.jit(hosted.one.init)(KEY)._replace(step=Wide.of(2**31 - 2 * 56))
    run, _ = hosted.chunk(run, 1)
    early = run.envs
    assert set(np.unique(early["action"])) == {0, 1}
    assert_array_equal(early["memory"][1:], early["action"][:-1])
    assert_array_equal(early["extras"]["did"], early["action"])
    run, _ = hosted.chunk(run, 2)
    assert int(run.step) == 2**31 + 56 and not run.envs["action"].any()


# --------------------------------------------------------------------------------------------- what fits the specs

CONTINUOUS = replace(world(), specs=Specs(jax.ShapeDtypeStruct((1,), jnp.float32), Box((2,)), limit=100))


def acting(action) -> Agent:
    return Agent(lambda key: {}, lambda parts, memory, obs, ctx, explore: (action(obs), memory, {}))


@pytest.mark.parametrize(
    "env, action, sentence",
    [
        (CONTINUOUS, lambda obs: jnp.zeros((3, 2)), r"acts with float32\[3, 2\], and zeros takes float32\[2\]"),
        (CONTINUOUS, lambda obs: jnp.zeros(2, jnp.int32), r"acts with int32\[2\], and zeros takes float32\[2\]"),
        (CONTINUOUS, lambda obs: jnp.zeros(2, jnp.bfloat16), r"acts with bfloat16\[2\], and zeros takes float32\[2\]"),
        (CONTINUOUS, lambda obs: {"arm": jnp.zeros(2)}, r"acts with float32\[2\] 'arm', and zeros takes"),
        (world(), lambda obs: jnp.zeros(1, jnp.int32), r"acts with int32\[1\], and zeros takes int32\[\]"),
        (world(), lambda obs: jnp.float32(0), r"acts with float32\[\], and zeros takes int32\[\]"),
    ],
)
def test_an_action_fits_the_specs(env, action, sentence):
    agent = acting(action)
    for warmup in (0, 8):
        with pytest.raises(BadInput, match=sentence):
            loop(env, Recipe(agent, latest(), warmup=warmup)).init(KEY)
    with pytest.raises(BadInput, match=sentence):
        evaluate(env, agent, {}, KEY)
    host = Host(Zeros, env.specs, "zeros")
    with pytest.raises(BadInput, match=sentence):
        host_loop(host, Recipe(agent, latest())).init(KEY)
    with pytest.raises(BadInput, match=sentence):
        Player(host, agent, 2, 2)({}, KEY, 0)


@pytest.mark.parametrize(
    "shown, sentence",
    [
        (jnp.zeros(3), r"zeros shows float32\[3\] after a step, and its specs say float32\[1\]"),
        (jnp.zeros(1, jnp.int32), r"shows int32\[1\] after a step"),
        ({"a": jnp.zeros(1), "b": jnp.zeros(2)}, r"shows float32\[1\] 'a', float32\[2\] 'b' after a step"),
    ],
)
def test_what_an_environment_shows_fits_the_specs(shown, sentence):
    env = world()
    wrong = replace(env, step=lambda state, action: (state, env.step(state, action)[1]._replace(obs=shown)))
    with pytest.raises(BadInput, match=sentence):
        loop(wrong, Recipe(acting(lambda obs: jnp.int32(0)), latest())).init(KEY)
