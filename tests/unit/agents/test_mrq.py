"""MR.Q: the codes' losses, values of codes, bursts and renewals, by the paper's equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import mrq
from jaxrl.core import BadInput, Box, Ctx, Specs
from jaxrl.nets import MLP, net, xavier
from jaxrl.rules.statistics import Moments
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    OBS,
    SPECS,
    B,
    Descended,
    Put,
    agrees,
    bounded,
    defaults,
    disturbed,
    explored,
    member,
    near,
    noisy,
    same,
    stacked,
    transitions,
)

H, CODE, ACTION_CODE = 3, 5, 4
SIZES = {"widths": (8, 7), "codes": (CODE, ACTION_CODE), "horizon": H, "batch": 8, "capacity": 32}
CONFIG = mrq.Config(
    **SIZES, n=2, period=2, warmup=2, num_envs=2, gamma=0.9, lr=3e-3, encoder_lr=2e-3, decay=(0.4, 0.6), clip=0.01,
    noise=0.8, smoothing=0.6, smoothing_clip=0.5, saturation=0.7,
)  # fmt: skip
BINS = np.sign(np.linspace(-10, 10, 65)) * (np.exp(np.abs(np.linspace(-10, 10, 65))) - 1)  # symexp
PARTS = ("encoder", "encoder_target", "actor", "actor_target", "critic", "target")


def coded(n):
    return jax.ShapeDtypeStruct((n,), jnp.float32)


def layers(widths, outputs, activation, *inputs):
    module = MLP(widths, outputs, activation, norm="plain", kernel_init=xavier(2**0.5))
    return net(module, *inputs)


NETS = {
    "state": layers((8, 8), CODE, jax.nn.elu, OBS),
    "action": layers((), ACTION_CODE, jax.nn.elu, ACTION),
    "both": layers((8, 8), CODE, jax.nn.elu, coded(CODE), coded(ACTION_CODE)),
    "model": layers((), 1 + CODE + 65, jax.nn.elu, coded(CODE)),
}
POLICY = layers((7, 7), DIMS, jax.nn.relu, coded(CODE))
CRITIC = layers((7, 7, 7), 1, jax.nn.elu, coded(CODE))


def windows(seed: int) -> dict[str, np.ndarray]:
    """Windows [B, H]: the second ends (terminated) with its first step, the third is cut there by a time limit.

    Behind an end the last next observation stands again, and anything else.
    """
    batch = transitions(seed, (B, H))
    batch["discount"][:], batch["weight"][:] = 1, 1
    batch["discount"][1, 0], batch["discount"][1, 1:] = 0, 0.5
    batch["weight"][1, 1:] = batch["weight"][2, 1:] = 0
    batch["next_obs"][1:3, 1:] = batch["next_obs"][1:3, :1]
    batch["reward"][3] *= 30
    return batch


def encode(encoder, obs):
    """ELU(LN(M(s)))."""
    x = NETS["state"].apply(encoder["state"], obs)
    center = x - x.mean(axis=-1, keepdims=True)
    x = center / jnp.sqrt((center**2).mean(axis=-1, keepdims=True) + 1e-5)
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1)


def joint(encoder, z, action):
    """M([z_s, ELU(W a)])."""
    return NETS["both"].apply(encoder["both"], z, jax.nn.elu(NETS["action"].apply(encoder["action"], action)))


def q(parameters, z):
    return [CRITIC.apply(member(parameters, i), z)[:, 0] for i in range(2)]


def two_hot(x):
    """Weights of the two bins around x, linear in its own value; [B] -> [B, 65]."""
    bins = jnp.asarray(BINS, jnp.float32)
    low = jnp.clip(jnp.searchsorted(bins, x, side="right") - 1, 0, 63)
    share = ((x - bins[low]) / (bins[low + 1] - bins[low]))[:, None]
    return (1 - share) * jax.nn.one_hot(low, 65) + share * jax.nn.one_hot(low + 1, 65)


def unrolled(live, parts, batch):
    """Of each step ahead: what is inside, the predicted end, code and logits of the reward, and the targets."""
    z = encode(live["encoder"], batch["obs"][:, 0])
    for k in range(H):
        out = NETS["model"].apply(live["encoder"]["model"], joint(live["encoder"], z, batch["action"][:, k]))
        z, aim = out[:, 1 : 1 + CODE], encode(parts["encoder_target"], batch["next_obs"][:, k])
        yield k, batch["weight"][:, k], out[:, 0], z, out[:, 1 + CODE :], aim


def predicted(live, parts, batch):
    """Sums over steps of the masked mean square of codes, and of .1 times the cross-entropy of the reward."""
    dynamics = reward = 0.0
    for k, inside, _, z, logits, aim in unrolled(live, parts, batch):
        dynamics += (inside * ((z - aim) ** 2).mean(axis=1)).mean()
        reward += 0.1 * (inside * -(two_hot(batch["reward"][:, k]) * jax.nn.log_softmax(logits)).sum(axis=1)).mean()
    return {"dynamics": dynamics, "reward": reward}


def encoder_loss(live, parts, batch, key):
    """And .1 times the square of what the end was guessed to be, once one has been seen."""
    terms, ending = predicted(live, parts, batch), 0.0
    for k, inside, guess, *_ in unrolled(live, parts, batch):
        ending += 0.1 * parts["seen"]["ended"] * (inside * (guess - (1 - batch["discount"][:, k])) ** 2).mean()
    return terms["dynamics"] + terms["reward"] + ending, {**terms, "ending": ending}


def summed(batch, gamma=0.9, n=2):
    """R = sum over k < n of gamma^k r_k, and gamma^m times the discounts of the m steps there are; the last s'."""
    total, left, last = 0.0, 1.0, batch["next_obs"][:, 0]
    for k in range(n):
        inside = batch["weight"][:, k] > 0
        total = total + jnp.where(inside, left * batch["reward"][:, k], 0)
        left = jnp.where(inside, left * gamma * batch["discount"][:, k], left)
        last = jnp.where(inside[:, None], batch["next_obs"][:, k], last)
    return total, left, last


