"""PQN: greedy lambda-returns, their half squares and rectified Adam, against the papers' equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import pqn
from jaxrl.core import Ctx, Discrete, Specs
from jaxrl.nets import MLP, net
from jaxrl.sources import rollout
from tests.pinned import KEY, OBS, bounded, defaults, descent, disturbed, explores, mapped, near, rolled

T, N, ACTIONS = 6, 3, 3
SPECS = Specs(OBS, Discrete(ACTIONS), limit=10)
CONFIG = pqn.Config(
    (8,), lr=3e-2, gamma=0.9, lambda_=0.7, reward=0.5, clip=0.3, epochs=8, minibatches=1, epsilon=0.1,
    epsilon_frames=90, num_envs=N, unroll=T,
)  # fmt: skip
CRITIC = net(MLP((8,), ACTIONS, norm="affine"), OBS)
CTX = Ctx(KEY, jnp.int32(0))
BATCH = rolled(4, T, N)
BATCH["action"] = np.random.default_rng(4).integers(0, ACTIONS, (T, N)).astype(np.int32)


@pytest.fixture(scope="module")
def agent():
    return pqn.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return disturbed(jax.jit(agent.init)(KEY), "critic", by=1.0)


def returns(critic):
    """G_t = r + gamma (1 - d) [lambda G_{t+1} + (1 - lambda) max_a q(s_{t+1}, a)], begun anew behind every end."""
    best = np.asarray(CRITIC.apply(critic, BATCH["next_obs"].reshape(T * N, -1)).max(axis=1)).reshape(T, N)
    made = np.zeros((T, N))
    for n in range(N):
        for t in reversed(range(T)):
            last = t == T - 1 or BATCH["end"][t, n]
            following = best[t, n] if last else 0.7 * made[t + 1, n] + 0.3 * best[t, n]
            made[t, n] = 0.5 * BATCH["reward"][t, n] + 0.9 * BATCH["discount"][t, n] * following
    return made


def loss(critic, batch):
    q = CRITIC.apply(critic, batch["obs"])
    error = q[jnp.arange(len(q)), batch["action"]] - batch["target"]
    return (error**2).sum() / (2 * len(q)), {"td_error": abs(error), "q": q.max(axis=1)}


def samples(parts):
    made = {name: BATCH[name] for name in ("obs", "action", "reward")} | {"target": returns(parts["critic"])}
    return {name: jnp.asarray(x).reshape(T * N, *x.shape[2:]) for name, x in made.items()}


def test_targets_are_greedy_lambda_returns(agent, start):
    made = mapped(agent.rules["critic"], start, BATCH, CTX)
    wanted = {name: BATCH[name] for name in ("obs", "action", "reward")}
    near(made, {**wanted, "target": returns(start["critic"])})


def test_the_loss_and_its_gradient(agent, start):
    batch = samples(start)
    ours = lambda critic: descent(agent.rules["critic"]).loss({"critic": critic}, {}, batch, KEY)
    wanted = jax.jit(jax.value_and_grad(lambda critic: loss(critic, batch), has_aux=True))(start["critic"])
    near(jax.jit(jax.value_and_grad(ours, has_aux=True))(start["critic"]), wanted)


def test_steps_are_rectified_adams(start):
    """Eight of them: with momentum alone at first, and adapted once the variance can be trusted (Liu et al. 2020)."""
    agent = pqn.build(SPECS, replace(CONFIG, decay_frames=512))
    rule, batch = agent.rules["critic"], samples(start)
    run = jax.jit(lambda parts, batch, step: rule.update(parts, rule.init(parts), batch, CTX._replace(clock=step))[0])
    update = lambda parts, step: run(parts, BATCH, jnp.int32(step))
    x, unravel = ravel_pytree(start["critic"])
    slope = jax.jit(jax.grad(lambda x: loss(unravel(x), batch)[0]))
    m, v, most, lr, adapted = 0, 0, 2 / (1 - 0.999) - 1, 3e-2 * (1 - 128 / 512), 0
    for t in range(1, 9):
        g = np.asarray(slope(jnp.asarray(x, jnp.float32)))
        norm = np.sqrt((g**2).sum())
        g = g * min(1, 0.3 / norm)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        trust, step = most - 2 * t * 0.999**t / (1 - 0.999**t), m / (1 - 0.9**t)
        if trust > 5:
            adapted += 1
            r = np.sqrt((trust - 4) * (trust - 2) * most / ((most - 4) * (most - 2) * trust))
            step *= r / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - lr * step
    assert 0 < adapted < 8 and norm > 0.3
    critic = unravel(jnp.asarray(x, jnp.float32))
    found = update(start, 128)["critic"]
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, critic)
    near(update(start, 512), start)


def test_epochs_and_minibatches_are_counted(start):
    rule = pqn.build(SPECS, replace(CONFIG, epochs=2, minibatches=9)).rules["critic"]
    _, state, _ = jax.jit(rule.update)(start, rule.init(start), BATCH, CTX)
    assert optax.tree_utils.tree_get(state, "count") == 18


def test_acts_greedily_and_explores_less_and_less(agent, start):
    obs = 3 * jax.random.normal(KEY, (20, 3))
    q = CRITIC.apply(start["critic"], obs)
    explores(lambda key, step: agent.act(start, (), obs[0], Ctx(key, step), True)[0], q[0], 0.1, 90)
    greedy = jax.jit(jax.vmap(lambda obs: agent.act(start, (), obs, CTX, False)[0]))(obs)
    assert_array_equal(greedy, q.argmax(axis=1))
    assert len(set(greedy.tolist())) > 1
    assert agent.act(start, "kept", obs[0], CTX, True)[1:] == ("kept", {})


def test_a_recipes_numbers_arrive(agent):
    recipe = pqn.recipe(SPECS, pqn.Config((8,), num_envs=3, unroll=5))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (3, 5, 1, 0)
    assert recipe.source.init.__qualname__ == rollout().init.__qualname__
    near(jax.jit(agent.init)(KEY), {"critic": jax.jit(CRITIC.init)(KEY)})


def test_configuration():
    defaults(
        pqn.Config(), widths=(256, 256), lr=1e-4, decay_frames=0, gamma=0.99, lambda_=0.95, reward=0.1, clip=10.0,
        epochs=4, minibatches=16, epsilon=0.2, epsilon_frames=100_000, num_envs=32, unroll=64,
    )  # fmt: skip
    lowest = {"lr": 0.0, "decay_frames": 0, "reward": 0.0, "clip": 0.0, "epochs": 1, "minibatches": 1}
    lowest |= {"epsilon_frames": 1, "num_envs": 1, "unroll": 1}
    bounded(pqn.Config, lowest, {"gamma": (0.0, 1.0), "lambda_": (0.0, 1.0), "epsilon": (0.0, 1.0)})
