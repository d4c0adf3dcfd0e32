"""Agents: known answers on probe worlds, unit checks of what each adds, one seeded learning test each."""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.classic.cartpole import cartpole
from envs.core import scale_action
from envs.probes import countdown, known_values, probe
from envs.registry import make
from jaxrl.agents import AGENTS, dqn, ppo, pqn, sac, stream_ac, stream_q, stream_sarsa, stream_td
from jaxrl.agents.combined import find
from jaxrl.agents.streaming import features, network
from jaxrl.core import BadInput, Box, Ctx, Discrete, Specs
from jaxrl.loop import evaluate, loop, train
from jaxrl.nets import MLP, ensemble, net, orthogonal, sparse_uniform
from jaxrl.rules.statistics import merge, moments, normalise, variance
from jaxrl.rules.traces import obgd

KEY = jax.random.key(11)


def trained(env, recipe, steps, key=KEY):
    """The run after `steps` frames, as one compiled program."""
    return jax.jit(lambda key: train(env, recipe, key, steps=steps)[0])(key)


def played(env, recipe, steps, episodes):
    """The mean return of greedy episodes after `steps` frames, as one compiled program."""

    def both(key):
        run, _ = train(env, recipe, key, steps=steps)
        return evaluate(env, recipe.agent, run.parts, key, episodes)["return"].mean()

    return jax.jit(both)(KEY)


# ------------------------------------------------------------------------------------------------------------ probes

SAC = sac.Config((32,), lr=5e-3, gamma=0.9, tau=0.1, alpha=1e-3, target_entropy=-9.0, batch=32, capacity=500, warmup=32)
DQN = dqn.Config(
    (32,),
    lr=5e-3,
    gamma=0.9,
    n=1,
    num_envs=1,
    ratio=1,
    target_period=10,
    batch=32,
    capacity=500,
    warmup=32,
    epsilon_frames=100,
)
PPO = ppo.Config((32,), lr=5e-3, gamma=0.9, unroll=16, num_envs=4, minibatches=2, value_epsilon=None, entropy_weight=0)


STREAM = {"gamma": 0.9, "lambda_": 0.5, "sparsity": 0.0, "normalise": False}


def on_probes(agent, config, steps, values, continuous=False):
    """What an agent has learned on each of the five probes, all in one program.

    `values(recipe, parts, obs [2, 1]) -> [2]` are its own. Returns them beside what is right, and greedy returns [5].
    """
    worlds = [probe(n, continuous) for n in range(1, 6)]
    known = [known_values(n, 0.9) for n in range(1, 6)]
    # Two observations each: where a world has one, it stands there twice.
    views, right = (jnp.stack([jnp.broadcast_to(x, (2, *x.shape[1:])) for x in xs]) for xs in zip(*known))

    def one(args):
        n, obs = args
        reset = lambda key: jax.lax.switch(n, [world.reset for world in worlds], key)
        step = lambda state, action: jax.lax.switch(n, [world.step for world in worlds], state, action)
        env = replace(worlds[0], reset=reset, step=step, specs=replace(worlds[0].specs, limit=2))
        recipe = agent.recipe(env.specs, config)
        run, _ = train(env, recipe, KEY, steps=steps)
        score = evaluate(env, recipe.agent, run.parts, KEY, 32)["return"].mean()
        return values(recipe, run.parts, obs), score

    found, score = jax.jit(lambda: jax.lax.map(one, (jnp.arange(5), views)))()
    return found, right, score


def test_sac_on_probes():
    def values(recipe, parts, obs):
        action = jax.vmap(lambda o: recipe.agent.act(parts, (), o, None, False)[0])(obs)
        critic = ensemble(net(MLP(SAC.widths, 1), obs[0], action[0]), 2)
        return critic.apply(parts["critic"], obs, action)[..., 0].mean(axis=0)

    found, right, score = on_probes(sac, SAC, 800, values, continuous=True)
    assert_allclose(found, right, atol=0.2)
    assert (score[3:] > 0.95).all()


def test_dqn_on_probes():
    def values(recipe, parts, obs):
        return net(MLP(DQN.widths, 2), obs[0]).apply(parts["critic"], obs).max(axis=-1)

    found, right, score = on_probes(dqn, DQN, 600, values)
    assert_allclose(found, right, atol=0.1)
    assert_array_equal(score[3:], [1, 1])


