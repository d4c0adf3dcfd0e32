"""SimbaV2: categorical critics, scaled rewards, normalised observations and weights on spheres, by the equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import simba_v2
from jaxrl.core import Ctx
from jaxrl.nets import HyperNet, net
from jaxrl.rules.statistics import Moments
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    LENGTH,
    OBS,
    SPECS,
    B,
    Descended,
    Put,
    agrees,
    bounded,
    cross_entropies,
    defaults,
    disturbed,
    expected,
    mean,
    member,
    near,
    normal,
    replayed,
    same,
    slope,
    soft_distribution,
    squashed,
    stacked,
    tracked,
    transitions,
)

CONFIG = simba_v2.Config((8, 7), blocks=(1, 2), critics=2, lr=3e-3, gamma=0.9, tau=0.1, alpha=0.3)
ACTOR, CRITIC = net(HyperNet(8, 1, DIMS, heads=2), OBS), net(HyperNet(7, 2, 101), OBS, ACTION)
BINS = np.linspace(-5, 5, 101, dtype=np.float32)
MEAN, M2, COUNT = np.array([0.3, -0.2, 1.0]), np.array([8.0, 20.0, 6.0]), 9  # of observations
SPREAD, PEAK = (12.0, 6), 4.0  # of returns: m2 and count; the largest


def normalised(obs):
    """(s - mean) / sqrt(var + 1e-8), of the unbiased variance."""
    return (obs - MEAN.astype(np.float32)) / np.sqrt(M2 / (COUNT - 1) + 1e-8).astype(np.float32)


def scaled(parts, reward):
    """r / max(sqrt(var(G) + 1e-8), G_max / 5)."""
    norm = parts["reward_norm"]
    return reward / jnp.maximum(jnp.sqrt(norm.m2 / (norm.count - 1) + 1e-8), parts["peak"] / 5)


def logits(parameters, obs, action):
    return jnp.stack([CRITIC.apply(member(parameters, i), normalised(obs), action) for i in range(2)])


def critic_loss(live, parts, batch, key):
    """Cross-entropy, of both critics, from the distribution r + gamma (1 - d) (z - alpha log pi) of the lesser."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], normalised(batch["next_obs"])), key)
    reward, bonus = scaled(parts, batch["reward"]), -jnp.exp(parts["log_alpha"]) * log_prob
    following = logits(parts["target"], batch["next_obs"], action)
    aim = soft_distribution(reward, 0.9 * batch["discount"], following, bonus, BINS)
    return cross_entropies(logits(live["critic"], batch["obs"], batch["action"]), aim, BINS, batch)


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - min_i E[Z_i]]; and -log(alpha) (log pi + H), H half of -|A|."""
    action, log_prob = squashed(ACTOR.apply(live["actor"], normalised(batch["obs"])), key)
    alpha = jnp.exp(parts["log_alpha"])
    one, other = expected(logits(parts["critic"], batch["obs"], action), BINS)
    entropy = jax.lax.stop_gradient(-log_prob)
    value = alpha * log_prob - jnp.minimum(one, other) + live["log_alpha"] * (entropy - -DIMS / 2)
    return mean(value, batch), {"entropy": -log_prob, "alpha": alpha}


def on_sphere(name):
    """Each unit's weights, of kernels [..., inputs, units], at norm 1; nothing else changes."""

    def one(path, x):
        kernel = path[-1].key == "kernel"
        return x / np.linalg.norm(x, axis=-2, keepdims=True) if kernel else x

    return Put(lambda parts, batch: {name: jax.tree_util.tree_map_with_path(one, parts[name])})


@pytest.fixture(scope="module")
def agent():
    return simba_v2.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def seen(parts, spread=SPREAD, peak=PEAK):
    """The parts after some experience."""
    m2, count = spread
    norm = Moments(jnp.asarray(MEAN, jnp.float32), jnp.asarray(M2, jnp.float32), jnp.float32(COUNT))
    returns = Moments(jnp.float32(0.5), jnp.float32(m2), jnp.float32(count))
    return {**parts, "norm": norm, "reward_norm": returns, "peak": jnp.float32(peak)}


def references():
    adam = {"lr": 3e-3}
    return {
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}),
        "actor_sphere": on_sphere("actor"),
        "critic": Descended(critic_loss, {"critic": adam}),
        "critic_sphere": on_sphere("critic"),
        "target": tracked("critic", "target", 0.1),
    }


def test_updates_are_the_papers(agent, start):
    """The policy and its temperature, then critics against the new policy, each put back on its sphere, then copies."""
    parts = seen(disturbed(start, "actor", "critic", "target"))
    agrees(agent, parts, references(), [transitions(i) for i in range(2)])


def test_rewards_are_scaled_by_the_spread_or_by_the_largest_return():
    batch = transitions()
    for spread, peak, by in [((45.0, 6), 5.0, 3.0), ((45.0, 6), 20.0, 4.0), ((0.0, 6), 0.0, 1e-4)]:
        out = simba_v2.bounded(seen({}, spread, peak), batch, None)
        assert_allclose(out["reward"], batch["reward"] / by, rtol=1e-6)
        same({**out, "reward": 0}, {**batch, "reward": 0})