def critic_loss(live, parts, batch, key):
    """y = (R + gamma^n min Q' c') / c at clip(mu'(z') + clip(N(0, .6^2), -.5, .5), -1, 1); Huber, the mean of both."""
    reward, discount, last = summed(batch)
    c, c_before = parts["unit"]
    z = encode(parts["encoder_target"], last)
    center = jnp.tanh(POLICY.apply(parts["actor_target"], z))
    noise = jnp.minimum(jnp.maximum(0.6 * jax.random.normal(key, center.shape), -0.5), 0.5)
    action = jnp.minimum(jnp.maximum(center + noise, -1), 1)
    one, other = q(parts["target"], joint(parts["encoder_target"], z, action))
    y = (reward + discount * jnp.minimum(one, other) * c_before) / c
    seen = joint(parts["encoder"], encode(parts["encoder"], batch["obs"][:, 0]), batch["action"][:, 0])
    errors = [abs(guess - y) for guess in q(live["critic"], seen)]
    huber = sum(jnp.where(error < 1, error**2 / 2, error - 1 / 2) for error in errors) / 2
    return huber.mean(), {"priority": jnp.maximum(jnp.maximum(*errors), 1), "target": y * c}


def actor_loss(live, parts, batch, key, saturation=0.7):
    """-E[(Q_1 + Q_2) / 2] + .7 E[the mean square of the policy before its tanh]."""
    z = encode(parts["encoder"], batch["obs"][:, 0])
    free = POLICY.apply(live["actor"], z)
    one, other = q(parts["critic"], joint(parts["encoder"], z, jnp.tanh(free)))
    value = (one + other) / 2
    return (-value + saturation * (free**2).mean(axis=1)).mean(), {"q": value}


@pytest.fixture(scope="module")
def agent():
    return mrq.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


def experienced(parts, ended=1.0):
    """The parts after rewards of a mean size of 2."""
    size = Moments(jnp.float32(2), jnp.float32(3), jnp.float32(7))
    return {**parts, "seen": {"size": size, "ended": jnp.float32(ended)}, "unit": jnp.array([1.5, 1.25])}


