"""Observations of every kind: each agent takes one, or says in one sentence what it takes; others are made vectors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.core import Box, Env, Specs, TimeStep, concatenated, first, flat_observation, is_plain
from experiments.cli import environment
from jaxrl.core import BadInput, describe
from jaxrl.loop import loop
from tests.small import BASES, SIGHTED, SUMS, small, specs

array = jax.ShapeDtypeStruct
ODD = {
    "a dict": {"position": array((3,), jnp.float32), "speed": array((), jnp.float32)},
    "a tuple": (array((2,), jnp.float32), array((2,), jnp.int32)),
    "a nested dict": {"body": {"arm": array((2, 2), jnp.float32)}, "on": array((), jnp.bool_)},
    "a scalar": array((), jnp.float32),
    "a column": array((3, 1), jnp.float32),
    "an image of floats": array((4, 4, 3), jnp.float32),
    "nothing": array((0,), jnp.float32),
    "an empty dict": {},
    "an image beside a vector": {"image": array((12, 12, 3), jnp.uint8), "speed": array((2,), jnp.float32)},
}
FLAT = ("a dict", "a tuple", "a nested dict", "a scalar", "a column", "an image of floats")
PICTURE = array((12, 12, 3), jnp.uint8)


def showing(observation, action=None) -> Env:
    """An environment that shows random numbers of that kind."""

    def obs(key):
        of = lambda x: jax.random.randint(key, x.shape, 0, 2).astype(x.dtype)
        return jax.tree.map(of, observation)

    def step(key, action):
        key = jax.random.fold_in(key, 1)
        return key, TimeStep(obs(key), jnp.float32(0), jnp.bool_(False), jnp.bool_(False))

    return Env(lambda key: (key, first(obs(key))), step, Specs(observation, action or Box((2,)), limit=5), "showing")


@pytest.mark.parametrize("name", [*BASES, *(f"{base}+{addition}" for addition, base in SUMS.items())])
def test_every_agent_refuses_other_observations_in_one_sentence(name):
    for kind, odd in ODD.items():
        with pytest.raises(BadInput, match="observation") as error:
            small(name, replace(specs(name), observation=odd))
        assert "\n" not in str(error.value), kind
    if name.split("+")[0] not in (*SIGHTED, "drqv2"):
        with pytest.raises(BadInput, match=r"observations.*(vector|drqv2)"):
            small(name, replace(specs(name), observation=PICTURE))


@pytest.mark.parametrize("kind", FLAT)
def test_pytrees_of_vectors_become_one_vector(kind):
    env = flat_observation(showing(ODD[kind]))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(ODD[kind]))
    assert env.specs.observation.shape == (sizes,) and env.specs.observation.dtype == jnp.float32
    raw = showing(ODD[kind]).reset(jax.random.key(3))[1].obs
    state, out = env.reset(jax.random.key(3))
    np.testing.assert_array_equal(out.obs, concatenated(raw))
    assert out.obs.shape == env.step(state, jnp.zeros(2))[1].obs.shape == (sizes,)
    one = loop(env, small("sac", env.specs))
    jax.eval_shape(lambda key: one.chunk(one.init(key), 2), jax.random.key(0))


def test_numbers_keep_their_names_and_order():
    env = flat_observation(showing(ODD["a nested dict"]))
    assert env.specs.layout == (("body/arm", 4), ("on", 1))
    told = describe(small("sac", env.specs).agent, env.specs)
    assert "body/arm" in told and "4 numbers" in told and "1 number\n" in told
    assert "one vector" not in describe(small("sac").agent, specs("sac"))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nothing", "observations are empty"),
        ("an empty dict", "observations are empty"),
        ("an image beside a vector", r"holds an image, 'image' \[12, 12, 3\], beside others"),
    ],
)
def test_what_is_no_vector_is_refused_in_a_sentence(kind, sentence):
    with pytest.raises(BadInput, match=sentence):
        flat_observation(showing(ODD[kind]))


def test_the_command_line_makes_vectors_of_what_is_none(monkeypatch):
    made = {
        "odd:tree": showing(ODD["a dict"]),
        "odd:image": showing(PICTURE),
        "odd:vector": showing(array((3,), jnp.int32)),
    }
    monkeypatch.setattr("envs.make", lambda name, repeat: made[name])
    assert environment("odd:tree", 1, tried=True)[0].specs.observation.shape == (4,)
    assert environment("odd:image", 1, tried=True)[0].specs.observation == PICTURE
    assert environment("odd:vector", 1, tried=True)[0].specs.observation.dtype == jnp.int32
    assert is_plain(PICTURE) and not is_plain(ODD["a column"]) and not is_plain(ODD["nothing"])


def test_gymnasiums_spaces_without_numbers_are_refused():
    from envs.adapters.gymnasium import _observations

    spaces = pytest.importorskip("gymnasium").spaces
    for space in (spaces.Text(3), spaces.Dict({"said": spaces.Text(3)}), spaces.Sequence(spaces.Discrete(2))):
        with pytest.raises(BadInput, match=r"has observations of .*only numbers, and Dicts and Tuples of them"):
            _observations(spaces, space, "odd")
    assert environment("gymnasium:Blackjack-v1", None)[0].specs.observation.shape == (45,)


def test_gymnasiums_trees_become_one_vector():
    gymnasium = pytest.importorskip("gymnasium")
    spaces = gymnasium.spaces
    space = spaces.Dict(
        {
            "at": spaces.Box(-1, 1, (2,), np.float64),
            "kind": spaces.Discrete(3, start=1),
            "both": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
        }
    )

    class Odd(gymnasium.Env):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return {"at": np.array([0.5, -0.5]), "kind": 3, "both": (np.array([0, 1]), np.array([1, 2]))}, {}

    from envs.adapters import host

    gymnasium.register("Odd-v0", Odd)
    try:
        made = host("gymnasium:Odd-v0")
    finally:
        gymnasium.registry.pop("Odd-v0")
    assert made.specs.layout == (("at", 2), ("both/0", 2), ("both/1/0", 2), ("both/1/1", 3), ("kind", 3))
    gymnasium.register("Odd-v0", Odd)
    try:
        shown = made.simulator().reset(0)
    finally:
        gymnasium.registry.pop("Odd-v0")
    np.testing.assert_array_equal(shown, np.float32([0.5, -0.5, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1]))
    assert shown.dtype == np.float32
