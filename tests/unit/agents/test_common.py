"""What recipes share: bounds at their very ends, spaces that are taken and refused, and helpers by hand."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import common, sac
from jaxrl.core import Agent, BadInput, Box, Discrete, Recipe, Specs
from jaxrl.nets import T2T, Conv, ConViT, Impala, net
from tests.pinned import DIMS, KEY, OBS, SPECS


@dataclass(frozen=True)
class Numbers:
    one: object = 1
    several: object = (1, 2)


def picture(*shape, dtype=jnp.uint8):
    return jax.ShapeDtypeStruct(shape, dtype)


SIGHT = SimpleNamespace(encoder="conv", channels=(4, 5), strides=(2, 1), sizes=(3, 3))


def encoding(kind):
    return SimpleNamespace(**{**vars(SIGHT), "encoder": kind})


@pytest.mark.parametrize("value", [2, 2.5, (2, 3), None, "three", jnp.float32(0)])
def test_numbers_at_or_above_a_bound_and_what_is_no_number_pass(value):
    common.at_least(Numbers(value), one=2)
    common.within(Numbers(value), one=(2, 3))


@pytest.mark.parametrize("value", [1.99, (2, 1), (1, 2), -2, float("nan")])
def test_numbers_below_a_bound_are_refused(value):
    with pytest.raises(BadInput, match=r"one is .*; it must be at least 2\."):
        common.at_least(Numbers(value), one=2)


@pytest.mark.parametrize("value", [1.99, 3.01, (2, 4), (1, 3), float("nan")])
def test_numbers_outside_a_range_are_refused(value):
    with pytest.raises(BadInput, match=r"one is .*; it must lie between 2 and 3\."):
        common.within(Numbers(value), one=(2, 3))


def test_the_first_field_that_is_wrong_is_named():
    with pytest.raises(BadInput, match="several is"):
        common.at_least(Numbers(5), one=5, several=2)


def test_a_learning_rate_falls_to_nothing_and_stays_there():
    rate = common.falling(0.5, 100)
    assert [float(rate(now)) for now in (0, 25, 100, 150)] == [0.5, 0.375, 0, 0]
    assert common.falling(0.5, 0) == 0.5


def test_parameters_fade_whatever_the_rate_is():
    """A step of -.1 from 2, which loses a quarter of itself too: 1.4; where nothing fades the optimiser is itself."""
    tx = optax.sgd(0.1)
    fading = common.fading(tx, 0.25)
    step, _ = fading.update(jnp.float32(1), fading.init(jnp.float32(2)), jnp.float32(2))
    assert_allclose(step, -0.6, rtol=1e-6)
    assert common.fading(tx, 0) is tx and common.fading(tx, 0.0) is tx
    assert common.fading(tx, jnp.float32(0)) is not tx  # a traced share cannot be asked
    assert common.fading(tx, 1) is not tx


def test_a_vectors_length():
    assert common.vector("a", picture(3, dtype=jnp.float32)) == 3
    for shape in ((), (2, 3)):
        with pytest.raises(BadInput, match=r"^a needs observations that are one vector"):
            common.vector("a", picture(*shape))
    with pytest.raises(BadInput, match="a pytree"):
        common.vector("a", {"x": OBS})


def test_an_images_shape():
    assert common.image("a", picture(12, 14, 3)) == (12, 14, 3)
    for other in (picture(12, 14), picture(12, 14, 3, 1), picture(12, 14, 3, dtype=jnp.float32), {"x": OBS}):
        with pytest.raises(BadInput, match=r"^a learns from images"):
            common.image("a", other)


@pytest.mark.parametrize(
    "height, width, patch", [(48, 64, 8), (84, 66, 6), (84, 84, 12), (98, 98, 7), (66, 66, 6), (50, 50, 8)]
)
def test_a_transformer_of_patches_divides_the_shorter_side(monkeypatch, height, width, patch):
    """By 8, else by 12, 7 or 6, or not."""
    made = []
    alone = SimpleNamespace(init=lambda key: 0, apply=lambda parameters, obs: obs)
    monkeypatch.setattr(common, "net", lambda module, obs: made.append(module) or alone)
    common.encoder("a", picture(height, width, 3), encoding("convit"))
    assert made == [ConViT(patch)]


@pytest.mark.parametrize("kind, module", [("conv", Conv((4, 5), (2, 1), (3, 3))), ("impala", Impala()), ("t2t", T2T())])
def test_an_encoder_is_the_one_that_is_named(kind, module):
    shown = picture(48, 48, 3)
    made, features = common.encoder("a", shown, encoding(kind))
    alone = net(module, shown)
    key = jax.random.key(0)
    wanted = jax.eval_shape(lambda key: alone.init(key), key)
    assert jax.tree.map(jnp.shape, jax.eval_shape(made.init, key)) == jax.tree.map(jnp.shape, wanted)
    assert features == jax.eval_shape(lambda key, obs: alone.apply(alone.init(key), obs), key, shown)


def test_encoders_that_there_are_not_are_refused():
    with pytest.raises(BadInput, match="conv"):
        common.encoder("a", picture(12, 12, 3), encoding("con"))
    with pytest.raises(BadInput, match="channels has 2, strides has 1, sizes has 2 layers"):
        common.convolutions(12, SimpleNamespace(channels=(4, 5), strides=(2,), sizes=(3, 3)))
    assert common.convolutions(7, SIGHT).channels == (4, 5)  # windows of 3 leave 3 by 3, and then one
    with pytest.raises(BadInput, match="images of 6 pixels are too small for strides of"):
        common.convolutions(6, SIGHT)


def test_vectors_see_themselves():
    made, features = common.vision("a", OBS, SIGHT)
    assert features == OBS and made.init(KEY) == ()
    assert_array_equal(made.apply((), jnp.arange(3.0)), [0, 1, 2])
    _, features = common.vision("a", picture(12, 12, 3), SIGHT)
    assert features.shape == common.encoder("a", picture(12, 12, 3), SIGHT)[1].shape
    with pytest.raises(BadInput):
        common.vision("a", {"x": OBS}, SIGHT)


@pytest.fixture(scope="module")
def agent():
    act = lambda parts, memory, obs, ctx, explore: (jnp.zeros(DIMS), memory, {})
    return Agent(lambda key: {"actor": jax.random.normal(key, (2,))}, act)


def test_further_parts_leave_the_others_as_they_were(agent):
    drawn = lambda key, parts: {"more": parts["actor"] + jax.random.normal(key, (2,))}
    one, other = (common.further(name, agent, drawn)(KEY) for name in ("one", "other"))
    assert_array_equal(one["actor"], agent.init(KEY)["actor"])
    assert (one["more"] != other["more"]).all()  # a key of the addition's own
    key = jax.random.fold_in(KEY, 2053932785)  # the CRC-32 of 'one', as other programs compute it
    assert_allclose(one["more"], agent.init(KEY)["actor"] + jax.random.normal(key, (2,)), rtol=1e-6)
    with pytest.raises(BadInput, match="has a part 'actor' already"):
        common.further("one", agent, lambda key, parts: {"actor": 0})(KEY)


def test_views_and_parts_that_are_there(agent):
    shown = replace(agent, views={"q": len})
    assert common.viewed("a", shown, "q") == {"q": len}
    assert common.viewed("a", shown) == {"q": len}
    with pytest.raises(BadInput, match=r"a looks at an agent's actor, .*drqv2\+a"):
        common.viewed("a", shown, "q", "actor")
    assert common.present(agent, "target", "actor", "critic") == ("actor",)


def test_all_experience_or_a_sentence():
    recipe = sac.recipe(SPECS, sac.Config((4,), batch=2, capacity=8))
    assert common.experienced("a", recipe) is recipe.source.everything
    with pytest.raises(BadInput, match="a learns from all that was experienced"):
        common.experienced("a", replace(recipe, source=replace(recipe.source, everything=None)))


def test_rows_are_those_of_some_weight():
    """Evenly among these, again and again; the first where there are none."""
    weight = jnp.array([0.0, 0.5, 0.0, 0.0, 2.0, 1.0, 0.0])
    found = np.asarray(common.rows(KEY, weight, 3000))
    places, counts = np.unique(found, return_counts=True)
    assert places.tolist() == [1, 4, 5]
    assert_allclose(counts, 1000, atol=130)  # five standard errors
    assert common.rows(KEY, jnp.zeros(4), 3).shape == (3,)
    assert found.dtype == np.int32
    assert_array_equal(common.rows(KEY, jnp.array([0.0, 0.0, 1.0]), 64), 2)


def test_periods_are_whole_ticks(agent):
    """Ticks of 2 environments, 3 steps and 5 frames are of 30; 31 frames become 60, and 30 stay."""
    recipe = Recipe(agent, None, num_envs=2, unroll=3)
    specs = replace(SPECS, frames=5)
    assert common.tick(recipe, specs) == 30
    for period, whole in [(1, 30), (30, 30), (31, 60), (60, 60)]:
        event = common.periodic("a", period, len, recipe, specs)
        assert (event.period, event.fn, event.name) == (whole, len, "a")


def test_stacks_of_frames():
    shown = lambda channels, limit=None: Specs(picture(12, 12, channels), Box((2,)), limit=limit)
    assert [common.stacked("a", shown(channels)) for channels in (1, 3, 6, 9)] == [1, 1, 2, 3]
    assert common.stacked("a", shown(9, limit=2)) == 3
    with pytest.raises(BadInput, match="stacks of 3 frames, and an episode has 2"):
        common.stacked("a", shown(9, limit=1))


def test_continuous_actions_are_one_axis_of_minus_1_to_1():
    assert common.continuous("a", Box((4,))) == 4
    assert common.continuous("a", Box((2,), low=np.array([-1, -1.0]), high=np.array([1, 1.0]))) == 2
    for action, sentence in [
        (Discrete(3), "^a acts in continuous spaces"),
        (Box((2, 2)), "^a needs actions of one axis"),
        (Box(()), "^a needs actions of one axis"),
        (Box((2,), low=0), r"^a acts in \[-1, 1\]"),
        (Box((2,), high=2), r"^a acts in \[-1, 1\]"),
        (Box((2,), low=np.array([-1, 0.0])), r"^a acts in \[-1, 1\]"),
        (Box((2,), high=np.array([1, 2.0])), r"^a acts in \[-1, 1\]"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            common.continuous("a", action)


def test_discrete_actions_are_counted():
    assert common.discrete("a", Discrete(3)) == 3
    with pytest.raises(BadInput, match=r"^a chooses among discrete actions"):
        common.discrete("a", Box((2,)))
