"""DQN: each head's target and loss, double and dueling, against the papers' equations; when the target is copied."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import dqn
from jaxrl.core import BadInput, Ctx, Discrete, Specs
from jaxrl.nets import MLP, net
from tests.pinned import (
    KEY,
    OBS,
    B,
    Descended,
    Put,
    agrees,
    bounded,
    cross_entropies,
    defaults,
    disturbed,
    expected,
    explores,
    last_of,
    mean,
    near,
    on_bins,
    replayed,
    same,
    summed,
    transitions,
)

ACTIONS, ATOMS = 3, 5
SPECS = Specs(OBS, Discrete(ACTIONS), limit=10)
SUPPORT = (-2.0, 3.0)
BINS = jnp.linspace(*SUPPORT, ATOMS)
CONFIG = dqn.Config(
    (8,), atoms=ATOMS, support=SUPPORT, lr=3e-3, eps=1e-4, b2=0.99, decay=0.01, clip=0.5, gamma=0.9, huber=0.6,
    target_period=2,
)  # fmt: skip
KINDS = {
    "scalar": {},
    "scalar, plain": {"huber": None, "double": False, "clip": None},
    "scalar, dueling": {"dueling": True},
    "c51": {"head": "c51", "dueling": True},
    "c51, plain": {"head": "c51", "double": False},
    "quantile": {"head": "quantile"},
    "quantile, plain": {"head": "quantile", "double": False, "dueling": True},
}


def acted(seed):
    batch = transitions(seed)
    actions = np.random.default_rng(seed).integers(0, ACTIONS, B).astype(np.int32)
    return {**batch, "action": actions, "reward": 2 * batch["reward"]}


BATCHES = [acted(i) for i in range(3)]


def huber(error, kappa):
    """e^2 / 2 up to kappa, and kappa (|e| - kappa / 2) beyond."""
    return jnp.where(abs(error) <= kappa, error**2 / 2, kappa * (abs(error) - kappa / 2))


def reference(config):
    n = 1 if config.head == "scalar" else ATOMS
    critic = net(MLP((8,), (ACTIONS + config.dueling) * n), OBS)

    def outputs(parameters, obs):
        """[B, actions, n]; of a duel V(s) + A(s, a) - mean_a A(s, a), V first."""
        each = critic.apply(parameters, obs).reshape(len(obs), -1, n)
        if not config.dueling:
            return each
        v, a = each[:, 0], [each[:, 1 + i] for i in range(ACTIONS)]
        return jnp.stack([v + one - sum(a) / ACTIONS for one in a], axis=1)

    def values(outputs):
        return {"scalar": outputs[..., 0], "c51": expected(outputs, BINS[:n]), "quantile": outputs.sum(-1) / n}[
            config.head
        ]

    def loss(live, parts, batch, key):
        rows = jnp.arange(B)
        after = outputs(parts["target"], batch["next_obs"])
        best = values(outputs(parts["critic"], batch["next_obs"]) if config.double else after).argmax(axis=1)
        after = after[rows, best]
        every = outputs(live["critic"], batch["obs"])
        now = every[rows, batch["action"]]
        reward, discount = batch["reward"][:, None], 0.9 * batch["discount"][:, None]
        if config.head == "c51":
            target = on_bins(reward + discount * BINS, jax.nn.softmax(after), BINS)
            value = cross_entropies(now[None], target, BINS, batch)[0]
        elif config.head == "quantile":
            error = (reward + discount * after)[:, :, None] - now[:, None, :]  # of target j and quantile i
            tau = (2 * jnp.arange(1, n + 1) - 1) / (2 * n)
            each = abs(tau - (error < 0)) * huber(error, config.huber)
            value = mean(each.mean(axis=1).sum(axis=1), batch)
        else:
            error = (reward + discount * after - now)[:, 0]
            value = mean(error**2 / 2 if config.huber is None else huber(error, config.huber), batch)
        aim = batch["reward"] + 0.9 * batch["discount"] * values(after)
        return value, {"td_error": abs(values(now) - aim), "q": values(every).max(axis=1)}

    how = {"lr": 3e-3, "eps": 1e-4, "b2": 0.99, "fade": 0.01}
    copied = Put(lambda parts, batch: {"target": parts["critic"]}, last_of(2))
    return {"critic": Descended(loss, {"critic": how}, clip=config.clip), "target": copied}, values, outputs


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_the_papers(kind):
    """Three of them: the target is copied, as it is, after the second."""
    config = replace(CONFIG, **KINDS[kind])
    agent = dqn.build(SPECS, config)
    start = jax.jit(agent.init)(KEY)
    assert set(start) == {"critic", "target"}
    same(start["target"], start["critic"])
    parts = disturbed(start, "critic", "target", by=0.5)
    references, values, outputs = reference(config)
    after = agrees(agent, parts, references, BATCHES)
    assert agent.rules["critic"].reads == ("critic", "target") and agent.rules["critic"].writes == ("critic",)
    greedy = jax.jit(jax.vmap(lambda obs: agent.act(after, "kept", obs, Ctx(KEY, jnp.int32(0)), False)[0]))
    obs = 5 * transitions(3, (30,))["obs"]
    best = values(outputs(after["critic"], obs)).argmax(axis=1)
    assert len(set(best.tolist())) > 1
    assert_array_equal(greedy(obs), best)


def test_a_learning_rate_that_falls_by_frames():
    agent = dqn.build(SPECS, replace(CONFIG, decay_frames=512, decay=0.0))
    parts, rule = jax.jit(agent.init)(KEY), agent.rules["critic"]
    update = jax.jit(rule.update)
    moved = lambda step: jax.tree.map(
        lambda a, b: a - b,
        update(parts, rule.init(parts), BATCHES[0], Ctx(KEY, jnp.int32(step)))[0]["critic"],
        parts["critic"],
    )
    whole = jax.tree.map(lambda x: 0.75 * x, moved(0))
    jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-6), moved(128), whole)
    assert not any(x.any() for x in jax.tree.leaves(moved(512)))


def test_explores_by_chance_or_by_a_softmax():
    obs = jnp.array([0.3, -1.0, 2.0])
    config = replace(CONFIG, epsilon=0.2, epsilon_frames=90)
    agent = dqn.build(SPECS, config)
    parts = disturbed(jax.jit(agent.init)(KEY), "critic")
    q = net(MLP((8,), ACTIONS), OBS).apply(parts["critic"], obs)
    explores(lambda key, step: agent.act(parts, (), obs, Ctx(key, step), True)[0], q, 0.2, 90)
    soft = dqn.build(SPECS, replace(config, temperature=0.5)).act
    for i in range(10):
        key = jax.random.key(i)
        action, memory, extras = soft(parts, "kept", obs, Ctx(key, jnp.int32(0)), True)
        assert action == jax.random.categorical(key, 2 * q) and action.dtype == jnp.int32
        assert (memory, extras) == ("kept", {})


def test_another_head_can_be_given():
    """`build` takes one beside the configuration's, and asks it for everything."""
    head = dqn.Head(2, lambda x: x[0] - x[1], lambda x, r, d, y: (x[0] - r - d * y[1]) ** 4)
    agent = dqn.build(SPECS, CONFIG, head)
    parts, batch = disturbed(jax.jit(agent.init)(KEY), "critic", "target"), BATCHES[0]
    out = lambda part, obs: net(MLP((8,), 2 * ACTIONS), OBS).apply(parts[part], obs).reshape(B, ACTIONS, 2)
    after, now = out("target", batch["next_obs"]), out("critic", batch["obs"])[jnp.arange(B), batch["action"]]
    choosing = out("critic", batch["next_obs"])
    after = after[jnp.arange(B), (choosing[..., 0] - choosing[..., 1]).argmax(axis=1)]
    each = (now[:, 0] - batch["reward"] - 0.9 * batch["discount"] * after[:, 1]) ** 4
    near(agent.rules["critic"].loss(parts, parts, batch, KEY)[0], mean(each, batch))


