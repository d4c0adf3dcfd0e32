"""FlashSAC: joined passes of actor and critics, kept norms, a target of spread, and held noise, by the equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import flash_sac
from jaxrl.core import BadInput, Ctx
from jaxrl.nets import NormedResidual, normed
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

CONFIG = flash_sac.Config(
    (6,), critic_widths=(5,), blocks=1, lr=3e-3, b1=0.8, gamma=0.9, tau=0.1, alpha=0.3, delay=2, sigma=0.2
)
ACTOR = normed(NormedResidual(6, 1, DIMS, heads=2), OBS)
CRITIC = normed(NormedResidual(5, 1, 101), OBS, ACTION)
BINS = np.linspace(-5, 5, 101, dtype=np.float32)
PARTS = ("actor", "critic", "target", "actor_running", "critic_running")
RETURNS = {"reward_norm": Moments(jnp.float32(0.5), jnp.float32(12), jnp.float32(6)), "peak": jnp.float32(9)}
ENTROPY = DIMS / 2 * np.log(2 * np.pi * np.e * 0.2**2)  # of a normal of .2 in each action


def joined(parameters, running, batch, action):
    """Logits [2, B, n] of (s, a) and of (s', a'), in one pass by the batch's statistics, and the new running ones."""
    obs, actions = jnp.concatenate([batch["obs"], batch["next_obs"]]), jnp.concatenate([batch["action"], action])
    out = [CRITIC.train(member(parameters, i), member(running, i), obs, actions) for i in range(2)]
    logits = jnp.stack([logits for logits, _ in out])
    return logits[:, :B], logits[:, B:], stacked([new for _, new in out])


def critic_loss(live, parts, batch, key):
    """XQC's, of rewards r / max(sqrt(var(G) + 1e-8), G_max / 5)."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], parts["actor_running"], batch["next_obs"]), key)
    spread = jnp.sqrt(parts["reward_norm"].m2 / (parts["reward_norm"].count - 1) + 1e-8)
    reward = batch["reward"] / jnp.maximum(spread, parts["peak"] / 5)
    guess, _, running = joined(live["critic"], parts["critic_running"], batch, action)
    _, following, _ = joined(parts["target"], parts["critic_running"], batch, action)
    bonus = -jnp.exp(parts["log_alpha"]) * log_prob
    aim = soft_distribution(reward, 0.9 * batch["discount"], following, bonus, BINS)
    value, told = cross_entropies(guess, aim, BINS, batch)
    return value, {**told, "critic_running": running}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - min_i E[Z_i]] of s, in a pass of [s; s']; alpha (H(pi) - H)."""
    seen = jnp.concatenate([batch["obs"], batch["next_obs"]])
    output, running = ACTOR.train(live["actor"], parts["actor_running"], seen)
    action, log_prob = squashed(output[:B], key)
    one, other = (
        CRITIC.apply(member(parts["critic"], i), member(parts["critic_running"], i), batch["obs"], action)
        for i in range(2)
    )
    alpha, entropy = jnp.exp(parts["log_alpha"]), jax.lax.stop_gradient(-log_prob)
    climb = alpha * log_prob - jnp.minimum(expected(one, BINS), expected(other, BINS))
    value = climb + live["log_alpha"] * (entropy - ENTROPY)
    return mean(value, batch), {"entropy": -log_prob, "alpha": alpha, "actor_running": running}


def projected(tree):
    """Columns of kernels at norm 1, and scale and shift, or a gain, together at the root of their width."""
    if not isinstance(tree, dict):
        return np.asarray(tree)
    if "scale" in tree:
        norm = np.sqrt((tree["scale"] ** 2 + tree["shift"] ** 2).sum(axis=-1, keepdims=True))
        return {name: np.asarray(x * np.sqrt(x.shape[-1]) / norm) for name, x in tree.items()}
    made = {name: projected(value) for name, value in tree.items()}
    if "kernel" in tree:
        made["kernel"] = made["kernel"] / np.linalg.norm(made["kernel"], axis=-2, keepdims=True)
    if "gain" in tree:
        gain = made["gain"]
        made["gain"] = gain * np.sqrt(gain.shape[-1]) / np.linalg.norm(gain, axis=-1, keepdims=True)
    return made