@pytest.mark.parametrize("continuous", [False, True])
def test_ppo_on_probes(continuous):
    def values(recipe, parts, obs):
        return net(MLP(PPO.widths, 1, jnp.tanh), obs[0]).apply(parts["critic"], obs)[..., 0]

    found, right, score = on_probes(ppo, PPO, 64 * 60, values, continuous)
    assert_allclose(found[:3], right[:3], atol=0.1)
    assert (score[3:] > 0.95).all()  # the policy still explores: its values are below the best


@pytest.mark.parametrize("agent", [stream_q, stream_sarsa])
def test_streaming_control_on_probes(agent):
    config = agent.Config(epsilon_frames=500, **STREAM)

    def values(recipe, parts, obs):
        specs = replace(probe(1).specs, limit=2)
        # The features hold the time in the episode too: probe 3 shows its second observation at its second step.
        at = (obs[:, 0] > 0) & (obs[0, 0] == 0)
        x = jax.vmap(lambda o, t: features(specs, config).of(parts, o, t))(obs, at.astype(jnp.int32))
        return network(x[0], 2, config).apply(parts["critic"], x).max(axis=-1)

    found, right, score = on_probes(agent, config, 1500, values)
    assert_allclose(found, right, atol=0.2)
    assert_array_equal(score[3:], [1, 1])


def test_ppo_bootstraps_a_time_limit():
    """Reward 1 for ever, cut off each 4 steps: worth 1 / (1 - gamma) where truncation is told from termination."""

    def value(terminates):
        env = countdown(4, terminates)
        recipe = ppo.recipe(env.specs, PPO)
        run, _ = train(env, recipe, KEY, steps=64 * 150)
        obs = jax.nn.one_hot(0, 4)
        return net(MLP(PPO.widths, 1, jnp.tanh), obs).apply(run.parts["critic"], obs)[0]

    cut_off, over = jax.jit(lambda: jax.lax.map(value, jnp.array([False, True])))()
    assert_allclose(over, 3.439, atol=0.1)
    assert_allclose(cut_off, 10, atol=0.7)


# ------------------------------------------------------------------------------------------------------- unit checks


def first_update(config, env):
    recipe = ppo.recipe(env.specs, config)
    one = loop(env, recipe)
    return jax.jit(lambda key: one.chunk(one.init(key), 1))(KEY)


@pytest.mark.parametrize("gru", [0, 8])
def test_ppo_ratio_is_one_before_the_first_step(gru):
    """Rollout and update see the same network, memory and statistics; episodes end inside the rollout."""
    config = ppo.Config((8,), gru=gru, epochs=1, minibatches=1, normalise=True, unroll=24)
    _, metrics = first_update(config, make("cartpole"))
    assert_allclose(metrics["policy/kl"], 0, atol=1e-6)
    assert metrics["policy/clipped"] == 0
    assert metrics["episode/length"] < 24


def test_ppo_learning_rate_falls_with_frames():
    config = ppo.Config((8,), decay_frames=512, epochs=1, minibatches=1, unroll=128)
    env = make("cartpole")
    recipe = ppo.recipe(env.specs, config)
    one = loop(env, recipe)
    chunk = jax.jit(one.chunk, static_argnums=1)
    kernel = lambda run: run.parts["critic"]["Dense_0"]["kernel"]
    start = jax.jit(one.init)(KEY)
    once, _ = chunk(start, 1)  # a tick is all of the decay's 512 frames: the first learns, the second cannot
    twice, _ = chunk(once, 1)
    assert (kernel(once) != kernel(start)).any()
    assert_array_equal(kernel(twice), kernel(once))


def test_obgd_by_hand():
    """One weight, s = 1, lambda = 0, kappa = 2: delta 10 steps by .5, delta .1 by .05; then the trace."""
    tx = obgd(0.0, kappa=2.0)
    w = {"w": jnp.float32(0)}
    state = tx.init(w)
    minus_s = {"w": jnp.float32(-1)}
    for delta, step in [(10.0, 0.5), (0.1, 0.05), (-10.0, -0.5)]:
        got, _ = tx.update(minus_s, state, w, delta=jnp.float32(delta), reset=jnp.float32(0))
        assert_allclose(got["w"], step, rtol=1e-6)
    unbounded, _ = obgd(0.0, lr=0.1, bound=False).update(minus_s, state, w, delta=jnp.float32(10), reset=jnp.float32(0))
    assert_allclose(unbounded["w"], 1.0)


