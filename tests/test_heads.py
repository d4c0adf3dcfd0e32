"""What stands for an action's value in DQN: losses by hand, the scalar as it was, and a probe that each must solve."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.probes import probe
from jaxrl.agents import dqn
from jaxrl.core import BadInput, Discrete, Specs
from jaxrl.equations.categorical import quantile_huber
from jaxrl.equations.values import double_q_target, huber, q_target
from jaxrl.loop import train

KEY = jax.random.key(7)
SPECS = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2), limit=10)
f = lambda *xs: jnp.array(xs, jnp.float32)
log = lambda *ps: jnp.log(jnp.maximum(f(*ps), 1e-12))
s = jnp.float32


def saying(now, online, target):
    """Parts of a linear network that answers `now` where nothing is seen, `online` after it, and as target `target`."""
    flat = [jnp.ravel(jnp.asarray(x, jnp.float32)) for x in (now, online, target)]
    layer = lambda kernel, bias: {"Dense_0": {"kernel": jnp.zeros((3, bias.size)).at[0].set(kernel), "bias": bias}}
    return {"critic": layer(flat[1] - flat[0], flat[0]), "target": layer(flat[2] - flat[0], flat[0])}


def learned_from(config, now, online, target, reward, discount=1.0, action=0):
    """(loss, metrics) of one transition, from nothing seen to something, at a discount of 1."""
    agent = dqn.build(SPECS, replace(config, widths=(), gamma=1.0))
    batch = {"obs": jnp.zeros((1, 3)), "next_obs": jnp.eye(3)[:1], "action": jnp.full(1, action)}
    batch |= {"reward": f(reward), "discount": f(discount)}
    parts = saying(now, online, target)
    return jax.jit(lambda: agent.rules["critic"].loss(parts, parts, batch, KEY))()


# ------------------------------------------------------------------------------------------------------------ scalar


@pytest.mark.parametrize("double", [True, False])
def test_the_scalar_head_is_dqn(double):
    """The same loss, bit for bit, from the equations alone."""
    agent = dqn.build(SPECS, dqn.Config((8,), double=double))
    keys = jax.random.split(KEY, 6)
    init = jax.jit(agent.init)
    parts = {name: init(key)["critic"] for name, key in zip(("critic", "target"), keys)}
    obs, next_obs = (jax.random.normal(key, (64, 3)) for key in keys[2:4])
    batch = {"obs": obs, "next_obs": next_obs, "action": jax.random.randint(keys[4], (64,), 0, 2)}
    batch |= {"reward": 3 * jax.random.normal(keys[5], (64,)), "discount": jnp.ones(64).at[::5].set(0)}

    def q(part, obs):
        hidden = jax.nn.relu(obs @ parts[part]["Dense_0"]["kernel"] + parts[part]["Dense_0"]["bias"])
        return hidden @ parts[part]["Dense_1"]["kernel"] + parts[part]["Dense_1"]["bias"]

    def wanted():
        following = (q("target", next_obs),) + ((q("critic", next_obs),) if double else ())
        target = jax.vmap(double_q_target if double else q_target)(
            batch["reward"], 0.98 * batch["discount"], *following
        )
        error = q("critic", obs)[jnp.arange(64), batch["action"]] - target
        return huber(error).mean(), jnp.abs(error)

    given = lambda: agent.rules["critic"].loss(parts, parts, batch, KEY)
    (loss, found), (loss_wanted, error_wanted) = jax.jit(lambda: (given(), wanted()))()
    assert_array_equal(loss, loss_wanted)
    assert_array_equal(found["td_error"], error_wanted)


@pytest.mark.parametrize("head", ["scalar", "quantile"])
def test_which_action_follows(head):
    """The online network says 1 and 2, the target 5 and 3: plain bootstraps from 5, double from 3."""
    for double, wanted in [(False, 5), (True, 3)]:
        config = dqn.Config(head=head, atoms=1, double=double)
        assert_allclose(learned_from(config, (0, 0), (1, 2), (5, 3), reward=0.0)[1]["td_error"], wanted)


# --------------------------------------------------------------------------------------------------------------- C51


@pytest.mark.parametrize("reward,discount,wanted", [
    (0.5, 0.5, (0, 0.5, 0.5)),
    (0.5, 0.0, (0.5, 0.5, 0)),
    (9.0, 0.5, (0, 0, 1)),
])  # fmt: skip
def test_c51_by_hand(reward, discount, wanted):
    """Atoms 0, 1 and 2, and a next value that is certainly 2: the target's cross-entropy from (.5, .25, .25)."""
    head = dqn.c51(dqn.Config(head="c51", atoms=3, support=(0, 2)))
    guess = log(0.5, 0.25, 0.25)
    loss = head.loss(guess, s(reward), s(discount), log(0, 0, 1))
    assert_allclose(loss, f(*wanted) @ f(np.log(2), np.log(4), np.log(4)), rtol=1e-5)
    # The gradient of a cross-entropy is what is said less what should be.
    slope = jax.grad(head.loss)(guess, s(reward), s(discount), log(0, 0, 1))
    assert_allclose(f(0.5, 0.25, 0.25) - slope, wanted, atol=1e-6)


