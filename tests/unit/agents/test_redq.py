"""REDQ: the least of a subset in targets, the mean of all for the policy, and its delay, by the paper's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import redq
from jaxrl.core import BadInput
from jaxrl.nets import MLP, net
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
    replayed,
    same,
    squashed,
    tracked,
    transitions,
)

N = 4
CONFIG = redq.Config((8,), lr=3e-3, gamma=0.9, tau=0.1, alpha=0.3, ratio=2, critics=N, members=2)
ACTOR, CRITIC = net(MLP((8,), 2 * DIMS), OBS), net(MLP((8,), 1), OBS, ACTION)
CHOSEN = (1 << 29) + 3  # the stream of a subset


def q(parameters, obs, action):
    return jnp.stack([CRITIC.apply(member(parameters, i), obs, action)[:, 0] for i in range(N)])


def critic_loss(live, parts, batch, key, members=2):
    """y = r + gamma (1 - d) (min over i in M of Q'_i - alpha log pi), one M for the batch, for all N critics."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], batch["next_obs"]), key)
    chosen = jax.random.choice(jax.random.fold_in(key, CHOSEN), N, (members,), replace=False)
    least = q(parts["target"], batch["next_obs"], action)[chosen].min(axis=0)
    y = batch["reward"] + 0.9 * batch["discount"] * (least - jnp.exp(parts["log_alpha"]) * log_prob)
    error = q(live["critic"], batch["obs"], batch["action"]) - y
    return mean((error**2 / 2).sum(axis=0), batch), {"td_error": abs(error).mean(axis=0), "target": y}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - (1 / N) sum_i Q_i], and -log(alpha) (log pi - |A|) with log pi held."""
    action, log_prob = squashed(ACTOR.apply(live["actor"], batch["obs"]), key)
    alpha = jnp.exp(parts["log_alpha"])
    climb = alpha * log_prob - q(parts["critic"], batch["obs"], action).sum(axis=0) / N
    settle = -live["log_alpha"] * (jax.lax.stop_gradient(log_prob) - DIMS)
    return mean(climb + settle, batch), {"entropy": -log_prob, "alpha": alpha}


@pytest.fixture(scope="module")
def start():
    return jax.jit(redq.build(SPECS, CONFIG).init)(KEY)


def test_updates_are_the_papers(start):
    """Four of all N critics and their copies; of the policy one with the last of each two."""
    adam = {"lr": 3e-3}
    references = {
        "critic": Descended(critic_loss, {"critic": adam}),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}, last_of(2)),
        "target": tracked("critic", "target", 0.1),
    }
    parts = disturbed(start, "actor", "critic", "target")
    agrees(redq.build(SPECS, CONFIG), parts, references, [transitions(i) for i in range(4)])


def test_all_critics_may_make_the_target(start):
    """As many members as critics need no draw: the least of all."""
    config = redq.Config((8,), gamma=0.9, critics=N, members=N)
    parts, batch = disturbed(start, "actor", "critic", "target"), transitions()
    ours = jax.jit(redq.build(SPECS, config).rules["critic"].loss)(parts, parts, batch, KEY)[1]["target"]
    theirs = jax.jit(critic_loss, static_argnums=4)(parts, parts, batch, KEY, N)[1]["target"]
    assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_there_are_as_many_critics_as_asked_for(start):
    assert set(start) == {"actor", "critic", "target", "log_alpha"}
    assert all(leaf.shape[0] == N for leaf in jax.tree.leaves(start["critic"]))
    same(start["target"], start["critic"])
    assert np.unique(start["critic"]["Dense_0"]["kernel"][:, 0, 0]).size == N


def test_a_recipes_numbers_arrive():
    recipe = redq.recipe(SPECS, redq.Config((8,), batch=8, capacity=32, warmup=7, num_envs=2, ratio=3, critics=3))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    assert recipe.agent.shapes["critic"]["Dense_0"]["kernel"].shape[0] == 3


def test_configuration():
    defaults(
        redq.Config(), widths=(256, 256), lr=3e-4, gamma=0.99, tau=0.005, alpha=1.0, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=20, critics=10, members=2,
    )  # fmt: skip
    bounded(redq.Config, {"ratio": 1, "members": 1, "lr": 0.0})
    bounded(redq.Config, {"critics": 1}, members=1)
    redq.Config(critics=3, members=3)
    with pytest.raises(BadInput, match="members is 4, more than the 3 critics"):
        redq.Config(critics=3, members=4)
