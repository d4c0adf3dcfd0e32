"""What of a tick's transitions has to be finite, and where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.transitions import any_bad, checked, locate

T, N = 3, 2
BAD = [np.nan, np.inf, -np.inf]


def tick(**more):
    """(transitions, last) of a tick without a fault; observations are a dict with an array without numbers in it."""
    obs = lambda *shape: {"a": np.ones((*shape, 2), np.float32), "none": np.ones((*shape, 0), np.float32)}
    ones = lambda: np.ones((T, N), np.float32)
    transitions = {"obs": obs(T, N), "next_obs": obs(T, N), "reward": ones(), "discount": ones()}
    transitions |= {
        "action": np.zeros((T, N), np.int32),
        "end": np.zeros((T, N), bool),
        "extras": {"x": np.nan * ones()},
    }
    return {**transitions, **more}, obs(N)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(("field", "after"), [("obs/a", 1), ("next_obs/a", 2), ("reward", 2), ("action", 1)])
def test_the_field_the_environment_and_the_step_are_named(field, after, value):
    transitions, last = tick(action=np.zeros((T, N, 2), np.float32))
    assert not any_bad(transitions, last) and locate(transitions, last, 100, 8) is None
    leaf = transitions
    for name in field.split("/"):
        leaf = leaf[name]
    leaf[1, 1] = value
    assert any_bad(transitions, last) and jax.jit(any_bad)(transitions, last)
    assert locate(transitions, last, 100, 8)[:3] == (field, 1, 100 + 8 * after)
    assert locate(*jax.tree.map(jnp.asarray, (transitions, last)), 100, 8)[:3] == (field, 1, 100 + 8 * after)


def test_what_follows_a_discount_of_nothing_may_be_anything():
    transitions, last = tick()
    transitions["next_obs"]["a"][1, 1] = np.nan
    transitions["discount"][1, 1] = 0
    assert not any_bad(transitions, last)
    transitions["discount"][1] = 0
    transitions["next_obs"]["a"][1, 0] = np.inf
    assert not any_bad(transitions, last)
    transitions["next_obs"]["a"][2, 0] = np.inf
    assert locate(transitions, last, 0, 1)[:3] == ("next_obs/a", 0, 3)


def test_of_a_team_one_that_goes_on_is_enough_to_look():
    transitions, last = tick(discount=np.ones((T, N, 2), np.float32))
    transitions["next_obs"]["a"][0, 0] = np.nan
    transitions["discount"][0, 0] = [0, 1]
    assert any_bad(transitions, last)
    transitions["discount"][0, 0] = 0
    assert not any_bad(transitions, last)


def test_a_discount_that_is_no_number_is_seen():
    transitions, last = tick()
    transitions["discount"][0, 1] = np.nan
    assert locate(transitions, last, 0, 1)[:3] == ("discount", 1, 1)


def test_the_start_of_the_next_episode_is_looked_at():
    transitions, last = tick()
    last["a"][1] = np.nan
    assert locate(transitions, last, 6, 2)[:3] == ("obs/a", 1, 12)


def test_the_first_in_time_is_named_and_of_equals_the_cause():
    transitions, last = tick()
    transitions["reward"][1, 0] = transitions["next_obs"]["a"][1, 1, 0] = transitions["obs"]["a"][2, 1, 0] = np.nan
    assert locate(transitions, last, 0, 1)[:3] == ("next_obs/a", 1, 2)
    transitions["reward"][0, 0] = np.nan
    assert locate(transitions, last, 0, 1)[:3] == ("reward", 0, 1)


def test_pictures_and_counts_cost_nothing():
    transitions, last = tick(obs=np.zeros((T, N, 4, 4, 3), np.uint8), next_obs=np.zeros((T, N, 4, 4, 3), np.uint8))
    assert {path for path, *_ in checked(transitions, last["a"].astype(np.uint8))} == {"reward", "discount"}
