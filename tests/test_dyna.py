"""Learning from rollouts alone: models of bits, weights of what may not come, and the theorem behind it."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from experiments.evidence.p020_model_generalisation import true_dynamics
from jaxrl.agents import dqn, dyna
from jaxrl.agents.combined import configured, find
from jaxrl.core import BadInput, Ctx, stateless
from jaxrl.loop import loop
from jaxrl.models import bits
from jaxrl.models.ensemble import Step

KEY = jax.random.key(20)
ENV = envs.make("pan-flute-4")
CONFIG = dqn.Config(widths=(8,), n=1, batch=4, capacity=64, warmup=8, num_envs=1, ratio=1)


def test_the_true_model_steps_as_the_world_does():
    model = true_dynamics(4)
    obs = (jax.random.uniform(KEY, (6, 10)) < 0.5).astype(jnp.float32)
    action = jnp.arange(6) % 4
    out = jax.jit(model.step)(None, obs, action, KEY)
    cells = np.tril_indices(4)
    for i, key in enumerate(jax.random.split(KEY, 6)):
        sounds = jnp.zeros((4, 4), bool).at[cells].set(obs[i] > 0.5)
        # The world splits its key before it draws: one is given that makes this draw.
        moved = jnp.concatenate([(jnp.arange(4) == action[i])[:, None], sounds[:, :-1]], axis=1)
        chance = jax.random.bernoulli(key, 1 / 16)
        assert_array_equal(out.next_obs[i], (moved | (jnp.eye(4, dtype=bool) & chance))[cells])
        assert out.reward[i] == float(sounds[jnp.arange(4), jnp.arange(4)].all())


def test_a_model_of_bits_learns_what_follows():
    specs = replace(ENV.specs, observation=jax.ShapeDtypeStruct((2,), jnp.float32))
    model = bits.dynamics(specs, bits.Config(widths=(16,), lr=1e-2))
    obs = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)) * 4)
    action = jnp.repeat(jnp.arange(4), 4)
    # The first bit is turned by action 1, the second is what the first was; 1 is paid for both, and ends it.
    turned = jnp.where(action == 1, 1 - obs[:, 0], obs[:, 0])
    both = obs.prod(axis=1)
    batch = {"obs": obs, "action": action, "next_obs": jnp.stack([turned, obs[:, 0]], axis=1)}
    batch = {**batch, "reward": both, "discount": 1 - both}
    tx, part = optax.adam(1e-2), model.init(KEY)

    def step(carry, _):
        part, state = carry
        change, state = tx.update(jax.grad(model.loss)(part, batch), state, part)
        return (optax.apply_updates(part, change), state), None

    (part, _), _ = jax.lax.scan(step, (part, tx.init(part)), None, length=600)
    out = model.step(part, obs, action, KEY)
    goes_on = np.asarray(both) == 0
    assert (np.asarray(out.next_obs) == np.asarray(batch["next_obs"]))[goes_on].mean() > 0.9  # bits are drawn
    assert_allclose(out.reward, both, atol=0.1)
    assert_allclose(out.discount, 1 - both, atol=0.1)


def test_what_may_not_come_counts_less():
    """A model under which the task goes on with a chance of 0.9: after three steps a transition weighs 0.729."""
    go_on = lambda part, obs, action, key: Step(obs, jnp.zeros(len(obs)), jnp.full(len(obs), 0.9))
    model = bits.Model(lambda key: jnp.zeros(()), lambda part, batch: 0 * part, go_on)
    seen = []
    watch = stateless(lambda parts, batch, ctx: (seen.append(batch), ({}, {}))[1], writes=())
    recipe = dqn.recipe(ENV.specs, CONFIG)
    recipe = replace(recipe, agent=replace(recipe.agent, rules={"watch": watch}))
    agent = dyna.add(recipe, ENV.specs, dyna.Config(horizon=4), CONFIG, model).agent
    parts = agent.init(KEY)
    batch = {"obs": jnp.zeros((3, 10)), "reward": jnp.zeros(3)}
    agent.rules["watch"].update(parts, (), batch, Ctx(KEY, jnp.int32(0)))
    assert_allclose(seen[0]["weight"].reshape(4, 3)[:, 0], [1, 0.9, 0.81, 0.729], rtol=1e-6)
    assert seen[0]["obs"].shape == (12, 10) and seen[0]["action"].shape == (12,)


def test_it_trains_and_says_what_it_is():
    module = find("dqn+dyna")
    settings = {**{name: getattr(CONFIG, name) for name in ("widths", "n", "batch", "capacity", "warmup", "num_envs")}}
    recipe = module.recipe(ENV.specs, configured(module.Config, {**settings, "temperature": 0.1, "ratio": 1}))
    one = loop(ENV, recipe)
    _, metrics = jax.jit(lambda run: one.chunk(run, 24))(one.init(KEY))
    assert jnp.isfinite(metrics["model/loss"]) and jnp.isfinite(metrics["critic/loss"])


def test_bad_settings_are_refused():
    with pytest.raises(BadInput, match="horizon is 0"):
        dyna.Config(horizon=0)
    with pytest.raises(BadInput, match="n is 10, and the model of dyna"):
        find("dqn+dyna").recipe(ENV.specs, find("dqn+dyna").Config())
    with pytest.raises(BadInput, match="temperature is 0"):
        dqn.Config(temperature=0)


def test_values_of_models_are_fewer_than_those_that_bellmans_equation_allows():
    """Three states of two bits that move apart; data of some pairs alone (Young et al. 2023, theorem 1).

    Models whose bits move by themselves, and values that fit the data by Bellman's equation: each value of such a
    model fits too, and many that fit are none's.
    """
    gamma, states = 0.9, list(itertools.product((0, 1), repeat=2))
    # A model is, for each bit, where it goes from 0 and from 1. Seen: (0, 0) -> (0, 1), and (1, 1) -> (1, 0).
    seen = {(0, 0): (0, 1), (1, 1): (1, 0)}
    reward = np.array([float(a and b) for a, b in states])
    fitting = []
    for first, second in itertools.product(itertools.product((0, 1), repeat=2), repeat=2):
        go = {s: (first[s[0]], second[s[1]]) for s in states}
        if all(go[s] == to for s, to in seen.items()):
            P = np.zeros((4, 4))
            for i, s in enumerate(states):
                P[i, states.index(go[s])] = 1
            fitting.append(np.linalg.solve(np.eye(4) - gamma * P, reward))
    assert len(fitting) == 1  # what was seen of two pairs says all of four
    for s, to in seen.items():
        value = fitting[0]
        assert np.isclose(value[states.index(s)], reward[states.index(s)] + gamma * value[states.index(to)])
    # Bellman's equation at the seen pairs leaves two numbers free.
    other = fitting[0] + np.array([gamma, 1.0, 0.0, 0.0])
    for s, to in seen.items():
        assert np.isclose(other[states.index(s)], reward[states.index(s)] + gamma * other[states.index(to)])
    assert not np.allclose(other, fitting[0])
