"""CIP: strengths of causes by regressions in NumPy, and what becomes of a batch, an entropy and a reward by them."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import cip, sac
from jaxrl.agents.common import rows
from jaxrl.core import BadInput, Ctx, fold, stateless
from jaxrl.equations.causal import causal_order
from jaxrl.loop import Run
from jaxrl.nets import MLP, net
from jaxrl.sources import latest
from tests.pinned import DIMS, KEY, LENGTH, SPECS, bounded, defaults, disturbed, mean, near, same, transitions
from tests.small import DISCRETE, config, small

D = 4
WIDE = replace(SPECS, observation=jax.ShapeDtypeStruct((D,), jnp.float32))


def experienced(n=300, seed=0):
    """s0 is driven by a0 and by s1, s2 by itself alone; the reward is of s0 and of a1, and nothing is of s3."""
    rng = np.random.default_rng(seed)
    s, a = rng.laplace(size=(n, D)), rng.uniform(-1, 1, (n, 2))
    noise = 0.1 * rng.laplace(size=(n, D + 1))
    change = np.stack([0.5 * a[:, 0] + 0.4 * s[:, 1], noise[:, 1], -0.5 * s[:, 2], noise[:, 3]], axis=1)
    reward = 2 * s[:, 0] - a[:, 1] + 0.3 * noise[:, D]
    weight = np.where(rng.uniform(size=n) < 0.1, 0, rng.choice([1.0, 2.0], n))
    data = {"obs": s, "action": a, "reward": reward, "next_obs": s + change + 0.05 * noise[:, :D], "weight": weight}
    return {name: x.astype(np.float32) for name, x in data.items()}


def scaled(x, weight):
    x = x.astype(np.float64).reshape(len(weight), -1)
    center = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weight))
    return (x - center) / np.where(spread > 1e-6, spread, np.inf)


def regressed(x, y, weight):
    """Coefficients of y on x: of the normal equations, with a ridge of 1e-4."""
    share = weight / weight.sum()
    return np.linalg.solve(x.T @ (share[:, None] * x) + 1e-4 * np.eye(x.shape[1]), x.T @ (share[:, None] * y)).T


def shrunk(x, y, weight, penalty):
    """Lasso by coordinate descent: half the mean square and the penalty times the sum of absolute coefficients."""
    share, w = weight / weight.sum(), np.zeros(x.shape[1])
    for _ in range(200):
        for j in range(len(w)):
            rest = y[:, 0] - x @ w + x[:, j] * w[j]
            moment, square = share @ (x[:, j] * rest), share @ x[:, j] ** 2
            w[j] = np.sign(moment) * max(abs(moment) - penalty, 0) / square
    return w


def judged(data, how):
    """How strongly each number of state and action causes the reward: itself, or by way of what it changes."""
    weight = data["weight"].astype(np.float64)
    x, r = scaled(np.concatenate([data["obs"], data["action"]], axis=1), weight), scaled(data["reward"], weight)
    through = abs(regressed(x, scaled(data["next_obs"] - data["obs"], weight), weight))
    if how.method == "lasso":
        direct = shrunk(x, r, weight, how.penalty)
    elif how.method == "lingam":
        order = list(np.asarray(causal_order(jnp.asarray(np.concatenate([x, r], axis=1)), jnp.asarray(weight))))
        first = np.isin(np.arange(x.shape[1]), order[: order.index(x.shape[1])])
        direct = regressed(x * first, r, weight)[0] * first
    else:
        direct = regressed(x, r, weight)[0]
    direct = np.where(abs(direct) > how.edge, abs(direct), 0)
    matters = direct[:D] > 0
    for _ in range(D):
        matters = matters | np.array([any(matters[t] and through[t, f] > how.edge for t in range(D)) for f in range(D)])
    total = direct.copy()
    for t in range(D):
        for f in range(len(direct)):
            if matters[t] and through[t, f] > how.edge:
                total[f] += through[t, f]
    return np.where(matters, total[:D], 0), total[D:]


@pytest.mark.parametrize("method", ["ols", "lasso", "lingam"])
def test_strengths_are_of_causes_and_of_their_causes(method):
    data, how = experienced(), cip.Config(method=method, penalty=0.2)
    fields = [data[name] for name in ("obs", "action", "reward", "next_obs", "weight")]
    found = jax.jit(lambda *given: cip.strengths(*given, how))(*fields)
    wanted = judged(data, how)
    for ours, theirs in zip(found, wanted):
        assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)
    state, action = wanted
    if method != "lingam":  # whose order is uncertain of so few
        assert (state[:2] > 0.1).all() and (state[2:] == 0).all() and (action > 0.05).all()


def test_the_least_coefficient_that_is_a_cause():
    """An edge above the weaker cause's coefficient leaves it out, of the reward and of what causes it."""
    data, how = experienced(), cip.Config(edge=0.85)
    fields = [data[name] for name in ("obs", "action", "reward", "next_obs", "weight")]
    found, wanted = jax.jit(lambda *given: cip.strengths(*given, how))(*fields), judged(data, how)
    for ours, theirs in zip(found, wanted):
        assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)
    assert wanted[0][0] > 0.85 and wanted[1][1] == 0


