"""COPlanner: the score of candidates by hand, with doubt against it in the model and for it in the world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import coplanner, mbpo, sac
from jaxrl.core import Ctx, fold
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Model, Step
from tests.pinned import KEY, SPECS, bounded, defaults, disturbed, transitions
from tests.small import config, small

K, H, GAMMA = 4, 3, 0.6
OBS = transitions(8)["obs"]


def survey(part, obs, action, key):
    """A step that its action drives, rewarded and doubted where it leads."""
    next_obs = 0.8 * obs + action[:, :1] * part["gain"] + 0.1 * jax.random.normal(key, obs.shape)
    doubt = jnp.abs(next_obs[:, 0] + action[:, 1])
    return Step(next_obs, jnp.sin(next_obs[:, 1]), jnp.zeros(len(obs))), doubt


@pytest.fixture
def known(monkeypatch):
    """A known model in place of an ensemble, and what `mbpo.add` is asked to do in it."""
    given = []
    model = Model(lambda key: {"gain": jnp.float32(0.5)}, *[lambda *given: None] * 3, survey)
    monkeypatch.setattr(ensemble, "dynamics", lambda specs, config: model)
    whole = mbpo.add
    monkeypatch.setattr(
        mbpo, "add", lambda recipe, specs, config, base, choose=None: given.append(choose) or whole(*BY, choose)
    )
    return given


BASE = config("sac")
OWN = coplanner.Config(period=16, starts=4, candidates=K, ahead=H, gamma=GAMMA)
BY = (sac.recipe(SPECS, BASE), SPECS, OWN, BASE)


def made(**own):
    return coplanner.add(BY[0], SPECS, coplanner.Config(**{**vars(OWN), **own}), BASE)


def scored(agent, parts, obs, key, weight, own=OWN):
    """argmax over K actions of pi of sum_i gamma^i (r_i + weight u_i), i < H, where what follows the first is pi's."""
    ctx = Ctx(key, jnp.int32(0))
    policy = lambda key, obs: mbpo.exploring(agent)(parts, obs, ctx._replace(key=key))
    keys = [key, *jax.random.split(fold(key, 0), own.candidates - 1)]
    firsts = jnp.stack([policy(one, obs) for one in keys])
    x = jnp.concatenate([obs] * own.candidates)
    action, total = jnp.concatenate(list(firsts)), 0.0
    for i in range(own.ahead):
        key_step, key_next = jax.random.split(fold(fold(key, 1), i))
        out, doubt = survey(parts["model"], x, action, key_step)
        total += own.gamma**i * (out.reward + weight * doubt)
        x, action = out.next_obs, policy(key_next, out.next_obs)
    best = total.reshape(own.candidates, len(obs)).argmax(axis=0)
    return firsts[best, jnp.arange(len(obs))], best


@pytest.fixture
def parts(known):
    return disturbed(jax.jit(made().agent.init)(KEY), "actor", by=0.5)


def test_doubt_counts_against_an_action_in_the_model(known, parts):
    """By `avoid`, in the actions that rollouts ask for."""
    agent = BY[0].agent
    made(avoid=3.0)
    choose = jax.jit(lambda parts: known[-1](parts, OBS, Ctx(KEY, jnp.int32(0))))
    wanted = jax.jit(lambda parts: scored(agent, parts, OBS, KEY, -3.0))
    actions, best = wanted(parts)
    assert_allclose(choose(parts), actions, rtol=1e-4, atol=1e-5)
    assert len(set(np.asarray(best))) > 1
    other = jax.jit(lambda parts: scored(agent, parts, OBS, KEY, 3.0))(parts)[1]
    assert (other != best).any()  # the sign decides


def test_doubt_counts_for_an_action_in_the_world(known, parts):
    """By `seek`, where the agent explores; and it is evaluated without any of it."""
    agent, plain = made(seek=2.5).agent, BY[0].agent
    ours, theirs = (
        jax.jit(lambda parts, one=one: jnp.stack([one(parts, obs) for obs in OBS[:4]]))
        for one in (
            lambda parts, obs: agent.act(parts, (), obs, Ctx(KEY, jnp.int32(0)), True)[0],
            lambda parts, obs: scored(plain, parts, obs[None], KEY, 2.5)[0][0],
        )
    )
    assert_allclose(ours(parts), theirs(parts), rtol=1e-4, atol=1e-5)
    ctx = Ctx(KEY, jnp.int32(0))
    assert_array_equal(agent.act(parts, "kept", OBS[0], ctx, False)[0], plain.act(parts, (), OBS[0], ctx, False)[0])
    assert agent.act(parts, "kept", OBS[0], ctx, False)[1:] == ("kept", {})
    assert agent.act(parts, "kept", OBS[0], ctx, True)[1:] == ("kept", {})


def test_without_either_it_is_mbpo(known):
    recipe = made(avoid=None, seek=None)
    assert known[-1] is None
    assert recipe.agent.act is BY[0].agent.act
    assert set(recipe.agent.shapes) == {*BY[0].agent.shapes, "model"}


def test_the_models_batches_are_of_all_members_and_nothing_else():
    """As the authors have it: no elites among the members, and no share of what was experienced."""
    config = coplanner.Config()
    assert config.model.elites == config.model.members == 7
    recipe = small("sac+coplanner")
    batch = jax.eval_shape(recipe.source.sample, *sampled(recipe))
    assert batch["obs"].shape[0] == 8
    source = jax.jit(recipe.source.sample)(*sampled(recipe))["source"]
    assert_array_equal(source, [1] * 8)


def sampled(recipe):
    data = {name: x[:, None].repeat(2, 1) for name, x in transitions(1).items() if name != "weight"}
    s = recipe.source.init(jax.eval_shape(lambda: {**data, "end": data["discount"] == 0}))
    return {**s, "model": s["model"]._replace(count=jnp.int32(3))}, {}, KEY


def test_configuration():
    own = vars(coplanner.Config())
    changed = {"real": 0.0, "candidates": 5, "ahead": 5, "gamma": 0.97, "avoid": 2.0, "seek": 1.0}
    assert {**vars(mbpo.Config()), **changed, "model": own["model"]} == own
    defaults(own["model"], **{**vars(mbpo.Config().model), "elites": 7})
    bounded(coplanner.Config, {"candidates": 1, "ahead": 1, "starts": 1}, {"gamma": (0.0, 1.0)})
    assert coplanner.NUMBERS == {"ratio": 20}
