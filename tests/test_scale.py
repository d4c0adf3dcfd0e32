"""Recipes for many environments: what each adds, by hand, and a probe world that each must solve."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.probes import probe
from jaxrl.agents import fast_td3, reppo
from jaxrl.core import BadInput, Box, Ctx, Specs
from jaxrl.equations.categorical import expected, hl_gauss
from jaxrl.equations.distributions import normal_log_prob
from jaxrl.loop import train
from jaxrl.nets import MLP, net
from jaxrl.sources import uniform

KEY = jax.random.key(9)
SPECS = Specs(jax.ShapeDtypeStruct((3,), jnp.float32), Box((2,)), limit=10)
B = 4
f = lambda *xs: jnp.array(xs, jnp.float32)
s = jnp.float32


def batch():
    keys = jax.random.split(KEY, 4)
    obs, next_obs = (jax.random.normal(key, (B, 3)) for key in keys[:2])
    action, reward = jax.random.uniform(keys[2], (B, 2), minval=-1), jax.random.normal(keys[3], (B,))
    return {"obs": obs, "next_obs": next_obs, "action": action, "reward": reward, "discount": jnp.ones(B)}


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def dense(*sizes):
    return sum((before + 1) * after for before, after in pairwise(sizes))


def moved(a, b) -> bool:
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@cache
def begun(module, config):
    """The agent and its parts."""
    agent = module.build(SPECS, config)
    return agent, jax.jit(agent.init)(KEY)


# ----------------------------------------------------------------------------------------------------------- FastTD3

TINY = fast_td3.Config(num_envs=2, ratio=1, batch=4, capacity=100, warmup=0, widths=(8,), critic_widths=(8,))


def test_fast_td3_is_of_the_authors_size():
    """|s| = 67, |A| = 21; three hidden layers each, and 101 logits of each of two critics."""
    specs = Specs(jax.ShapeDtypeStruct((67,), jnp.float32), Box((21,)))
    shapes = fast_td3.build(specs, fast_td3.Config()).shapes
    assert count(shapes["actor"]) == dense(67, 512, 256, 128, 21) == 201_749
    assert count(shapes["critic"]) == 2 * dense(88, 1024, 512, 256, 101) == 1_546_442
    assert "actor_target" not in shapes


def test_fast_td3_begins_as_torch_does():
    """Weights uniform within 1 / sqrt(fan_in), and the actor's last layer normal and small."""
    _, parts = begun(fast_td3, TINY)
    first, last = (jnp.abs(parts["actor"][name]["kernel"]) for name in ("Dense_0", "Dense_1"))
    assert 0.9 * 3**-0.5 < first.max() <= 3**-0.5
    assert 0.005 < last.mean() < 0.015  # .008 is the mean size of a normal of .01


@pytest.fixture(scope="module")
def judged():
    """What FastTD3 learns from after a reward of .5, at .5 and, in the first row, at an end; and what its actor climbs.

    Critics and targets are linear, with kernels [2, 5, 3] and biases [2, 3], and bins 0, 1 and 2.
    """
    agent, parts = begun(fast_td3, replace(TINY, atoms=3, support=(0.0, 2.0), gamma=0.5, critic_widths=()))
    _, critic = agent.rules["critic"].around
    _, actor = agent.rules["actor"].around[1].around

    @jax.jit
    def of(kernel, bias, obs):
        given = {**batch(), "reward": jnp.full(B, 0.5), "discount": jnp.ones(B).at[0].set(0)}
        given |= {"obs": obs, "next_obs": obs}
        linear = {"Dense_0": {"kernel": kernel, "bias": bias}}
        held = {**parts, "critic": linear, "target": linear}
        return {**critic.loss(held, held, given, KEY)[1], **actor.loss(held, held, given, KEY)[1]}

    return of


