"""Other packages' environments: names, sentences, true ends, fixed types; an Env as gymnasium's vector environment."""

import sys
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from numpy.testing import assert_array_equal

import envs
from envs import adapters
from envs.adapters.brax import adapted
from envs.adapters.gymnasium import to_gymnasium
from envs.adapters.typed import typed
from envs.core import Box, Discrete, Env, Specs, TimeStep, first, time_limit
from envs.probes import countdown
from experiments.cli import environment
from jaxrl.core import BadInput

KEY = jax.random.key(2)


# ------------------------------------------------------------------------------------------------ names and sentences


@pytest.mark.parametrize(
    ("id", "package", "sentence"),
    [
        ("brax:ant", "brax", r"needs the package 'brax' .*: pip install jaxrl\."),
        ("playground:CheetahRun", "mujoco_playground", r"pip install 'jaxrl\[playground\]'"),
        ("gymnax:Breakout-MinAtar", "gymnax", r"pip install 'jaxrl\[gymnax\]'"),
        ("craftax:Craftax-Symbolic-v1", "craftax", r"pip install 'jaxrl\[craftax\]'"),
        ("gymnasium:Pendulum-v1", "gymnasium", r"pip install 'jaxrl\[gymnasium\]'"),
        ("dm_control:cartpole-swingup", "dm_control", r"pip install 'jaxrl\[dm_control\]'"),
    ],
)
def test_a_missing_package_is_one_sentence_with_the_extra_to_install(monkeypatch, id, package, sentence):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput, match=sentence) as error:
        environment(id, None)
    assert id in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("craftax:Craftax-Symbolic-v2", "unknown craftax environment.*Did you mean 'Craftax-Symbolic-v1'"),
        ("gymnasium:CartPol-v1", "unknown gymnasium environment.*Did you mean 'CartPole-v1'"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(id, sentence):
    with pytest.raises(BadInput, match=sentence):
        environment(id, None)


def test_host_environments_are_no_pure_ones():
    with pytest.raises(BadInput, match="runs on the host, outside jit, and is no pure Env"):
        envs.make("gymnasium:Pendulum-v1")
    with pytest.raises(BadInput, match=r"unknown package of host environments 'gymnasum'.*Did you mean 'gymnasium'"):
        adapters.host("gymnasum:Pendulum-v1")
    with pytest.raises(BadInput, match=r"pixels is 48.*leave --pixels away"):
        environment("gymnasium:Pendulum-v1", None, pixels=48)
    with pytest.raises(BadInput, match="action repeat is 0"):
        adapters.host("gymnasium:Pendulum-v1", 0)
    with pytest.raises(BadInput, match=r"'gymnasium:Pendulum-v1' cannot be made: .*gravitas"):
        adapters.host("gymnasium:Pendulum-v1", gravitas=3)
    assert envs.default_repeat("dm_control:cartpole-swingup") == envs.default_repeat("cartpole-swingup") == 8


# ------------------------------------------------------------------------------------------------- in: brax, Playground


@struct.dataclass
class Body:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict


class Braxlike:
    """Counts by its action; over past 2.5. Like brax's, its step changes the metrics that it is given."""

    action_size = 1

    def reset(self, key):
        return Body(jnp.zeros(1), jnp.zeros(()), jnp.zeros(()), {"speed": jnp.zeros(())})

    def step(self, state, action):
        state.metrics.update(speed=action[0])
        obs = state.obs + action
        return state.replace(obs=obs, reward=obs[0], done=(obs[0] > 2.5).astype(jnp.float32))


def rollout(env: Env, actions) -> TimeStep:
    """The TimeSteps [T] of a sequence of actions from one start, past any end."""
    return jax.lax.scan(env.step, env.reset(KEY)[0], actions)[1]


def test_braxs_done_terminates_and_our_limit_truncates():
    env = adapted(Braxlike(), "brax:like", 3)
    assert envs.check_env(env, 0) == [] and env.specs.limit == 3
    out = rollout(env, jnp.full((3, 1), 5.0))  # clipped to 1
    assert_array_equal(out.obs[:, 0], [1, 2, 3])
    assert out.terminated.tolist() == [False, False, True] and out.truncated.tolist() == [False] * 3
    out = rollout(env, jnp.full((3, 1), 0.5))
    assert out.terminated.tolist() == [False] * 3 and out.truncated.tolist() == [False, False, True]
    state, _ = env.reset(KEY)
    env.step(state, jnp.ones(1))
    assert float(state["inner"].metrics["speed"]) == 0


# ------------------------------------------------------------------------------------------------- in: gymnax, Craftax


@struct.dataclass
class Params:
    max_steps_in_episode: int = 3


@struct.dataclass
class Place:
    x: int
    time: int


class Gymnaxlike:
    """Walks by its action on a [2, 1] board; at 3 the task is over. `done` in the manner of version 0.0.9."""

    def action_space(self, params):
        return SimpleNamespace(n=2)

    def reset_env(self, key, params):
        return jnp.zeros((2, 1), bool), Place(0, 0)

    def step_env(self, key, state, action, params):
        state = Place(state.x + action, state.time + 1)
        return jnp.ones((2, 1), bool), state, state.x * 1.0, self.is_terminal(state, params), {}

    def is_terminal(self, state, params):
        return (state.x >= 3) | (state.time >= params.max_steps_in_episode)


class Gymnaxlike1(Gymnaxlike):
    """In the manner of 1.x: `step_env`'s flag is termination alone."""

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode

    def is_terminal(self, state, params):
        return state.x >= 3


@pytest.mark.parametrize("raw", [Gymnaxlike, Gymnaxlike1])
def test_gymnaxs_ends_are_taken_apart_in_both_versions(monkeypatch, raw):
    made = lambda name: (raw(), Params())
    monkeypatch.setitem(sys.modules, "gymnax", SimpleNamespace(registered_envs=["Walk-v0"], make=made))
    env = envs.make("gymnax:Walk-v0")
    assert env.specs == Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2), limit=3)
    assert envs.check_env(env, 0) == []  # begun as Python numbers, the state has typed arrays
    for actions, terminated in (([1, 1, 1], True), ([0, 1, 1], False)):
        out = rollout(env, jnp.array(actions, jnp.int32))
        assert out.terminated.tolist() == [False, False, terminated]
        assert out.truncated.tolist() == [False, False, not terminated]
    assert env.reset(KEY)[0]["inner"].raw.x.dtype == jnp.int32
    assert envs.make("gymnax:Walk-v0", flat=False, limit=2).specs.observation.shape == (2, 1)
    with pytest.raises(BadInput, match="Did you mean 'Walk-v0'"):
        envs.make("gymnax:Walk-v1")
    with pytest.raises(BadInput, match=r"'gymnax:Walk-v0' cannot be made: .*colour"):
        envs.make("gymnax:Walk-v0", colour=1)


