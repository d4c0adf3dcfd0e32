"""DroQ: dropout in the prediction, in the target and under the policy, each pass with masks of its own."""

import jax
import jax.numpy as jnp
import pytest

from jaxrl.agents import droq
from jaxrl.nets import MLP, drawing, net
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    OBS,
    SPECS,
    Descended,
    agrees,
    bounded,
    defaults,
    disturbed,
    last_of,
    mean,
    member,
    near,
    replayed,
    squashed,
    stacked,
    tracked,
    transitions,
)

CONFIG = droq.Config((8,), lr=3e-3, gamma=0.9, tau=0.1, alpha=0.3, ratio=2, dropout=0.3)
ACTOR = net(MLP((8,), 2 * DIMS), OBS)
CRITIC = drawing(MLP((8,), 1, norm="affine", dropout=0.3), OBS, ACTION)
NOW, NEXT, JUDGED = range(1 << 29, (1 << 29) + 3)  # streams of masks


def q(parameters, obs, action, key, stream):
    keys = jax.random.split(jax.random.fold_in(key, stream))
    return [CRITIC.apply(member(parameters, i), keys[i], obs, action)[:, 0] for i in range(2)]


def critic_loss(live, parts, batch, key):
    """y = r + gamma (1 - d) (min(Q'_1, Q'_2) - alpha log pi) with dropout on; the sum of (Q_i - y)^2 / 2."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], batch["next_obs"]), key)
    one, other = q(parts["target"], batch["next_obs"], action, key, NEXT)
    y = jnp.minimum(one, other) - jnp.exp(parts["log_alpha"]) * log_prob
    y = batch["reward"] + 0.9 * batch["discount"] * y
    one, other = q(live["critic"], batch["obs"], batch["action"], key, NOW)
    value = mean(((one - y) ** 2 + (other - y) ** 2) / 2, batch)
    return value, {"td_error": (abs(one - y) + abs(other - y)) / 2, "target": y}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - (Q_1 + Q_2) / 2] with dropout on, and -log(alpha) (log pi - |A|) with log pi held."""
    action, log_prob = squashed(ACTOR.apply(live["actor"], batch["obs"]), key)
    alpha = jnp.exp(parts["log_alpha"])
    one, other = q(parts["critic"], batch["obs"], action, key, JUDGED)
    settle = -live["log_alpha"] * (jax.lax.stop_gradient(log_prob) - DIMS)
    return mean(alpha * log_prob - (one + other) / 2 + settle, batch), {"entropy": -log_prob, "alpha": alpha}


@pytest.fixture(scope="module")
def agent():
    return droq.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_papers(agent, start):
    adam = {"lr": 3e-3}
    references = {
        "critic": Descended(critic_loss, {"critic": adam}),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}, last_of(2)),
        "target": tracked("critic", "target", 0.1),
    }
    agrees(agent, disturbed(start, "actor", "critic", "target"), references, [transitions(i) for i in range(4)])


def test_parts_at_the_start(start):
    key_critic = jax.random.split(KEY)[1]
    near(start["critic"], stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)]))


def test_a_recipes_numbers_arrive():
    recipe = droq.recipe(SPECS, droq.Config((8,), batch=8, capacity=32, warmup=7, num_envs=2, ratio=3, critics=3))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    shapes = recipe.agent.shapes["critic"]
    assert shapes["Dense_0"]["kernel"].shape[0] == 3 and shapes["LayerNorm_0"].keys() == {"scale", "bias"}


def test_configuration():
    defaults(
        droq.Config(), widths=(256, 256), lr=3e-4, gamma=0.99, tau=0.005, alpha=1.0, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=20, critics=2, members=2, dropout=0.01,
    )  # fmt: skip
    bounded(droq.Config, {"ratio": 1}, {"dropout": (0.0, 0.99)})
