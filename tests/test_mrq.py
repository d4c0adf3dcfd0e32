"""MR.Q and DR.Q: each term by hand, when what learns, sizes as the authors', and a probe world."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.probes import probe
from jaxrl.agents import dr_q, mrq
from jaxrl.core import BadInput, Box, Ctx, Specs
from jaxrl.equations.categorical import symexp, two_hot
from jaxrl.loop import evaluate, loop, train

KEY = jax.random.key(5)
SPECS = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,)), limit=10)
SIZES = {"widths": (16, 16), "codes": (8, 4)}
B, H = 16, 5


def windows():
    """A batch of windows [B, H] inside one episode, but that the first ends with its second step."""
    keys = jax.random.split(KEY, 4)
    obs, next_obs = (jax.random.normal(key, (B, H, 3)) for key in keys[:2])
    action, reward = jax.random.uniform(keys[2], (B, H, 2), minval=-1), jax.random.normal(keys[3], (B, H))
    return {
        "obs": obs,
        "next_obs": next_obs,
        "action": action,
        "reward": reward,
        "discount": jnp.ones((B, H)).at[0, 1:].set(0),
        "weight": jnp.ones((B, H)).at[0, 2:].set(0),
    }


def loss_of(rule):
    """The loss of a rule within its wrappings."""
    while rule.around is not None:
        _, rule = rule.around
    return rule.loss


@pytest.mark.parametrize("module, encoder", [(mrq, 1_781_314), (dr_q, 2_825_420)])
def test_sizes_are_the_authors(module, encoder):
    shapes = module.build(Specs(jax.ShapeDtypeStruct((67,), jnp.float32), Box((21,))), module.Config()).shapes
    count = lambda name: sum(leaf.size for leaf in jax.tree.leaves(shapes[name]))
    assert (count("encoder"), count("critic"), count("actor")) == (encoder, 1_576_962, 536_085)


def test_rewards_are_split_between_bins_by_value():
    """Not by symlog: 1 lies between 0.867 and 1.552."""
    bins = symexp(jnp.linspace(-mrq.REACH, mrq.REACH, mrq.BINS))
    assert_allclose(two_hot(jnp.float32(1), bins)[34:36], [0.8078, 0.1922], atol=1e-4)
    assert_array_equal(two_hot(jnp.float32(0), bins), np.eye(mrq.BINS)[32])


def test_windows_become_transitions():
    """Rewards of 1 at gamma .9: 1.9 and nothing after a termination in the second step; 1.9 and .9 at a time limit."""
    config = mrq.Config(gamma=0.9)
    inside = jnp.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], jnp.float32)
    batch = {
        "weight": inside,
        "reward": jnp.ones((3, H)),
        "discount": jnp.ones((3, H)).at[0, 1:].set(0),
        **{name: jnp.broadcast_to(jnp.arange(5.0)[:, None], (3, H, 1)) for name in ("obs", "action", "next_obs")},
    }
    made = mrq.n_step(config)({}, batch, None)
    assert_allclose(made["reward"], [1.9, 1.9, 2.71], rtol=1e-6)
    assert_allclose(made["discount"], [0, 0.9, 0.81], rtol=1e-6)
    assert (made["obs"] == 0).all() and (made["action"] == 0).all() and (made["next_obs"] == 2).all()


def test_codes_that_predict_nothing_pay_for_it():
    """A model of zeros: squares of the targets, .1 log 65 a step, and .1 for the one end, where ends were seen."""
    agent = mrq.build(SPECS, mrq.Config(**SIZES))
    parts = agent.init(KEY)
    zeros = jax.tree.map(jnp.zeros_like, parts["encoder"]["model"])
    live = {"encoder": {**parts["encoder"], "model": zeros}}
    loss = loss_of(agent.rules["encoder"])
    _, terms = loss(live, parts, windows(), KEY)
    steps = windows()["weight"].sum() / B
    assert_allclose(terms["reward"], 0.1 * np.log(65) * steps, rtol=1e-5)
    assert terms["ending"] == 0
    _, seen = loss(live, {**parts, "seen": {**parts["seen"], "ended": jnp.float32(1)}}, windows(), KEY)
    assert_allclose(seen["ending"], 0.1 / B, rtol=1e-6)
    still = {**parts, "encoder_target": jax.tree.map(jnp.zeros_like, parts["encoder_target"])}
    assert loss(live, still, windows(), KEY)[1]["dynamics"] == 0 < terms["dynamics"]


@pytest.mark.parametrize("module", [mrq, dr_q])
def test_what_lies_behind_an_end_teaches_nothing(module):
    agent = module.build(SPECS, module.Config(**SIZES))
    parts, batch = agent.init(KEY), windows()
    loss = jax.jit(lambda batch: loss_of(agent.rules["encoder"])(parts, parts, batch, KEY)[0])
    other = {**batch, "reward": batch["reward"].at[0, 2:].set(9), "action": batch["action"].at[0, 2:].set(1)}
    assert_allclose(loss(other), loss(batch), rtol=1e-6)
    assert loss({**batch, "reward": batch["reward"].at[0, 1].set(9)}) != loss(batch)


def test_codes_tell_each_other_apart():
    """Log of the batch's size where all are the same; log(1 + 3 e^-10) for four that are orthogonal."""
    same, apart = jnp.ones((256, 8)), 3 * jnp.eye(4)
    assert_allclose(dr_q.contrast({}, same, None, {"target": same})["contrast"], np.log(256), rtol=1e-5)
    assert_allclose(dr_q.contrast({}, apart, None, {"target": apart})["contrast"], 1.362e-4, rtol=1e-3)


