"""Checkpoints that are called good are good, and the divergence of a seed is its own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.core import Agent, Box, Env, Recipe, Specs, TimeStep, first, minimise, stateless
from jaxrl.loop import loop
from jaxrl.run import Diverged, checkpoint, execute, load
from jaxrl.run.evaluation import returns, saved
from jaxrl.sources import uniform
from tests.walking import ABOUT, linear, rows, settings, walk

FAR = 2.4  # a place that some episodes of the world come to
SAME = lambda value, x: value


def world(obs=SAME, begins=SAME, reward=SAME, ends=False) -> Env:
    """A walk, begun anew after 5 steps, whose observations are a dict; past FAR it terminates if `ends`.

    Args:
        obs, begins, reward: functions (value, place) -> value, of what a step shows, a reset shows, and a step pays.
    """

    def reset(key):
        x = jax.random.normal(key, (2,))
        return {"x": x, "t": jnp.int32(0), "key": key}, first({"place": begins(x, x), "picture": jnp.uint8([3])})

    def step(state, action):
        key, noise = jax.random.split(state["key"])
        x, t = 0.9 * state["x"] + 0.5 * jax.random.normal(noise, (2,)), state["t"] + 1
        seen = {"place": obs(x, x), "picture": jnp.uint8([3])}
        over = (x[0] > FAR) & ends
        return {"x": x, "t": t, "key": key}, TimeStep(seen, reward(jnp.float32(0), x), over, (t >= 5) & ~over)

    specs = Specs(
        {"place": jax.ShapeDtypeStruct((2,), jnp.float32), "picture": jax.ShapeDtypeStruct((1,), jnp.uint8)},
        Box((2,)),
        limit=5,
    )
    return Env(reset, step, specs, "world")


def spoil(value, x):
    return jnp.where(x[0] > FAR, jnp.nan, value)


def watching(act=None) -> Recipe:
    """An agent that learns nothing from what it sees; its replay is never drawn from."""
    idle = lambda parts, memory, obs, ctx, explore: (jax.random.normal(ctx.key, (2,)), memory, {})
    rules = {"count": stateless(lambda parts, batch, ctx: ({"n": parts["n"] + 1}, {}), "n")}
    agent = Agent(lambda key: {"n": jnp.float32(0)}, act or idle, rules)
    return Recipe(agent, uniform(64, 4), num_envs=3, unroll=2, ratio=0)


def looking(parts, memory, obs, ctx, explore):
    return jnp.where(obs["place"][0] > FAR, jnp.inf, 0) * jnp.ones(2), memory, {}


def first_place(env, recipe, field):
    """(environment, step) of the first number of a field that is not finite, found tick by tick in numpy."""
    one = loop(env, recipe)
    collect, run = jax.jit(one.collect), jax.jit(one.init)(jax.random.key(0))
    while True:
        began = int(run.step)
        run, transitions = collect(run)
        found = transitions
        for name in field.split("/"):
            found = found[name]
        bad = np.argwhere(~np.isfinite(np.asarray(found)).reshape(recipe.unroll, recipe.num_envs, -1).all(-1))
        if bad.size:
            t, i = bad[0]
            return i, began + recipe.num_envs * (t + (field.split("/")[0] in ("next_obs", "reward")))


@pytest.mark.parametrize(
    ("env", "act", "field", "who"),
    [
        (world(obs=spoil), None, "next_obs/place", "the environment gave it, .*: mend the environment, then --resume"),
        (world(begins=spoil), None, "obs/place", "the environment gave it"),
        (world(), looking, "action", "the agent gave it, .*: lower its learning rate"),
    ],
    ids=["a step's observation", "a reset's observation", "an action"],
)
def test_the_run_stops_at_the_chunk_and_names_the_place(tmp_path, env, act, field, who):
    """Nothing is ever drawn from this replay: it is what comes in that is looked at."""
    recipe = watching(act)
    environment, step = first_place(env, recipe, field)
    sentence = f"^'{field}' of environment {environment} is not finite at step {step}: {who}"
    with pytest.raises(Diverged, match=sentence) as error:
        execute(env, recipe, tmp_path, settings(600, chunk=30), ABOUT)
    steps = [int(path.name) for path in checkpoint.published(tmp_path / "checkpoints")]
    assert max(steps) <= step <= max(steps) + 30  # never called good, not even where a chunk ends with it
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env", "place"),
    [
        (world(reward=lambda value, x: jnp.where(x[0] > FAR, 1e22, value)), r"'reward' of environment \d is 1e\+22"),
        (world(obs=lambda value, x: jnp.where(x[0] > FAR, -3e19, value)), r"'next_obs/place' .* is -3e\+19"),
        (world(begins=lambda value, x: jnp.where(x[0] > FAR, 1e38, value)), r"'obs/place' of environment \d is 1e\+38"),
    ],
    ids=["a reward", "a step's observation", "a reset's observation"],
)
def test_what_cannot_be_squared_is_named_where_it_enters(tmp_path, env, place):
    with pytest.raises(Diverged, match=rf"^{place}, too large to be squared, at step \d+: the environment gave it"):
        execute(env, watching(), tmp_path, settings(600, chunk=30), ABOUT)


def test_moments_of_an_optimiser_that_overflow_are_found(tmp_path):
    """A gradient of 1e20 is finite, its square is not, and Adam would never move that parameter again."""
    steep = lambda live, frozen, batch, key: (1e20 * live["w"].sum(), {})
    made = linear()
    init = lambda key: {**made.agent.init(key), "w": jnp.zeros(3)}
    agent = replace(made.agent, init=init, rules={"steep": minimise(steep, optax.adam(0.1), "w")})
    with pytest.raises(Diverged, match=r"^the state of rule 'steep' is not finite at step 2: rule 'steep' wrote it"):
        execute(walk(), replace(made, agent=agent), tmp_path, settings(), ABOUT)


def test_the_end_of_a_simulation_that_blew_up_is_no_fault(tmp_path):
    line = execute(world(obs=spoil, ends=True), watching(), tmp_path, settings(60, chunk=30), ABOUT)
    assert line["finished"] and line["diverged"] == []
    assert not any("not_finite" in name for row in rows(tmp_path) for name in row)


def test_with_the_environment_mended_a_run_goes_on_as_if_nothing_had_been(tmp_path):
    """The transition is not in the checkpoint that is called the last good one."""
    late = lambda value, x: jnp.where((x[0] > 0.92) & (x[0] < 0.96), jnp.nan, value)
    spoilt, whole = walk(), execute(walk(), linear(), tmp_path / "whole", settings(60), ABOUT)

    def step(state, action):
        state, out = walk().step(state, action)
        return state, out._replace(obs=late(out.obs, out.obs))

    run = tmp_path / "run"
    with pytest.raises(Diverged, match=r"the last good checkpoint is .*--resume --at STEP \(there are"):
        execute(replace(spoilt, step=step), linear(), run, settings(60), ABOUT)
    line = execute(walk(), linear(), run, settings(60, resume=True), ABOUT)
    assert line["parameters_sha256"] == whole["parameters_sha256"] and rows(run) == rows(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------ one seed of many

SEEDS = (0, 1, 2)
CHANCE = {seed: float(jax.random.uniform(jax.random.split(jax.random.key(seed), 3)[0])) for seed in SEEDS}
GONE = min(CHANCE, key=CHANCE.get)  # the seed that diverges


def fused(bound: float) -> Recipe:
    """The linear learner; seeds that drew less than the bound spoil a part at their eighth update (step 16)."""
    recipe = linear()

    def shrink(parts, batch, ctx):
        spent = (parts["chance"] < bound) & (parts["scale"] < 0.5)
        return {"scale": jnp.where(spent, jnp.nan, 0.9 * parts["scale"])}, {"scale": parts["scale"]}

    init = lambda key: {**recipe.agent.init(key), "chance": jax.random.uniform(key)}
    rules = {**recipe.agent.rules, "shrink": stateless(shrink, "scale", "chance")}
    return replace(recipe, agent=Agent(init, recipe.agent.act, rules))


BOUND = sum(sorted(CHANCE.values())[:2]) / 2


def three(path, bound=BOUND, steps=40, **more):
    return execute(walk(), fused(bound), path, settings(steps, seeds=3, **more), ABOUT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs of three seeds, without a divergence and with one: (path, path, last line of the second)."""
    folder = tmp_path_factory.mktemp("seeds")
    three(folder / "sound", bound=-1.0)
    return folder / "sound", folder / "one", three(folder / "one")


