"""Wrappers' laws, automatic reset, the registry, `check_env`, and the probes' known answers."""

import subprocess
import sys
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import probes, registry
from envs.core import (
    BadInput,
    Box,
    Discrete,
    Env,
    Specs,
    TimeStep,
    action_repeat,
    batched,
    first,
    frame_stack,
    scale_action,
    time_limit,
)

KEY = jax.random.key(0)
VECTOR = jax.ShapeDtypeStruct((2,), jnp.float32)


def counter(end: int | None = None, discrete: bool = False) -> Env:
    """Counts from a random start: obs [count since the reset, start], reward the count; terminates at `end`."""

    def see(state):
        return jnp.stack([state["n"].astype(jnp.float32), state["start"]])

    def reset(key):
        state = {"n": jnp.int32(0), "start": jax.random.uniform(key), "push": jnp.zeros(1)}
        return state, first(see(state), {"push": state["push"]})

    def step(state, action):
        state = {**state, "n": state["n"] + 1, "push": state["push"] if discrete else jnp.clip(action, -1, 3)}
        over = jnp.bool_(False) if end is None else state["n"] >= end
        return state, TimeStep(
            see(state), state["n"].astype(jnp.float32), over, jnp.bool_(False), {"push": state["push"]}
        )

    return Env(reset, step, Specs(VECTOR, Discrete(2) if discrete else Box((1,), -1.0, 3.0), limit=end), "counter")


def play(env: Env, key, actions):
    """The reset and `T` steps of one environment without automatic reset: (first TimeStep, TimeSteps [T])."""

    def run(key, actions):
        state, out = env.reset(key)
        return out, jax.lax.scan(env.step, state, actions)[1]

    return jax.tree.map(np.asarray, jax.jit(run)(key, actions))


ACTIONS = jnp.linspace(-1, 1, 6)[:, None]

# --------------------------------------------------------------------------------------------------------- wrappers


@pytest.mark.parametrize(
    "wrap",
    [lambda e: action_repeat(e, 1), lambda e: frame_stack(e, 1), lambda e: time_limit(e, 99), scale_action],
    ids=["repeat 1", "stack 1", "a limit never reached", "scale [-1, 1] to itself"],
)
def test_identity_wrappers_change_nothing(wrap):
    plain = replace(counter(end=5), specs=replace(counter(5).specs, action=Box((1,))))
    chex.assert_trees_all_equal(play(wrap(plain), KEY, ACTIONS), play(plain, KEY, ACTIONS))
    assert wrap(plain).specs == plain.specs


def test_time_limit_truncates_and_never_terminates():
    env = time_limit(counter(), 4)
    _, out = play(env, KEY, ACTIONS)
    assert out.truncated.tolist() == [False, False, False, True, True, True]
    assert not out.terminated.any()
    assert env.specs.limit == 4


def test_time_limit_leaves_the_task_its_own_end_and_takes_the_nearer_limit():
    env = time_limit(time_limit(counter(end=4), 4), 7)
    _, out = play(env, KEY, ACTIONS[:4])
    assert out.terminated.tolist() == [False, False, False, True]
    assert not out.truncated.any()
    assert env.specs.limit == 4


def test_time_limit_ends_a_team_that_is_not_all_over():
    def step(state, action):
        return state, TimeStep(jnp.zeros(2), jnp.zeros(2), jnp.array([True, False]), jnp.bool_(False))

    team = Env(lambda key: (jnp.int32(0), first(jnp.zeros(2))), step, Specs(VECTOR, Discrete(2)))
    _, out = play(time_limit(team, 2), KEY, jnp.zeros(2, jnp.int32))
    assert out.truncated.tolist() == [False, True]