@pytest.mark.parametrize("module, unit, target", [(mrq, (2.0, 3.0), 9.91), (dr_q, (1.0, 1.0), 3.97)])
def test_targets_are_in_the_replays_unit(module, unit, target):
    """Critics of 3 and 5 after a reward of 1: 1 + .99 * 3, of units 3 where values are scaled."""
    agent = module.build(SPECS, module.Config(**SIZES))
    parts = agent.init(KEY)
    zeros = jax.tree.map(jnp.zeros_like, parts["target"])
    zeros["Dense_3"]["bias"] = jnp.array([[3.0], [5.0]])
    parts = {**parts, "target": zeros, "unit": jnp.array(unit)}
    batch = mrq.n_step(module.Config(n=1))({}, {**windows(), "reward": jnp.ones((B, H))}, None)
    _, found = loss_of(agent.rules["critic"])(parts, parts, batch, KEY)
    assert_allclose(found["target"], target, rtol=1e-6)
    assert (found["priority"] >= 1).all()


def test_priorities_are_floored_errors():
    """An error of .3 counts as 1, one of 32 as 32^.4 = 4."""
    recipe = dr_q.recipe(SPECS, dr_q.Config(**SIZES, batch=2, capacity=8))
    zeros = lambda *shape: jnp.zeros((1, 2, *shape))
    step = {"obs": zeros(3), "action": zeros(2), "reward": zeros(), "discount": zeros(), "next_obs": zeros(3)}
    step |= {"end": zeros().astype(bool)}
    s = recipe.source.add(recipe.source.init(step), step, Ctx(KEY, jnp.int32(0)))
    assert_array_equal(s.tree[0][:2], [1, 1])
    batch = {"index": jnp.arange(2), "weight": jnp.ones((2, H))}
    s = recipe.source.note(s, batch, {"critic/priority": jnp.array([1.0, 32.0])})
    assert_allclose(s.tree[0][:2], [1, 4], rtol=1e-5)
    s = recipe.source.note(s, batch, {"critic/priority": jnp.full(2, jnp.nan)})  # as while the codes learn
    assert_allclose(s.tree[0][:2], [1, 4], rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- clock

PERIOD, FIRST, TICKS = 3, 2, 8


@pytest.fixture(scope="module")
def trail():
    """The parts of MR.Q after each of 8 ticks, of which the first two are warm-up, and the metrics."""
    env = probe(5, continuous=True)
    config = mrq.Config(**SIZES, period=PERIOD, warmup=FIRST, batch=4, capacity=50)
    one = loop(env, mrq.recipe(env.specs, config))

    def tick(run, _):
        run, metrics = one.chunk(run, 1)
        return run, (run.parts, metrics)

    run = jax.jit(one.init)(KEY)
    start = run.parts
    after = jax.jit(lambda run: jax.lax.scan(tick, run, None, length=TICKS))(run)[1]
    return start, *after


def test_codes_learn_in_bursts_and_values_at_every_tick(trail):
    """Targets are copies of what was before the burst, and stand still until the next; codes stand still with them."""
    start, parts, metrics = trail
    at = lambda i: start if i < 0 else jax.tree.map(lambda x: x[i], parts)
    same = lambda a, b: all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    for i in range(TICKS):
        before, after, renewed = at(i - 1), at(i), i >= FIRST and (i - FIRST) % PERIOD == 0
        assert same(after["encoder"], before["encoder"]) == (not renewed), i
        for copy, name in mrq.COPIES.items():
            assert same(after[copy], before[name] if renewed else before[copy]), i
        assert same(after["critic"], before["critic"]) == same(after["actor"], before["actor"]) == (i < FIRST)
        assert jnp.isnan(metrics["encoder/loss"][i]) == (not renewed)
        assert jnp.isnan(metrics["critic/loss"][i]) == (i < FIRST)


def test_the_unit_is_the_mean_size_of_rewards(trail):
    """Renewed with the targets; the one before it is kept, at first 1."""
    start, parts, _ = trail
    size = parts["seen"]["size"].mean
    assert_array_equal(start["unit"], [1, 1])
    assert_allclose(parts["unit"][FIRST], [size[FIRST], 1], rtol=1e-6)
    assert_allclose(parts["unit"][FIRST + PERIOD], [size[FIRST + PERIOD], size[FIRST]], rtol=1e-6)
    assert_array_equal(parts["seen"]["ended"], 1)


# ------------------------------------------------------------------------------------------------------------ probes


@pytest.mark.parametrize("module", [mrq, dr_q])
def test_the_right_action_depends_on_what_is_seen(module):
    env = probe(5, continuous=True)
    env = replace(env, specs=replace(env.specs, limit=2))
    config = {"encoder_lr": 3e-3, "lr": 3e-3, "period": 50, "batch": 32, "capacity": 500, "warmup": 32, "gamma": 0.9}
    recipe = module.recipe(env.specs, module.Config(**SIZES, **config))

    def solved(key):
        run, _ = train(env, recipe, key, steps=800)
        return evaluate(env, recipe.agent, run.parts, key, 32)["return"].mean()

    assert jax.jit(solved)(KEY) > 0.85  # 1 is the best, and 0.75 what the best blind action earns


@pytest.mark.parametrize(
    "settings, sentence",
    [({"n": 6}, "n is 6; it must lie between 1 and 5"), ({"period": 0}, "period is 0"), ({"fade": (1.5, 0.1)}, "fade")],
)
def test_what_cannot_run_is_refused(settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        dr_q.recipe(SPECS, dr_q.Config(**settings))