def test_traces_add_up_and_are_reset_after_the_step():
    tx = obgd(0.99 * 0.8)
    g = {"a": jnp.float32(-1), "b": -jnp.ones((2,))}
    state = tx.init(g)
    for _ in range(100):
        _, state = tx.update(g, state, g, delta=jnp.float32(1), reset=jnp.float32(0))
    assert_allclose(state.trace["a"], 1 / (1 - 0.792), rtol=1e-5)  # 4.8077
    step, state = tx.update(g, state, g, delta=jnp.float32(1), reset=jnp.float32(1))
    assert_allclose(step["a"], 1 / (2 * 3), rtol=1e-5)  # delta z / M with M = kappa |z|_1 over all leaves
    assert_array_equal(state.trace["b"], [0, 0])


def test_obgd_never_overshoots_a_linear_prediction():
    keys = jax.random.split(KEY, 200)

    def after(key):
        key_s, key_d = jax.random.split(key)
        s = jax.random.uniform(key_s, (6,), minval=-1, maxval=1)
        delta = 20 * jax.random.normal(key_d)
        tx = obgd(0.0, kappa=1.0)
        step, _ = tx.update({"w": -s}, tx.init({"w": s}), None, delta=delta, reset=jnp.float32(0))
        return delta, delta - step["w"] @ s

    before, left = jax.vmap(after)(keys)
    assert (before * left >= 0).all() and (jnp.abs(left) < jnp.abs(before)).all()


@pytest.mark.parametrize("fan_in,zeros", [(10, 9), (5, 5), (32, 29)])
def test_sparse_initialisation(fan_in, zeros):
    w = sparse_uniform(0.9)(KEY, (fan_in, 64))
    assert_array_equal((w == 0).sum(axis=0), np.full(64, zeros))
    assert jnp.abs(w).max() <= fan_in**-0.5


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_orthogonal_initialisation(shape):
    """Alone and under vmap, where LAPACK's batches must not be met."""
    w = jax.jit(jax.vmap(lambda key: orthogonal(2.0)(key, shape)))(jax.random.split(KEY, 3))
    assert_allclose(w[1], orthogonal(2.0)(jax.random.split(KEY, 3)[1], shape), atol=1e-5)
    gram = w[0].T @ w[0] if shape[0] >= shape[1] else w[0] @ w[0].T
    assert_allclose(gram, 4 * np.eye(4), atol=1e-5)


def test_running_moments_are_numpys():
    x = np.asarray(jax.random.normal(KEY, (50, 3)) * 4 + 100)
    m = moments((3,))
    for i, row in enumerate(x):
        m = merge(m, row, jnp.ones(()))
        if i == 0:
            assert_array_equal(variance(m), np.ones(3))
    assert_allclose(m.mean, x.mean(0), rtol=1e-5)
    assert_allclose(variance(m), x.var(0, ddof=1), rtol=1e-4)
    batch = merge(moments((3,)), x.reshape(10, 5, 3), jnp.ones((10, 5)).at[0, 0].set(0))
    assert_allclose(batch.mean, x[1:].mean(0), rtol=1e-5)
    assert_allclose(normalise(m, x.mean(0)), np.zeros(3), atol=1e-4)


def test_streaming_statistics_count_every_observation_once():
    env = countdown(3)
    recipe = stream_td.recipe(env.specs, stream_td.Config(width=4))
    run = trained(env, recipe, 7)
    # 7 next observations, and the starts of the 3 episodes
    assert run.parts["norm"].count == 10 and run.parts["reward_norm"].count == 7


def test_sarsa_takes_the_action_it_planned():
    env = make("cartpole")
    recipe = stream_sarsa.recipe(env.specs, stream_sarsa.Config(width=8))
    one = loop(env, recipe)
    run = jax.jit(one.init)(KEY)
    tick = jax.jit(lambda run: one.learn(*one.collect(run))[0])
    for _ in range(12):
        run = tick(run)
        planned, fresh = run.parts["plan"], run.memory[0] == 0
        action = one.collect(run)[1]["action"][0, 0]
        assert fresh or action == planned


