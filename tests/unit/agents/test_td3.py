"""TD3: smoothed targets, the delayed actor and its copies, by the paper's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import td3
from jaxrl.core import Ctx
from jaxrl.nets import MLP, net
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
    explored,
    last_of,
    mean,
    member,
    near,
    noisy,
    replayed,
    same,
    stacked,
    tracked,
    transitions,
)

CONFIG = td3.Config((8,), lr=3e-3, gamma=0.9, tau=0.1, noise=0.4, smoothing=0.6, smoothing_clip=0.5, delay=2)
ACTOR, CRITIC = net(MLP((8,), DIMS), OBS), net(MLP((8,), 1), OBS, ACTION)
PARTS = ("actor", "actor_target", "critic", "target")


def q(parameters, obs, action):
    return [CRITIC.apply(member(parameters, i), obs, action)[:, 0] for i in range(2)]


def smooth(center, key):
    """a' = clip(mu'(s') + clip(N(0, .6^2), -.5, .5), -1, 1)."""
    noise = 0.6 * jax.random.normal(key, center.shape)
    noise = jnp.maximum(jnp.minimum(noise, 0.5), -0.5)
    return jnp.maximum(jnp.minimum(center + noise, 1), -1)


def critic_loss(live, parts, batch, key):
    """y = r + gamma (1 - d) min_i Q'_i(s', a'); the sum of both critics' squared errors, not halved."""
    action = smooth(jnp.tanh(ACTOR.apply(parts["actor_target"], batch["next_obs"])), key)
    one, other = q(parts["target"], batch["next_obs"], action)
    y = batch["reward"] + 0.9 * batch["discount"] * jnp.minimum(one, other)
    one, other = q(live["critic"], batch["obs"], batch["action"])
    value = mean((one - y) ** 2 + (other - y) ** 2, batch)
    return value, {"td_error": (abs(one - y) + abs(other - y)) / 2, "target": y}


def actor_loss(live, parts, batch, key):
    """-E[Q_1(s, mu(s))]."""
    first, _ = q(parts["critic"], batch["obs"], jnp.tanh(ACTOR.apply(live["actor"], batch["obs"])))
    return mean(-first, batch), {"q": first}


@pytest.fixture(scope="module")
def agent():
    return td3.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_updates_are_the_papers(agent, start):
    """Four of the critics; with each second one the actor moves after them, and then both copies."""
    adam, second = {"lr": 3e-3}, last_of(2)
    references = {
        "critic": Descended(critic_loss, {"critic": adam}),
        "actor": Descended(actor_loss, {"actor": adam}, second),
        "target": tracked("critic", "target", 0.1, second),
        "actor_target": tracked("actor", "actor_target", 0.1, second),
    }
    agrees(agent, disturbed(start, *PARTS), references, [transitions(i) for i in range(4)])


def test_noise_and_action_are_clipped():
    """An action of .9 with noise far above the clip of .3 is 1, and 0 becomes .3; with a clip of 0 nothing moves."""
    center = jnp.array([[0.9, 0.0], [-0.9, 0.0]])
    wide = np.abs(td3.smoothed(center, 1e6, 0.3, KEY))
    assert set(np.round(wide.ravel().tolist(), 4)) <= {1.0, 0.6, 0.3}
    assert_allclose(wide[:, 1], 0.3)
    assert_allclose(td3.smoothed(center, 1e6, 0.0, KEY), center)


def test_parts_at_the_start(start):
    key_actor, key_critic = jax.random.split(KEY)
    assert set(start) == set(PARTS)
    near(start["actor"], jax.jit(ACTOR.init)(key_actor))
    near(start["critic"], stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)]))
    same((start["actor_target"], start["target"]), (start["actor"], start["critic"]))


def test_explores_by_noise_within_bounds(agent, start):
    parts = disturbed(start, "actor", by=0.5)
    obs, keys, action = explored(agent, parts)
    center = jnp.tanh(ACTOR.apply(parts["actor"], obs))
    noise = 0.4 * jnp.stack([jax.random.normal(key, (DIMS,)) for key in keys])
    assert_allclose(action, noisy(center, noise), rtol=1e-4, atol=1e-6)
    for explore in (False, True):
        action, memory, extras = agent.act(parts, "kept", obs[0], Ctx(KEY, jnp.int32(0)), explore)
        assert (memory, extras) == ("kept", {})
        assert (jnp.abs(action - center[0]).max() < 1e-5) == (not explore)


def test_views_are_of_the_agents_own_networks(agent, start):
    batch = transitions()

    @jax.jit
    def seen(parts, obs, action):
        view = agent.views
        alone = [CRITIC.within(member(parts["critic"], i), obs, action)["layers"] for i in range(2)]
        return (
            [view["encode"](parts, obs), view["q"](parts, obs, action), view["policy"](parts, obs, KEY)],
            [obs, jnp.stack(q(parts["critic"], obs, action)), jnp.tanh(ACTOR.apply(parts["actor"], obs))],
            [view["actor"](parts, obs)["layers"], view["critic"](parts, obs, action)["layers"]],
            [ACTOR.within(parts["actor"], obs)["layers"], stacked(alone)],
        )

    views, wanted, inside, layers = seen(disturbed(start, *PARTS), batch["obs"], batch["action"])
    near(views, wanted)
    near(inside, layers)
    assert views[1].shape == (2, B)


def test_a_recipes_numbers_arrive():
    recipe = td3.recipe(SPECS, td3.Config((8,), batch=8, capacity=32, warmup=7, num_envs=2, ratio=3))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)


def test_configuration():
    defaults(
        td3.Config(), widths=(256, 256), lr=3e-4, gamma=0.99, tau=0.005, noise=0.1, smoothing=0.2, smoothing_clip=0.5,
        delay=2, batch=256, capacity=100_000, warmup=5_000, num_envs=1, ratio=1,
    )  # fmt: skip
    lowest = {"lr": 0.0, "noise": 0.0, "smoothing": 0.0, "smoothing_clip": 0.0, "delay": 1, "batch": 1, "capacity": 1}
    bounded(td3.Config, {**lowest, "warmup": 0, "num_envs": 1, "ratio": 0}, {"gamma": (0.0, 1.0), "tau": (0.0, 1.0)})
