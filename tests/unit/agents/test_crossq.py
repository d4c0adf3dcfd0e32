"""CrossQ: the joined pass, its target without a copy, and the statistics that each update leaves, by the equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import crossq
from jaxrl.core import Ctx
from jaxrl.nets import NormedMLP, normed
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
    last_of,
    mean,
    member,
    near,
    normal,
    replayed,
    slope,
    squashed,
    stacked,
    transitions,
)

CONFIG = crossq.Config((8,), lr=3e-3, gamma=0.9, alpha=0.3, critic_widths=(7,), b1=0.6, delay=2, plain=1)
ACTOR = normed(NormedMLP((8,), 2 * DIMS, 1), OBS)  # bent towards its running statistics after one pass
CRITIC = normed(NormedMLP((7,), 1, 1), OBS, ACTION)
PARTS = ("actor", "critic", "actor_running", "critic_running")


def critic_loss(live, parts, batch, key):
    """(Q, Q') of [s; s'], [a; a'] in one pass with the batch's statistics, and the sum of both critics' (Q - y)^2 / 2.

    y = r + gamma (1 - d) (min Q' - alpha log pi).
    a' is of the actor with its running statistics. Nothing flows through y, but through the statistics of its pass.
    """
    action, log_prob = squashed(ACTOR.apply(parts["actor"], parts["actor_running"], batch["next_obs"]), key)
    obs, actions = jnp.concatenate([batch["obs"], batch["next_obs"]]), jnp.concatenate([batch["action"], action])
    outputs, running = zip(
        *(CRITIC.train(member(live["critic"], i), member(parts["critic_running"], i), obs, actions) for i in range(2))
    )
    (one, one_next), (other, other_next) = ((out[:B, 0], out[B:, 0]) for out in outputs)
    soft = jnp.minimum(one_next, other_next) - jnp.exp(parts["log_alpha"]) * log_prob
    y = jax.lax.stop_gradient(batch["reward"] + 0.9 * batch["discount"] * soft)
    value = mean((one - y) ** 2 / 2 + (other - y) ** 2 / 2, batch)
    told = {"td_error": (abs(one - y) + abs(other - y)) / 2, "target": y}
    return value, {**told, "critic_running": stacked(list(running))}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - min Q], and alpha (H(pi) - H).

    The actor normalises by the batch's statistics, critics by their running ones.
    """
    output, running = ACTOR.train(live["actor"], parts["actor_running"], batch["obs"])
    action, log_prob = squashed(output, key)
    one, other = (
        CRITIC.apply(member(parts["critic"], i), member(parts["critic_running"], i), batch["obs"], action)[:, 0]
        for i in range(2)
    )
    policy = jnp.exp(parts["log_alpha"]) * log_prob - jnp.minimum(one, other)
    entropy = jax.lax.stop_gradient(-log_prob)
    value = mean(policy + jnp.exp(live["log_alpha"]) * (entropy - -DIMS), batch)
    return value, {"entropy": -log_prob, "alpha": jnp.exp(parts["log_alpha"]), "actor_running": running}


@pytest.fixture(scope="module")
def agent():
    return crossq.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_papers(agent, start):
    """Four of the critics; the actor and the temperature, of the authors' form alpha (H(pi) - H), with each second."""
    adam = {"lr": 3e-3, "b1": 0.6}
    references = {
        "critic": Descended(critic_loss, {"critic": adam}, sets=("critic_running",)),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}, last_of(2), sets=("actor_running",)),
    }
    parts = agrees(agent, disturbed(start, *PARTS), references, [transitions(i) for i in range(4)])
    passes = parts["critic_running"]["BatchRenorm_0"]["passes"]
    assert passes.tolist() == [4, 4] and parts["actor_running"]["BatchRenorm_0"]["passes"] == 2


def test_parts_at_the_start(start):
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == {*PARTS, "log_alpha"}
    near((start["actor"], start["actor_running"]), jax.jit(ACTOR.init)(key_actor))
    both = stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)])
    near((start["critic"], start["critic_running"]), both)
    assert_allclose(start["log_alpha"], np.log(0.3), rtol=1e-6)


def test_acts_by_running_statistics(agent, start):
    obs, ctx = jnp.array([0.3, -1.0, 2.0]), Ctx(KEY, jnp.int32(0))
    parts = disturbed(start, "actor", "actor_running")
    center, log_std = normal(ACTOR.apply(parts["actor"], parts["actor_running"], obs))
    action, memory, extras = agent.act(parts, "kept", obs, ctx, False)
    assert_allclose(action, np.tanh(center), rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    action, memory, extras = agent.act(parts, "kept", obs, ctx, True)
    assert_allclose(action, np.tanh(center + np.exp(log_std) * jax.random.normal(KEY, (DIMS,))), rtol=1e-5)
    assert (memory, extras) == ("kept", {})


def test_an_entropy_target_may_be_given(start):
    """The temperature's slope is alpha (H(pi) - H), so one of 0 in place of -2 makes it less by 2 alpha."""
    none, zero = (
        slope(crossq.build(SPECS, replace(CONFIG, target_entropy=h)).rules["actor"], "log_alpha", start, transitions())
        for h in (None, 0.0)
    )
    assert_allclose(none - zero, mean(np.full(B, 2 * 0.3), transitions()), rtol=1e-4)


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3}
    recipe = crossq.recipe(SPECS, crossq.Config((8,), critic_widths=(7,), **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    assert set(recipe.agent.rules) == {"critic", "actor"}


def test_configuration():
    defaults(
        crossq.Config(), widths=(256, 256), lr=1e-3, gamma=0.99, tau=0.01, alpha=1.0, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=1, critic_widths=(256, 256), b1=0.5, delay=3, plain=100_000,
    )  # fmt: skip
    bounded(crossq.Config, {"b1": 0.0, "delay": 1, "plain": 0, "lr": 0.0})