def test_fast_td3_believes_the_lesser_critic_in_each_row(judged):
    """Critics that are certain of 2 and 1, of 2 both, and of either by the side of what is seen."""
    blind, nowhere = jnp.zeros((2, 5, 3)), jnp.zeros((B, 3))
    two, one = f(0, 0, 50), f(0, 50, 0)
    found = judged(blind, jnp.stack([two, one]), nowhere)
    assert_allclose(found["target"], [0.5, 1, 1, 1], rtol=1e-5)
    assert_allclose(found["q"], [1] * B, rtol=1e-5)
    found = judged(blind, jnp.stack([two, two]), nowhere)
    assert_allclose(found["target"], [0.5, 1.5, 1.5, 1.5], rtol=1e-5)
    assert_allclose(found["outermost"], [0.5] * B, rtol=1e-5)  # (.5, .5, 0) and (0, .5, .5)
    # The first says 2 where the first entry is above 0 and 0 where it is below, the second the reverse.
    sides = jnp.zeros((B, 3)).at[:, 0].set(f(1, 1, -1, -1))
    torn = blind.at[:, 0].set(50 * f(-1, 0, 1)).at[1].multiply(-1)
    found = judged(torn, jnp.zeros((2, 3)), sides)
    assert_allclose(found["target"], [0.5] * B, rtol=1e-5)  # of the lesser in the whole batch: 1.5 in two rows
    assert_allclose(found["q"], [0] * B, atol=1e-5)


def test_fast_td3_computes_narrowly_where_it_is_told_to():
    """Much the same loss, of 16-bit products; parameters stay as wide as they were."""
    wide, parts = begun(fast_td3, TINY)
    narrow, same = begun(fast_td3, replace(TINY, precision="bfloat16"))
    losses = [agent.rules["critic"].around[1].loss(parts, parts, batch(), KEY)[0] for agent in (wide, narrow)]
    assert losses[0] != losses[1]
    assert_allclose(*losses, rtol=0.02)
    assert not moved(parts, same)


def test_fast_td3_moves_its_actor_with_every_second_update_and_its_target_with_each():
    agent, start = begun(fast_td3, TINY)
    actor, target = agent.rules["actor"], agent.rules["target"]
    zeros = {**start, "target": jax.tree.map(jnp.zeros_like, start["target"])}
    at = lambda i: Ctx(KEY, jnp.int32(0), i)
    climbed = jax.jit(lambda i: actor.update(start, actor.init(start), batch(), at(i))[0]["actor"])
    assert [moved(climbed(jnp.int32(i)), start["actor"]) for i in range(4)] == [False, True, False, True]
    for i in range(2):
        followed = target.update(zeros, (), batch(), at(jnp.int32(i)))[0]["target"]
        jax.tree.map(lambda x, y: assert_allclose(x, 0.1 * y, rtol=1e-5), followed, start["critic"])


def test_fast_td3s_weights_decay_with_their_biases():
    """Where nothing is to learn from, a step takes lr * .1 of every parameter."""
    agent, start = begun(fast_td3, TINY)
    _, rule = agent.rules["critic"].around
    ones = {"critic": jax.tree.map(jnp.ones_like, start["critic"])}
    fall = lambda: rule.tx.update(jax.tree.map(jnp.zeros_like, ones), rule.init(start), ones, frames=jnp.int32(0))[0]
    for leaf in jax.tree.leaves(jax.jit(fall)()):
        assert_allclose(leaf, -3e-5, rtol=1e-5)