def test_weights_are_a_softmax_of_strengths_by_their_largest():
    strength = np.array([0.5, 0.0, 2.0])
    raised = np.exp(3 * strength / 2)
    assert_allclose(cip.weights(jnp.asarray(strength), 3.0), 3 * raised / raised.sum(), rtol=1e-5)
    assert_allclose(cip.weights(jnp.zeros(4), 3.0), np.ones(4), rtol=1e-6)


def test_idle_numbers_are_exchanged_in_a_share_of_the_rows():
    """Of s and s' alike, from one other row; the rest of a row stays."""
    batch, idle = transitions(2, (64,)), np.array([True, False, True])
    exchange = jax.jit(lambda batch, idle: cip.exchanged(batch, idle, 0.25, KEY))
    made = exchange(batch, idle)
    key_rows, key_from = jax.random.split(KEY)
    chosen = np.asarray(jax.random.uniform(key_rows, (64, 1)))[:, 0] < 0.25
    other = (np.asarray(jax.random.uniform(key_from, (64,))) * np.float32(64)).astype(int)
    for name in ("obs", "next_obs"):
        wanted = batch[name].copy()
        wanted[np.ix_(chosen, idle)] = batch[name][other[chosen]][:, idle]
        assert_array_equal(made[name], wanted)
    assert 5 < chosen.sum() < 30 and len(set(other)) > 20
    same({n: made[n] for n in batch if "obs" not in n}, {n: batch[n] for n in batch if "obs" not in n})
    same(exchange(batch, np.zeros(3, bool)), jax.tree.map(jnp.asarray, batch))


# --------------------------------------------------------------------------------------------------- the agent's rules

TELLER = net(MLP((8,), 2 * DIMS), jax.ShapeDtypeStruct((2 * LENGTH,), jnp.float32))
BATCH = jax.tree.map(jnp.asarray, transitions(1))


def log_q(parameters, batch):
    """log q_d(a_d | s, s') of each number: a normal around a tanh, its log standard deviation within [-3, 1]."""
    output = TELLER.apply(parameters, jnp.concatenate([batch["obs"], batch["next_obs"]], axis=1))
    center, log_std = jnp.tanh(output[:, :DIMS]), jnp.minimum(jnp.maximum(output[:, DIMS:], -3), 1)
    return -((batch["action"] - center) ** 2) / (2 * jnp.exp(log_std) ** 2) - log_std - jnp.log(2 * jnp.pi) / 2


def made(**own):
    return small("sac+cip", cip={"widths": (8,), **own})