def renewed(parts, batch):
    copies = {"encoder_target": "encoder", "actor_target": "actor", "target": "critic"}
    return {**{copy: parts[name] for copy, name in copies.items()}, "unit": np.array([2.0, parts["unit"][0]])}


def test_updates_are_the_papers_in_their_order(agent, start):
    """Three updates a tick at most, and the first tick warms up: with the second and fourth tick targets are renewed
    and the codes learn twice; values learn with the last update of each tick."""
    references = {
        "targets": Put(renewed, lambda update: update in (3, 9)),
        "encoder": Descended(encoder_loss, {"encoder": {"lr": 2e-3, "decay": 0.4}}, lambda update: update in (3, 4, 9)),
        "critic": Descended(critic_loss, {"critic": {"lr": 3e-3, "decay": 0.6}}, lambda i: i in (5, 6, 11), clip=0.01),
        "actor": Descended(actor_loss, {"actor": {"lr": 3e-3, "decay": 0.6}}, lambda update: update in (5, 6, 11)),
    }
    agrees(agent, experienced(disturbed(start, *PARTS)), references, {i: windows(i) for i in (3, 4, 5, 6, 9, 11)})


def test_what_has_not_ended_is_not_learned(agent, start):
    """Until a termination was seen its guess costs nothing; where values are not scaled their unit stays."""
    parts = experienced(disturbed(start, *PARTS), ended=0)
    loss = agent.rules["encoder"].around[1].loss
    near(jax.jit(loss)(parts, parts, windows(0), KEY), jax.jit(encoder_loss)(parts, parts, windows(0), KEY))
    unscaled = mrq.build(SPECS, replace(CONFIG, scaled=False)).rules["targets"]
    after = unscaled.update(parts, (), windows(0), Ctx(KEY, jnp.int32(0), jnp.int32(3)))[0]
    assert_array_equal(after["unit"], parts["unit"])
    same(after["target"], parts["critic"])


def test_a_unit_is_never_nothing(agent, start):
    """Rewards of 0 leave it at 1e-8."""
    after = agent.rules["targets"].update(start, (), windows(0), Ctx(KEY, jnp.int32(0), jnp.int32(3)))[0]
    assert_allclose(after["unit"], [1e-8, 1])


def test_experience_counts_sizes_of_rewards_and_terminations(agent, start):
    rule = agent.observe["experience"]
    assert list(agent.observe) == ["experience"]
    fresh = {"reward": jnp.array([[1.0, -3.0], [2.0, 0.0]]), "discount": jnp.ones((2, 2))}
    parts, _, _ = rule.update(start, (), fresh, Ctx(KEY, jnp.int32(0)))
    assert_allclose(parts["seen"]["size"], [1.5, 5.0, 4.0])  # mean, sum of squares around it, count
    assert parts["seen"]["ended"] == 0
    parts, _, _ = rule.update(parts, (), {**fresh, "discount": jnp.array([[1, 1], [0, 1.0]])}, Ctx(KEY, jnp.int32(0)))
    assert parts["seen"]["ended"] == 1
    parts, _, _ = rule.update(parts, (), fresh, Ctx(KEY, jnp.int32(0)))
    assert parts["seen"]["ended"] == 1 and parts["seen"]["size"].count == 12


def test_parts_at_the_start(start):
    """Six networks of keys of their own, copies, and nothing seen."""
    keys = jax.random.split(KEY, 6)
    assert set(start) == {*PARTS, "seen", "unit"}
    near(start["encoder"], {name: jax.jit(one.init)(key) for (name, one), key in zip(NETS.items(), keys)})
    near(start["actor"], jax.jit(POLICY.init)(keys[4]))
    near(start["critic"], stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(keys[5])]))
    for copy, name in {"encoder_target": "encoder", "actor_target": "actor", "target": "critic"}.items():
        same(start[copy], start[name])
    same(start["seen"], {"size": Moments(*jnp.zeros(3)), "ended": jnp.float32(0)})
    assert_array_equal(start["unit"], [1, 1])


