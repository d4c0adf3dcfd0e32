"""SAC's relatives: what each changes, by hand and against SAC itself, and a probe world that each must solve."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.probes import probe
from jaxrl.agents import bro, crossq, droq, flash_sac, redq, sac, simba_v2, td3, xqc
from jaxrl.core import BadInput, Box, Ctx, Specs
from jaxrl.loop import evaluate, train
from jaxrl.nets import (
    MLP,
    HyperNet,
    NormedMLP,
    NormedResidual,
    ResidualMLP,
    drawing,
    ensemble,
    net,
    normed,
    unit_columns,
    unit_weights,
)
from jaxrl.nets.norm import BatchRenorm

KEY = jax.random.key(5)
SPECS = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,)), limit=10)
B = 16


def batch():
    keys = jax.random.split(KEY, 4)
    obs, next_obs = (jax.random.normal(key, (B, 3)) for key in keys[:2])
    action, reward = jax.random.uniform(keys[2], (B, 2), minval=-1), jax.random.normal(keys[3], (B,))
    return {"obs": obs, "next_obs": next_obs, "action": action, "reward": reward, "discount": jnp.ones(B)}


def updated(agent, updates=1, parts=None, names=None):
    """The parts after that many updates of the agent's rules (or of those named) on one batch, and the metrics."""
    trail, found = trailed(agent, updates, parts, names)
    return jax.tree.map(lambda x: x[-1], (trail, found))


def trailed(agent, updates, parts=None, names=None):
    """The same, after each of the updates."""
    rules = {name: agent.rules[name] for name in names or agent.rules}

    def one(carry, i):
        parts, states = carry
        found = {}
        for name, rule in rules.items():
            ctx = Ctx(jax.random.fold_in(KEY, i), jnp.int32(0), i)
            parts, new, found[name] = rule.update(parts, states[name], batch(), ctx)
            states = {**states, name: new}
        return (parts, states), (parts, found)

    def run(parts):
        states = {name: rule.init(parts) for name, rule in rules.items()}
        return jax.lax.scan(one, (parts, states), jnp.arange(updates))[1]

    return jax.jit(run)(agent.init(KEY) if parts is None else parts)


def moved(a, b) -> bool:
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def constant(parts, values):
    """The parts with target critics that answer `values`, one each, whatever they are asked."""
    zeros = jax.tree.map(jnp.zeros_like, parts["target"])
    zeros["Dense_1"]["bias"] = jnp.asarray(values, jnp.float32)[:, None]
    return {**parts, "target": zeros}


# --------------------------------------------------------------------------------------------------------------- TD3


def test_td3_targets_by_hand():
    """Critics of 3 and 5 after a reward of 1: 1 + .99 * 3, and the reward alone where the episode terminated."""
    agent = td3.build(SPECS, td3.Config((8,)))
    parts = constant(agent.init(KEY), [3.0, 5.0])
    given = {**batch(), "reward": jnp.ones(B), "discount": jnp.ones(B).at[0].set(0)}
    rule = agent.rules["critic"]
    target = rule.loss(parts, parts, given, KEY)[1]["target"]
    assert_allclose(target, [1.0, *[3.97] * (B - 1)], rtol=1e-6)


def test_td3_moves_its_actor_and_targets_with_every_second_update():
    agent = td3.build(SPECS, td3.Config((8,), lr=0.0))
    start = agent.init(KEY)
    ones = jax.tree.map(jnp.ones_like, start["critic"])
    start |= {"critic": ones, "target": jax.tree.map(jnp.zeros_like, ones)}
    parts, _ = updated(agent, 10, start)
    assert_allclose(parts["target"]["Dense_0"]["kernel"], 1 - 0.995**5, rtol=1e-4)  # .02475: five moves, not ten
    learning = td3.build(SPECS, td3.Config((8,)))
    start = learning.init(KEY)
    once, _ = updated(learning, 1, start)
    twice, _ = updated(learning, 2, start)
    assert moved(once["critic"], start["critic"]) and not moved(once["actor"], start["actor"])
    assert moved(twice["actor"], start["actor"]) and moved(twice["actor_target"], start["actor_target"])


