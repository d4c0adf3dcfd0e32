"""REPPO: soft lambda-returns, the categorical critic that predicts, and the policy that climbs or goes back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import reppo
from jaxrl.core import BadInput, Ctx, fold, shuffled
from jaxrl.nets import MLP, net
from jaxrl.rules.statistics import Moments
from jaxrl.sources import rollout
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    LENGTH,
    OBS,
    SPECS,
    Descended,
    bounded,
    defaults,
    disturbed,
    expected,
    mapped,
    near,
    rolled,
)

T, N, WIDTH, BINS, SUPPORT = 6, 3, 6, 7, (-2.0, 3.0)
CONFIG = reppo.Config(
    (8,), critic_width=WIDTH, bins=BINS, support=SUPPORT, lr=3e-3, clip=0.2, gamma=0.9, lambda_=0.7, prediction=0.6,
    alpha=0.3, target_entropy=-1.3, pull=0.4, divergence=0.2, epochs=1, minibatches=1, num_envs=N, unroll=T,
)  # fmt: skip
Z, FEATURES = jnp.linspace(*SUPPORT, BINS), jax.ShapeDtypeStruct((WIDTH,), jnp.float32)
ACTOR = net(MLP((8,), 2 * DIMS, jax.nn.swish, "rms"), OBS)
ENCODER = net(MLP((WIDTH,), WIDTH, jax.nn.swish, "rms"), OBS, ACTION)
HEAD = net(MLP((WIDTH,), BINS, jax.nn.swish, "rms"), FEATURES)
PREDICTOR = net(MLP((WIDTH,), 1 + WIDTH, jax.nn.swish, "rms"), FEATURES)
CTX, BATCH = Ctx(KEY, jnp.int32(0)), rolled(7, T, N)


def swish(x):
    return x / (1 + jnp.exp(-x))


def normal(actor, obs):
    """Mean, and e^s + .1, of the normal before the tanh."""
    output = ACTOR.apply(actor, obs)
    return output[..., :DIMS], jnp.exp(output[..., DIMS:]) + 0.1


def drawn(center, std, key):
    """Actions [B, dims] and log pi(a) [B]; row i draws from `split(key, B)[i]`."""
    noise = jnp.stack([jax.random.normal(one, (DIMS,)) for one in jax.random.split(key, len(center))])
    u = center + std * noise
    density = jnp.exp(-(noise**2) / 2) / (std * jnp.sqrt(2 * jnp.pi))
    return jnp.tanh(u), (jnp.log(density) + 2 * (jnp.logaddexp(u, -u) - jnp.log(2))).sum(axis=1)


def gauss(y):
    """HL-Gauss: what N(y, (.75 w)^2) puts between the edges around each bin, out of what is within them all."""
    w = (SUPPORT[1] - SUPPORT[0]) / (BINS - 1)
    edges = SUPPORT[0] - w / 2 + w * jnp.arange(BINS + 1)
    y = jnp.minimum(jnp.maximum(y, SUPPORT[0]), SUPPORT[1])
    cdf = 0.5 * (1 + jax.lax.erf((edges - y[..., None]) / (0.75 * w * 2**0.5)))
    return (cdf[..., 1:] - cdf[..., :-1]) / (cdf[..., -1:] - cdf[..., :1])


def judged(critic, obs, action):
    """f(o, a), and the logits of its value, moved by 40 times the part that begins as HL-Gauss of 0."""
    f = ENCODER.apply(critic["encoder"], obs, action)
    return f, HEAD.apply(critic["head"], swish(f)) + 40 * critic["origin"]


def normalised(obs):
    z = (np.asarray(obs, np.float64) - [0.5, -1.0, 0.2]) / np.sqrt(np.array([2.0, 8.0, 1e-3]) / 4 + 1e-8)
    return np.minimum(np.maximum(z, -10), 10).astype(np.float32)


@jax.jit
def made_of(parts):
    """The rollout with targets G_t = r - d alpha log pi(a') + d [(1 - lambda) Q(s', a') + lambda G_{t+1}]."""
    obs, next_obs = normalised(BATCH["obs"]), normalised(BATCH["next_obs"])
    keys = jax.random.split(fold(KEY, 1 << 31), T)
    target, following, g = [None] * T, [None] * T, None
    for t in reversed(range(T)):
        action, log_prob = drawn(*normal(parts["actor"], next_obs[t]), keys[t])
        following[t], logits = judged(parts["critic"], next_obs[t], action)
        q, d = expected(logits, Z), 0.9 * BATCH["discount"][t]
        onward = q if g is None else jnp.where(BATCH["end"][t], q, 0.3 * q + 0.7 * g)
        g = target[t] = BATCH["reward"][t] - d * jnp.exp(parts["log_alpha"]) * log_prob + d * onward
    center, std = normal(parts["actor"], obs)
    made = {"obs": obs, "target": jnp.stack(target), "following": jnp.stack(following)}
    made |= {"center": center, "log_std": jnp.log(std)}
    return {**made, **{name: BATCH[name] for name in ("action", "reward", "discount")}}


def critic_loss(live, parts, batch, key):
    """Cross-entropy from HL-Gauss of the return, and (1 - d) times the mean error of the features and the reward."""
    f, logits = judged(live["critic"], batch["obs"], batch["action"])
    cross = -(gauss(batch["target"]) * jax.nn.log_softmax(logits)).sum(axis=1)
    predicted = PREDICTOR.apply(live["critic"]["predictor"], swish(f))
    squares = (predicted[:, 0] - batch["reward"]) ** 2 + ((predicted[:, 1:] - batch["following"]) ** 2).sum(axis=1)
    surprise = batch["discount"] * squares / (1 + WIDTH)
    outside = (batch["target"] < SUPPORT[0]) | (batch["target"] > SUPPORT[1])
    metrics = {"target": batch["target"], "surprise": surprise, "outside": 1.0 * outside}
    return (cross + 0.6 * surprise).mean(), {**metrics, "td_error": abs(expected(logits, Z) - batch["target"])}


def actor_loss(live, parts, batch, key):
    """alpha log pi - Q where KL(old, new) < .2, else pull KL; alpha descends H + 1.3, the pull climbs KL - .2."""
    center, std = normal(live["actor"], batch["obs"])
    action, log_prob = drawn(center, std, key)
    q = expected(judged(parts["critic"], batch["obs"], action)[1], Z)
    old = jnp.exp(batch["log_std"])
    kl = jnp.log(std / old) + (old**2 + (batch["center"] - center) ** 2) / (2 * std**2) - 0.5
    kl = kl[:, 0] + kl[:, 1]
    alpha, pull = jnp.exp(parts["log_alpha"]), jnp.exp(parts["log_pull"])
    near = kl < 0.2
    moved = near * (alpha * log_prob - q) + (1 - near) * pull * kl
    h, far = jax.lax.stop_gradient((-log_prob, kl))
    duals = jnp.exp(live["log_alpha"]) * (h + 1.3) - jnp.exp(live["log_pull"]) * (far - 0.2)
    metrics = {"q": q, "kl": kl, "entropy": -log_prob, "alpha": alpha, "pull": pull, "back": 1.0 * ~near}
    return (moved + duals).mean(), metrics


@pytest.fixture(scope="module")
def agent():
    return reppo.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def start(agent):
    return jax.jit(agent.init)(KEY)


@pytest.fixture(scope="module")
def parts(start):
    """Statistics by which some numbers are clipped, and no part as it began."""
    norm = Moments(jnp.array([0.5, -1.0, 0.2]), jnp.array([2.0, 8.0, 1e-3]), jnp.float32(5))
    return {**disturbed(start, "actor", "critic", "log_alpha", "log_pull", by=0.1), "norm": norm}


def test_targets_are_soft_lambda_returns(agent, parts):
    """Made once, with an action of its own at each next observation."""
    assert (np.abs(normalised(BATCH["obs"])) == 10).any()
    near(mapped(agent.rules["learn"], parts, BATCH, CTX), made_of(parts))


def test_steps_are_the_papers(agent, parts):
    """The critic's, then the policy's and the two dual variables' against the new critic; each gradient is clipped."""
    rng = np.random.default_rng(9)
    shape = lambda *more: rng.normal(size=(T, N, *more)).astype(np.float32)
    center, std = normal(parts["actor"], normalised(BATCH["obs"]))
    batch = {"obs": normalised(BATCH["obs"]), "target": 2 * shape(), "following": shape(WIDTH)}
    batch |= {"center": center + 0.15 * shape(DIMS), "log_std": jnp.log(std) + 0.15 * shape(DIMS)}
    batch |= {name: BATCH[name] for name in ("action", "reward", "discount")}
    batch["target"][0, :2] = SUPPORT  # the outermost bins are not outside
    learn = agent.rules["learn"].around[1]
    after, state, found = jax.jit(learn.update)(parts, learn.init(parts), batch, CTX)
    order = np.asarray(shuffled(fold(KEY, 1), 1, T * N))[0]
    rows = {name: jnp.asarray(x).reshape(T * N, *x.shape[2:])[order] for name, x in batch.items()}
    adam = {"lr": 3e-3}
    references = {
        "critic": Descended(critic_loss, {"critic": adam}, clip=0.2),
        "actor": Descended(actor_loss, dict.fromkeys(("actor", "log_alpha", "log_pull"), adam), clip=0.2),
    }
    wanted, told, key = parts, {}, fold(KEY, 0)
    for i, (name, reference) in enumerate(references.items()):
        wanted, metrics = reference.predict(0, wanted, rows, fold(key, i), state[name])
        told |= {f"{name}/{metric}": value for metric, value in metrics.items()}
    near(after, wanted)
    near(found, told)
    assert 0.1 < found["actor/back"].mean() < 0.9 and 0 < found["critic/outside"].mean() < 1


def test_the_divergence_of_two_normals():
    """0 of one from itself; of means 1 and 3 of deviation 2 in each of two, 2 (1/2); by the definition, of samples."""
    zero, two = jnp.zeros(2), jnp.full(2, jnp.log(2.0))
    assert_allclose(reppo.normal_kl(zero, two, zero, two), 0)
    assert_allclose(reppo.normal_kl(zero + 1, two, zero + 3, two), 1, rtol=1e-6)
    x = 0.5 + 1.5 * np.random.default_rng(0).normal(size=200_000)
    log = lambda x, m, s: -((x - m) ** 2) / (2 * s**2) - np.log(s)
    sampled = (log(x, 0.5, 1.5) - log(x, -0.2, 0.7)).mean()
    one = lambda x: jnp.array([x], jnp.float32)
    assert_allclose(reppo.normal_kl(one(0.5), one(np.log(1.5)), one(-0.2), one(np.log(0.7))), sampled, rtol=0.02)


def test_statistics_move_after_the_epochs(agent, parts):
    assert list(agent.rules) == ["learn", "norm"] and not agent.observe
    assert agent.rules["learn"].writes == ("critic", "actor", "log_alpha", "log_pull")
    rule = reppo.build(SPECS, replace(CONFIG, epochs=2, minibatches=3)).rules["learn"]
    _, state, _ = jax.jit(rule.update)(parts, rule.init(parts), BATCH, CTX)
    assert [optax.tree_utils.tree_get(state[name], "count") for name in ("critic", "actor")] == [6, 6]
    after, _, _ = agent.rules["norm"].update(parts, (), BATCH, CTX)
    assert after["norm"].count == 5 + T * N + 3  # three episodes begin
    after["norm"] = parts["norm"]
    near(after, parts)


def test_acts_by_its_mean_or_by_a_draw(agent, parts):
    obs = jnp.array([0.3, -1.0, 0.25])
    center, std = normal(parts["actor"], normalised(obs))
    greedy, memory, extras = agent.act(parts, "kept", obs, CTX, False)
    assert_allclose(greedy, np.tanh(center), rtol=1e-4)
    assert (memory, extras) == ("kept", {})
    action, memory, extras = agent.act(parts, "kept", obs, CTX, True)
    assert_allclose(action, np.tanh(center + std * jax.random.normal(KEY, (DIMS,))), rtol=1e-4)
    assert (memory, extras) == ("kept", {})


def test_parts_at_the_start(start):
    """Networks of keys of their own, a value of about 0 everywhere, the logarithms of both dual variables."""
    key_actor, *keys = jax.random.split(KEY, 4)
    assert set(start) == {"actor", "critic", "log_alpha", "log_pull", "norm"}
    near(start["actor"], jax.jit(ACTOR.init)(key_actor))
    for name, network, key in zip(("encoder", "head", "predictor"), (ENCODER, HEAD, PREDICTOR), keys):
        near(start["critic"][name], jax.jit(network.init)(key))
    near(start["critic"]["origin"], gauss(jnp.zeros(())))
    assert_allclose([start["log_alpha"], start["log_pull"]], np.log([0.3, 0.4]), rtol=1e-6)
    near(start["norm"], Moments(np.zeros(LENGTH), np.zeros(LENGTH), np.float32(0)))


def test_an_entropy_target_of_minus_half_the_number_of_actions(parts):
    """Where none is given the temperature's slope is that of -1, not of -1.3: by alpha times .3 more."""
    batch, slopes = made_of(parts), []
    for target in (None, -1.3):
        learn = reppo.build(SPECS, replace(CONFIG, target_entropy=target, clip=1e9)).rules["learn"].around[1]
        _, state, _ = jax.jit(learn.update)(parts, learn.init(parts), batch, CTX)
        slopes.append(optax.tree_utils.tree_get(state["actor"], "mu")["log_alpha"] / 0.1)
    assert_allclose(slopes[0] - slopes[1], -0.3 * np.exp(parts["log_alpha"]), rtol=1e-3)


def test_a_recipes_numbers_arrive():
    recipe = reppo.recipe(SPECS, replace(CONFIG, num_envs=4, unroll=5))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (4, 5, 1, 0)
    assert recipe.source.init.__qualname__ == rollout().init.__qualname__


def test_configuration():
    defaults(
        reppo.Config(), widths=(512, 512), critic_width=512, bins=151, support=(0.0, 150.0), lr=3e-4, clip=0.5,
        gamma=0.99, lambda_=0.95, prediction=1.0, alpha=0.01, target_entropy=None, pull=0.01, divergence=0.1, epochs=8,
        minibatches=64, num_envs=1024, unroll=128,
    )  # fmt: skip
    lowest = {"critic_width": 1, "bins": 2, "lr": 0.0, "clip": 0.0, "prediction": 0.0, "divergence": 0.0}
    lowest |= {"alpha": 1e-8, "pull": 1e-8, "epochs": 1, "minibatches": 1, "num_envs": 1, "unroll": 1}
    bounded(reppo.Config, lowest, {"gamma": (0.0, 1.0), "lambda_": (0.0, 1.0)})
    for support in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(BadInput, match=r"^support is "):
            reppo.Config(support=support)