def test_action_repeat_sums_rewards_and_multiplies_frames():
    env = action_repeat(time_limit(counter(), 7), 3)
    _, out = play(env, KEY, ACTIONS[:2])
    assert out.reward.tolist() == [1 + 2 + 3, 4 + 5 + 6]
    assert out.obs[:, 0].tolist() == [3, 6]
    assert (env.specs.frames, env.specs.limit) == (3, 3)
    assert action_repeat(env, 2).specs.frames == 6


@pytest.mark.parametrize("end,limit", [(5, 99), (99, 5)], ids=["terminated", "truncated"])
def test_action_repeat_ends_early_with_the_ending_step(end, limit):
    env = action_repeat(time_limit(counter(end=end), limit), 3)
    step = jax.jit(env.step)
    state, _ = step(jax.jit(env.reset)(KEY)[0], ACTIONS[0])
    state, out = step(state, ACTIONS[1])
    assert float(out.reward) == 4 + 5
    assert float(out.obs[0]) == 5
    assert int(state["inner"]["n"]) == int(state["t"]) == 5
    assert (bool(out.terminated), bool(out.truncated)) == (end == 5, limit == 5)


def test_scale_action_maps_onto_the_bounds_and_clips():
    env = scale_action(counter())
    _, out = play(env, KEY, jnp.array([[-1.0], [0.0], [1.0], [5.0]]))
    assert out.info["push"].ravel().tolist() == [-1.0, 1.0, 3.0, 3.0]
    assert (env.specs.action.low, env.specs.action.high) == (-1.0, 1.0)


def test_frame_stack_holds_the_newest_last_and_begins_with_the_first():
    env = frame_stack(counter(), 3)
    began, out = play(env, KEY, ACTIONS[:4])
    start = float(began.obs[1])
    chex.assert_trees_all_equal(began.obs, jnp.array([0, start] * 3))
    np.testing.assert_array_equal(out.obs[:, ::2], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]])
    assert env.specs.observation == jax.ShapeDtypeStruct((6,), jnp.float32)


def test_wrappers_stack_and_vmap_without_a_change_of_types():
    env = frame_stack(action_repeat(time_limit(scale_action(counter()), 4), 2), 2)
    assert envs.check_env(env) == []
    state, _ = jax.eval_shape(jax.vmap(env.reset), jax.random.split(KEY, 3))
    after, out = jax.eval_shape(jax.vmap(env.step), state, jnp.zeros((3, 1)))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert out.obs.shape == (3, 4)


scalar = replace(counter(), specs=replace(counter().specs, observation=jax.ShapeDtypeStruct((), jnp.float32)))
endless_box = replace(counter(), specs=replace(counter().specs, action=Box((1,), -np.inf, np.inf)))


@pytest.mark.parametrize(
    "bad,word",
    [
        (lambda: time_limit(counter(), 0), "time_limit is 0"),
        (lambda: action_repeat(counter(), 0), "repeat is 0"),
        (lambda: frame_stack(counter(), 0), "k is 0"),
        (lambda: frame_stack(time_limit(counter(), 2), 4), "k is 4, but an episode of .* shows 3 observations"),
        (lambda: frame_stack(scalar, 2), "scalar"),
        (lambda: scale_action(counter(discrete=True)), "continuous"),
        (lambda: scale_action(endless_box), "finite"),
        (lambda: batched(counter(), 0), "num_envs is 0"),
        (lambda: batched(counter(), 2, starts=0), "starts is 0"),
        (lambda: probes.probe(6), "probe is 6"),
        (lambda: probes.countdown(0), "limit of countdown is 0"),
    ],
)
def test_bad_arguments_are_named(bad, word):
    with pytest.raises(BadInput, match=word):
        bad()


# ---------------------------------------------------------------------------------------------------------- batched


