"""Stream TD(lambda): the value's trace and TD error by the paper, and predictions in the rewards' own units."""

import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from jaxrl.agents import stream_td
from jaxrl.core import Ctx, Discrete, Specs
from tests.pinned import KEY, OBS, SPECS, defaults
from tests.streams import LIMIT, STREAM, Traced, experience, follows, network, started, x_of

V = network(1)


def test_steps_follow_the_values_gradient():
    """g = grad v(s), delta = r + gamma (1 - done) v(s') - v(s)."""
    agent = stream_td.build(SPECS, stream_td.Config(**STREAM))
    v = lambda critic, x: V.apply(critic, x)[0]

    def told(parts, now):
        target = now["reward"] + now["discount"] * v(parts["critic"], now["x_next"])
        return target - v(parts["critic"], now["x"]), now["done"], {}

    traced = Traced("critic", told, lambda critic, now: v(critic, now["x"]))
    follows(agent, started(agent, "critic"), {"critic": traced}, experience())
    assert agent.rules["critic"].writes == ("critic",)


def test_acts_uniformly_and_tells_what_it_predicts():
    specs = Specs(OBS, Discrete(4), limit=LIMIT)
    agent = stream_td.build(specs, stream_td.Config(**STREAM))
    parts, obs = started(agent, "critic"), jnp.array([0.3, -1.0, 2.0])
    for explore in (True, False):
        action, memory, extras = agent.act(parts, jnp.int32(6), obs, Ctx(KEY, jnp.int32(0)), explore)
        assert action == specs.action.sample(KEY) and memory == 7
        assert_allclose(extras["prediction"], V.apply(parts["critic"], x_of(obs, 6))[0] * np.sqrt(3), rtol=1e-4)


def test_a_recipe_is_one_environment_and_one_step():
    recipe = stream_td.recipe(SPECS, stream_td.Config())
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (1, 1, 1, 0)
    assert recipe.agent.memory() == 0
    assert set(recipe.agent.shapes) == {"critic", "norm", "reward_norm"}


def test_configuration():
    defaults(
        stream_td.Config(), width=128, lr=1.0, kappa=2.0, gamma=0.9, lambda_=0.9, sparsity=0.9, bound=True,
        normalise=True, layer_norm=True, bootstrap_truncated=False,
    )  # fmt: skip