def test_td3s_actor_climbs_the_first_critic_alone():
    agent = td3.build(SPECS, td3.Config((8,), delay=1))
    start = agent.init(KEY)
    _, actor = agent.rules["actor"].around
    slope = jax.grad(lambda critic: actor.loss(start, {**start, "critic": critic}, batch(), KEY)[0])(start["critic"])
    for leaf in jax.tree.leaves(slope):
        assert (leaf[0] != 0).any() and (leaf[1] == 0).all()


# -------------------------------------------------------------------------------------------------------------- REDQ


def test_redq_of_two_critics_is_sacs_critic():
    """N = M = 2 and one update: the same parameters, bit for bit; only what the policy climbs differs."""
    small = {"widths": (8,), "lr": 1e-3, "tau": 0.01, "alpha": 0.1}
    ours = redq.build(SPECS, redq.Config(**small, ratio=1, critics=2, members=2))
    base = sac.build(SPECS, sac.Config(**small))
    start = base.init(KEY)
    one, other = (updated(agent, 1, start, ("critic",))[0] for agent in (ours, base))
    jax.tree.map(assert_array_equal, one["critic"], other["critic"])
    assert moved(one["critic"], start["critic"])


def test_redqs_target_is_the_least_of_a_random_pair():
    """Ten critics that say 1 to 10: over all 45 pairs the least is 11/3 on average; and one pair serves a batch."""
    agent = redq.build(SPECS, redq.Config((8,), alpha=1e-9, gamma=1.0))
    parts = constant(agent.init(KEY), jnp.arange(1.0, 11))
    given = {**batch(), "reward": jnp.zeros(B)}
    target = lambda key: agent.rules["critic"].loss(parts, parts, given, key)[1]["target"]
    found = jax.jit(lambda: jax.lax.map(target, jax.random.split(KEY, 1000)))()
    assert_allclose(found, found[:, :1] * jnp.ones(B), atol=1e-5)
    assert_allclose(found[:, 0].mean(), 11 / 3, atol=0.2)  # of 1000 draws, three standard errors
    assert set(found[:, 0].round().astype(int).tolist()) == set(range(1, 10))


def test_redqs_policy_learns_with_the_last_update_of_a_step():
    agent = redq.build(SPECS, redq.Config((8,), ratio=5))
    start = agent.init(KEY)
    before, _ = updated(agent, 4, start)
    after, found = updated(agent, 5, start)
    assert not moved(before["actor"], start["actor"]) and moved(after["actor"], start["actor"])
    assert before["log_alpha"] == start["log_alpha"] != after["log_alpha"]
    assert found["critic"]["td_error"].shape == (B,)


def test_redq_refuses_more_members_than_critics():
    with pytest.raises(BadInput, match="members is 3, more than the 2 critics"):
        redq.Config(critics=2, members=3)


# -------------------------------------------------------------------------------------------------------------- DroQ


def test_droqs_critics_draw_masks_of_their_own():
    critic = droq.critics(SPECS, droq.Config((32,), dropout=0.5))
    given, (key, other) = batch(), jax.random.split(KEY)
    parameters = critic.init(KEY)
    alike = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), parameters)  # two members of equal weights
    q = lambda key: critic.apply(alike, given["obs"], given["action"], key)
    assert_array_equal(q(key), q(key))
    assert (q(key) != q(other)).all()
    assert (q(key)[0] != q(key)[1]).all()


