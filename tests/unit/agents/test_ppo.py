"""PPO: advantages, the clipped losses and the entropy's term against the paper's equations, with ends of both kinds."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import ppo
from jaxrl.core import BadInput, Box, Ctx, Discrete, Specs
from jaxrl.nets import MLP, gru_net, net
from jaxrl.rules.statistics import Moments
from jaxrl.sources import rollout
from tests.pinned import (
    DIMS,
    KEY,
    LENGTH,
    OBS,
    SPECS,
    bounded,
    defaults,
    descent,
    disturbed,
    mapped,
    near,
    rolled,
    same,
)  # fmt: skip

T, N, ACTIONS = 6, 3, 4
GAMMA, LAMBDA, EPSILON, CHANGE, OF_VALUE, OF_ENTROPY = 0.9, 0.7, 0.1, 0.15, 0.7, 0.05
CONFIG = ppo.Config(
    (8,), lr=3e-3, gamma=GAMMA, lambda_=LAMBDA, epsilon=EPSILON, value_epsilon=CHANGE, value_weight=OF_VALUE,
    entropy_weight=OF_ENTROPY, clip=0.2, epochs=1, minibatches=1, num_envs=N, unroll=T,
)  # fmt: skip
CHOICES = Specs(OBS, Discrete(ACTIONS), limit=10)
NAMES = {"continuous": SPECS, "discrete": CHOICES}
POLICY = {name: net(MLP((8,), n, jnp.tanh), OBS) for name, n in (("continuous", DIMS), ("discrete", ACTIONS))}
VALUE = net(MLP((8,), 1, jnp.tanh), OBS)
CTX = Ctx(KEY, jnp.int32(0))


def log_prob(kind, actor, output, action):
    if kind == "discrete":
        return jnp.log(jnp.exp(output) / jnp.exp(output).sum(axis=-1, keepdims=True))[jnp.arange(len(action)), action]
    std = jnp.exp(actor["log_std"])
    return jnp.log(jnp.exp(-(((action - output) / std) ** 2) / 2) / (std * (2 * jnp.pi) ** 0.5)).sum(axis=-1)


def entropy(kind, actor, output):
    if kind == "discrete":
        p = jnp.exp(output) / jnp.exp(output).sum(axis=-1, keepdims=True)
        return -(p * jnp.log(p)).sum(axis=-1)
    return (jnp.log(2 * jnp.pi * jnp.e * jnp.exp(actor["log_std"]) ** 2) / 2).sum() * jnp.ones(len(output))


def loss(kind, live, batch):
    """-min(rho A, clip(rho) A) + c_v max[(v - R)^2, (clipped v - R)^2] / 2 - c_e H, of normalised advantages."""
    output, v = POLICY[kind].apply(live["actor"]["net"], batch["obs"]), VALUE.apply(live["critic"], batch["obs"])[:, 0]
    return loss_of(kind, live, batch, output, v)


def loss_of(kind, live, batch, output, v):
    advantage = batch["advantage"]
    center = advantage.sum() / len(advantage)
    advantage = (advantage - center) / (jnp.sqrt(((advantage - center) ** 2).sum() / len(advantage)) + 1e-8)
    rho = jnp.exp(log_prob(kind, live["actor"], output, batch["action"])) / jnp.exp(batch["log_prob"])
    held = jnp.where(rho > 1 + EPSILON, 1 + EPSILON, jnp.where(rho < 1 - EPSILON, 1 - EPSILON, rho))
    one, other = rho * advantage, held * advantage
    surrogate = -jnp.where(one < other, one, other)
    change = v - batch["value"]
    near = batch["value"] + jnp.where(change > CHANGE, CHANGE, jnp.where(change < -CHANGE, -CHANGE, change))
    squares = (v - batch["target"]) ** 2, (near - batch["target"]) ** 2
    of_value = jnp.where(squares[0] > squares[1], *squares) / 2
    h = entropy(kind, live["actor"], output)
    total = surrogate.mean() + OF_VALUE * of_value.mean() - OF_ENTROPY * h.mean()
    metrics = {"surrogate": surrogate, "value": of_value, "entropy": h, "kl": rho - 1 - jnp.log(rho)}
    return total, {**metrics, "clipped": 1.0 * ((rho > 1 + EPSILON) | (rho < 1 - EPSILON))}


def advantages(reward, discount, end, v, v_next):
    """A_t = r + gamma (1 - d) v(s') - v(s), and gamma lambda of the next one's where no episode ended between."""
    made = np.zeros((T, N))
    for n in range(N):
        following = 0.0
        for t in reversed(range(T)):
            delta = reward[t, n] + GAMMA * discount[t, n] * v_next[t, n] - v[t, n]
            following = made[t, n] = delta + (0 if end[t, n] else GAMMA * LAMBDA * following)
    return made


@pytest.fixture(scope="module", params=list(NAMES))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def agent(kind):
    return ppo.build(NAMES[kind], CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return disturbed(jax.jit(agent.init)(KEY), "actor", "critic", by=0.1)


def rollout_of(kind, memory=None):
    """What was told of the actions differs from what the policy would tell now; raw actions are beyond the bounds."""
    rng = np.random.default_rng(5)
    batch = rolled(2, T, N)
    batch["memory"] = {"actor": (), "critic": ()} if memory is None else memory
    if kind == "discrete":
        batch["action"] = rng.integers(0, ACTIONS, (T, N)).astype(np.int32)
        batch["extras"] = {"output": rng.normal(size=(T, N, ACTIONS)).astype(np.float32)}
    else:
        raw, output = rng.normal(size=(2, T, N, DIMS)).astype(np.float32)
        batch["action"], batch["extras"] = np.clip(raw, -1, 1), {"raw": raw, "output": output}
    return batch


def told(kind, parts, batch, obs, next_obs, reward):
    """What the epochs learn from, written out."""
    rows = lambda x: x.reshape(T * N, *x.shape[2:])
    v, v_next = (np.asarray(VALUE.apply(parts["critic"], rows(x))[:, 0]).reshape(T, N) for x in (obs, next_obs))
    advantage = advantages(reward, batch["discount"], batch["end"], v, v_next)
    action = batch["extras"].get("raw", batch["action"])
    made = {"obs": obs, "action": action, "reward": reward, "value": v, "memory": batch["memory"]}
    made["log_prob"] = log_prob(kind, parts["actor"], rows(batch["extras"]["output"]), rows(action)).reshape(T, N)
    made["began"] = np.concatenate([np.zeros((1, N), bool), batch["end"][:-1]])
    return {**made, "advantage": advantage, "target": advantage + v}


def samples(kind, parts):
    """Those of a rollout as one minibatch, of a policy and values that differ from those that made it."""
    batch = rollout_of(kind)
    made = told(kind, parts, batch, batch["obs"], batch["next_obs"], batch["reward"])
    rng = np.random.default_rng(6)
    flat = {name: np.asarray(x, x.dtype).reshape(T * N, *x.shape[2:]) for name, x in made.items() if name != "memory"}
    now = POLICY[kind].apply(parts["actor"]["net"], flat["obs"])
    old = log_prob(kind, parts["actor"], now, flat["action"]) + 0.15 * rng.normal(size=T * N)
    flat |= {"log_prob": old, "value": flat["value"] + 0.3 * rng.normal(size=T * N)}
    return {name: jnp.asarray(x, x.dtype if x.dtype in (bool, np.int32) else jnp.float32) for name, x in flat.items()}


# ------------------------------------------------------------------------------------------------------ what is learned


def test_advantages_of_a_rollout(kind, agent, start):
    """A termination is worth nothing more, a time limit what its true last observation is worth; neither is crossed."""
    batch = rollout_of(kind)
    wanted = told(kind, start, batch, batch["obs"], batch["next_obs"], batch["reward"])
    near(mapped(agent.rules["policy"], start, batch, CTX), wanted)


def standardised(batch):
    """As the loss is given it: `loss` here does it by itself, and that twice is once."""
    advantage = np.asarray(batch["advantage"])
    return {**batch, "advantage": (advantage - advantage.mean()) / advantage.std()}


def test_the_loss_and_its_gradient(kind, agent, start):
    batch = samples(kind, start)
    live = {name: start[name] for name in ("actor", "critic")}
    ours = lambda live: descent(agent.rules["policy"]).loss(live, {}, standardised(batch), KEY)
    (value, metrics), slope = jax.jit(jax.value_and_grad(ours, has_aux=True))(live)
    theirs = jax.jit(jax.value_and_grad(lambda live: loss(kind, live, batch), has_aux=True))(live)
    near(((value, metrics), slope), theirs)
    assert 0.2 < metrics["clipped"].mean() < 0.8  # both of each pair of terms decide somewhere
    change = np.abs(VALUE.apply(start["critic"], batch["obs"])[:, 0] - batch["value"])
    assert 0.2 < (change > CHANGE).mean() < 0.8


def test_advantages_that_hardly_differ_are_not_magnified(kind, agent, start):
    """Beside 1e-8 a deviation of about as much counts half."""
    batch, live = samples(kind, start), {name: start[name] for name in ("actor", "critic")}
    batch["advantage"] = 1e-8 * batch["advantage"]
    minibatch = agent.rules["policy"].around[1].around[1]
    given = mapped(minibatch, start, batch, CTX)
    found = jax.jit(lambda: descent(minibatch).loss(live, {}, given, KEY)[1]["surrogate"])()
    near(found, jax.jit(lambda: loss(kind, live, batch))()[1]["surrogate"])


@pytest.mark.parametrize("left_out", ["value_epsilon", "value_weight", "entropy_weight"])
def test_terms_that_do_not_count(start, kind, left_out):
    """Without a clip the value's plain half square; with a weight of 0 nothing of the term."""
    batch, live = samples(kind, start), {name: start[name] for name in ("actor", "critic")}
    config = replace(CONFIG, **{left_out: None if left_out == "value_epsilon" else 0.0})
    total, metrics = jax.jit(
        lambda: descent(ppo.build(NAMES[kind], config).rules["policy"]).loss(live, {}, standardised(batch), KEY)
    )()
    _, parts = loss(kind, live, batch)
    of_value = parts["value"].mean()
    if left_out == "value_epsilon":
        of_value = ((VALUE.apply(live["critic"], batch["obs"])[:, 0] - batch["target"]) ** 2).mean() / 2
        assert abs(of_value - parts["value"].mean()) > 1e-3
    wanted = parts["surrogate"].mean()
    wanted += (left_out != "value_weight") * OF_VALUE * of_value
    wanted -= (left_out != "entropy_weight") * OF_ENTROPY * parts["entropy"].mean()
    assert_allclose([total, metrics["value"].mean()], [wanted, of_value], rtol=1e-4)


def test_a_step_is_adams_on_a_clipped_gradient(kind, start):
    """b1 .9, b2 .999, eps 1e-5, a rate that falls to 0 by frames, a global norm over policy and value together."""
    agent = ppo.build(NAMES[kind], replace(CONFIG, decay_frames=400))
    batch, rule = rollout_of(kind), agent.rules["policy"]
    update = jax.jit(rule.update)
    after, state, _ = update(start, rule.init(start), batch, CTX._replace(clock=jnp.int32(100)))
    made = told(kind, start, batch, batch["obs"], batch["next_obs"], batch["reward"])
    flat = {n: jnp.asarray(x).reshape(T * N, *x.shape[2:]) for n, x in made.items() if n != "memory"}
    live = {name: start[name] for name in ("actor", "critic")}
    slope = ravel_pytree(jax.jit(jax.grad(lambda live: loss(kind, live, flat)[0]))(live))[0]
    norm = np.sqrt((np.asarray(slope) ** 2).sum())
    assert norm > 0.2
    mu, nu = (np.asarray(optax.tree_utils.tree_get(state, name)) for name in ("mu", "nu"))
    near((mu, nu), (0.1 * slope * 0.2 / norm, 0.001 * (slope * 0.2 / norm) ** 2), together=True)
    step = 3e-3 * (1 - 100 / 400) * (mu / 0.1) / (np.sqrt(nu / 0.001) + 1e-5)
    before, unravel = ravel_pytree(live)
    near(after, unravel(before - step))
    late, _, _ = update(start, rule.init(start), batch, CTX._replace(clock=jnp.int32(401)))
    same(late, start)


def test_epochs_and_minibatches_are_counted(kind, start):
    rule = ppo.build(NAMES[kind], replace(CONFIG, epochs=2, minibatches=3)).rules["policy"]
    _, state, _ = jax.jit(rule.update)(start, rule.init(start), rollout_of(kind), CTX)
    assert optax.tree_utils.tree_get(state, "count") == 6


@pytest.mark.parametrize("gru,minibatches", [(0, T * N), (0, 6), (4, N)])
def test_minibatches_of_one_sample_are_refused(kind, gru, minibatches):
    """A lone sample's advantage less its mean is 0, and nothing of the policy would be learned."""
    steps, envs = {18: (6, 3), 6: (2, 3), 3: (1, 3)}[minibatches]
    config = replace(CONFIG, gru=gru, minibatches=minibatches, num_envs=envs, unroll=steps)
    agent = ppo.build(NAMES[kind], config)
    memory = jax.tree.map(lambda x: np.zeros((T, N, *x.shape), np.float32), agent.memory())
    batch = jax.tree.map(lambda x: jnp.asarray(x[:steps, :envs]), rollout_of(kind, memory))
    parts = jax.eval_shape(agent.init, KEY)
    update = lambda parts: agent.rules["policy"].update(parts, agent.rules["policy"].init(parts), batch, CTX)
    with pytest.raises(BadInput, match=rf"^minibatches is {minibatches}, which leaves 1 sample each"):
        jax.eval_shape(update, parts)
    fewer = ppo.build(NAMES[kind], replace(config, minibatches=1)).rules["policy"]
    jax.eval_shape(lambda parts: fewer.update(parts, fewer.init(parts), batch, CTX), parts)


# ------------------------------------------------------------------------------------------------ statistics and memory


def with_statistics(parts):
    """An observation far from its mean is clipped at 10 standard deviations."""
    mean, m2 = jnp.array([0.5, -1.0, 0.2]), jnp.array([2.0, 8.0, 1e-3])
    return {**parts, "norm": Moments(mean, m2, jnp.float32(5)), "reward_norm": Moments(*map(jnp.float32, (0.7, 12, 5)))}


def normalised(obs):
    z = (np.asarray(obs, np.float64) - [0.5, -1.0, 0.2]) / np.sqrt(np.array([2.0, 8.0, 1e-3]) / 4 + 1e-8)
    return np.minimum(np.maximum(z, -10), 10).astype(np.float32)


def test_observations_and_rewards_are_normalised(kind):
    """(o - mean) / std within +-10, and rewards over the deviation of their return, not less its mean."""
    agent = ppo.build(NAMES[kind], replace(CONFIG, normalise=True))
    parts = with_statistics(disturbed(jax.jit(agent.init)(KEY), "actor", "critic", by=0.1))
    batch = rollout_of(kind)
    made = mapped(agent.rules["policy"], parts, batch, CTX)
    obs, next_obs = normalised(batch["obs"]), normalised(batch["next_obs"])
    assert (np.abs(obs) == 10).any() and (np.abs(obs) < 10).any()
    near(made, told(kind, parts, batch, obs, next_obs, batch["reward"] / np.sqrt(3 + 1e-8)))
    extras = agent.act(parts, agent.memory(), batch["obs"][0, 0], CTX, False)[2]
    near(extras["output"], POLICY[kind].apply(parts["actor"]["net"], obs[0, 0]))


def test_statistics_move_after_the_policy_and_only_where_asked_for(kind, agent, start):
    assert list(agent.rules) == ["policy"] and set(start) == {"actor", "critic"}
    assert agent.rules["policy"].writes == ("actor", "critic")
    agent = ppo.build(NAMES[kind], replace(CONFIG, normalise=True))
    parts = jax.jit(agent.init)(KEY)
    assert list(agent.rules) == ["policy", "norm", "reward_norm"]
    near((parts["norm"], parts["reward_norm"]),
         (Moments(np.zeros(LENGTH), np.zeros(LENGTH), 0), Moments(*map(np.float32, (0, 0, 0)))))  # fmt: skip
    batch = rollout_of(kind)
    after, _, _ = agent.rules["norm"].update(parts, (), batch, CTX)
    starts = batch["obs"][batch["info"]["episode"]["length"] == 1]
    seen = np.concatenate([batch["next_obs"].reshape(-1, LENGTH), starts])
    near(
        after["norm"], Moments(seen.mean(axis=0), ((seen - seen.mean(axis=0)) ** 2).sum(axis=0), np.float32(len(seen)))
    )
    rule, u, returns = agent.rules["reward_norm"], np.zeros(N), []
    for reward, end in zip(batch["reward"], batch["end"]):
        u = GAMMA * np.where(end, 0, u) + reward
        returns.append(u)
    after, state, _ = rule.update(parts, rule.init(parts), batch, CTX)
    assert_allclose(state, u, rtol=1e-5)
    assert_allclose(after["reward_norm"].m2 / (T * N), np.var(returns), rtol=1e-4)


def test_a_memory_runs_along_sequences_and_is_fresh_where_an_episode_began():
    """Whole environments as minibatches, from the memory stored at a sequence's first step."""
    kind, width = "continuous", 4
    agent = ppo.build(NAMES[kind], replace(CONFIG, gru=width))
    actor, critic = (gru_net(MLP((8,), n, jnp.tanh), width, OBS) for n in (DIMS, 1))
    same(agent.memory(), {"actor": jnp.zeros(width), "critic": jnp.zeros(width)})
    parts = disturbed(jax.jit(agent.init)(KEY), "actor", "critic", by=0.1)
    rng = np.random.default_rng(8)
    memory = {name: rng.normal(size=(T, N, width)).astype(np.float32) for name in ("actor", "critic")}
    batch = rollout_of(kind, memory)
    made = mapped(agent.rules["policy"], parts, batch, CTX)

    step = jax.jit(jax.vmap(critic.step, (None, 0, 0)))
    rows = lambda x: x.reshape(T * N, -1)
    carried, v = step(parts["critic"], rows(memory["critic"]), rows(batch["obs"]))
    _, v_next = step(parts["critic"], carried, rows(batch["next_obs"]))
    v, v_next = (np.asarray(x[:, 0]).reshape(T, N) for x in (v, v_next))
    advantage = advantages(batch["reward"], batch["discount"], batch["end"], v, v_next)
    near((made["value"], made["advantage"]), (v, advantage))

    def along(network, parameters, memory):
        outputs = []
        for t in range(T):
            if t:
                memory = jnp.where(batch["end"][t - 1][:, None], 0, memory)
            memory, output = network.step(parameters, memory, batch["obs"][t])
            outputs.append(output)
        return jnp.concatenate(outputs)

    def theirs(live):
        flat = {name: made[name].reshape(T * N, *made[name].shape[2:]) for name in ppo.LEARNED}
        flat["value"] = flat["value"] + 0.1
        output = along(actor, live["actor"]["net"], memory["actor"][0])
        return loss_of(kind, live, flat, output, along(critic, live["critic"], memory["critic"][0])[:, 0])[0]

    live = {name: parts[name] for name in ("actor", "critic")}
    given = {**made, "value": made["value"] + 0.1}
    ours = lambda live: descent(agent.rules["policy"]).loss(live, {}, standardised(given), KEY)[0]
    near(jax.jit(jax.value_and_grad(ours))(live), jax.jit(jax.value_and_grad(theirs))(live), together=True)
    for name, network in (("actor", actor), ("critic", critic)):
        parameters = parts["actor"]["net"] if name == "actor" else parts["critic"]
        obs = batch["obs"][0, 0]
        first = {name: m[0, 0] for name, m in memory.items()}
        near(agent.act(parts, first, obs, CTX, False)[1][name], network.step(parameters, first[name], obs)[0])


# -------------------------------------------------------------------------------------------------- acting and starting


def test_acts_by_the_mode_or_by_a_draw(kind, agent, start):
    """An action beyond the bounds is kept as it was drawn beside the one that is done."""
    memory, obs = agent.memory(), jnp.array([0.3, -1.0, 2.0])
    output = np.asarray(POLICY[kind].apply(start["actor"]["net"], obs))
    wide = {**start["actor"], "log_std": jnp.ones(DIMS)}
    parts = start if kind == "discrete" else {**start, "actor": wide}
    greedy, after, extras = agent.act(parts, memory, obs, CTX, False)
    assert after == memory
    drawn, done = [], []
    for i in range(6):
        key = jax.random.key(i)
        action, _, told = agent.act(parts, memory, obs, CTX._replace(key=key), True)
        near((extras["output"], told["output"]), (output, output))
        if kind == "discrete":
            assert action == jax.random.categorical(key, output) and set(told) == {"output"}
        else:
            near(told["raw"], output + np.e * np.asarray(jax.random.normal(key, (DIMS,))))
            drawn, done = [*drawn, *told["raw"]], [*done, *action]
    if kind == "discrete":
        assert greedy == output.argmax() and set(extras) == {"output"} and greedy.dtype == jnp.int32
    else:
        near((greedy, extras["raw"]), (np.clip(output, -1, 1), output))
        near(np.stack(done), np.minimum(np.maximum(np.stack(drawn), -1), 1))
        assert {-1, 1} <= set(map(float, done))


def test_parts_at_the_start(kind, agent):
    """Orthogonal kernels: gains of 2^.5 within, .01 for the policy's last layer, 1 for the value's; deviations of 1."""
    parts = jax.jit(agent.init)(KEY)
    if kind == "continuous":
        assert_array_equal(parts["actor"]["log_std"], np.zeros(DIMS))
    assert set(parts["actor"]) == ({"net", "log_std"} if kind == "continuous" else {"net"})
    gram = lambda kernel: np.asarray(kernel.T @ kernel)
    for network, gain in ((parts["actor"]["net"], 0.01), (parts["critic"], 1.0)):
        first, last = network["Dense_0"]["kernel"], network["Dense_1"]["kernel"]
        assert_allclose(gram(first.T), 2 * np.eye(LENGTH), atol=1e-5)
        assert_allclose(gram(last), gain**2 * np.eye(last.shape[1]), rtol=1e-4, atol=1e-8)
        assert not network["Dense_0"]["bias"].any()
    assert (parts["actor"]["net"]["Dense_0"]["kernel"] != parts["critic"]["Dense_0"]["kernel"]).any()


def test_a_recipes_numbers_arrive(kind):
    recipe = ppo.recipe(NAMES[kind], ppo.Config((8,), num_envs=3, unroll=5))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (3, 5, 1, 0)
    assert recipe.source.init.__qualname__ == rollout().init.__qualname__


def test_configuration():
    defaults(
        ppo.Config(), widths=(64, 64), gru=0, lr=2.5e-4, decay_frames=0, gamma=0.99, lambda_=0.95, epsilon=0.2,
        value_epsilon=0.2, value_weight=0.5, entropy_weight=0.01, clip=0.5, epochs=4, minibatches=4, normalise=False,
        num_envs=4, unroll=128,
    )  # fmt: skip
    lowest = {"gru": 0, "lr": 0.0, "decay_frames": 0, "value_weight": 0.0, "entropy_weight": 0.0, "clip": 0.0}
    lowest |= {"epochs": 1, "minibatches": 1, "num_envs": 1, "unroll": 1}
    bounded(ppo.Config, lowest, {"gamma": (0.0, 1.0), "lambda_": (0.0, 1.0), "epsilon": (0.0, 1.0)})
    with pytest.raises(BadInput, match="ppo acts in"):
        ppo.build(Specs(OBS, Box((2,), low=-2)), CONFIG)
