"""DrQ: SAC's equations behind an encoder that the critics alone shape, and pictures less their running mean."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import drq
from jaxrl.core import Ctx
from jaxrl.nets import Conv, TrunkMLP, net
from jaxrl.rules.statistics import Moments
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
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
    same,
    squashed,
    stacked,
    summed,
    tracked,
    transitions,
)
from tests.small import PICTURES

CONFIG = drq.Config(
    (8,), lr=3e-3, gamma=0.9, tau=0.1, alpha=0.3, target_entropy=-1.5, channels=(2,), strides=(3,), sizes=(4,),
    features=5, capacity=64, batch=8, warmup=7, num_envs=2, ratio=3, pad=2,
)  # fmt: skip
SHAPE = PICTURES.observation.shape
EYE, SEEN = net(Conv((2,), (3,), (4,)), PICTURES.observation), jax.ShapeDtypeStruct((3 * 3 * 2,), jnp.float32)
ACTOR, CRITIC = net(TrunkMLP((8,), 2 * DIMS, 5), SEEN), net(TrunkMLP((8,), 1, 5), SEEN, ACTION)
LEARNED = ("encoder", "actor", "critic", "target")


def batch_of(seed):
    pictures = np.random.default_rng(seed).integers(0, 256, (2, B, *SHAPE)).astype(np.uint8)
    return {**transitions(seed), "obs": pictures[0], "next_obs": pictures[1]}


def see(encoder, norm, pictures):
    """What the encoder makes of pictures less their mean, over the root of all pixels' mean variance."""
    variance = (norm.m2 / (norm.count - 1)).sum() / norm.m2.size
    return EYE.apply(encoder, (jnp.asarray(pictures, jnp.float32) - norm.mean) / jnp.sqrt(variance + 1e-8))


def q(critic, h, action):
    return [CRITIC.apply(member(critic, i), h, action)[:, 0] for i in range(2)]


def critic_loss(live, parts, batch, key):
    """SAC's, of the encoder that learns for what is seen now, and of that of now for what comes next."""
    h_next = see(parts["encoder"], parts["norm"], batch["next_obs"])
    action, log_prob = squashed(ACTOR.apply(parts["actor"], h_next), key)
    soft = jnp.minimum(*q(parts["target"], h_next, action)) - jnp.exp(parts["log_alpha"]) * log_prob
    y = batch["reward"] + 0.9 * batch["discount"] * soft
    one, other = q(live["critic"], see(live["encoder"], parts["norm"], batch["obs"]), batch["action"])
    value = mean(((one - y) ** 2 + (other - y) ** 2) / 2, batch)
    return value, {"td_error": (abs(one - y) + abs(other - y)) / 2, "target": y}


def actor_loss(live, parts, batch, key):
    """SAC's, of features that it does not learn."""
    h = see(parts["encoder"], parts["norm"], batch["obs"])
    action, log_prob = squashed(ACTOR.apply(live["actor"], h), key)
    alpha = jnp.exp(parts["log_alpha"])
    policy = mean(alpha * log_prob - jnp.minimum(*q(parts["critic"], h, action)), batch)
    held = jax.lax.stop_gradient(log_prob)
    return policy + mean(-live["log_alpha"] * (held - 1.5), batch), {"entropy": -log_prob, "alpha": alpha}


@pytest.fixture(scope="module")
def agent():
    return drq.build(PICTURES, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


@pytest.fixture(scope="module")
def parts(start):
    rng = np.random.default_rng(4)
    norm = Moments(*(jnp.float32(x) for x in (rng.uniform(0, 255, SHAPE), 9000 * rng.uniform(0, 4, SHAPE), 5)))
    return {**disturbed(start, *LEARNED), "norm": norm}


def test_two_updates_are_the_papers(agent, parts):
    adam = {"lr": 3e-3}
    references = {
        "critic": Descended(critic_loss, {"encoder": adam, "critic": adam}),
        "actor": Descended(actor_loss, {"actor": adam, "log_alpha": adam}),
        "target": tracked("critic", "target", 0.1),
    }
    agrees(agent, parts, references, [batch_of(0), batch_of(1)])
    assert set(agent.rules["critic"].writes) == {"encoder", "critic"}
    assert set(agent.rules["actor"].writes) == {"actor", "log_alpha"}


def test_acts_on_what_it_sees(agent, parts):
    picture = batch_of(2)["obs"][0]
    center, log_std = normal(ACTOR.apply(parts["actor"], see(parts["encoder"], parts["norm"], picture)))
    greedy, drawn = (agent.act(parts, "kept", picture, Ctx(KEY, jnp.int32(0)), explore) for explore in (False, True))
    assert_allclose(greedy[0], np.tanh(center), rtol=1e-4)
    assert_allclose(drawn[0], np.tanh(center + np.exp(log_std) * jax.random.normal(KEY, (DIMS,))), rtol=1e-4)
    assert greedy[1:] == drawn[1:] == ("kept", {})


def test_parts_at_the_start(start):
    key_encoder, key_base = jax.random.split(KEY)
    key_actor, key_critic = jax.random.split(key_base)
    init = lambda network, key: jax.jit(network.init)(key)
    assert set(start) == {"norm", "encoder", "actor", "critic", "target", "log_alpha"}
    near(start["encoder"], init(EYE, key_encoder))
    near(start["actor"], init(ACTOR, key_actor))
    near(start["critic"], stacked([init(CRITIC, key) for key in jax.random.split(key_critic)]))
    same(start["target"], start["critic"])
    same(start["norm"], Moments(np.zeros(SHAPE), np.zeros(SHAPE), np.float32(0)))


def test_the_mean_is_of_every_picture(agent, start):
    assert list(agent.observe) == ["norm"]
    batch = batch_of(3)
    batch = {name: x[:, None] for name, x in batch.items()} | {"end": np.zeros((B, 1), bool)}
    batch["info"] = {"episode": {"length": np.arange(5, 5 + B)[:, None]}}
    after, _, _ = agent.observe["norm"].update(start, (), batch, Ctx(KEY, jnp.int32(0)))
    assert_allclose(after["norm"].mean, batch["next_obs"].mean(axis=(0, 1)), rtol=1e-5)


def test_a_recipes_numbers_arrive():
    recipe = drq.recipe(PICTURES, CONFIG)
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    dot = np.zeros(SHAPE, np.uint8)
    dot[6, 6] = 200
    batch = summed(recipe, obs=dot)
    at = np.argwhere(np.asarray(batch["obs"])[..., 0] == 200)[:, 1:]
    assert len(at) == 8 and np.abs(at - 6).max() == 2  # of +-2 pixels
    two = replace(PICTURES, observation=jax.ShapeDtypeStruct((12, 12, 6), jnp.uint8))
    single = drq.recipe(two, replace(CONFIG, pad=0))
    seen = summed(single, obs=np.concatenate([dot, dot], axis=-1))["obs"]
    assert_array_equal(seen[:, 6, 6].max(axis=0), [200] * 6)


def test_configuration():
    defaults(
        drq.Config(), widths=(256, 256), lr=1e-3, gamma=0.99, tau=0.01, alpha=0.1, target_entropy=None, batch=128,
        capacity=20_000, warmup=5_000, num_envs=1, ratio=1, encoder="conv", channels=(32, 64), strides=(4, 2),
        sizes=(4, 2), features=50, pad=2,
    )  # fmt: skip
    bounded(drq.Config, {"features": 1, "pad": 0, "batch": 1})
