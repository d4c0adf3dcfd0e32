"""SAC: each term of a target and a loss against the papers' equations, and which part moves with which rule."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import sac
from jaxrl.core import BadInput, Box, Ctx, Specs
from jaxrl.nets import MLP, Net, net
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    OBS,
    SPECS,
    B,
    Descended,
    agrees,
    bounded,
    defaults,
    disturbed,
    mean,
    member,
    near,
    normal,
    replayed,
    same,
    slope,
    squashed,
    tracked,
    transitions,
)

CONFIG = sac.Config((8, 8), lr=3e-3, gamma=0.9, tau=0.1, alpha=0.3, target_entropy=-1.5)
ACTOR, CRITIC = net(MLP((8, 8), 2 * DIMS), OBS), net(MLP((8, 8), 1), OBS, ACTION)
BATCHES = [transitions(0), transitions(1)]


def q(parameters, obs, action):
    """Each critic's estimate [2, B]."""
    return jnp.stack([CRITIC.apply(member(parameters, i), obs, action)[:, 0] for i in range(2)])


def critic_loss(live, parts, batch, key, weights=1.0):
    """y = r + gamma (1 - d) (min_i Q'_i(s', a') - alpha log pi(a' | s')); sum over i of (Q_i - y)^2 / 2."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], batch["next_obs"]), key, weights)
    q_next = q(parts["target"], batch["next_obs"], action)
    soft = jnp.minimum(q_next[0], q_next[1]) - jnp.exp(parts["log_alpha"]) * log_prob
    y = batch["reward"] + 0.9 * batch["discount"] * soft
    now = q(live["critic"], batch["obs"], batch["action"])
    value = mean(((now[0] - y) ** 2 + (now[1] - y) ** 2) / 2, batch)
    return value, {"td_error": (abs(now[0] - y) + abs(now[1] - y)) / 2, "target": y}


def actor_loss(live, parts, batch, key, weights=1.0):
    """E[alpha log pi - min_i Q_i], and -log(alpha) (log pi + H) with log pi held."""
    action, log_prob = squashed(ACTOR.apply(live["actor"], batch["obs"]), key, weights)
    alpha = jnp.exp(parts["log_alpha"])
    both = q(parts["critic"], batch["obs"], action)
    policy = mean(alpha * log_prob - jnp.minimum(both[0], both[1]), batch)
    _, held = squashed(ACTOR.apply(parts["actor"], batch["obs"]), key, weights)
    temperature = mean(-live["log_alpha"] * (held - 1.5), batch)
    return policy + temperature, {"entropy": -log_prob, "alpha": alpha}


@pytest.fixture(scope="module")
def agent():
    return sac.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def references():
    adam = {"lr": 3e-3}
    return {
        "critic": Descended(critic_loss, {"critic": adam}),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}),
        "target": tracked("critic", "target", 0.1),
    }


def test_two_updates_are_the_papers(agent, start):
    """Critics, then the policy and its temperature against the new critics, then their copies."""
    agrees(agent, disturbed(start, "actor", "critic", "target"), references(), BATCHES)


def test_numbers_entropies_count_by_their_weights(start):
    """With the part 'entropy' each number's share of log pi is weighed, in the target and for the policy."""
    weighed = jnp.array([0.5, 2.0])
    agent = sac.build(SPECS, CONFIG, weighed=True)
    assert_array_equal(agent.init(KEY)["entropy"], np.ones(DIMS))
    parts = {**disturbed(start, "actor", "critic", "target"), "entropy": weighed}
    for rule, reference in ((agent.rules["critic"], critic_loss), (agent.rules["actor"], actor_loss)):
        live = {name: parts[name] for name in rule.wrt}
        told = jax.jit(rule.loss)(live, parts, BATCHES[0], KEY)
        near(told, jax.jit(reference)(live, parts, BATCHES[0], KEY, weighed))


def test_parts_at_the_start(start):
    """Networks of keys of their own, targets that are copies, and the logarithm of the temperature."""
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == {"actor", "critic", "target", "log_alpha"}
    near(start["actor"], jax.jit(ACTOR.init)(key_actor))
    keys = jax.random.split(key_critic)
    near(start["critic"], jax.tree.map(lambda *x: jnp.stack(x), *(jax.jit(CRITIC.init)(key) for key in keys)))
    same(start["target"], start["critic"])
    assert_allclose(start["log_alpha"], np.log(0.3), rtol=1e-6)


