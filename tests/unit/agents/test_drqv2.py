"""DrQ-v2: n-step targets of the least critic, clipped noise that falls, and what shapes the encoder, by the paper."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import drqv2
from jaxrl.core import Ctx
from jaxrl.nets import MLP, Conv, Net, Trunk, net, orthogonal
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
    defaults,
    disturbed,
    mean,
    member,
    near,
    replayed,
    same,
    stacked,
    summed,
    tracked,
    transitions,
)
from tests.small import PICTURES

FEATURES, NOISE, CLIP = 5, (0.8, 0.2), 0.3
CONFIG = drqv2.Config(
    channels=(2,), strides=(3,), sizes=(4,), features=FEATURES, widths=(8,), lr=3e-3, gamma=0.9, tau=0.1, noise=NOISE,
    noise_frames=200, noise_clip=CLIP, capacity=32, batch=8,
)  # fmt: skip
KINDS = {"states": SPECS, "pictures": PICTURES}
EYES = {
    "states": Net(lambda key: (), lambda p, obs: obs),
    "pictures": net(Conv((2,), (3,), (4,)), PICTURES.observation),
}
SEEN = {"states": OBS, "pictures": jax.ShapeDtypeStruct((3 * 3 * 2,), jnp.float32)}
NECK = jax.ShapeDtypeStruct((FEATURES,), jnp.float32)
TRUNK = {kind: net(Trunk(FEATURES), seen) for kind, seen in SEEN.items()}
POLICY = net(MLP((8,), DIMS, kernel_init=orthogonal()), NECK)
HEAD = net(MLP((8,), 1, kernel_init=orthogonal()), NECK, ACTION)
LEARNED = ("encoder", "actor", "critic", "target")


def batch_of(kind, seed):
    batch = transitions(seed)
    if kind == "pictures":
        pictures = np.random.default_rng(seed).integers(0, 256, (2, B, *PICTURES.observation.shape)).astype(np.uint8)
        batch |= {"obs": pictures[0], "next_obs": pictures[1]}
    return batch


def mu(kind, actor, h):
    return jnp.tanh(POLICY.apply(actor["policy"], TRUNK[kind].apply(actor["trunk"], h)))


def q(kind, critic, h, action):
    neck = TRUNK[kind].apply(critic["trunk"], h)
    return [HEAD.apply(member(critic["heads"], i), neck, action)[:, 0] for i in range(2)]


def noisy(kind, actor, h, std, key):
    """a = clamp(mu + clip(std N, -c, c), -1, 1), and the clamp lets the gradient through."""
    center = mu(kind, actor, h)
    noise = std * jax.random.normal(jax.random.split(key)[1], center.shape)
    free = center + jnp.minimum(jnp.maximum(noise, -CLIP), CLIP)
    inside = jnp.minimum(jnp.maximum(free, -1 + 1e-6), 1 - 1e-6)
    return free - jax.lax.stop_gradient(free) + jax.lax.stop_gradient(inside)


def references(kind):
    see = EYES[kind].apply

    def critic_loss(live, parts, batch, key):
        """y = R + gamma^n (1 - d) min_j Q'_j(h', a'), a' of the actor and h' of the encoder as they are, no copies."""
        h_next = see(parts["encoder"], batch["next_obs"])
        one, other = q(kind, parts["target"], h_next, noisy(kind, parts["actor"], h_next, parts["std"], key))
        y = batch["reward"] + 0.9 * batch["discount"] * jnp.minimum(one, other)
        one, other = q(kind, live["critic"], see(live["encoder"], batch["obs"]), batch["action"])
        value = mean((one - y) ** 2 + (other - y) ** 2, batch)
        return value, {"td_error": (abs(one - y) + abs(other - y)) / 2, "target": y}

    def actor_loss(live, parts, batch, key):
        """-E[min_j Q_j(h, a)], which the encoder does not learn from."""
        h = see(parts["encoder"], batch["obs"])
        least = jnp.minimum(*q(kind, parts["critic"], h, noisy(kind, live["actor"], h, parts["std"], key)))
        return mean(-least, batch), {"q": least}

    adam = {"lr": 3e-3}
    return {
        "noise": Put(lambda parts, batch: {"std": np.float32(NOISE[0])}),
        "critic": Descended(critic_loss, {"encoder": adam, "critic": adam, "code": adam}),
        "actor": Descended(actor_loss, {"actor": adam}),
        "target": tracked("critic", "target", 0.1),
    }


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def agent(kind):
    return drqv2.build(KINDS[kind], CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def test_two_updates_are_the_papers(kind, agent, start):
    """The noise, the critics with the encoder, the actor against them, and the critics' copy, trunk included."""
    agrees(agent, disturbed(start, *LEARNED), references(kind), [batch_of(kind, i) for i in range(2)])
    assert agent.rules["actor"].writes == ("actor",)
    assert set(agent.rules["critic"].writes) == {"encoder", "critic", "code"}


def test_noise_falls_by_frames(agent, start):
    for frames, std in ((0, 0.8), (50, 0.65), (200, 0.2), (900, 0.2)):
        after, _, _ = agent.rules["noise"].update(start, (), {}, Ctx(KEY, jnp.int32(frames)))
        assert_allclose([after["std"], agent.views["noise"](start, frames)], std, rtol=1e-6)
        same({**after, "std": 0}, {**start, "std": 0})


def test_acting_noise_is_not_clipped(kind, agent, start):
    parts = {**disturbed(start, *LEARNED), "std": jnp.float32(3.0)}
    obs = batch_of(kind, 3)["obs"][0]
    center = np.asarray(mu(kind, parts["actor"], EYES[kind].apply(parts["encoder"], obs)))
    ctx = Ctx(KEY, jnp.int32(0))
    greedy, memory, extras = agent.act(parts, "kept", obs, ctx, False)
    assert_allclose(greedy, center, rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    drawn, memory, extras = agent.act({**parts, "std": jnp.float32(0.5)}, "kept", obs, ctx, True)
    free = center + 0.5 * np.asarray(jax.random.normal(KEY, (DIMS,)))
    assert np.abs(free - center).max() > CLIP
    assert_allclose(drawn, np.clip(free, -1 + 1e-6, 1 - 1e-6), rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    assert np.abs(agent.act(parts, (), obs, ctx, True)[0]).max() < 1


def test_parts_at_the_start(kind, start):
    """Networks of keys of their own, a copy of the critics, and the noise's first deviation."""
    assert set(start) == {"encoder", "code", "actor", "critic", "target", "std"}
    eye, *keys = jax.random.split(KEY, 4)
    (actor_trunk, policy), (critic_trunk, heads) = (jax.random.split(key) for key in keys[:2])
    init = lambda network, key: jax.jit(network.init)(key)
    near(start["encoder"], init(EYES[kind], eye))
    near(start["actor"], {"trunk": init(TRUNK[kind], actor_trunk), "policy": init(POLICY, policy)})
    members = stacked([init(HEAD, key) for key in jax.random.split(heads)])
    near(start["critic"], {"trunk": init(TRUNK[kind], critic_trunk), "heads": members})
    same(start["target"], start["critic"])
    assert start["std"] == np.float32(0.8) and start["code"] == ()


def test_views_are_of_the_agents_own_networks(kind, agent, start):
    batch, view = batch_of(kind, 5), agent.views

    @jax.jit
    def seen(parts):
        h, action = EYES[kind].apply(parts["encoder"], batch["obs"]), batch["action"]
        trunk = {part: TRUNK[kind].apply(parts[part]["trunk"], h) for part in ("actor", "critic", "target")}
        necks = TRUNK[kind].within(parts["actor"]["trunk"], h)["layers"]
        inner = POLICY.within(parts["actor"]["policy"], trunk["actor"])["layers"]
        heads = [HEAD.within(member(parts["critic"]["heads"], i), trunk["critic"], action)["layers"] for i in range(2)]
        ours = [view["encode"](parts, batch["obs"]), view["q"](parts, h, action), view["policy"](parts, h, KEY)]
        ours += [view["q"](parts, h, action, "target"), view["actor"](parts, h)["layers"]]
        ours += [view["actor"](parts, h, KEY)["layers"], view["critic"](parts, h, action)["layers"]]
        theirs = [h, jnp.stack(q(kind, parts["critic"], h, action)), noisy(kind, parts["actor"], h, parts["std"], KEY)]
        theirs += [jnp.stack(q(kind, parts["target"], h, action)), necks + inner, necks + inner, stacked(heads)]
        return ours, theirs

    near(*seen(disturbed(start, *LEARNED)))


def test_critics_can_be_shown_a_code_of_the_action():
    """And learn it, with the encoder and themselves."""
    code = Net(lambda key: jax.random.normal(key, (DIMS, 4)), lambda parameters, action: jnp.tanh(action @ parameters))
    agent = drqv2.build(SPECS, CONFIG, code=code)
    parts = jax.jit(agent.init)(KEY)
    near(parts["code"], jax.random.normal(jax.random.split(KEY, 4)[3], (DIMS, 4)))
    assert parts["critic"]["heads"]["Dense_0"]["kernel"].shape == (2, FEATURES + 4, 8)
    batch = batch_of("states", 6)
    wide = net(MLP((8,), 1), NECK, jax.ShapeDtypeStruct((4,), jnp.float32))

    critic, seen = parts["critic"], jnp.tanh(batch["action"] @ parts["code"])
    neck = TRUNK["states"].apply(critic["trunk"], batch["obs"])
    wanted = [wide.apply(member(critic["heads"], i), neck, seen)[:, 0] for i in range(2)]
    near(agent.views["q"](parts, batch["obs"], batch["action"]), jnp.stack(wanted))
    rule = agent.rules["critic"]
    after = jax.jit(rule.update)(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))[0]
    assert (np.asarray(after["code"]) != parts["code"]).any()


def test_a_recipes_numbers_arrive(kind):
    config = replace(CONFIG, batch=8, capacity=64, warmup=7, num_envs=2, unroll=3, ratio=5, n=2, gamma=0.5, pad=2)
    recipe = drqv2.recipe(KINDS[kind], config)
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 3, 5, 7)
    if kind == "states":
        assert replayed(recipe) == (64, 8)
        batch = summed(recipe)
        assert "ahead" not in batch and "ahead" in summed(drqv2.recipe(SPECS, config, ahead=3))
    else:
        dot = np.zeros(PICTURES.observation.shape, np.uint8)
        dot[6, 6] = 200
        batch = summed(recipe, obs=dot)
        at = np.argwhere(np.asarray(batch["obs"])[..., 0] == 200)[:, 1:]
        assert len(at) == 8 and np.abs(at - 6).max() == 2  # of +-2 pixels
        assert "ahead" in summed(drqv2.recipe(PICTURES, config, ahead=3), obs=dot)
        two = replace(PICTURES, observation=jax.ShapeDtypeStruct((12, 12, 6), jnp.uint8))
        seen = summed(drqv2.recipe(two, replace(config, pad=0)), obs=np.concatenate([dot, dot], axis=-1))["obs"]
        assert_array_equal(seen[0, 6, 6], [200] * 6)
    assert_allclose(batch["reward"].max(), 1.5)  # some windows begin where less is known
    assert_allclose(batch["discount"].min(), 0.5)


def test_a_policys_module_can_be_another():
    recipe = drqv2.recipe(SPECS, CONFIG, policy=lambda widths, n, **how: MLP((*widths, 6), n, **how))
    assert recipe.agent.shapes["actor"]["policy"]["Dense_2"]["kernel"].shape == (6, DIMS)


def test_configuration():
    defaults(
        drqv2.Config(), encoder="conv", channels=(32, 32, 32, 32), strides=(2, 1, 1, 1), sizes=(3, 3, 3, 3),
        features=50, widths=(1024, 1024), lr=1e-4, gamma=0.99, n=3, tau=0.01, noise=(1.0, 0.1), noise_frames=1_000_000,
        noise_clip=0.3, pad=4, batch=256, capacity=100_000, warmup=4_000, num_envs=1, unroll=2, ratio=1,
    )  # fmt: skip
    lowest = {"features": 1, "lr": 0.0, "n": 1, "noise_frames": 1, "noise_clip": 0.0, "pad": 0, "batch": 1}
    lowest |= {"capacity": 1, "warmup": 0, "num_envs": 1, "unroll": 1, "ratio": 0, "noise": 0.0}
    bounded(drqv2.Config, lowest, {"gamma": (0.0, 1.0), "tau": (0.0, 1.0)})