def test_an_environment_keeps_its_noise_for_an_episode():
    """64 environments of 4 steps: sizes fixed within an episode, drawn anew after it, and uniform over all."""
    agent, parts = begun(fast_td3, replace(TINY, sigma=(0.1, 0.4)))
    fresh = jnp.full(64, agent.memory()["sigma"])

    def step(sigma, t):
        act = lambda sigma, key: agent.act(parts, {"sigma": sigma}, jnp.zeros(3), Ctx(key, t), True)[1]["sigma"]
        sigma = jax.vmap(act)(sigma, jax.random.split(jax.random.fold_in(KEY, t), 64))
        return jnp.where(t % 4 == 3, fresh, sigma), sigma

    sigma = np.asarray(jax.jit(lambda: jax.lax.scan(step, fresh, jnp.arange(8))[1])())
    first, second = sigma[:4], sigma[4:]
    assert (first == first[0]).all() and (second == second[0]).all() and (first[0] != second[0]).all()
    assert 0.1 <= sigma.min() < 0.13 and 0.37 < sigma.max() <= 0.4
    assert_allclose([sigma.mean(), sigma.std()], [0.25, 0.3 / 12**0.5], atol=0.03)


def test_noise_is_of_the_size_that_is_held():
    agent, start = begun(fast_td3, TINY)
    parts = jax.tree.map(jnp.zeros_like, start)
    act = lambda key: agent.act(parts, {"sigma": s(0.2)}, jnp.zeros(3), Ctx(key, s(0)), True)
    action, memory, _ = jax.jit(jax.vmap(act))(jax.random.split(KEY, 4000))
    assert_allclose(action.std(), 0.2, rtol=0.03)
    assert_array_equal(memory["sigma"], jnp.full(4000, s(0.2)))
    greedy, memory, _ = agent.act(parts, agent.memory(), jnp.zeros(3), Ctx(KEY, s(0)), False)
    assert_array_equal(greedy, [0, 0])
    assert memory == agent.memory()


def test_returns_of_several_steps_stop_at_an_end():
    """n = 3, done at the second of three steps: r + g r', worth g^2 of what the second led to where it is cut off."""
    source = uniform(40, 32, n=3, gamma=0.5)
    step = lambda *xs: jnp.asarray(xs)[:, None]
    obs = jnp.arange(4.0)[:, None, None]
    tick = {"obs": obs, "next_obs": obs + 1, "action": obs, "reward": step(1.0, 2.0, 4.0, 8.0)}
    tick |= {"discount": jnp.ones((4, 1)), "end": step(False, True, False, False)}
    add = lambda: source.add(source.init(jax.eval_shape(lambda: tick)), tick, Ctx(KEY, s(0)))
    drawn = jax.jit(lambda: source.sample(add(), {}, KEY))()
    at = drawn["obs"][:, 0] == 0
    assert at.any()
    assert_allclose(drawn["reward"][at], 2.0)
    assert_allclose(drawn["discount"][at], 0.5)  # and the agent's own gamma: .25 for two steps
    assert_allclose(drawn["next_obs"][at], 2.0)


# ------------------------------------------------------------------------------------------------------------- REPPO

SMALL = reppo.Config(widths=(8,), critic_width=8, bins=11, support=(0.0, 10.0), epochs=1, minibatches=1)


def test_hl_gauss_by_hand():
    bins = jnp.linspace(0, 150, 151)
    given = jax.jit(lambda y: hl_gauss(y, bins))
    for y in (4.0, 17.3, 75.5, 145.9):
        assert_allclose(given(y) @ bins, y, atol=1e-3)
    assert_allclose(given(0.0)[:4], [0.6622, 0.3073, 0.0299, 0.0006], atol=1e-4)
    assert_allclose(given(0.0) @ bins, 0.369, atol=1e-3)
    assert_array_equal(given(-7.0), given(0.0))
    assert_allclose(given(200.0)[::-1], given(0.0), atol=1e-6)
    wide = jnp.linspace(-10, 10, 11)  # widths of 2: the same masses around the same places
    assert_allclose(hl_gauss(s(1.0), wide), hl_gauss(s(5.5), jnp.linspace(0, 10, 11)), atol=1e-6)