def test_dropout_keeps_the_mean_and_rescales_the_rest():
    """Ones through weights of one: half of the units are 0, the others 2."""
    units = 4000
    of = drawing(MLP((units,), 1, activation=lambda x: x, dropout=0.5), jnp.ones(1))
    parameters = jax.tree.map(jnp.ones_like, of.init(KEY))
    parameters["Dense_0"]["bias"] = jnp.zeros(units)
    total = of.apply(parameters, KEY, jnp.ones(1))[0] - 1  # the output's bias
    assert_allclose(total % 2, 0)
    assert_allclose(total / units, 1, atol=0.08)  # 5 / sqrt(4000)
    many = ensemble(of, 2)
    both = many.apply(jax.tree.map(lambda x: jnp.stack([x, x]), parameters), KEY, jnp.ones(1))
    assert both[0] != both[1]


def test_droq_without_dropout_draws_nothing():
    agent = droq.build(SPECS, droq.Config((8,), dropout=0.0, ratio=1))
    critic = droq.critics(SPECS, droq.Config((8,), dropout=0.0))
    given = batch()
    q = lambda key: critic.apply(agent.init(KEY)["critic"], given["obs"], given["action"], key)
    assert_array_equal(*(q(key) for key in jax.random.split(KEY)))


# ------------------------------------------------------------------------------------------------------------ CrossQ


def renormed(warmup, passes, mean=0.0, var=1.0):
    """A normaliser of one feature with running statistics of that kind, as `train(x)` and `apply(x)`."""
    made = normed(BatchRenorm(warmup=warmup), jnp.zeros((4, 1)))
    parameters, running = made.init(KEY)
    running = {"mean": running["mean"] + mean, "var": jnp.full(1, var), "passes": jnp.int32(passes)}
    return lambda x: made.train(parameters, running, x), lambda x: made.apply(parameters, running, x)


def test_batch_renormalisation_by_hand():
    x = jnp.array([-1.0, 1.0, -1.0, 1.0])[:, None] * (1 - 1e-3) ** 0.5  # with epsilon its variance is 1
    plain, new = renormed(10, 0)[0](x)
    assert_allclose(plain, x, atol=1e-6)
    assert_allclose([new["mean"][0], new["var"][0]], [0, 0.99 + 0.01 * (1 - 1e-3)], atol=1e-6)
    assert new["passes"] == 1
    assert_allclose(renormed(10, 10, var=0.25 - 1e-3)[0](x)[0], 2 * x, atol=1e-5)  # r = 2
    assert_allclose(renormed(10, 10, var=0.01 - 1e-3)[0](x)[0], 3 * x, atol=1e-5)  # r = 10, bounded
    assert_allclose(renormed(10, 10, mean=-9.0, var=1 - 1e-3)[0](x)[0], x + 5, atol=1e-5)  # d = 9, bounded
    assert_allclose(renormed(10, 10, mean=1.0, var=4 - 1e-3)[1](jnp.ones(1)), [0], atol=1e-6)  # single inputs
    assert_allclose(renormed(10, 0)[0](jnp.ones((4, 1)))[0], jnp.zeros((4, 1)))  # nothing varies: no NaN


def test_what_is_seen_and_what_comes_next_share_statistics():
    """With s' = s and a' = a both halves are one; with s' far away, neither half alone has mean 0."""
    made = normed(BatchRenorm(), jnp.zeros((4, 1)))
    parameters, running = made.init(KEY)
    x = jax.random.normal(KEY, (8, 1))
    same, _ = made.train(parameters, running, jnp.concatenate([x, x]))
    assert_array_equal(same[:8], same[8:])
    apart, _ = made.train(parameters, running, jnp.concatenate([x, x + 10]))
    assert_allclose(apart.mean(), 0, atol=1e-6)
    assert jnp.abs(apart[:8].mean()) > 0.9


