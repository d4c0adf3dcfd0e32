"""Actions that are integers in a range: each has an equal share of what agents act in."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapters.gymnasium import _actions as of_gymnasium
from envs.adapters.keyed import _actions as of_keyed
from envs.adapters.simulators import scaled
from envs.core import Box, Env, Specs, TimeStep, first, scale_action
from experiments.cli import environment
from jaxrl.agents import sac
from jaxrl.core import BadInput

EVEN = np.linspace(-1, 1, 4001)


def taking(box: Box) -> Env:
    """An environment that shows the action that it was given."""
    reset = lambda key: ((), first(jnp.zeros(box.shape)))

    def step(state, action):
        shown = jnp.asarray(action, jnp.float32)
        return state, TimeStep(shown, jnp.float32(0), jnp.bool_(False), jnp.bool_(False))

    return Env(reset, step, Specs(jax.ShapeDtypeStruct(box.shape, jnp.float32), box, limit=3), "taking")


def shares(values) -> np.ndarray:
    return np.unique(values, return_counts=True)[1] / len(values)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (-2, 2), (5, 6)])
def test_simulators_get_each_integer_as_often(low, high):
    _, scale = scaled("test", [low], [high], whole=True)
    found = np.array([scale(np.array([a]))[0] for a in EVEN])
    assert set(found) == set(range(low, high + 1))
    np.testing.assert_allclose(shares(found), 1 / (high - low + 1), atol=0.001)


def test_simulators_keep_to_the_bounds_beyond_the_ends():
    _, scale = scaled("test", [0, -1], [3, 7], whole=True)
    assert scale(np.array([5.0, 5.0])).tolist() == [3, 7] and scale(np.array([-5.0, -5.0])).tolist() == [0, -1]


def test_gymnasiums_integers_are_integers():
    spaces = pytest.importorskip("gymnasium").spaces
    box, scale = of_gymnasium(spaces, spaces.Box(0, 3, (2,), np.int64), "test")
    assert box.shape == (2,) and scale(np.array([1.0, -1.0])).tolist() == [3, 0]
    assert scale(np.array([0.0, 0.49])).dtype == np.int64 and scale(np.array([0.01, 0.49])).tolist() == [2, 2]
    _, scale = of_gymnasium(spaces, spaces.Box(0, 3, (1,), np.float32), "test")
    assert scale(np.array([0.5])) == pytest.approx(2.25)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
def test_our_own_integer_boxes_are_scaled_evenly(dtype):
    env = scale_action(taking(Box((1,), 0, 3, dtype)))
    assert env.specs.action.dtype == jnp.float32
    shown = jax.vmap(lambda a: env.step((), a[None])[1].obs[0])(jnp.asarray(EVEN, jnp.float32))
    assert set(np.asarray(shown)) == {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_allclose(shares(np.asarray(shown)), 0.25, atol=0.001)


def test_boxes_of_integers_are_sampled_over_all_their_values():
    draws = jax.vmap(Box((2,), jnp.array([0, -3]), jnp.array([3, -2]), jnp.int32).sample)(
        jax.random.split(jax.random.key(0), 400)
    )
    assert draws.dtype == jnp.int32
    assert set(np.asarray(draws[:, 0])) == {0, 1, 2, 3} and set(np.asarray(draws[:, 1])) == {-3, -2}


def test_integers_between_minus_one_and_one_are_scaled_too(monkeypatch):
    monkeypatch.setattr("envs.make", lambda name, repeat: taking(Box((1,), -1, 1, jnp.int32)))
    env, _ = environment("tests.unit:taking", 1, tried=True)
    assert env.specs.action.dtype == jnp.float32
    assert [float(env.step((), jnp.array([a]))[1].obs[0]) for a in (-0.9, 0.0, 0.9)] == [-1, 0, 1]


def test_agents_of_real_numbers_refuse_integers_and_nothing():
    specs = taking(Box((1,), -1, 1, jnp.int32)).specs
    with pytest.raises(BadInput, match=r"acts in real numbers.*scale_action"):
        sac.recipe(specs, sac.Config())
    with pytest.raises(BadInput, match="at least 1 number of an action"):
        sac.recipe(taking(Box((0,))).specs, sac.Config())


def test_other_packages_integer_spaces_keep_their_type():
    space = SimpleNamespace(shape=(2,), low=0, high=3, dtype=np.int32)
    assert of_keyed(space, "test") == Box((2,), 0, 3, jnp.int32)