def test_a_critic_begins_at_zero():
    """With no output but its origin, 7e-7 above the lowest of 151 bins."""
    bins = jnp.linspace(0, 150, 151)
    assert_allclose(expected(reppo.ORIGIN * hl_gauss(s(0), bins), bins), 7e-7, atol=1e-5)  # of a sum of up to 150
    assert_allclose(begun(reppo, SMALL)[1]["critic"]["origin"], hl_gauss(s(0), jnp.linspace(0, 10, 11)), atol=1e-6)


def test_reppo_is_of_the_authors_size():
    """|s| = 24, |A| = 6, layers of 512: each hidden one has a scale beside its weights, and no layer after the last."""
    specs = Specs(jax.ShapeDtypeStruct((24,), jnp.float32), Box((6,)))
    shapes = reppo.build(specs, reppo.Config()).shapes
    assert count(shapes["actor"]) == dense(24, 512, 512, 12) + 2 * 512
    critic = {"encoder": dense(30, 512, 512), "head": dense(512, 512, 151), "predictor": dense(512, 512, 513)}
    for name, size in critic.items():
        assert count(shapes["critic"][name]) == size + 512
    assert shapes["critic"]["origin"].shape == (151,)


def test_rms_norm_by_hand():
    """Units of 3 and 4 over the root of their mean square, 12.5, then what the scale says."""
    of = net(MLP((2,), 2, lambda x: x, "rms"), jnp.zeros(1))
    parameters = jax.jit(of.init)(KEY)
    parameters["Dense_0"] |= {"kernel": f(3, 4)[None]}
    parameters["Dense_1"] |= {"kernel": jnp.eye(2)}
    assert_allclose(of.apply(parameters, jnp.ones(1)), f(3, 4) / 12.5**0.5, rtol=1e-5)
    parameters["RMSNorm_0"]["scale"] = f(2, 1)
    assert_allclose(of.apply(parameters, 5 * jnp.ones(1)), f(6, 4) / 12.5**0.5, rtol=1e-5)


def made(agent, parts, rollout):
    """What the epochs are given of a rollout [T, N]."""
    wrap, learn = agent.rules["learn"].around
    given = []
    spied = replace(learn, update=lambda parts, state, batch, ctx: given.append(batch) or (parts, state, {}))
    wrap(spied).update(parts, (), rollout, Ctx(KEY, s(0)))
    return given[0]


def knowing(parts):
    """Parts whose critic says 2 where the first entry of an observation is seen, and 4 where the second is."""
    critic = jax.tree.map(jnp.zeros_like, parts["critic"])
    encoder, head = critic["encoder"], critic["head"]
    # Two hidden units see those entries, and are so large that an action makes no difference.
    encoder["Dense_0"]["kernel"] = encoder["Dense_0"]["kernel"].at[:2, :2].set(jnp.eye(2))
    encoder["Dense_1"]["kernel"] = head["Dense_0"]["kernel"] = jnp.eye(8)
    encoder["RMSNorm_0"]["scale"] = head["RMSNorm_0"]["scale"] = jnp.ones(8)
    bins = jnp.linspace(0, 10, 11)
    said = jnp.stack([200.0 * (bins == 2), 200.0 * (bins == 4)])
    head["Dense_1"]["kernel"] = head["Dense_1"]["kernel"].at[:2].set(said)
    return {**parts, "critic": critic}


@pytest.fixture(scope="module")
def returns():
    """Returns of two steps of reward 1 to what is worth 2 and then 4, at gamma .9 and lambda .5."""
    agent, start = begun(reppo, replace(SMALL, gamma=0.9, lambda_=0.5))
    rollout = {"obs": jnp.zeros((2, 1, 3)), "next_obs": 8.0 * jnp.eye(3)[:2, None], "action": jnp.zeros((2, 1, 2))}
    column = lambda xs: jnp.asarray(xs)[:, None]

    @jax.jit
    def of(discount, end, alpha=0.0):
        parts = {**knowing(start), "log_alpha": jnp.log(alpha)}
        given = {**rollout, "reward": column([1.0, 1.0]), "discount": column(discount), "end": column(end)}
        return made(agent, parts, given)["target"][:, 0]

    return lambda *args: of(*(jnp.asarray(x) for x in args))