def test_explores_by_noise_within_bounds(agent, start):
    parts = disturbed(start, "encoder", "actor", by=0.5)
    obs, keys, action = explored(agent, parts)
    center = jnp.tanh(POLICY.apply(parts["actor"], encode(parts["encoder"], obs)))
    noise = 0.8 * jnp.stack([jax.random.normal(key, (DIMS,)) for key in keys])
    assert_allclose(action, noisy(center, noise), rtol=1e-4, atol=1e-6)
    for explore in (False, True):
        action, memory, extras = agent.act(parts, "kept", obs[0], Ctx(KEY, jnp.int32(0)), explore)
        assert (memory, extras) == ("kept", {})
        assert (jnp.abs(action - center[0]).max() < 1e-4) == (not explore)


def test_ticks_are_counted_in_frames():
    """A warm-up of 12 frames is 2 ticks of 2 environments at 3 frames a step; a burst is of 5 updates and one more."""
    specs = Specs(OBS, Box((DIMS,)), frames=3)
    config = replace(CONFIG, warmup=12, period=5)
    count, starts, codes, values = mrq.phases(specs, config)
    for tick in range(14):
        for turn in range(6):
            ctx = Ctx(KEY, jnp.int32(0), jnp.int32(6 * tick + turn))
            burst = tick % 5 == 2
            assert count({}, ctx) == (6 if burst else 1)
            assert starts(ctx) == (burst and turn == 0)
            assert codes(ctx) == (burst and turn < 5)
            assert values(ctx) == (not burst or turn == 5)


def test_a_recipes_numbers_arrive():
    recipe = mrq.recipe(SPECS, replace(CONFIG, exponent=0.5))
    assert (recipe.num_envs, recipe.unroll, recipe.most, recipe.warmup) == (2, 1, 3, 2)
    assert recipe.ratio({}, Ctx(KEY, jnp.int32(0), jnp.int32(3))) == 3
    assert recipe.ratio({}, Ctx(KEY, jnp.int32(0), jnp.int32(6))) == 1
    steps = {name: jnp.asarray(x) for name, x in transitions(0, (6, 2)).items() if name != "weight"}
    steps |= {"end": jnp.zeros((6, 2), bool)}
    s = recipe.source.add(recipe.source.init(steps), steps, Ctx(KEY, jnp.int32(0)))
    batch = recipe.source.sample(s, {}, KEY)
    assert batch["reward"].shape == (8, H)
    assert s.ring.nodes["mark"].size - 2 == 32
    errors = {"critic/priority": jnp.arange(1.0, 9)}
    noted = recipe.source.note(s, {**batch, "index": jnp.arange(8)}, errors)
    assert_allclose(noted.tree[0][:8], np.sqrt(np.arange(1.0, 9)), rtol=1e-4)
    # Priorities draw, but weigh nothing in a loss.
    assert set(np.unique(recipe.source.sample(noted, {}, KEY)["weight"])) <= {0.0, 1.0}


def test_configuration():
    defaults(
        mrq.Config(), widths=(512, 512), codes=(512, 256), encoder_lr=1e-4, lr=3e-4, decay=(1e-4, 1e-4), clip=20.0,
        gamma=0.99, n=3, horizon=5, period=250, noise=0.2, smoothing=0.2, smoothing_clip=0.3, scaled=True,
        saturation=1e-5, exponent=0.4, fade=None, batch=256, capacity=100_000, warmup=5_000, num_envs=1,
    )  # fmt: skip
    assert (mrq.BINS, mrq.REACH) == (65, 10)
    lowest = {"encoder_lr": 0.0, "lr": 0.0, "n": 1, "period": 1, "noise": 0.0, "smoothing": 0.0, "smoothing_clip": 0.0}
    lowest |= {"saturation": 0.0, "exponent": 0.0, "batch": 1, "capacity": 1, "warmup": 0, "num_envs": 1}
    bounded(mrq.Config, lowest, {"gamma": (0.0, 1.0)})
    bounded(mrq.Config, {"horizon": 1}, n=1)
    mrq.Config(n=5)
    with pytest.raises(BadInput, match="n is 6; it must lie between 1 and 5"):
        mrq.Config(n=6)