def parts_of(path, bound=BOUND):
    return saved(path, lambda about: (walk(), fused(bound))).parts


def test_the_other_seeds_are_bit_for_bit_what_they_would_be(whole):
    sound, one, line = whole
    assert line["diverged"] == [GONE] and line["finished"] and np.isfinite(line["return_iqm"])
    left = [SEEDS.index(seed) for seed in SEEDS if seed != GONE]
    for mine, theirs in zip(jax.tree.leaves(parts_of(one)), jax.tree.leaves(parts_of(sound))):
        np.testing.assert_array_equal(mine[np.array(left)], theirs[np.array(left)])
    others = lambda path: [row for row in rows(path) if row["seed"] != GONE]
    assert others(one) == others(sound)


def test_the_one_that_diverged_stays_at_its_last_finite_parts(whole):
    parts = jax.tree.map(lambda x: x[SEEDS.index(GONE)], parts_of(whole[1]))
    np.testing.assert_allclose(parts["scale"], 0.9**5, rtol=1e-6)  # of step 10
    assert np.isfinite(parts["actor"]).all()
    assert [row["step"] for row in rows(whole[1]) if row["seed"] == GONE] == [10]


def test_it_is_said_once_and_stays_lost_when_continued(whole, tmp_path, capsys):
    three(tmp_path, steps=20)
    said = capsys.readouterr().err
    sentence = f"part 'scale' is not finite at step 16 (seed {GONE}): rule 'shrink' wrote it"
    assert said.count(sentence) == 1 and f"seed {GONE} stays as it was at step 10, and the other seeds go on" in said
    line = three(tmp_path, resume=True)
    said = capsys.readouterr().err
    assert sentence not in said and f"Seed {GONE} diverged" in said
    assert line["parameters_sha256"] == whole[2]["parameters_sha256"] and line["diverged"] == [GONE]
    assert line["return_iqm"] == whole[2]["return_iqm"] and rows(tmp_path) == rows(whole[1])