def step_all(env: Env, num_envs: int, length: int, starts=None, refresh=False):
    """`length` steps of `num_envs` with automatic reset: (TimeSteps [T, N], what to act on next [T, N])."""
    many = batched(env, num_envs, starts)

    def run(key):
        state, _ = many.reset(key)
        state = many.refresh(state, {}, jax.random.key(7)) if refresh else state

        def once(state, _):
            state, out, obs = many.step(state, jnp.zeros((num_envs, 1)))
            return state, (out, obs)

        return jax.lax.scan(once, state, None, length=length)[1]

    return jax.tree.map(np.asarray, jax.jit(run)(KEY))


def test_batched_keeps_the_true_next_observation_past_a_reset():
    out, following = step_all(time_limit(counter(), 3), 2, 6)
    np.testing.assert_array_equal(out.obs[:, 0, 0], [1, 2, 3, 1, 2, 3])
    np.testing.assert_array_equal(following[:, 0, 0], [1, 2, 0, 1, 2, 0])
    starts = following[:, 0, 1]
    assert starts[2] != starts[1] and starts[3] == starts[2]
    np.testing.assert_array_equal(out.info["episode"]["length"][:, 0], [1, 2, 3, 1, 2, 3])
    np.testing.assert_array_equal(out.info["episode"]["return"][:, 0], [1, 3, 6, 1, 3, 6])


def test_each_environment_is_independent_of_how_many_there_are():
    few, many = (step_all(time_limit(counter(), 3), n, 7) for n in (2, 5))
    chex.assert_trees_all_equal(few, jax.tree.map(lambda x: x[:, :2], many))
    assert len(set(many[1][-1, :, 1].tolist())) == 5


def test_a_bank_gives_its_own_starts_and_is_redrawn_by_refresh():
    env = time_limit(counter(), 2)
    many = batched(env, 3, starts=4)

    @jax.jit
    def banks(key):
        state, _ = many.reset(key)
        return state["bank"][1].obs[:, 1], many.refresh(state, {}, jax.random.key(7))["bank"][1].obs[:, 1]

    old, new = map(np.asarray, banks(KEY))
    assert old.shape == new.shape == (4,) and not set(old.tolist()) & set(new.tolist())
    _, following = step_all(env, 3, 8, starts=4, refresh=True)
    assert set(following[1::2, :, 1].ravel().tolist()) <= set(new.tolist())
    assert (following[1::2, :, 0] == 0).all()


def test_a_function_supplies_the_bank():
    env = time_limit(counter(), 2)

    def halves(parts, key):
        state, out = jax.vmap(env.reset)(jax.random.split(key, 3))
        inner = {**state["inner"], "start": jnp.full(3, 0.5)}
        return {**state, "inner": inner}, out._replace(obs=out.obs.at[:, 1].set(0.5))

    _, following = step_all(env, 3, 4, starts=halves, refresh=True)
    assert (following[1:, :, 1] == 0.5).all()


def test_a_limit_of_four_is_worth_ten_where_it_truncates_and_3439_where_it_terminates():
    for terminates, value in ((False, 10.0), (True, 3.439)):
        env = probes.countdown(4, terminates)
        out, _ = step_all(env, 1, 4)
        # The fixed point of v = r + 0.9 * discount * v(next), over one round of the ring.
        onward = ~out.terminated * out.obs[:, 0]
        values = np.linalg.solve(np.eye(4) - 0.9 * onward, out.reward[:, 0])
        np.testing.assert_allclose(values[0], value, rtol=1e-5)
        assert out.truncated[:, 0].tolist() == [False] * 3 + [not terminates]


# --------------------------------------------------------------------------------------------------------- registry


def test_names_need_no_jax():
    code = "import sys, envs; assert 'cartpole' in envs.names() and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_make_repeats_passes_settings_and_names():
    env = envs.make("cartpole", repeat=2, limit=10)
    assert (env.name, env.specs.frames, env.specs.limit) == ("cartpole", 2, 5)
    assert envs.make("probe-4", continuous=True).specs.action == Box((1,))
    assert envs.make("envs.probes:random_walk", n=3).specs.observation.shape == (3,)


