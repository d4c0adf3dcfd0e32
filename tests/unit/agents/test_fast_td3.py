"""FastTD3: categorical targets of the online actor, its climb, decay and held noise, by the authors' equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import fast_td3
from jaxrl.core import BadInput, Ctx
from jaxrl.nets import MLP, net
from jaxrl.rules.statistics import Moments
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    LENGTH,
    OBS,
    SPECS,
    Descended,
    agrees,
    bounded,
    cross_entropies,
    defaults,
    disturbed,
    expected,
    explored,
    last_of,
    mean,
    member,
    near,
    noisy,
    replayed,
    same,
    soft_distribution,
    stacked,
    tracked,
    transitions,
)

SIZES = {"widths": (8,), "critic_widths": (7,), "atoms": 9, "support": (-2.0, 3.0)}
CONFIG = fast_td3.Config(
    **SIZES, num_envs=2, lr=3e-3, decay=0.5, gamma=0.9, tau=0.1, sigma=(0.2, 0.6), smoothing=0.6, delay=2
)
ACTOR, CRITIC = net(MLP((8,), DIMS), OBS), net(MLP((7,), 9), OBS, ACTION)
BINS = np.linspace(-2, 3, 9, dtype=np.float32)
NORM = Moments(jnp.array([0.3, -0.2, 1.0]), jnp.array([8.0, 20.0, 0.004]), jnp.float32(9))  # the third is clipped


def seen(obs):
    """(s - mean) / sqrt(var + 1e-8), within 10 either way."""
    z = (obs - np.asarray(NORM.mean)) / np.sqrt(np.asarray(NORM.m2) / (9 - 1) + 1e-8)
    return jnp.minimum(jnp.maximum(z, -10), 10)


def logits(parameters, obs, action):
    return jnp.stack([CRITIC.apply(member(parameters, i), seen(obs), action) for i in range(2)])


def critic_loss(live, parts, batch, key):
    """Cross-entropy, of both critics, from r + gamma (1 - d) z of the lesser target at the smoothed action of the actor
    itself: clip(mu(s') + clip(N(0, .6^2), -.5, .5), -1, 1)."""
    center = jnp.tanh(ACTOR.apply(parts["actor"], seen(batch["next_obs"])))
    noise = jnp.minimum(jnp.maximum(0.6 * jax.random.normal(key, center.shape), -0.5), 0.5)
    following = logits(parts["target"], batch["next_obs"], jnp.minimum(jnp.maximum(center + noise, -1), 1))
    aim = soft_distribution(batch["reward"], 0.9 * batch["discount"], following, 0 * batch["reward"], BINS)
    value, told = cross_entropies(logits(live["critic"], batch["obs"], batch["action"]), aim, BINS, batch)
    return value, {**told, "outermost": aim[:, 0] + aim[:, 8]}


def actor_loss(live, parts, batch, key):
    """-E[min(E Z_1, E Z_2)]."""
    action = jnp.tanh(ACTOR.apply(live["actor"], seen(batch["obs"])))
    one, other = logits(parts["critic"], batch["obs"], action)
    q = jnp.minimum(expected(one, BINS), expected(other, BINS))
    return mean(-q, batch), {"q": q}


@pytest.fixture(scope="module")
def agent():
    return fast_td3.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_authors(agent, start):
    """Four of the critics and their copy, with AdamW's decay; the actor, without a copy, with each second."""
    adamw = {"lr": 3e-3, "decay": 0.5}
    references = {
        "critic": Descended(critic_loss, {"critic": adamw}),
        "actor": Descended(actor_loss, {"actor": adamw}, last_of(2)),
        "target": tracked("critic", "target", 0.1),
    }
    parts = {**disturbed(start, "actor", "critic", "target"), "norm": NORM}
    agrees(agent, parts, references, [transitions(i) for i in range(4)])


def test_parts_at_the_start(start):
    """U(+-1 / sqrt(fan_in)) but for the actor's last layer, N(0, .01^2); biases of 0; a copy; statistics of nothing."""
    key_actor, key_critic = jax.random.split(KEY)
    uniform = lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -1, 1) * shape[0] ** -0.5
    small = lambda key, shape, dtype=jnp.float32: 0.01 * jax.random.normal(key, shape, dtype)
    actor = net(MLP((8,), DIMS, kernel_init=uniform, final_init=small), OBS)
    critic = net(MLP((7,), 9, kernel_init=uniform), OBS, ACTION)
    assert set(start) == {"actor", "critic", "target", "norm"}
    near(start["actor"], jax.jit(actor.init)(key_actor))
    near(start["critic"], stacked([jax.jit(critic.init)(key) for key in jax.random.split(key_critic)]))
    same(start["target"], start["critic"])
    same(start["norm"], Moments(jnp.zeros(LENGTH), jnp.zeros(LENGTH), jnp.float32(0)))


def test_an_episode_holds_a_size_of_noise(agent, start):
    """Drawn between both ends with the first step, and its own from then on; actions stay within bounds."""
    parts = {**disturbed(start, "actor", by=0.5), "norm": NORM}
    assert agent.memory() == {"sigma": -1}
    for sigma in (-1.0, 0.0, 0.5):
        obs, keys, action = explored(agent, parts, {"sigma": jnp.float32(sigma)})
        streams = [jax.random.split(key) for key in keys]
        size = jnp.stack([jax.random.uniform(key, (), minval=0.2, maxval=0.6) for _, key in streams])
        noise = jnp.stack([jax.random.normal(key, (DIMS,)) for key, _ in streams])
        center = jnp.tanh(ACTOR.apply(parts["actor"], seen(obs)))
        wanted = noisy(center, (size if sigma < 0 else sigma + 0 * size)[:, None] * noise) if sigma else center
        assert_allclose(action, wanted, rtol=1e-4, atol=1e-6)
        ctx = Ctx(keys[0], jnp.int32(0))
        _, memory, extras = agent.act(parts, {"sigma": jnp.float32(sigma)}, obs[0], ctx, True)
        assert_allclose(memory["sigma"], size[0] if sigma < 0 else sigma, rtol=1e-6)
        assert extras == {}
        action, memory, extras = agent.act(parts, {"sigma": jnp.float32(sigma)}, obs[0], ctx, False)
        assert_allclose(action, center[0], rtol=1e-4)
        assert (memory, extras) == ({"sigma": sigma}, {})


def test_a_network_may_compute_in_16_bits(start):
    """Parameters and what comes out stay float32."""
    agent = fast_td3.build(SPECS, replace(CONFIG, precision="bfloat16"))
    parts = {**start, "norm": NORM}
    loss = agent.rules["critic"].around[1].loss
    exact = jax.jit(critic_loss)(start, parts, transitions(), KEY)[0]
    batch = {**transitions(), "obs": seen(transitions()["obs"]), "next_obs": seen(transitions()["next_obs"])}
    value = jax.jit(loss)(parts, parts, batch, KEY)[0]
    assert value.dtype == jnp.float32 and value != exact
    assert_allclose(value, exact, rtol=0.05)


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3, "n": 3, "gamma": 0.5}
    recipe = fast_td3.recipe(SPECS, fast_td3.Config(**SIZES, **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    assert list(recipe.agent.observe) == ["norm"]
    # Three steps of reward 1 at .5: 1.75, or less where fewer follow.
    steps = {name: jnp.ones((4, 2, *x.shape[1:])) for name, x in transitions().items() if name != "weight"}
    steps |= {"end": jnp.zeros((4, 2), bool)}
    s = recipe.source.add(recipe.source.init(steps), steps, None)
    assert set(np.unique(recipe.source.sample(s, {}, KEY)["reward"])) <= {1.0, 1.5, 1.75}
    assert recipe.source.sample(s, {}, KEY)["reward"].max() == 1.75


def test_configuration():
    defaults(
        fast_td3.Config(), num_envs=1024, ratio=2, batch=32_768, capacity=10_485_760, warmup=10_240,
        widths=(512, 256, 128), critic_widths=(1024, 512, 256), atoms=101, support=(-10.0, 10.0), lr=3e-4, decay=0.1,
        gamma=0.97, n=1, tau=0.1, sigma=(0.001, 0.4), smoothing=0.001, smoothing_clip=0.5, delay=2, precision="float32",
    )  # fmt: skip
    lowest = {"num_envs": 1, "ratio": 0, "batch": 1, "capacity": 1, "warmup": 0, "atoms": 2, "lr": 0.0, "decay": 0.0}
    lowest |= {"n": 1, "smoothing": 0.0, "smoothing_clip": 0.0, "delay": 1}
    bounded(fast_td3.Config, lowest, {"gamma": (0.0, 1.0), "tau": (0.0, 1.0)})
    for beyond in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(BadInput, match=r"^support is "):
            fast_td3.Config(support=beyond)
    for beyond in ((-0.1, 0.4), (0.5, 0.4)):
        with pytest.raises(BadInput, match=r"^sigma is "):
            fast_td3.Config(sigma=beyond)
    assert fast_td3.Config(sigma=(0.0, 0.0)).sigma == (0.0, 0.0)
    assert fast_td3.Config(sigma=(0.4, 0.4)).support == (-10, 10)