def test_acts_by_its_mean_or_by_a_draw(agent, start):
    obs, ctx = jnp.array([0.3, -1.0, 2.0]), Ctx(KEY, jnp.int32(0))
    parts = disturbed(start, "actor")
    center, log_std = normal(ACTOR.apply(parts["actor"], obs))
    greedy, memory, extras = agent.act(parts, "kept", obs, ctx, False)
    assert_allclose(greedy, np.tanh(center), rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    drawn, memory, extras = agent.act(parts, "kept", obs, ctx, True)
    assert_allclose(drawn, np.tanh(center + np.exp(log_std) * jax.random.normal(KEY, (DIMS,))), rtol=1e-5)
    assert (memory, extras) == ("kept", {})


def test_log_standard_deviations_lie_between_minus_5_and_2():
    _, log_std = sac.gaussian(jnp.array([0.0, 0.0, 0.0, -30.0, 0.0, 30.0]))
    assert_allclose(log_std, [-5, -1.5, 2])


def test_all_numbers_of_an_action_count_alike_where_nothing_is_said(start):
    output = ACTOR.apply(start["actor"], BATCHES[0]["obs"])
    near(sac.drawn_actions(output, KEY), squashed(output, KEY))
    near(sac.drawn_from(*normal(output), KEY), squashed(output, KEY))


def test_a_critic_that_draws_is_looked_at_by_one_key(start):
    """Always the same, so that what a view shows does not flicker."""
    noise = lambda parameters, obs, action, key: jax.random.normal(key, (2, len(obs)))
    drawing = sac.build(SPECS, CONFIG, critic=Net(sac.critics(SPECS, CONFIG).init, noise))
    seen = drawing.views["q"](start, BATCHES[0]["obs"], BATCHES[0]["action"])
    assert_allclose(seen, jax.random.normal(jax.random.key(0), (2, B)), rtol=1e-6)


def test_views_are_of_the_agents_own_networks(agent, start):
    batch = BATCHES[0]

    @jax.jit
    def seen(parts, obs, action):
        ours = {name: agent.views[name] for name in ("encode", "q", "policy", "actor", "critic")}
        alone = [CRITIC.within(member(parts["critic"], i), obs, action)["layers"] for i in range(2)]
        return (
            [ours["encode"](parts, obs), ours["q"](parts, obs, action), ours["policy"](parts, obs, KEY)],
            [obs, q(parts["critic"], obs, action), squashed(ACTOR.apply(parts["actor"], obs), KEY)[0]],
            [ours["actor"](parts, obs)["layers"], ours["critic"](parts, obs, action)["layers"]],
            [ACTOR.within(parts["actor"], obs)["layers"], jax.tree.map(lambda *x: jnp.stack(x), *alone)],
        )

    views, wanted, inside, layers = seen(disturbed(start, "actor", "critic"), batch["obs"], batch["action"])
    near(views, wanted)
    assert_allclose(agent.views["cost"]({}, jnp.array([2.0, -3.0])), [2, 4.5])  # of an error, in a critic's loss
    near(inside, layers)


def test_an_entropy_target_of_minus_the_number_of_actions(start):
    """Where none is given it is -2 of two numbers, and no longer half a nat more."""
    none, given = (
        slope(sac.build(SPECS, config).rules["actor"], "log_alpha", start, BATCHES[0])
        for config in (replace(CONFIG, target_entropy=None), CONFIG)
    )
    assert_allclose(none - given, mean(np.full(B, 0.5), BATCHES[0]), rtol=1e-4)


def test_a_recipes_numbers_arrive():
    recipe = sac.recipe(SPECS, sac.Config((8,), batch=8, capacity=32, warmup=7, num_envs=2, ratio=3))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)


def test_a_policys_module_can_be_another():
    """`policy` is made with the hidden widths and two outputs for each action."""
    recipe = sac.recipe(SPECS, sac.Config((8,), capacity=300), policy=lambda widths, n: MLP((*widths, 5), n))
    assert recipe.agent.shapes["actor"]["Dense_2"]["kernel"].shape == (5, 2 * DIMS)
    assert "entropy" not in recipe.agent.shapes
    assert "entropy" in sac.recipe(SPECS, sac.Config((8,), capacity=300), weighed=True).agent.shapes


def test_configuration():
    defaults(
        sac.Config(), widths=(256, 256), lr=1e-3, gamma=0.99, tau=0.01, alpha=1.0, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=1,
    )  # fmt: skip
    lowest = {"lr": 0.0, "batch": 1, "capacity": 1, "warmup": 0, "num_envs": 1, "ratio": 0}
    bounded(sac.Config, lowest, {"gamma": (0.0, 1.0), "tau": (0.0, 1.0)})
    with pytest.raises(BadInput, match="alpha is 0"):
        sac.Config(alpha=0)
    with pytest.raises(BadInput, match="alpha is -1"):
        sac.Config(alpha=-1)
    sac.Config(alpha=1e-9)


def test_actions_of_another_range_are_refused():
    with pytest.raises(BadInput, match=r"acts in \[-1, 1\]"):
        sac.build(Specs(OBS, Box((2,), low=-2)), CONFIG)