@pytest.fixture(scope="module")
def agent():
    return flash_sac.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_papers(agent, start):
    adam = {"lr": 3e-3, "b1": 0.8}
    kept = lambda name, due: Put(lambda parts, batch: {name: projected(parts[name])}, due)
    references = {
        "critic": Descended(critic_loss, {"critic": adam}, sets=("critic_running",)),
        "critic_norms": kept("critic", last_of(1)),
        "target": tracked("critic", "target", 0.1),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}, last_of(2), sets=("actor_running",)),
        "actor_norms": kept("actor", last_of(2)),
    }
    agrees(agent, {**disturbed(start, *PARTS), **RETURNS}, references, [transitions(i) for i in range(4)])


def test_parts_at_the_start(start):
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == {*PARTS, "log_alpha", "reward_norm", "peak"}
    near(start["actor"], projected(jax.jit(ACTOR.init)(key_actor)[0]))
    near(start["critic"], projected(stacked([jax.jit(CRITIC.init)(key)[0] for key in jax.random.split(key_critic)])))
    same(start["target"], start["critic"])


def test_an_entropy_target_may_be_given(start):
    """-log(alpha) (log pi + H), so that the slope differs by what the entropy of .2 is."""
    rules = [flash_sac.build(SPECS, config).rules["actor"] for config in (CONFIG, replace(CONFIG, target_entropy=0.0))]
    none, zero = (slope(rule, "log_alpha", start, transitions()) for rule in rules)
    assert_allclose(none - zero, mean(np.full(B, -ENTROPY), transitions()), rtol=1e-4)


def test_explores_by_the_noise_it_holds(agent, start):
    """Drawn where no step is left, kept and counted down elsewhere; steps to hold it follow 1 / n^2, n to 16."""
    obs, ctx = jnp.array([0.3, -1.0, 2.0]), Ctx(KEY, jnp.int32(0))
    parts = disturbed(start, "actor", "actor_running")
    center, log_std = normal(ACTOR.apply(parts["actor"], parts["actor_running"], obs))
    memory = agent.memory()
    assert_array_equal(memory["noise"], np.zeros(DIMS))
    assert memory["left"] == 0 and memory["left"].dtype == jnp.int32
    key_noise, key_hold = jax.random.split(KEY)
    fresh = jax.random.normal(key_noise, (DIMS,))
    more = jax.random.categorical(key_hold, jnp.log(1 / jnp.arange(1.0, 17) ** 2))
    action, held, extras = agent.act(parts, memory, obs, ctx, True)
    assert_allclose(held["noise"], fresh)
    assert held["left"] == more and held["left"].dtype == jnp.int32
    assert_allclose(action, np.tanh(center + np.exp(log_std) * fresh), rtol=1e-5)
    assert extras == {}
    kept = {"noise": jnp.array([0.4, -2.0]), "left": jnp.int32(3)}
    action, held, _ = agent.act(parts, kept, obs, ctx, True)
    same(held, {"noise": kept["noise"], "left": jnp.int32(2)})
    assert_allclose(action, np.tanh(center + np.exp(log_std) * kept["noise"]), rtol=1e-5)
    action, held, extras = agent.act(parts, kept, obs, ctx, False)
    same(held, kept)
    assert extras == {}
    assert_allclose(action, np.tanh(center), rtol=1e-5)


def test_the_longest_hold_is_of_16_steps():
    assert_allclose(np.exp(flash_sac.HOLDS), 1 / np.arange(1.0, 17) ** 2, rtol=1e-6)


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3}
    recipe = flash_sac.recipe(SPECS, flash_sac.Config((6,), critic_widths=(5,), blocks=1, **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    assert list(recipe.agent.observe) == ["reward_norm"]


def test_configuration():
    defaults(
        flash_sac.Config(), widths=(64,), lr=3e-4, gamma=0.99, tau=0.01, alpha=0.01, target_entropy=None, batch=256,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=1, critic_widths=(128,), b1=0.9, delay=2, plain=100_000,
        blocks=2, sigma=0.15,
    )  # fmt: skip
    bounded(flash_sac.Config, {"blocks": 1, "delay": 1})
    flash_sac.Config(sigma=1e-6)
    with pytest.raises(BadInput, match=r"^sigma is "):
        flash_sac.Config(sigma=0.9e-6)