def test_double_targets_are_never_above_plain_ones():
    """One batch, one pair of networks: only the choice of the next action differs."""
    env, errors = make("cartpole"), {}
    keys = jax.random.split(KEY, 3)
    batch = {"obs": jnp.zeros((64, 4)), "next_obs": jax.random.normal(keys[0], (64, 4)), "reward": jnp.full(64, -100.0)}
    batch |= {"action": jnp.zeros(64, jnp.int32), "discount": jnp.ones(64)}
    for double in (True, False):
        agent = dqn.build(env.specs, dqn.Config((8,), double=double))
        parts = agent.init(keys[1]) | {"target": agent.init(keys[2])["critic"]}
        rule = agent.rules["critic"]
        errors[double] = rule.update(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))[2]["td_error"]
    # The prediction is far above the target: its error is the larger, the lower the target.
    assert (errors[True] >= errors[False]).all() and (errors[True] > errors[False]).any()


def test_pqns_targets_are_greedy_lambda_returns():
    """Two steps, r = 1, greedy values 4 and 2, gamma .9, lambda .5: 1 + .9 (.5 * 4 + .5 * 2.8) = 4.06, and 2.8."""
    specs = Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2), limit=10)
    agent = pqn.build(specs, pqn.Config((), gamma=0.9, lambda_=0.5, reward=1.0, epochs=1, minibatches=1))
    parts = {"critic": {"Dense_0": {"kernel": jnp.array([[4.0, 1.0], [-3.0, 2.0]]), "bias": jnp.zeros(2)}}}
    rollout = {"obs": jnp.zeros((2, 1, 2)), "next_obs": jnp.eye(2)[:, None], "action": jnp.zeros((2, 1), jnp.int32)}
    rollout |= {"reward": jnp.ones((2, 1)), "discount": jnp.ones((2, 1)), "end": jnp.zeros((2, 1), bool)}
    rule = agent.rules["critic"]
    update = lambda batch: rule.update(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))
    errors = lambda batch: np.sort(np.ravel(update(batch)[2]["td_error"]))
    assert_allclose(errors(rollout), [2.8, 4.06], rtol=1e-6)  # nothing is seen, so that q is 0 and the error all
    ended = {**rollout, "discount": jnp.array([[0.0], [1.0]]), "end": jnp.array([[True], [False]])}
    assert_allclose(errors(ended), [1, 2.8], rtol=1e-6)


def test_no_target_is_copied_between_its_periods():
    env = make("cartpole")
    config = dqn.Config((8,), target_period=6, warmup=0, batch=8, num_envs=1, ratio=1)
    one = loop(env, dqn.recipe(env.specs, config))
    tick = jax.jit(lambda run: one.chunk(run, 1)[0])
    same = lambda run: all(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), run.parts["critic"], run.parts["target"]))
    )
    start = before = jax.jit(one.init)(KEY)
    for _ in range(5):
        before = tick(before)
    after = tick(before)
    assert_array_equal(before.parts["target"]["Dense_0"]["kernel"], start.parts["target"]["Dense_0"]["kernel"])
    assert not same(before) and same(after)


# -------------------------------------------------------------------------------------------------------- bad input

DISCRETE = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2), limit=10)
BOX = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,)), limit=10)
IMAGES = Specs(jax.ShapeDtypeStruct((48, 48, 9), jnp.uint8), Box((2,)), limit=10)
WIDE = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,), -2.0, 2.0), limit=10)


@pytest.mark.parametrize("name,specs,sentence", [
    ("sac", DISCRETE, "sac acts in continuous spaces.*try dqn or ppo"),
    ("dqn", BOX, "dqn chooses among discrete actions.*try sac or ppo"),
    ("stream_q", BOX, "stream_q chooses"),
    ("stream_sarsa", BOX, "stream_sarsa chooses"),
    ("sac", WIDE, r"sac acts in \[-1, 1\].*scale_action"),
    ("ppo", WIDE, r"ppo acts in \[-1, 1\]"),
    ("stream_ac", WIDE, r"stream_ac acts in \[-1, 1\]"),
    ("td3", DISCRETE, "td3 acts in continuous spaces"),
    ("drq", BOX, r"drq learns from images.*--pixels"),
])  # fmt: skip
def test_an_agent_refuses_spaces_it_cannot_act_in(name, specs, sentence):
    module = importlib.import_module(AGENTS[name])
    with pytest.raises(BadInput, match=sentence):
        module.recipe(specs, module.Config())