def test_crossq_keeps_statistics_and_delays_its_actor():
    agent = crossq.build(SPECS, crossq.Config((8,), critic_widths=(8,)))
    start = agent.init(KEY)
    parts, _ = updated(agent, 9, start)
    passes = lambda part: set(np.ravel(parts[part]["BatchRenorm_0"]["passes"]).tolist())
    assert passes("critic_running") == {9} and passes("actor_running") == {3}
    assert moved(parts["critic"], start["critic"]) and "target" not in parts
    # The first normaliser sees what is seen and what comes next: 1 - .99^9 of their mean.
    given = batch()
    mean = jnp.concatenate([given["obs"], given["next_obs"]]).mean(axis=0)
    assert_allclose(parts["critic_running"]["BatchRenorm_0"]["mean"][:, :3], [(1 - 0.99**9) * mean] * 2, rtol=1e-4)


# ----------------------------------------------------------------------------------------------------------- SimbaV2


def shapes(module, *sizes, made=net):
    made = made(module, *(jax.ShapeDtypeStruct((size,), jnp.float32) for size in sizes))
    return jax.eval_shape(made.init, KEY)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def kernels(tree):
    return [x for path, x in jax.tree_util.tree_leaves_with_path(tree) if "kernel" in str(path[-1])]


def learns_at_norm_one(start, parts):
    """Actor and critics have moved, and each of their units has weights of norm 1."""
    for part in ("actor", "critic"):
        assert moved(parts[part], start[part])
        for kernel in kernels(parts[part]):
            assert_allclose(jnp.linalg.norm(kernel, axis=-2), 1, atol=1e-5)


def test_simba_v2_is_of_the_papers_size():
    """|s| = 67, |A| = 21: the counts of the authors' code, and the starts of its scalers."""
    assert count(shapes(HyperNet(512, 2, 101), 67, 21)) == 4_559_973
    assert count(shapes(HyperNet(128, 1, 21, heads=2), 67)) == 178_986
    start = net(HyperNet(8, 2, 3), jnp.zeros(4)).init(KEY)
    # 1 / (L + 1) is what the interpolation begins with; what is stored is its scale
    assert_allclose(start["Scaler_2"]["scale"], 8**-0.5)
    assert_allclose(start["Scaler_0"]["scale"], 0.5)
    assert_allclose(start["Scaler_1"]["scale"], 0.25)


def test_simba_v2_stays_on_the_sphere():
    agent = simba_v2.build(SPECS, simba_v2.Config((8, 8), critics=2, lr=1e-2))
    start = agent.init(KEY)
    parts, found = updated(agent, 5, start)
    learns_at_norm_one(start, parts)
    norms = [jnp.linalg.norm(kernel, axis=-2) for kernel in kernels(parts["target"])]  # between points of the sphere
    assert all((x <= 1 + 1e-5).all() for x in norms) and any((x < 1 - 1e-6).any() for x in norms)
    scaler = parts["critic"]["Scaler_0"]["scale"]
    assert_array_equal(unit_columns(parts["critic"])["Scaler_0"]["scale"], scaler)  # no kernel, untouched
    assert jnp.isfinite(found["critic"]["loss"])


def test_rewards_are_scaled_to_keep_returns_within_the_bins():
    """Reward 1 for ever is worth 100 at .99: scaled by 20, the largest return seen over the outermost bin."""
    agent = simba_v2.build(SPECS, simba_v2.Config((4, 4)))
    rule = agent.observe["reward_norm"]
    parts = agent.init(KEY)
    long = {"reward": jnp.ones((3000, 1)), "end": jnp.zeros((3000, 1), bool)}
    parts, _, _ = jax.jit(rule.update)(parts, rule.init(parts), long, Ctx(KEY, jnp.int32(0)))
    assert_allclose(parts["peak"], 100, rtol=1e-3)
    given = {**batch(), "reward": jnp.ones(B), "discount": jnp.zeros(B)}
    # Where an episode ends the target is the reward alone.
    _, _, found = agent.rules["critic"].update(parts, agent.rules["critic"].init(parts), given, Ctx(KEY, jnp.int32(0)))
    assert_allclose(found["target"], 0.05, rtol=1e-3)


# --------------------------------------------------------------------------------------------------------------- XQC