def test_default_repeats_are_planets():
    repeats = {
        id: envs.default_repeat(id)
        for id in ("cartpole-swingup", "reacher-easy", "cheetah-run", "walker-walk", "pendulum-swingup", "cartpole")
    }
    assert list(repeats.values()) == [8, 4, 4, 2, 4, 1]
    assert envs.default_repeat("some.module:factory") == 1


@pytest.mark.parametrize(
    "id,settings,word",
    [
        ("cart-pole", {}, "unknown environment 'cart-pole'.*Did you mean 'cartpole'"),
        ("nowhere.at.all:make", {}, "no such module"),
        ("envs.nowhere:make", {}, "no such module"),
        (":make", {}, "no such module"),
        ("envs.probes:prob", {}, "unknown factory.*Did you mean 'probe'"),
        ("envs.probes:SCALAR", {}, "unknown factory"),
        ("envs.registry:names", {}, "returned a list"),
        ("builtins:dict", {}, "no signature"),
        ("cartpole", {"length": 3}, "unexpected keyword argument 'length'.*takes masked, limit"),
        ("cartpole", {"repeat": 0}, "repeat is 0"),
    ],
)
def test_what_make_cannot_make_is_one_sentence(id, settings, word):
    with pytest.raises(BadInput, match=word) as caught:
        envs.make(id, **settings)
    assert "\n" not in str(caught.value)


class Point:
    """An entry point as `importlib.metadata` gives it."""

    value = "package:factory"

    def __init__(self, loaded):
        self.loaded = loaded

    def load(self):
        if self.loaded is None:
            raise ImportError("no package")
        return self.loaded


def test_entry_points_are_found_and_broken_ones_are_named(monkeypatch):
    monkeypatch.setattr(registry, "declared", lambda: {"theirs": Point(counter), "broken": Point(None)})
    assert "theirs" in envs.names()
    assert envs.make("theirs", end=3).specs.limit == 3
    with pytest.raises(BadInput, match="'broken' is declared as package:factory, which does not load"):
        envs.make("broken")


