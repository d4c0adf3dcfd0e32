"""XQC: joined passes of both networks, a categorical target, weights at norm 1, by the paper's equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import xqc
from jaxrl.nets import NormedMLP, normed, orthogonal
from jaxrl.rules.statistics import Moments
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
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
    last_of,
    mean,
    member,
    near,
    replayed,
    same,
    slope,
    soft_distribution,
    squashed,
    stacked,
    tracked,
    transitions,
)

CONFIG = xqc.Config((8,), critic_widths=(7,), lr=3e-3, b1=0.8, gamma=0.9, tau=0.1, alpha=0.3, delay=2)
SHAPE = {"first": True, "kernel_init": orthogonal(2**0.5)}
ACTOR, CRITIC = normed(NormedMLP((8,), 2 * DIMS, **SHAPE), OBS), normed(NormedMLP((7,), 101, **SHAPE), OBS, ACTION)
BINS = np.linspace(-5, 5, 101, dtype=np.float32)
PARTS = ("actor", "critic", "target", "actor_running", "critic_running")


def joined(parameters, running, batch, action):
    """Logits [2, B, n] of (s, a) and of (s', a'), in one pass by the batch's statistics, and the new running ones."""
    obs, actions = jnp.concatenate([batch["obs"], batch["next_obs"]]), jnp.concatenate([batch["action"], action])
    out = [CRITIC.train(member(parameters, i), member(running, i), obs, actions) for i in range(2)]
    logits = jnp.stack([logits for logits, _ in out])
    return logits[:, :B], logits[:, B:], stacked([new for _, new in out])


def critic_loss(live, parts, batch, key):
    """Cross-entropy, of both critics, from r / sd(G) + gamma (1 - d) (z - alpha log pi) of the lesser of the targets.

    Both networks normalise by the joined batch; the statistics of the learning one are kept.
    """
    action, log_prob = squashed(ACTOR.apply(parts["actor"], parts["actor_running"], batch["next_obs"]), key)
    reward = batch["reward"] / jnp.sqrt(parts["reward_norm"].m2 / (parts["reward_norm"].count - 1) + 1e-8)
    guess, _, running = joined(live["critic"], parts["critic_running"], batch, action)
    _, following, _ = joined(parts["target"], parts["critic_running"], batch, action)
    bonus = -jnp.exp(parts["log_alpha"]) * log_prob
    aim = soft_distribution(reward, 0.9 * batch["discount"], following, bonus, BINS)
    value, told = cross_entropies(guess, aim, BINS, batch)
    return value, {**told, "critic_running": running}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - min_i E[Z_i]], critics by running statistics; and -log(alpha) (log pi + H), H half of -|A|."""
    output, running = ACTOR.train(live["actor"], parts["actor_running"], batch["obs"])
    action, log_prob = squashed(output, key)
    one, other = (
        expected(
            CRITIC.apply(member(parts["critic"], i), member(parts["critic_running"], i), batch["obs"], action), BINS
        )
        for i in range(2)
    )
    alpha, entropy = jnp.exp(parts["log_alpha"]), jax.lax.stop_gradient(-log_prob)
    value = alpha * log_prob - jnp.minimum(one, other) + live["log_alpha"] * (entropy - -DIMS / 2)
    return mean(value, batch), {"entropy": -log_prob, "alpha": alpha, "actor_running": running}


def at_norm_one(name, due=lambda update: True):
    """Each unit's weights, of kernels [..., inputs, units], at norm 1; nothing else changes."""
    one = lambda path, x: x / np.linalg.norm(x, axis=-2, keepdims=True) if path[-1].key == "kernel" else x
    return Put(lambda parts, batch: {name: jax.tree_util.tree_map_with_path(one, parts[name])}, due)


@pytest.fixture(scope="module")
def agent():
    return xqc.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_papers(agent, start):
    """Four of the critics, their norms and their copy; the actor, the temperature and norms with each second."""
    adam = {"lr": 3e-3, "b1": 0.8}
    references = {
        "critic": Descended(critic_loss, {"critic": adam}, sets=("critic_running",)),
        "critic_norms": at_norm_one("critic"),
        "target": tracked("critic", "target", 0.1),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}, last_of(2), sets=("actor_running",)),
        "actor_norms": at_norm_one("actor", last_of(2)),
    }
    parts = {**disturbed(start, *PARTS), "reward_norm": Moments(jnp.float32(0.5), jnp.float32(12), jnp.float32(6))}
    agrees(agent, parts, references, [transitions(i) for i in range(4)])


def test_parts_at_the_start(start):
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == {*PARTS, "log_alpha", "reward_norm", "peak"}
    both = stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)])
    made = dict(zip(("actor", "critic"), (jax.jit(ACTOR.init)(key_actor)[0], both[0])))
    for name in made:
        near(start[name], at_norm_one(name).fn(made, None)[name])
    same(start["target"], start["critic"])
    same((start["reward_norm"], start["peak"]), (Moments(*jnp.zeros(3)), jnp.float32(0)))
    assert_allclose(start["log_alpha"], np.log(0.3), rtol=1e-6)


def test_an_entropy_target_may_be_given(start):
    """-log(alpha) (log pi + H): one of 0 in place of -1 makes the slope less by 1."""
    none, zero = (
        slope(xqc.build(SPECS, replace(CONFIG, target_entropy=h)).rules["actor"], "log_alpha", start, transitions())
        for h in (None, 0.0)
    )
    assert_allclose(none - zero, mean(np.ones(B), transitions()), rtol=1e-4)


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3}
    recipe = xqc.recipe(SPECS, xqc.Config((8,), critic_widths=(7,), gamma=0.5, **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    rule = recipe.agent.observe["reward_norm"]
    u = rule.init({})
    fresh = {"reward": jnp.array([[1.0, 3.0], [2.0, 4.0]]), "end": jnp.zeros((2, 2), bool)}
    parts, u, _ = rule.update({"reward_norm": Moments(*jnp.zeros(3)), "peak": jnp.float32(0)}, u, fresh, None)
    assert_allclose(u, [2.5, 5.5])  # .5 * 1 + 2 and .5 * 3 + 4
    assert_allclose(parts["peak"], 5.5)


def test_configuration():
    defaults(
        xqc.Config(), widths=(64,) * 4, lr=3e-4, gamma=0.99, tau=0.005, alpha=0.01, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=2, critic_widths=(128,) * 4, b1=0.9, delay=3, plain=100_000,
    )  # fmt: skip
    bounded(xqc.Config, {"b1": 0.0, "delay": 1})