def test_xqc_is_of_the_papers_size():
    """|s| = 51, |A| = 19, scale and shift of the normalisers included: the counts of the authors' code."""
    one, _ = shapes(NormedMLP((512,) * 4, 101, first=True), 51, 19, made=normed)
    actor, _ = shapes(NormedMLP((256,) * 4, 38, first=True), 51, made=normed)
    assert 2 * count(one) == 1_756_642 and count(actor) == 221_580


def test_xqc_keeps_its_weights_at_norm_one_and_its_own_statistics():
    agent = xqc.build(SPECS, xqc.Config((8, 8), critic_widths=(8, 8), lr=1e-2))
    start = agent.init(KEY)
    parts, found = updated(agent, 3, start)
    learns_at_norm_one(start, parts)
    assert (parts["critic_running"]["BatchRenorm_1"]["passes"] == 3).all()  # not those of the target's passes
    assert parts["actor_running"]["BatchRenorm_1"]["passes"] == 1
    assert moved(parts["target"], start["target"]) and moved(parts["target"], parts["critic"])
    assert (jnp.abs(found["critic"]["target"]) <= 5).all()


# ---------------------------------------------------------------------------------------------------------- FlashSAC


def test_flash_sac_is_of_the_papers_size():
    one, _ = shapes(NormedResidual(256, 2, 101), 67, 21, made=normed)
    actor, _ = shapes(NormedResidual(128, 2, 21, heads=2), 67, made=normed)
    assert 2 * count(one) == 2_205_226 and count(actor) == 278_960


def test_scales_and_shifts_keep_their_joint_norm():
    of = lambda scale, shift: unit_weights({"norm": {"scale": jnp.full(9, scale), "shift": jnp.full(9, shift)}})["norm"]
    for scale, shift, wanted in [(1.0, 0.0, (1, 0)), (2.0, 0.0, (1, 0)), (1.0, 1.0, (0.70711, 0.70711))]:
        got = of(scale, shift)
        assert_allclose([got["scale"][0], got["shift"][0]], wanted, atol=1e-5)


def test_flash_sac_holds_its_noise():
    """P(n) like 1 / n^2 for n to 16: .6312 of the holds are of one step, and their mean is 2.134."""
    start = {"noise": jnp.zeros(2), "left": jnp.int32(0)}

    def step(memory, key):
        noise, left = flash_sac.held(memory, key)
        return {"noise": noise, "left": left}, (noise[0], memory["left"] == 0)

    _, (noise, fresh) = jax.lax.scan(step, start, jax.random.split(KEY, 40_000))
    noise, fresh = np.asarray(noise), np.asarray(fresh)
    lengths = np.diff(np.flatnonzero(fresh))
    assert_allclose((lengths == 1).mean(), 0.6312, atol=0.015)
    assert_allclose(lengths.mean(), 2.134, atol=0.08)
    assert ((noise[1:] == noise[:-1]) == ~fresh[1:]).all()
    assert_allclose(noise[fresh].std(), 1, atol=0.05)


def test_flash_sac_keeps_its_norms_and_sees_what_comes_next():
    agent = flash_sac.build(SPECS, flash_sac.Config((8,), critic_widths=(8,), lr=1e-2, blocks=1))
    parts, found = updated(agent, 2)
    for part in ("actor", "critic"):
        jax.tree.map(lambda x, y: assert_allclose(x, y, atol=1e-5), parts[part], unit_weights(parts[part]))
    # The actor's statistics are of what is seen and of what comes next, after one update of two.
    given, running = batch(), parts["actor_running"]["BatchRenorm_0"]
    assert running["passes"] == 1
    assert_allclose(running["mean"], 0.01 * jnp.concatenate([given["obs"], given["next_obs"]]).mean(axis=0), rtol=1e-4)
    assert jnp.isfinite(found["actor"]["loss"])


# --------------------------------------------------------------------------------------------------------------- BRO


def test_bro_is_of_the_papers_size():
    assert count(shapes(ResidualMLP(512, 2, 100), 67, 21)) == 1_152_612