def test_a_module_that_lacks_a_dependency_names_it(tmp_path, monkeypatch):
    (tmp_path / "thirsty_env.py").write_text("import water_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match="needs 'water_that_is_not_there', which is not installed"):
        envs.make("thirsty_env:make")


# -------------------------------------------------------------------------------------------------------- check_env


def broken(**changes) -> Env:
    """The counter, terminating at 5, with one field of each step's TimeStep replaced."""
    env = counter(end=5, discrete=True)

    def step(state, action):
        state, out = env.step(state, action)
        return state, out._replace(**{name: change(out) for name, change in changes.items()})

    return replace(env, step=step)


def with_specs(env: Env, **changes) -> Env:
    return replace(env, specs=replace(env.specs, **changes))


def with_state(before, after) -> Env:
    """An environment whose state is `before` after a reset and `after(state)` after a step."""
    out = first(jnp.zeros(2))
    return Env(lambda key: (before(), out), lambda state, action: (after(state), out), Specs(VECTOR, Discrete(2)))


def impure() -> Env:
    calls = []

    def step(state, action):
        calls.append(1)
        env = counter(end=5, discrete=True)
        state, out = env.step(state, action)
        return state, out._replace(reward=out.reward + len(calls))

    return replace(counter(end=5, discrete=True), step=step)


def raising(state, action):
    raise RuntimeError("out of order\nat length")


VERDICTS = {
    "NaN observation": (broken(obs=lambda o: o.obs / (o.obs[0] < 3)), "observation is not finite, first at step 3"),
    "NaN reward": (broken(reward=lambda o: o.reward * jnp.nan), "reward is not finite, first at step 1"),
    "wrong shape": (broken(obs=lambda o: o.obs[:1]), r"step's observation is float32 \[1\].*says float32 \[2\]"),
    "wrong dtype": (broken(obs=lambda o: o.obs.astype(jnp.int32)), r"step's observation is int32 \[2\]"),
    "wrong structure": (broken(obs=lambda o: {"a": o.obs}), "structure"),
    "reward of a row": (broken(reward=lambda o: o.reward * jnp.ones((1, 1))), r"reward is float32 \[1, 1\]"),
    "integer reward": (broken(reward=lambda o: jnp.int32(1)), r"reward is int32 \[\]"),
    "Python reward": (broken(reward=lambda o: 1.0), "reward'] is a Python float"),
    "integer end": (broken(terminated=lambda o: jnp.int32(0)), r"terminated is int32"),
    "never ends": (with_specs(counter(), limit=None), "no episode ended.*time_limit"),
    "limit ignored": (with_specs(counter(), limit=9), "went on after specs.limit = 9"),
    "ends each step": (broken(terminated=lambda o: o.reward > 0), "ended at its first step"),
    "both flags": (broken(truncated=lambda o: o.terminated), "terminated and truncated at once"),
    "ends mistold": (
        with_specs(counter(end=5), over=lambda obs: jnp.bool_(False)),
        "specs.over says otherwise.*step 5",
    ),
    "weak state": (with_state(lambda: jnp.asarray(0), lambda s: s + jnp.int32(1)), "weakly typed after reset"),
    "state's dtype": (with_state(lambda: jnp.int32(0), lambda s: s * 0.5), r"state is int32 \[\] after reset and fl"),
    "state's shape": (with_state(lambda: jnp.zeros(1), lambda s: jnp.append(s, 0)), r"state is float32 \[1\] after"),
    "state's structure": (with_state(lambda: jnp.zeros(1), lambda s: {"a": s}), "the state has the structure"),
    "impure": (impure(), "step is not pure"),
    "raises": (replace(counter(), step=raising), "step raised RuntimeError: out of order$"),
    "not a pair": (replace(counter(), reset=lambda key: jnp.zeros(2)), "reset returned a .*must return"),
    "infinite actions": (endless_box, "infinite bound"),
    "bounds that do not fit": (with_specs(counter(), action=Box((1,), np.zeros(3), 1.0)), "do not fit its shape"),
    "bounds upside down": (with_specs(counter(), action=Box((1,), 1.0, -1.0)), "not below its high"),
    "no actions": (with_specs(counter(), action=Discrete(0)), "n = 0"),
    "no space": (with_specs(counter(), action=3), "specs.action is a int"),
    "no spec": (with_specs(counter(), observation=jnp.zeros(2)), "must be a jax.ShapeDtypeStruct"),
    "no limit": (with_specs(counter(), limit=0), "specs.limit is 0"),
    "no environment": (3, "it is a int, not an Env"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_check_env_finds(name):
    env, sentence = VERDICTS[name]
    with pytest.raises(BadInput, match=sentence) as caught:
        envs.check(env, 30 if name != "limit ignored" else None)
    assert "\n" not in str(caught.value)


def test_remarks_are_not_faults():
    env = counter(end=5)
    unclipped = replace(env, step=lambda s, a: (lambda s, o: (s, o._replace(reward=o.reward + a[0])))(*env.step(s, a)))
    assert envs.check_env(unclipped) == [
        "note: an action beyond its bounds acts as such: clip it in step, or wrap it in scale_action."
    ]
    envs.check(unclipped)
    many = with_specs(counter(end=5, discrete=True), action=Discrete(1000))
    pays = replace(many, step=lambda s, a: (lambda s, o: (s, o._replace(reward=a * jnp.float32(1))))(*many.step(s, a)))
    assert envs.check_env(pays) == []
    assert envs.check_env(probes.countdown(4)) == ["note: reset shows the same observation for every key."]


def test_without_a_trial_nothing_is_compiled():
    assert envs.check_env(VERDICTS["NaN reward"][0], steps=0) == []
    assert envs.check_env(VERDICTS["wrong shape"][0], steps=0)


# ----------------------------------------------------------------------------------------------------------- probes


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("n", range(1, 6))
def test_the_best_action_earns_a_probes_known_value(n, continuous):
    env = probes.probe(n, continuous)
    views, values = probes.known_values(n, 0.9)
    grid = jnp.linspace(-1, 1, 5)[:, None] if continuous else jnp.arange(2)

    @jax.jit
    def best(view):
        """The largest discounted return over all actions held to the end."""
        first_step = jax.vmap(lambda a: env.step(view, a))(grid)
        states, one = first_step
        two = jax.vmap(env.step)(states, grid)[1]
        return (one.reward + 0.9 * one.discount * two.reward).max(), one.terminated

    for view, value in zip(views, values):
        found, over = best(view)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        assert over.all() == (n != 3 or view[0] == 1)
    starts = jax.vmap(env.reset)(jax.random.split(KEY, 6))[1].obs
    assert set(starts.ravel().tolist()) == set(views.ravel().tolist()) - ({1.0} if n == 3 else set())


def test_the_wrong_action_costs():
    assert float(probes.probe(4).step(jnp.zeros(1), jnp.int32(0))[1].reward) == -1
    assert float(probes.probe(5).step(-jnp.ones(1), jnp.int32(1))[1].reward) == -1
    assert float(probes.probe(5, True).step(-jnp.ones(1), jnp.array([0.5]))[1].reward) == 0


def test_the_random_walks_values_are_its_chances_of_leaving_on_the_right():
    def returns(key):
        """1 where the walk from each place exits on the right."""

        def from_place(at, key):
            env = probes.random_walk(5)
            state, _ = env.reset(key)
            state["inner"]["at"] = at

            def go(carry):
                state, _ = carry
                return env.step(state, jnp.int32(0))

            state, out = jax.lax.while_loop(lambda c: ~c[1].end, go, env.step(state, jnp.int32(0)))
            return out.reward

        return jax.vmap(from_place)(jnp.arange(5), jax.random.split(key, 5))

    mean = jax.jit(lambda: jax.vmap(returns)(jax.random.split(KEY, 2000)).mean(axis=0))()
    # Standard error at most 0.5 / sqrt(2000) = 0.011.
    np.testing.assert_allclose(mean, jnp.arange(1, 6) / 6, atol=0.04)


def test_the_random_walk_begins_in_the_middle_and_shows_nothing_past_an_exit():
    began, out = play(probes.random_walk(1), KEY, jnp.zeros(1, jnp.int32))
    assert began.obs.tolist() == [1] and out.obs.tolist() == [[0]] and out.terminated.all()
    assert probes.random_walk(5).reset(KEY)[1].obs.argmax() == 2


def test_the_series_rewards_its_next_value_and_changes_its_regime():
    env = probes.drifting_series(lags=3, regime=200, noise=0.0, limit=1000)
    began, out = play(env, KEY, jnp.zeros(1000, jnp.int32))
    chex.assert_trees_all_equal(out.obs[:, -1], out.reward)
    chex.assert_trees_all_equal(out.obs[3:, 0], out.reward[1:-2])
    assert out.truncated.tolist() == [False] * 999 + [True]
    regimes = [out.reward[out.info["regime"] == r] for r in range(5)]
    levels = np.array([(x.max() + x.min()) / 2 for x in regimes])
    assert np.abs(np.diff(levels)).min() > 0.05
    # A wave x about its level obeys x[t-1] + x[t+1] = 2 cos(w) x[t] with one w, up to the very end of its regime.
    for x, level in zip(regimes, levels):
        x = x - level
        w = (x[:-2] + x[2:]) @ x[1:-1] / (x[1:-1] @ x[1:-1])
        np.testing.assert_allclose(x[:-2] + x[2:], w * x[1:-1], atol=0.1)
    assert not (began.obs == 0).any()
    assert probes.drifting_series(limit=None).specs.limit is None
