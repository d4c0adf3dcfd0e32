"""Simulators of others: what one shows is checked as it comes, what it raises is told, and all of them are closed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapters.gymnasium import Simulated
from jaxrl.core import BadInput, Box, Specs
from jaxrl.host import Host, Hosted, Player, host_loop
from jaxrl.simulators import AGAIN, Step, Watched, number, tried
from tests.small import small

SPECS = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,)), limit=5)
GOOD = np.zeros(3, np.float32)
NAN = np.array([0, np.nan, 0], np.float32)


class Odd:
    """Counts its steps; at those in `at` it does `odd(count)` in place of a step."""

    def __init__(self, odd=None, at=(), first=GOOD, limit=5):
        self.odd, self.at, self.first, self.limit = odd, at, first, limit
        self.count, self.length, self.closed, self.seeds = 0, 0, 0, []

    def reset(self, seed):
        self.seeds.append(seed)
        self.length = 0
        return self.first(seed) if callable(self.first) else self.first

    def step(self, action):
        self.count, self.length = self.count + 1, self.length + 1
        if self.count in self.at:
            return self.odd(self.count)
        return Step(np.full(3, self.count, np.float32), 1.0, False, self.length >= self.limit)

    def close(self):
        self.closed += 1


def raising(error):
    def odd(count):
        raise error

    return odd


def shows(obs=GOOD, reward=1.0, terminated=False):
    return lambda count: Step(obs, reward, terminated, False)


def watched(odd):
    told = []
    return Watched(lambda: odd, SPECS, "environment 0 of 1 (odd)", told.append), told


ACTION = np.zeros(2, np.float32)
FAULTS = {
    "a NaN": (shows(NAN), "step's observation is not finite"),
    "an infinity": (shows(np.array([np.inf, 0, 0], np.float32)), "step's observation is not finite"),
    "another shape": (shows(np.zeros(4, np.float32)), r"float32\[4\], where its specs say float32\[3\]"),
    "another type": (shows(np.zeros(3, np.float64)), r"float64\[3\], where its specs say float32\[3\]"),
    "a tree": (shows({"at": GOOD}), "another structure"),
    "a reward that is NaN": (shows(reward=float("nan")), "step's reward is nan, which is not finite"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_the_specs_do_not_say_is_a_fault_at_once(kind):
    odd, sentence = FAULTS[kind]
    one, told = watched(Odd(odd, at=(3,)))
    one.reset(0)
    one.step(ACTION), one.step(ACTION)
    out = one.step(ACTION)
    assert one.fault.startswith("environment 0 of 1 (odd), step 3: ") and not told
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(one.fault)
    # It stands where it stood, so that what is stored is finite and of the right kind.
    np.testing.assert_array_equal(out.obs, np.full(3, 2, np.float32))
    assert out[1:] == (0.0, False, True)
    count = one.inner.count
    assert one.step(ACTION)[1:] == (0.0, False, True) and one.inner.count == count
    np.testing.assert_array_equal(one.reset(7), np.full(3, 2, np.float32))
    assert 7 not in one.inner.seeds


def test_numbers_behind_the_end_of_a_task_are_not_looked_at():
    one, _ = watched(Odd(shows(NAN, terminated=True), at=(1,)))
    one.reset(0)
    assert one.step(ACTION).terminated and one.fault is None


ERRORS = [
    RuntimeError("the solver failed"),
    BrokenPipeError(),
    SystemExit(3),
    AssertionError("negative\nmass"),
    OSError(5, "gone"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_ends_the_episode_and_is_said_once(error):
    one, told = watched(Odd(raising(error), at=(2, 2 + AGAIN + 1), limit=1000))
    one.reset(0)
    first = one.step(ACTION)
    out = one.step(ACTION)
    assert out.truncated and not out.terminated and out.reward == 0 and one.fault is None
    np.testing.assert_array_equal(out.obs, first.obs)
    assert len(told) == 1 and type(error).__name__ in told[0] and "\n" not in told[0]
    one.reset(1)
    for _ in range(AGAIN + 1):
        one.step(ACTION)
    assert one.fault is None and len(told) == 2  # the next came more than 100 steps later


def test_a_second_exception_within_a_hundred_steps_is_a_fault():
    one, told = watched(Odd(raising(ValueError("bad")), at=(2, 2 + AGAIN), limit=1000))
    one.reset(0)
    for _ in range(1 + AGAIN):
        one.step(ACTION)
    assert one.fault is None
    assert one.step(ACTION).truncated
    assert f"step {2 + AGAIN}: step raised ValueError: bad, twice within {AGAIN} steps" in one.fault and len(told) == 1


def test_an_interrupt_is_not_the_simulators():
    one, _ = watched(Odd(raising(KeyboardInterrupt()), at=(1,)))
    one.reset(0)
    with pytest.raises(KeyboardInterrupt):
        one.step(ACTION)


def test_a_reset_that_fails_is_a_fault():
    one, _ = watched(Odd(first=lambda seed: NAN))
    one.reset(0)
    assert one.fault == "environment 0 of 1 (odd), after 0 steps: reset's observation is not finite."
    one, _ = watched(Odd(first=lambda seed: 1 / 0))
    one.reset(0)
    assert "reset raised ZeroDivisionError: division by zero" in one.fault


@pytest.mark.parametrize(("reward", "value"), [(1, 1.0), (np.float64(2), 2.0), (np.array([3.0]), 3.0), (True, 1.0)])
def test_a_reward_is_one_number_in_whatever_form(reward, value):
    assert number(reward) == value and isinstance(number(reward), float)


@pytest.mark.parametrize("reward", [None, "1", np.zeros(2), [], 1j])
def test_other_rewards_are_refused(reward):
    with pytest.raises(BadInput, match="where one number is asked for"):
        number(reward)


# ----------------------------------------------------------------------------------------------------- tried first


@pytest.mark.parametrize("kind", FAULTS)
def test_a_simulator_is_tried_before_it_is_trained_on(kind):
    odd = Odd(FAULTS[kind][0], at=(4,))
    with pytest.raises(BadInput, match=FAULTS[kind][1]):
        tried(lambda: odd, SPECS, "odd")
    assert odd.closed == 1


def test_a_trial_refuses_an_exception_and_lets_the_others_pass():
    with pytest.raises(BadInput, match="odd, step 6: step raised RuntimeError: no"):
        tried(lambda: Odd(raising(RuntimeError("no")), at=(6,)), SPECS, "odd")
    good = Odd()
    tried(lambda: good, SPECS, "odd")
    assert good.closed == 1 and good.count == 20 and len(good.seeds) == 5


class Older:
    """A gymnasium environment as others write them."""

    def __init__(self, out=None, reset=None):
        self.out, self.begin = out, reset

    def reset(self, *, seed=None):
        return (GOOD, {}) if self.begin is None else self.begin

    def step(self, action):
        return self.out


class Seedless(Older):
    def reset(self):
        return GOOD, {}


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (Seedless(), "reset takes no seed.*reset\\(seed=None\\)"),
        (Older(reset=GOOD), r"reset returned no \(observation, info\)"),
        (Older(out=(GOOD, 1.0, False, {})), "step returned 4 values, where gymnasium's environments return 5"),
        (Older(out=GOOD), "step returned 1 value, where"),
        (Older(out=(GOOD, None, False, False, {})), "step's reward is None"),
        (Older(out=(np.zeros(2), 1.0, False, False, {})), r"float32\[2\], where its specs say float32\[3\]"),
    ],
)
def test_gymnasiums_environments_of_others_are_told_what_they_lack(env, sentence):
    show = lambda obs: np.asarray(obs, np.float32)
    with pytest.raises(BadInput, match=sentence) as error:
        tried(lambda: Simulated(env, show, lambda action: action), SPECS, "odd")
    assert "\n" not in str(error.value)


def test_a_reward_of_shape_one_is_taken():
    env = Older(out=(GOOD, np.array([2.0]), False, False, {}))
    assert Simulated(env, lambda obs: obs, lambda action: action).step(ACTION).reward == 2.0


# -------------------------------------------------------------------------------------------------------- in a run


def a_host(*simulators):
    waiting = list(simulators)
    return Host(lambda: waiting.pop(0), SPECS, "odd")


def test_a_run_goes_on_after_an_exception_and_stops_at_a_fault():
    recipe = small("sac", SPECS)
    odd, well = Odd(shows(NAN), at=(7,)), Odd(raising(RuntimeError("once")), at=(3,))
    host, told = a_host(odd, well), []
    one = host_loop(host, recipe)
    simulators = Hosted(host, recipe, one, 0, told.append)
    run, _ = simulators.chunk(jax.jit(one.init)(jax.random.key(0)), 20)
    assert simulators.fault == "environment 0 of 2 (odd), step 7: step's observation is not finite."
    assert len(told) == 1 and told[0].startswith("environment 1 of 2 (odd), step 3: step raised RuntimeError: once;")
    assert int(run.step) == 6 * one.frames  # the seventh tick's transitions wait to be learned from, as ever
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(run.envs)))
    assert bool(run.envs["end"][-1, 0]) and float(run.envs["discount"][-1, 0]) == 1
    simulators.close()
    assert odd.closed == well.closed == 1


def test_an_evaluation_makes_no_more_simulators_than_the_agent_trains_on():
    agent, made = small("sac", SPECS).agent, [Odd() for _ in range(9)]
    player = Player(a_host(*made), agent, 5, 2, print)
    parts = jax.jit(agent.init)(jax.random.key(0))
    out = player(parts, jax.random.key(1), (1, 2))
    again = player(parts, jax.random.key(1), (1, 2))
    assert out["return"].shape == (5,) and out["length"].tolist() == [5] * 5 == again["length"].tolist()
    assert [len(one.seeds) > 0 for one in made] == [True, True] + [False] * 7
    seeds = made[0].seeds[:3] + made[1].seeds[:2]
    assert len(set(seeds)) == 5  # each episode has a start of its own
    player.close()
    assert [one.closed for one in made[:2]] == [1, 1]


def test_an_episode_with_a_fault_has_no_return():
    agent, told = small("sac", SPECS).agent, []
    player = Player(a_host(Odd(shows(NAN), at=(2,)), Odd()), agent, 2, 2, told.append)
    out = player(jax.jit(agent.init)(jax.random.key(0)), jax.random.key(1), 3)
    assert np.isnan(out["return"][0]) and out["return"][1] == 5 and "no return" in told[0]


def test_what_cannot_be_closed_is_said():
    class Stuck(Odd):
        def close(self):
            raise RuntimeError("stuck")

    one, told = watched(Stuck())
    one.close()
    assert told == ["environment 0 of 1 (odd) could not be closed (RuntimeError: stuck)."]