def test_bros_weights_begin_where_they_should():
    assert_allclose([bro.free(1.0), bro.free(0.25)], [0.14384, -0.01558], atol=1e-5)
    assert_allclose([bro.weight(bro.free(x)) for x in (1.0, 0.25)], [1, 0.25], rtol=1e-5)


@pytest.fixture(scope="module")
def bros():
    """An agent that begins anew with its fifth update: its parts at the start, after 4 and after 5, and metrics."""
    agent = bro.build(SPECS, bro.Config((8, 8), quantiles=5, ratio=1, resets=(4,), weights_lr=1e-2))
    start = agent.init(KEY)
    trail, found = trailed(agent, 5, start)
    at = lambda i: jax.tree.map(lambda x: x[i], trail)
    return start, at(3), at(4), found["all"]


def test_bro_begins_anew_but_for_what_it_learns_next(bros):
    """After the reset one step of Adam, at most lr a weight and what decays, is between new weights and those held."""
    start, before, after, _ = bros
    apart = lambda a, b: max(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.abs(x - y).max(), a, b)))
    assert apart(before["critic"], start["critic"]) <= 4.1 * 3e-4
    assert apart(after["critic"], before["critic"]) > 0.05
    assert apart(after["critic"], after["target"]) <= 1.1 * 3e-4
    assert_allclose(after["log_alpha"], start["log_alpha"], atol=1.1 * 3e-4)


def test_bros_actors_stay_near_each_other(bros):
    """Hardly apart at the start: optimism rises and nearness falls, until the divergence is what it should be."""
    start, before, _, found = bros
    assert (found["optimist/kl"][:4].mean(axis=1) / 2 < 0.05).all()
    assert before["weights"]["optimism"] > start["weights"]["optimism"]
    assert before["weights"]["nearness"] < start["weights"]["nearness"]


# ------------------------------------------------------------------------------------------------------------ probes

SMALL = {"widths": (32,), "lr": 5e-3, "gamma": 0.9, "tau": 0.1, "batch": 32, "capacity": 500, "warmup": 32}
SOFT = {**SMALL, "alpha": 1e-3, "target_entropy": -2.0, "ratio": 2}
PROBED = {
    "td3": (td3, td3.Config(**SMALL, smoothing=0.0)),
    "redq": (redq, redq.Config(**SOFT, critics=3)),
    "droq": (droq, droq.Config(**SOFT, dropout=0.001)),
    "simba_v2": (simba_v2, simba_v2.Config(**{**SOFT, "widths": (16, 16), "blocks": (1, 1)})),
    "bro": (bro, bro.Config(**{**SOFT, "widths": (16, 16), "quantiles": 8, "decay": 0.0, "resets": ()})),
    "xqc": (xqc, xqc.Config(**SOFT, critic_widths=(128, 128))),
    "flash_sac": (flash_sac, flash_sac.Config(**{**SOFT, "widths": (32,), "blocks": 1})),
    "crossq": (crossq, crossq.Config(**SOFT, critic_widths=(32,))),
}


def solved(name: str):
    """(greedy return, metrics) of an agent on the fifth probe."""
    module, config = PROBED[name]
    env = probe(5, continuous=True)
    env = replace(env, specs=replace(env.specs, limit=2))
    recipe = module.recipe(env.specs, config)

    def both(key):
        run, metrics = train(env, recipe, key, steps=800)
        return evaluate(env, recipe.agent, run.parts, key, 32)["return"].mean(), metrics

    return jax.jit(both)(KEY)


@pytest.mark.parametrize("name", PROBED)
def test_the_right_action_depends_on_what_is_seen(name):
    score, metrics = solved(name)
    assert score > 0.85  # 1 is the best, and 0.75 what the best blind action earns
    error = metrics["all/critic/td_error" if name == "bro" else "critic/td_error"]
    assert jnp.isfinite(error[-1])