def test_what_was_done_is_learned_to_be_told_from_what_came_of_it():
    agent = made(lr=0.02).agent
    rule, parts = agent.rules["inverse"], disturbed(jax.jit(agent.init)(KEY), "inverse", by=2.0)
    assert (next(iter(agent.rules)), rule.reads, rule.writes) == ("inverse", ("inverse",), ("inverse",))
    theirs = lambda live: -mean(log_q(live["inverse"], BATCH).sum(axis=1), BATCH)
    ours = lambda live: rule.loss(live, live, BATCH, KEY)[0]
    found, wanted = (jax.jit(jax.value_and_grad(loss))({"inverse": parts["inverse"]}) for loss in (ours, theirs))
    near(found, wanted)
    after = jax.jit(lambda p: rule.update(p, rule.init(p), BATCH, Ctx(KEY, jnp.int32(0)))[0])(parts)
    step = jax.tree.map(lambda x, g: x - 0.02 * g / (jnp.abs(g) + 1e-8), parts["inverse"], wanted[1]["inverse"])
    near(after["inverse"], step)
    assert cip.Config().lr == 3e-4


def watched(**own):
    """What rules beneath are shown: `(parts, key) -> batch`."""
    seen, plain = [], small("sac")
    watch = stateless(lambda parts, batch, ctx: (seen.append(batch), ({}, {}))[1], writes=())
    agent = replace(plain.agent, rules={"watch": watch})
    how = cip.Config(widths=(8,), **own)
    rule = cip.add(replace(plain, agent=agent), SPECS, how, config("sac")).agent.rules["watch"]

    def shown(parts, key):
        rule.update(parts, (), BATCH, Ctx(key, jnp.int32(0)))
        return seen.pop()

    return jax.jit(shown)


CAUSAL = {"state": jnp.array([1.0, 0.0, 2.0]), "action": jnp.array([0.5, 0.1])}


def test_the_agent_learns_from_exchanged_rows_with_a_bonus():
    """r + c mean_d w_d (log q_d(a_d | s, s') + log 2), where uniform actions have a density of 1/2 a number."""
    parts = disturbed(jax.jit(made().agent.init)(KEY), "inverse")
    parts = {**parts, "causal": CAUSAL}
    found = watched(exchanged=0.5, empowerment=0.3, sharpness=2.0)(parts, KEY)
    batch = cip.exchanged(BATCH, np.array([False, True, False]), 0.5, fold(KEY, 1 << 31))
    raised = np.exp(2.0 * np.array([1.0, 0.2]))
    w = 2 * raised / raised.sum()
    bonus = (w * (np.asarray(log_q(parts["inverse"], batch)) + np.log(2))).sum(axis=1) / 2
    near(found, {**batch, "reward": batch["reward"] + 0.3 * bonus})
    alone = watched(exchanged=0.5, empowerment=0.0)(parts, KEY)
    near(alone, jax.tree.map(jnp.asarray, batch))
    near(watched(exchanged=0.0, empowerment=0.0)(parts, KEY), jax.tree.map(jnp.asarray, BATCH))


def test_each_of_the_three_can_be_left_out():
    plain = small("sac")
    none = made(entropy=False, exchanged=0.0, empowerment=0.0)
    assert list(none.agent.rules) == list(plain.agent.rules)
    parts = jax.jit(none.agent.init)(KEY)
    same({n: parts[n] for n in plain.agent.shapes}, jax.jit(plain.agent.init)(KEY))
    update = lambda recipe: jax.jit(
        lambda p: recipe.agent.rules["critic"].update(
            p, recipe.agent.rules["critic"].init(p), BATCH, Ctx(KEY, jnp.int32(0))
        )[0]["critic"]
    )(parts)
    same(update(none), update(plain))
    assert list(made(empowerment=0.5).agent.rules) == ["inverse", *plain.agent.rules]
    assert cip.seams(SPECS, cip.Config(entropy=True), None) == {"weighed": True}
    assert cip.seams(SPECS, cip.Config(entropy=False), None) == {}
    assert "entropy" not in none.agent.shapes and "entropy" in made().agent.shapes
    assert_array_equal(parts["causal"]["state"], np.ones(LENGTH))
    assert_array_equal(parts["causal"]["action"], np.ones(DIMS))