def test_a_state_that_grows_is_refused():
    step = lambda state, action: (jnp.append(state, action), first(jnp.zeros(1)))
    env = Env(lambda key: (jnp.zeros(1), first(jnp.zeros(1))), step, Specs(None, Box((1,))), "tape")
    with pytest.raises(BadInput, match="tape changes the structure or a shape"):
        typed(env)


# ----------------------------------------------------------------------------------------------------- in: gymnasium


def test_a_simulator_is_gymnasiums_own():
    host = adapters.host("gymnasium:Pendulum-v1")
    ours, theirs = host.simulator(), gymnasium.make("Pendulum-v1")
    assert (host.specs.limit, host.specs.action) == (200, Box((1,)))
    assert_array_equal(ours.reset(7), theirs.reset(seed=7)[0])
    for action in (-1.0, 0.25, 3.0):  # half of theirs, and clipped
        out = ours.step(np.array([action], np.float32))
        obs, reward, *_ = theirs.step(np.clip(np.array([2 * action], np.float32), -2, 2))
        assert_array_equal(out.obs, obs)
        assert out.reward == reward and out.obs.dtype == np.float32


def test_a_repeat_on_the_host_adds_up_and_stops_at_the_end():
    host = adapters.host("gymnasium:CartPole-v1", 4)
    assert (host.specs.frames, host.specs.limit) == (4, 125)
    simulator, rewards = host.simulator(), []
    simulator.reset(0)
    while not rewards or not out.terminated:
        out = simulator.step(np.int32(1))
        rewards.append(out.reward)
    plain = gymnasium.make("CartPole-v1")
    plain.reset(seed=0)
    length = next(t for t in range(1, 100) if plain.step(1)[2])
    assert sum(rewards) == length and set(rewards[:-1]) <= {4.0}