def test_one_critic_is_enough(start):
    """With one, as by default, its own distribution is the target: of rewards alone where the episode terminates."""
    agent = simba_v2.build(SPECS, replace(CONFIG, critics=1))
    parts = seen({**start, "critic": jax.tree.map(lambda x: x[:1], start["critic"])})
    parts["target"] = parts["critic"]
    rule = agent.rules["critic"]
    found = jax.jit(rule.update)(parts, rule.init(parts), transitions(), Ctx(KEY, jnp.int32(0)))[2]
    action, log_prob = squashed(ACTOR.apply(parts["actor"], normalised(transitions()["next_obs"])), KEY)
    one = CRITIC.apply(member(parts["target"], 0), normalised(transitions()["next_obs"]), action)
    bonus = -0.3 * log_prob
    aim = soft_distribution(
        scaled(parts, transitions()["reward"]), 0.9 * transitions()["discount"], one[None], bonus, BINS
    )
    assert_allclose(found["target"], aim @ BINS, rtol=1e-4, atol=1e-5)


def test_parts_at_the_start(start):
    """Networks of keys of their own on the sphere, a copy, and statistics of nothing."""
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == {"actor", "critic", "target", "log_alpha", "norm", "reward_norm", "peak"}
    made = {
        "actor": jax.jit(ACTOR.init)(key_actor),
        "critic": stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)]),
    }
    for name in made:
        near(start[name], on_sphere(name).fn(made, None)[name])
    same(start["target"], start["critic"])
    same(start["norm"], Moments(jnp.zeros(LENGTH), jnp.zeros(LENGTH), jnp.float32(0)))
    same((start["reward_norm"], start["peak"]), (Moments(*jnp.zeros(3)), jnp.float32(0)))
    assert_allclose(start["log_alpha"], np.log(0.3), rtol=1e-6)


def test_acts_on_normalised_observations(agent, start):
    obs, ctx = jnp.array([0.3, -1.0, 2.0]), Ctx(KEY, jnp.int32(0))
    parts = seen(disturbed(start, "actor"))
    center, log_std = normal(ACTOR.apply(parts["actor"], normalised(obs)))
    action, memory, extras = agent.act(parts, "kept", obs, ctx, False)
    assert_allclose(action, np.tanh(center), rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    action, _, _ = agent.act(parts, "kept", obs, ctx, True)
    assert_allclose(action, np.tanh(center + np.exp(log_std) * jax.random.normal(KEY, (DIMS,))), rtol=1e-5)


def test_statistics_are_of_what_is_seen_in_acting(agent, start):
    """u <- .9 u + r of each environment, its spread and its largest; observations beside the starts of episodes."""
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(3, 1)).astype(np.float32)
    obs, next_obs = rng.normal(size=(2, 3, 1, LENGTH)).astype(np.float32)
    end, length = np.array([[False], [True], [False]]), np.array([[1], [2], [1]])
    batch = {"obs": obs, "next_obs": next_obs, "reward": reward, "end": end, "info": {"episode": {"length": length}}}
    parts = start
    assert list(agent.observe) == ["norm", "reward_norm"]
    for rule in agent.observe.values():
        parts, _, _ = jax.jit(rule.update)(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))
    r = reward[:, 0]
    u = np.array([r[0], r[1], 0.9 * r[1] + r[2]])  # the second step ends: u starts again from its reward
    assert_allclose(parts["reward_norm"].m2, ((u - u.mean()) ** 2).sum(), rtol=1e-4)
    assert_allclose((parts["reward_norm"].count, parts["peak"]), (3, abs(u).max()), rtol=1e-6)
    all_seen = np.concatenate([next_obs[:, 0], obs[[0, 2], 0]])
    assert_allclose(parts["norm"].mean, all_seen.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert parts["norm"].count == 5


def test_an_entropy_target_may_be_given(start):
    """-log(alpha) (log pi + H): one of 0 in place of -1 makes the slope less by 1."""
    configs = (CONFIG, replace(CONFIG, target_entropy=0.0))
    rules = [simba_v2.build(SPECS, config).rules["actor"] for config in configs]
    none, zero = (slope(rule, "log_alpha", seen(start), transitions()) for rule in rules)
    assert_allclose(none - zero, mean(np.ones(B), transitions()), rtol=1e-4)


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3}
    recipe = simba_v2.recipe(SPECS, simba_v2.Config((8, 7), **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    rule = recipe.agent.observe["reward_norm"]
    assert rule.init({}).shape == (2,)  # a return of each environment


def test_configuration():
    defaults(
        simba_v2.Config(), widths=(64, 128), lr=1e-4, gamma=0.99, tau=0.005, alpha=0.01, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=2, blocks=(1, 2), critics=1,
    )  # fmt: skip
    bounded(simba_v2.Config, {"critics": 1, "lr": 0.0})