# ---------------------------------------------------------------------------------------------------------- the event


@cache
def looking(entropy=True):
    """A recipe, with its jitted event and source, and how it looks."""
    how = cip.Config(period=16, samples=200, entropy=entropy, sharpness=2.0)
    base = config("sac", capacity=700, num_envs=1, warmup=16)
    recipe = sac.recipe(WIDE, base, **cip.seams(WIDE, how, base))
    recipe = cip.add(recipe, WIDE, how, base)
    event = recipe.events[0]
    assert (event.name, event.period, len(recipe.events)) == ("cip", 16, 1)
    return recipe, jax.jit(event.fn), jax.jit(recipe.source.add), jax.jit(recipe.source.everything), how


def looked(data, clock, entropy=True):
    """(the look's parts, its metrics, all that the source holds, and how) after a life of these data."""
    recipe, event, add, everything, how = looking(entropy)
    one = {name: x[:, None] for name, x in data.items() if name != "weight"}
    one |= {"discount": np.ones_like(one["reward"]), "end": np.ones_like(one["reward"], bool)}
    s = recipe.source.init(jax.eval_shape(lambda: one))
    s = add(s, one, Ctx(KEY, jnp.int32(0)))
    run = Run(*[()] * len(Run._fields))._replace(parts=recipe.agent.init(KEY), source=s)
    after, metrics = event(run, Ctx(KEY, jnp.int32(clock)))
    return after.parts, metrics, everything(s), how


def test_a_look_tells_causes_from_what_was_experienced():
    parts, metrics, held, how = looked(experienced(), 16)
    at = np.asarray(rows(KEY, held["weight"], 200))
    state, action = judged({name: np.asarray(x)[at] for name, x in held.items()}, how)
    assert_allclose(parts["causal"]["state"], state, rtol=2e-3, atol=1e-4)
    assert_allclose(parts["causal"]["action"], action, rtol=2e-3, atol=1e-4)
    raised = np.exp(2.0 * action / action.max())
    assert_allclose(parts["entropy"], 2 * raised / raised.sum(), rtol=2e-3)
    assert_allclose(metrics["causal/idle"], (state == 0).mean())
    assert_allclose(metrics["causal/spread"], action.std(), rtol=5e-3)


def test_where_nothing_is_found_all_count_alike():
    """A reward that never changes has no cause, and a look in the warm-up sees nothing."""
    data = experienced()
    for given, clock in (({**data, "reward": np.ones_like(data["reward"])}, 16), (data, 15)):
        parts, metrics, _, _ = looked(given, clock)
        for name, size in (("state", D), ("action", 2)):
            assert_array_equal(parts["causal"][name], np.ones(size))
        assert_allclose(parts["entropy"], [1, 1])
        assert np.isnan(metrics["causal/idle"]) == (clock == 15)
    assert "entropy" not in looked(data, 16, entropy=False)[0]


def test_configuration():
    defaults(
        cip.Config(), period=10_000, samples=10_000, method="ols", penalty=0.01, edge=0.05, sharpness=3.0,
        entropy=True, exchanged=0.25, empowerment=0.01, widths=(128, 128), lr=3e-4,
    )  # fmt: skip
    lowest = {"period": 1, "samples": 2, "penalty": 0.0, "edge": 0.0, "sharpness": 0.0, "empowerment": 0.0}
    bounded(cip.Config, lowest, {"exchanged": (0.0, 1.0)})


def test_what_it_cannot_go_on_is_refused():
    whole, base = small("sac"), config("sac")
    with pytest.raises(BadInput, match="cip needs observations that are one vector"):
        cip.add(whole, replace(SPECS, observation=jax.ShapeDtypeStruct((2, 2), jnp.float32)), cip.Config(), base)
    with pytest.raises(BadInput, match="cip acts in continuous spaces"):
        cip.add(small("dqn"), DISCRETE, cip.Config(), base)
    with pytest.raises(BadInput, match="cip learns from all that was experienced"):
        cip.add(replace(whole, source=latest()), SPECS, cip.Config(), base)