@pytest.mark.parametrize("discount,end,wanted", [
    ((1.0, 1.0), (False, False), (3.97, 4.6)),  # 1 + .9 (.5 * 2 + .5 * 4.6)
    ((1.0, 1.0), (True, False), (2.8, 4.6)),  # cut off: 1 + .9 * 2
    ((0.0, 1.0), (True, False), (1, 4.6)),
    ((1.0, 1.0), (False, True), (3.97, 4.6)),  # the last step leads to what was truly seen, whose value counts
    ((1.0, 0.0), (False, True), (2.35, 1)),  # 1 + .9 (.5 * 2 + .5 * 1)
])  # fmt: skip
def test_reppos_returns(returns, discount, end, wanted):
    assert_allclose(returns(discount, end, 0.0), wanted, rtol=1e-3)


def test_reppo_pays_for_entropy_but_not_after_an_end(returns):
    plain, paid = (returns((1.0, 0.0), (False, True), alpha) for alpha in (0.0, 0.1))
    assert paid[0] != plain[0] and paid[1] == plain[1]


def test_divergence_by_hand_and_from_samples():
    assert_allclose(reppo.normal_kl(f(0), f(0), f(3), f(0)), 4.5, rtol=1e-6)
    assert_allclose(reppo.normal_kl(f(0, 1), jnp.log(f(1, 2)), f(0, 1), jnp.log(f(2, 2))), np.log(2) - 0.375, rtol=1e-6)
    assert reppo.normal_kl(f(0.3, 2), f(-1, 0.7), f(0.3, 2), f(-1, 0.7)) == 0
    old, new = (f(0.2, -0.1), f(-0.5, 0.3)), (f(0.1, 0.4), f(-0.2, 0.1))
    u = old[0] + jnp.exp(old[1]) * jax.random.normal(KEY, (100_000, 2))
    ratio = jax.vmap(lambda u: normal_log_prob(u, *old) - normal_log_prob(u, *new))(u)
    assert_allclose(reppo.normal_kl(*old, *new), ratio.mean(), atol=0.01)


@pytest.fixture(scope="module")
def stepped():
    """Parts at the start, and `step(...)`: those after one step of critic and actor on a minibatch, and metrics.

    Arguments: how far off the policy that acted is, in its deviations; by how much the actor's log deviation is more
    than -1; the critic; and whether the episodes go on.
    """
    agent, start = begun(reppo, SMALL)
    blind = {"kernel": jnp.zeros_like(start["actor"]["Dense_1"]["kernel"]), "bias": f(0, 0, -1, -1)}
    start = {**start, "actor": {**start["actor"], "Dense_1": blind}}
    _, both = agent.rules["learn"].around[1].around

    @jax.jit
    def step(away, wider, critic, goes_on):
        actor = {**start["actor"], "Dense_1": {**blind, "bias": blind["bias"].at[2:].add(wider)}}
        parts = {**start, "critic": critic, "actor": actor}
        log_std = jnp.full((B, 2), jnp.log(jnp.exp(wider - 1) + reppo.FLOOR))
        acted = {"center": away * jnp.exp(log_std), "log_std": log_std}
        given = {**batch(), **acted, "target": f(1, 2, 3, 4), "following": jnp.ones((B, 8))}
        given["discount"] = jnp.full(B, goes_on)
        return both.update(parts, both.init(parts), given, Ctx(KEY, s(0), jnp.int32(0)))[::2]

    return start, lambda away=0.0, wider=0.0, critic=start["critic"], goes_on=1.0: step(away, wider, critic, goes_on)