def test_its_policy_is_asked_for_by_name_alone(whole, capsys):
    build = lambda about: (walk(), fused(BOUND))
    run = saved(whole[1], build)
    assert returns(run, 2).shape == (2, 2)
    first = load(whole[1], build)
    np.testing.assert_array_equal(first.parts["actor"], run.parts["actor"][run.rows()[0]])
    assert SEEDS[run.rows()[0]] != GONE and "diverged" not in capsys.readouterr().err
    assert np.isfinite(load(whole[1], build, seed=GONE).parts["scale"])
    assert f"Seed {GONE} of {whole[1]} diverged: this is its policy of step 10." in capsys.readouterr().err


def test_the_last_one_ends_the_run(tmp_path, capsys):
    with pytest.raises(Diverged, match=r"^no seed is left: part 'scale' .*\(seed 2\): rule 'shrink' wrote it"):
        three(tmp_path, bound=2.0)
    said = capsys.readouterr().err
    assert all(f"(seed {seed})" in said for seed in (0, 1)) and "(seed 2)" not in said


def test_side_by_side_and_of_an_environment(tmp_path, monkeypatch, capsys):
    """Seeds of one vmapped program; what spoils one is a reward, which never reaches the parts."""
    for module in ("jaxrl.loop", "jaxrl.run.programs", "jaxrl.run.driver"):
        monkeypatch.setattr(f"{module}.layout", lambda: "vmap")
    rare = lambda value, x: jnp.where(x[0] > 1.8, jnp.nan, value)
    line = execute(world(reward=rare), watching(), tmp_path, settings(60, chunk=12, seeds=4), ABOUT)
    assert 0 < len(line["diverged"]) < 4
    assert capsys.readouterr().err.count("'reward' of environment") == len(line["diverged"])
    whole = [[row["step"] for row in rows(tmp_path) if row["seed"] == seed] for seed in range(4)]
    assert [steps == [12, 24, 36, 48, 60] for steps in whole] == [seed not in line["diverged"] for seed in range(4)]