# ---------------------------------------------------------------------------------------------------- out: gymnasium


def drift() -> Env:
    """A place that drifts by the action from a random start, 4 steps long."""

    def reset(key):
        x = jax.random.uniform(key, (2,))
        return x, first(x)

    def step(x, action):
        x = x + action
        return x, TimeStep(x, x.sum(), jnp.bool_(False), jnp.bool_(False))

    return time_limit(Env(reset, step, Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((2,), -2.0, 1.0))), 4)


def test_an_env_is_a_vector_environment_of_gymnasium():
    many = to_gymnasium(drift(), 3)
    assert many.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and many.num_envs == 3
    assert many.single_action_space == gymnasium.spaces.Box(-2, 1, (2,), np.float32)
    many = RecordEpisodeStatistics(many)
    obs, info = many.reset(seed=5)
    assert obs in many.observation_space and info == {}
    start, kept = obs, obs.copy()
    many.action_space.seed(0)
    for t in range(1, 5):
        action = many.action_space.sample()
        assert action in many.action_space
        before, (obs, reward, terminated, truncated, info) = obs, many.step(action)
        assert obs in many.observation_space and reward.shape == (3,) and not terminated.any()
        assert truncated.tolist() == [t == 4] * 3 and ("final_obs" in info) == (t == 4)
    assert_array_equal(start, kept)  # what was returned is the caller's
    final = np.stack(list(info["final_obs"]))
    np.testing.assert_allclose(final, before + action, rtol=1e-6)
    np.testing.assert_allclose(reward, final.sum(axis=1), rtol=1e-6)
    assert (obs != final).all() and (np.abs(obs) <= 1).all() and info["_final_obs"].all()
    assert_array_equal(info["episode"]["l"], [4, 4, 4])
    np.testing.assert_allclose(info["episode"]["r"], info["final_info"]["episode"]["r"], rtol=1e-5)


def test_its_seeds_repeat_and_it_compiles_once():
    many = to_gymnasium(drift(), 2, seed=1)
    begun = [many.reset(seed=seed)[0] for seed in (3, None, 3, None, 4)]
    assert_array_equal(begun[0], begun[2])
    assert_array_equal(begun[1], begun[3])
    assert len({x.tobytes() for x in begun}) == 3 and (begun[0][0] != begun[0][1]).all()
    for _ in range(9):
        many.step(np.zeros((2, 2)))
    assert many._step._cache_size() == many._reset._cache_size() == 1


def test_what_gymnasium_cannot_hold_is_a_sentence():
    with pytest.raises(BadInput, match="step came before reset"):
        to_gymnasium(countdown(3)).step(np.zeros(1, np.int32))
    with pytest.raises(BadInput, match="reset_mask"):
        to_gymnasium(countdown(3)).reset(options={"reset_mask": np.ones(1, bool)})
    team = Env(
        drift().reset, lambda s, a: (s, TimeStep(a, jnp.ones(2), jnp.bool_(False), jnp.bool_(False))), drift().specs
    )
    with pytest.raises(BadInput, match="rewards several agents"):
        to_gymnasium(team)
    with pytest.raises(BadInput, match="num_envs is 0"):
        to_gymnasium(drift(), 0)