def test_a_recipes_numbers_arrive():
    recipe = dqn.recipe(SPECS, dqn.Config((8,), n=1, batch=8, capacity=32, warmup=7, num_envs=2, unroll=3, ratio=5))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 3, 5, 7)
    assert replayed(recipe) == (32, 8)
    batch = summed(dqn.recipe(SPECS, dqn.Config((8,), n=3, gamma=0.5, batch=8, capacity=32, num_envs=1)))
    assert_allclose(batch["reward"].max(), 1 + 0.5 + 0.25)  # some windows begin where less is known
    assert_allclose(0.5 * batch["discount"].min(), 0.5**3)


def test_configuration():
    defaults(
        dqn.Config(), widths=(64, 64), head="scalar", atoms=51, support=(-10.0, 10.0), dueling=False, lr=3e-4, eps=1e-8,
        b2=0.999, decay=0.0, clip=None, decay_frames=0, gamma=0.98, double=True, n=10, target_period=500, huber=1.0,
        batch=128, capacity=50_000, warmup=1_000, epsilon=0.01, epsilon_frames=20_000, temperature=None, num_envs=8,
        unroll=1, ratio=4,
    )  # fmt: skip
    lowest = {"atoms": 1, "lr": 0.0, "decay_frames": 0, "n": 1, "target_period": 1, "batch": 1, "capacity": 1}
    lowest |= {"warmup": 0, "epsilon_frames": 1, "num_envs": 1, "unroll": 1, "ratio": 0}
    ranges = {"gamma": (0.0, 1.0), "epsilon": (0.0, 1.0), "b2": (0.0, 1.0), "decay": (0.0, 1.0)}
    bounded(dqn.Config, lowest, ranges)
    for value in (0, 0.0, -1):
        with pytest.raises(BadInput, match=r"^temperature is "):
            dqn.Config(temperature=value)
    dqn.Config(temperature=1e-6)
    dqn.Config(support=(1.0, 1.0))  # of c51 alone
    for support in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(BadInput, match=r"^support is "):
            dqn.Config(head="c51", support=support)
    dqn.Config(head="c51", huber=None)
    with pytest.raises(BadInput, match=r"^huber is None"):
        dqn.Config(head="quantile", huber=None)