def test_c51_chooses_by_the_mean():
    """The first action's likeliest value, 2, is above the second's, 1, and its mean, .8, is below."""
    config = dqn.Config(head="c51", atoms=3, support=(0, 2), double=False)
    following = [log(0.6, 0, 0.4), log(0, 1, 0)]
    assert_allclose(dqn.c51(config).value(following[0]), 0.8, rtol=1e-5)
    even = [log(1, 1, 1)] * 2
    loss, found = learned_from(config, even, following, following, reward=0.0)
    assert_allclose(loss, np.log(3), rtol=1e-5)
    assert_allclose(found["td_error"], 0, atol=1e-5)  # a guess of 1, and the second action's 1
    assert_allclose(learned_from(config, even, following, following, reward=0.5)[1]["td_error"], 0.5, rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------- quantile


def test_quantiles_by_hand():
    head = dqn.quantile(dqn.Config(head="quantile", atoms=1))
    # tau .5, and an error of 2 or -2: .5 (2 - .5)
    assert_allclose(head.loss(f(0), s(0), s(1), f(2)), 0.75)
    assert_allclose(head.loss(f(0), s(-2), s(0), f(9)), 0.75)
    # tau .25 for the first of two quantiles, the second is where it should be: .25 and .75 of 1.5
    assert_allclose(quantile_huber(f(0, 2), f(2)), 0.375)
    assert_allclose(quantile_huber(f(0, -2), f(-2)), 1.125)
    assert_allclose(dqn.quantile(dqn.Config(atoms=4)).value(f(1, 2, 3, 6)), 3)


# ------------------------------------------------------------------------------------------------------------ dueling


def test_advantages_are_around_their_mean():
    """V = 1, A = (3, 1): 1 + 3 - 2 and 1 + 1 - 2; and atom by atom."""
    assert_allclose(dqn.duel(f(1, 3, 1)[:, None])[:, 0], [2, 0])
    assert_allclose(dqn.duel(jnp.stack([f(1, 10), f(3, 0), f(1, 4)])), [[2, 8], [0, 12]])
    config = dqn.Config(dueling=True, double=False)
    # Three outputs: the best of what follows is 1 + 3 - 2, and nothing is said before.
    assert_allclose(learned_from(config, (0, 0, 0), (1, 3, 1), (1, 3, 1), reward=1.0)[1]["td_error"], 3)


def test_heads_size_their_networks():
    size = lambda **how: sum(
        x.size for x in jax.tree.leaves(dqn.build(SPECS, dqn.Config((8,), **how)).shapes["critic"])
    )
    hidden = 4 * 8
    assert size() == hidden + 9 * 2
    assert size(head="c51") == hidden + 9 * 2 * 51
    assert size(head="quantile", atoms=201, dueling=True) == hidden + 9 * 3 * 201


def test_heads_refuse_what_they_cannot_use():
    with pytest.raises(BadInput, match=r"support is \(1.0, 1.0\)"):
        dqn.Config(head="c51", support=(1.0, 1.0))
    with pytest.raises(BadInput, match="huber is None"):
        dqn.Config(head="quantile", huber=None)


# ------------------------------------------------------------------------------------------------------------- probes

SMALL = dqn.Config((32,), atoms=11, support=(-1.0, 1.0), lr=5e-3, gamma=0.9, n=1, num_envs=1, ratio=1, batch=32)
SMALL = replace(SMALL, target_period=10, capacity=500, warmup=32, epsilon_frames=100)


@pytest.mark.parametrize("head,dueling", [("c51", True), ("quantile", False)])
def test_heads_solve_two_worlds(head, dueling):
    """Values where the reward is a step away, .9 and then 1; and which action is right, where the view says it."""
    worlds = [probe(3), probe(5)]
    reset = lambda n: lambda key: jax.lax.switch(n, [world.reset for world in worlds], key)
    step = lambda n: lambda *at: jax.lax.switch(n, [world.step for world in worlds], *at)
    specs = replace(worlds[0].specs, limit=2)
    recipe = dqn.recipe(specs, replace(SMALL, head=head, dueling=dueling))
    obs = f(0, 1)[:, None]
    # Against targets of 0 the error is what is said.
    batch = {"obs": obs, "next_obs": obs, "action": jnp.zeros(2, jnp.int32)} | dict.fromkeys(
        ("reward", "discount"), 0 * obs[:, 0]
    )

    def one(args):
        n, key = args
        env = replace(worlds[0], reset=reset(n), step=step(n), specs=specs)
        run, _ = train(env, recipe, key, steps=600)
        said = recipe.agent.rules["critic"].loss(run.parts, run.parts, batch, key)[1]["td_error"]
        return said, jax.vmap(lambda o: recipe.agent.act(run.parts, (), o, None, False)[0])(f(-1, 1)[:, None])

    each = (jnp.array([0, 1, 0, 1]), jax.random.split(KEY, 4))  # two seeds of either
    said, action = jax.jit(lambda: jax.lax.map(one, each))()
    assert_allclose(said[::2], [[0.9, 1]] * 2, atol=0.1)
    assert_array_equal(action[1::2], [[0, 1]] * 2)