@pytest.mark.parametrize("name,field,value", [
    ("sac", "lr", -1e-3), ("sac", "alpha", 0), ("sac", "gamma", 1.5), ("sac", "num_envs", 0),
    ("ppo", "lambda_", -0.1), ("ppo", "epochs", 0),
    ("dqn", "epsilon", 2.0), ("dqn", "n", 0), ("stream_q", "sparsity", 1.1), ("stream_ac", "kappa_policy", -1.0),
    ("stream_td", "lr", float("nan")),
])  # fmt: skip
def test_a_config_names_the_field_at_fault(name, field, value):
    module = importlib.import_module(AGENTS[name])
    with pytest.raises(BadInput, match=f"^{field} is {value}"):
        module.Config(**{field: value})


def test_streams_are_vectors():
    specs = Specs(jax.ShapeDtypeStruct((3, 2), jnp.float32), Discrete(2), limit=10)
    with pytest.raises(BadInput, match=r"one vector, and these are of shape \(3, 2\)"):
        stream_q.recipe(specs, stream_q.Config())


def test_every_agent_in_the_table_builds_and_describes_itself():
    from jaxrl.core import describe

    for name in AGENTS:
        module = find(name)
        boxed = "sac td3 fast_td3 redq droq crossq simba_v2 bro xqc flash_sac mrq dr_q reppo mbpo coplanner synther"
        boxes = dict.fromkeys((*boxed.split(), "pets"), BOX)
        specs = {**boxes, **dict.fromkeys(("drq", "drqv2", "drm", "mentor", "taco"), IMAGES)}.get(name, DISCRETE)
        agent = module.recipe(specs, module.Config()).agent
        told = describe(agent)
        assert all(f"  {part} " in told for part in (*agent.shapes, *agent.rules, *agent.observe))


# ---------------------------------------------------------------------------------------------------------- learning


def test_sac_learns_pendulum():
    env = scale_action(make("pendulum"))
    config = sac.Config((64, 64), batch=64, capacity=8_000, warmup=500)
    assert played(env, sac.recipe(env.specs, config), 7_000, episodes=8) > -300


def test_ppo_learns_cartpole():
    config = ppo.Config(lr=1e-3, decay_frames=512 * 160)
    env = cartpole()
    assert played(env, ppo.recipe(env.specs, config), 512 * 160, episodes=8) >= 400


def test_pqn_learns_cartpole():
    env = cartpole()
    config = pqn.Config((64, 64), lr=1e-3, decay_frames=2048 * 120, epsilon=0.05)
    assert played(env, pqn.recipe(env.specs, config), 2048 * 120, episodes=8) >= 400


def test_dqn_learns_cartpole():
    env = cartpole()
    assert played(env, dqn.recipe(env.specs, dqn.Config()), 40_000, episodes=8) >= 150


@pytest.mark.parametrize("agent", [stream_q, stream_ac])
def test_streaming_agents_learn_cartpole(agent):
    env = cartpole()
    assert played(env, agent.recipe(env.specs, agent.Config()), 50_000, episodes=8) >= 200


def test_stream_td_finds_the_values_of_the_random_walk():
    env = make("random-walk")
    config = stream_td.Config(width=32, gamma=1.0, lambda_=0.0, kappa=20.0, sparsity=0.0, normalise=False)
    recipe = stream_td.recipe(env.specs, config)
    run = trained(env, recipe, 40_000)
    act = lambda o: recipe.agent.act(run.parts, jnp.int32(3), o, Ctx(KEY, run.step), False)
    value = jax.jit(jax.vmap(lambda o: act(o)[2]["prediction"]))(jnp.eye(5))
    assert_allclose(value, np.arange(1, 6) / 6, atol=0.12)
