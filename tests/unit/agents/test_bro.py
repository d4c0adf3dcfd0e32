"""BRO: quantile critics, both actors, the weights of the optimist and what begins anew, by the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import bro
from jaxrl.core import BadInput, Ctx
from jaxrl.nets import ResidualMLP, net, orthogonal
from tests.pinned import (
    ACTION,
    DIMS,
    KEY,
    OBS,
    SPECS,
    B,
    Descended,
    agrees,
    bounded,
    defaults,
    disturbed,
    mean,
    member,
    near,
    normal,
    replayed,
    same,
    squashed,
    stacked,
    tracked,
    transitions,
)

K, LR, DECAY = 3, 3e-3, 0.5
CONFIG = bro.Config(
    (8, 7), blocks=(1, 2), quantiles=K, lr=LR, decay=DECAY, gamma=0.9, tau=0.1, alpha=0.3, ratio=2, optimism=0.7,
    nearness=0.4, divergence=0.03, spread=0.6, weights_lr=0.01, resets=(1, 40),
)  # fmt: skip
ACTOR, SHIFT = net(ResidualMLP(8, 1, 2 * DIMS), OBS), net(ResidualMLP(8, 1, DIMS, final_bias=False), OBS, ACTION)
CRITIC = net(ResidualMLP(7, 2, K), OBS, ACTION)
PARTS = ("actor", "critic", "target", "optimist")


def quantiles(parameters, obs, action):
    return [CRITIC.apply(member(parameters, i), obs, action) for i in range(2)]  # each [B, K]


def critic_loss(live, parts, batch, key):
    """y_j = r + gamma (1 - d) (the mean of both critics' j-th quantile - alpha log pi); of both critics the sum over i
    and mean over j of |tau_i - 1(d_ij < 0)| Huber(d_ij), d_ij = y_j - q_i, tau_i = (i + 1/2) / K."""
    action, log_prob = squashed(ACTOR.apply(parts["actor"], batch["next_obs"]), key)
    one, other = quantiles(parts["target"], batch["next_obs"], action)
    soft = (one + other) / 2 - jnp.exp(parts["log_alpha"]) * log_prob[:, None]
    y = batch["reward"][:, None] + 0.9 * batch["discount"][:, None] * soft

    def huber_of(q):
        total = 0.0
        for i in range(K):
            error = y - q[:, i : i + 1]
            huber = jnp.where(abs(error) <= 1, error**2 / 2, abs(error) - 1 / 2)
            total += (abs((i + 1 / 2) / K - (error < 0)) * huber).mean(axis=1)
        return total

    both = quantiles(live["critic"], batch["obs"], batch["action"])
    error = sum(abs(q.mean(axis=1) - y.mean(axis=1)) for q in both) / 2
    return mean(huber_of(both[0]) + huber_of(both[1]), batch), {"td_error": error, "target": y.mean(axis=1)}


def actor_loss(live, parts, batch, key):
    """E[alpha log pi - the mean of all quantiles of both critics]; alpha (H(pi) - H), H half of -|A|."""
    action, log_prob = squashed(ACTOR.apply(live["actor"], batch["obs"]), key)
    one, other = quantiles(parts["critic"], batch["obs"], action)
    climb = jnp.exp(parts["log_alpha"]) * log_prob - (one + other).mean(axis=1) / 2
    entropy = jax.lax.stop_gradient(-log_prob)
    value = mean(climb + jnp.exp(live["log_alpha"]) * (entropy - -DIMS / 2), batch)
    return value, {"entropy": -log_prob, "alpha": jnp.exp(parts["log_alpha"])}


def weight(w):
    return jnp.exp(-10 + 8.75 * (1 + jnp.tanh(w)))


def shifted(parts, optimist, obs):
    """Mean and standard deviation of both actors before the tanh."""
    center, log_std = normal(ACTOR.apply(parts["actor"], obs))
    return center, jnp.exp(log_std), center + SHIFT.apply(optimist, obs, center), 0.6 * jnp.exp(log_std)


def optimist_loss(live, parts, batch, key):
    """-E[(Q1 + Q2) / 2 + beta |Q1 - Q2| / 2, a mean over quantiles] + lambda KL(moved, of the actor's spread || actor).

    Of the weights beta (KL / |A| - .03) and -lambda (KL / |A| - .03), where KL is a constant.
    """
    center, std, moved, narrow = shifted(parts, live["optimist"], batch["obs"])
    noise = jnp.stack([jax.random.normal(one, (DIMS,)) for one in jax.random.split(key, B)])
    one, other = quantiles(parts["critic"], batch["obs"], jnp.tanh(moved + narrow * noise))
    # KL of normals: log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2, with s1 = s2.
    kl = ((std**2 + (moved - center) ** 2) / (2 * std**2) - 1 / 2).sum(axis=1)
    hope = ((one + other) / 2 + weight(parts["weights"]["optimism"]) * abs(one - other) / 2).mean(axis=1)
    apart = jax.lax.stop_gradient(kl) / DIMS - 0.03
    beta, nearness = weight(live["weights"]["optimism"]), weight(live["weights"]["nearness"])
    value = -hope + weight(parts["weights"]["nearness"]) * kl + beta * apart - nearness * apart
    return mean(value, batch), {"kl": kl}


class All:
    """The rules one after another, each with a key of its own; all that they learn begins anew before update 2."""

    def __init__(self, init, references):
        self.init, self.references = init, references

    def predict(self, update, before, batch, key, state):
        if update == 2:  # a tick has two updates, and the reset is after one
            before = {**before, **self.init(jax.random.fold_in(key, 1 << 28))}
            for reference in self.references.values():
                getattr(reference, "begin", lambda: None)()
        metrics = {}
        for i, (name, reference) in enumerate(self.references.items()):
            before, found = reference.predict(update, before, batch, jax.random.fold_in(key, i), state)
            metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
        return before, metrics


@pytest.fixture(scope="module")
def agent():
    return bro.build(SPECS, CONFIG)


@pytest.fixture(scope="module")
def init(agent):
    return jax.jit(agent.init)


def test_updates_are_the_papers_and_begin_anew(agent, init):
    decaying, plain = {"lr": LR, "decay": DECAY}, {"lr": 0.01, "b1": 0.5}
    references = {
        "critic": Descended(critic_loss, {"critic": decaying}),
        "target": tracked("critic", "target", 0.1),
        "actor": Descended(actor_loss, {"actor": decaying, "log_alpha": {"lr": LR, "b1": 0.5}}),
        "optimist": Descended(optimist_loss, {"optimist": decaying, "weights": plain}),
    }
    start = disturbed(init(KEY), *PARTS)
    agrees(agent, start, {"all": All(init, references)}, [transitions(i) for i in range(4)])


def test_parts_at_the_start(init):
    start = init(KEY)
    key_base, key_optimist = jax.random.split(KEY)
    key_actor, key_critic = jax.random.split(key_base)
    assert set(start) == {*PARTS, "log_alpha", "weights"}
    near(start["actor"], jax.jit(ACTOR.init)(key_actor))
    near(start["critic"], stacked([jax.jit(CRITIC.init)(key) for key in jax.random.split(key_critic)]))
    same(start["target"], start["critic"])
    explorer = net(ResidualMLP(8, 1, DIMS, orthogonal(0.01), final_bias=False), OBS, ACTION)
    near(start["optimist"], jax.jit(explorer.init)(key_optimist))
    assert_allclose(start["log_alpha"], np.log(0.3), rtol=1e-6)
    assert_allclose([weight(start["weights"][name]) for name in ("optimism", "nearness")], [0.7, 0.4], rtol=1e-5)


def test_weights_lie_between_e_to_the_minus_10_and_e_to_the_7_5():
    assert_allclose(bro.weight(jnp.array([-30.0, 0.0, 30.0])), np.exp([-10, -1.25, 7.5]), rtol=1e-5)
    assert_allclose(bro.free(jnp.exp(-1.25)), 0, atol=1e-6)
    assert_allclose(bro.weight(bro.free(3.0)), 3, rtol=1e-5)


def test_the_optimist_explores_and_the_actor_is_judged(agent, init):
    obs, ctx = jnp.array([0.3, -1.0, 2.0]), Ctx(KEY, jnp.int32(0))
    parts = disturbed(init(KEY), "actor", "optimist")
    center, _, moved, narrow = shifted(parts, parts["optimist"], obs)
    action, memory, extras = agent.act(parts, "kept", obs, ctx, False)
    assert_allclose(action, np.tanh(center), rtol=1e-5)
    assert (memory, extras) == ("kept", {})
    action, memory, extras = agent.act(parts, "kept", obs, ctx, True)
    assert_allclose(action, np.tanh(moved + narrow * jax.random.normal(KEY, (DIMS,))), rtol=1e-5)
    assert (memory, extras) == ("kept", {})


def test_a_recipes_numbers_arrive():
    sizes = {"batch": 8, "capacity": 32, "warmup": 7, "num_envs": 2, "ratio": 3}
    recipe = bro.recipe(SPECS, bro.Config((8, 7), blocks=(1, 1), quantiles=2, **sizes))
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 3, 7)
    assert replayed(recipe) == (32, 8)
    assert set(recipe.agent.rules) == {"all"}


def test_configuration():
    defaults(
        bro.Config(), widths=(64, 128), lr=3e-4, gamma=0.99, tau=0.005, alpha=1.0, target_entropy=None, batch=128,
        capacity=100_000, warmup=5_000, num_envs=1, ratio=2, blocks=(1, 2), quantiles=100, decay=1e-4, optimism=1.0,
        nearness=0.25, divergence=0.05, spread=0.75, weights_lr=3e-5, resets=(15_000,),
    )  # fmt: skip
    lowest = {"ratio": 1, "quantiles": 1, "decay": 0.0, "divergence": 0.0, "spread": 0.0, "weights_lr": 0.0, "lr": 0.0}
    bounded(bro.Config, lowest)
    for name in ("optimism", "nearness"):
        assert bro.Config(**{name: 1e-4}) != bro.Config(**{name: 1e3})
        for beyond in (0.9e-4, 1.1e3):
            with pytest.raises(BadInput, match=f"^{name} is "):
                bro.Config(**{name: beyond})