def test_reppo_goes_back_where_it_went_too_far(stepped):
    """Near the policy that acted the critic moves it; three deviations away no row hears the critic at all."""
    start, step = stepped
    other = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), start["critic"])
    near, far = ([step(away, critic=critic) for critic in (start["critic"], other)] for away in (0.0, 3.0))
    assert moved(near[0][0]["actor"], near[1][0]["actor"])
    assert moved(far[0][0]["actor"], start["actor"]) and not moved(far[0][0]["actor"], far[1][0]["actor"])
    assert_allclose(near[0][1]["actor/kl"], 0, atol=1e-6)
    assert_allclose(far[0][1]["actor/kl"], 9, rtol=1e-5)  # 3^2 / 2, in two dimensions
    assert not near[0][1]["actor/back"].any() and far[0][1]["actor/back"].all()
    # The pull falls where the policy has hardly moved, and rises where it has moved too far.
    assert near[0][0]["log_pull"] < start["log_pull"] < far[0][0]["log_pull"]


def test_reppos_temperature_falls_where_there_is_entropy_to_spare(stepped):
    start, step = stepped
    (wide, found), (narrow, less) = step(), step(wider=-9.0)
    assert found["actor/entropy"].mean() > -1 > less["actor/entropy"].mean()  # minus half of two dimensions
    assert wide["log_alpha"] < start["log_alpha"] < narrow["log_alpha"]


def test_reppos_critic_predicts_what_follows_but_not_after_an_end(stepped):
    start, step = stepped
    (goes_on, found), (over, nothing) = step(), step(goes_on=0.0)
    assert moved(goes_on["critic"]["predictor"], start["critic"]["predictor"])
    assert not moved(over["critic"]["predictor"], start["critic"]["predictor"])
    assert moved(over["critic"]["head"], start["critic"]["head"])
    assert (found["critic/surprise"] > 0).all() and not nothing["critic/surprise"].any()


# ------------------------------------------------------------------------------------------------------------ probes

FAST = fast_td3.Config(num_envs=8, ratio=4, batch=64, capacity=2_000, warmup=64, widths=(32,), critic_widths=(32,))
FAST = replace(FAST, support=(-1.0, 1.0), atoms=21, lr=5e-3, decay=0.01, gamma=0.9, sigma=(0.1, 0.4))
NEAR = reppo.Config(widths=(32,), critic_width=32, bins=21, support=(-1.0, 1.5), lr=5e-3, gamma=0.9, alpha=1e-3)
NEAR = replace(NEAR, target_entropy=-2.0, num_envs=16, unroll=8, minibatches=4, epochs=4)


@pytest.mark.parametrize("module,config,steps", [(fast_td3, FAST, 8 * 200), (reppo, NEAR, 128 * 40)])
def test_the_right_action_depends_on_what_is_seen(module, config, steps):
    env = probe(5, continuous=True)
    env = replace(env, specs=replace(env.specs, limit=2))
    recipe = module.recipe(env.specs, config)

    views = f(-1, 1)[:, None]

    def one(key):
        run, _ = train(env, recipe, key, steps=steps)
        return jax.vmap(lambda obs: recipe.agent.act(run.parts, recipe.agent.memory(), obs, None, False)[0])(views)

    action = jax.jit(lambda: jax.lax.map(one, jax.random.split(KEY, 3)))()
    assert_allclose(action, [views / 2] * 3, atol=0.25)  # a quarter off costs .06 of a reward of 1


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("module,how,sentence", [
    (fast_td3, {"support": (1.0, 1.0)}, r"support is \(1.0, 1.0\)"),
    (fast_td3, {"sigma": (0.4, 0.1)}, r"sigma is \(0.4, 0.1\)"),
    (fast_td3, {"decay": -1.0}, "decay is -1.0"),
    (reppo, {"support": (3.0, 1.0)}, r"support is \(3.0, 1.0\)"),
    (reppo, {"alpha": 0.0}, "alpha is 0.0"),
])  # fmt: skip
def test_what_cannot_be_is_refused(module, how, sentence):
    with pytest.raises(BadInput, match=sentence):
        module.Config(**how)
