"""Dyna: rollouts of a known model step by step, the model's own loss and optimiser, and nothing real in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents import dqn, dyna
from jaxrl.core import BadInput, Ctx, fold, stateless
from jaxrl.models import bits
from jaxrl.models.ensemble import Step
from jaxrl.nets import MLP, net
from tests.pinned import KEY, LENGTH, bounded, defaults, disturbed, mean, moment, near
from tests.small import ACTIONS, DISCRETE, config, small

HORIZON, B = 3, 5
RNG = np.random.default_rng(3)
BATCH = {
    "obs": RNG.integers(0, 2, (B, LENGTH)).astype(np.float32),
    "next_obs": RNG.integers(0, 2, (B, LENGTH)).astype(np.float32),
    "action": RNG.integers(0, ACTIONS, B).astype(np.int32),
    "reward": RNG.normal(size=B).astype(np.float32),
    "discount": np.array([1, 0, 1, 1, 1], np.float32),
    "weight": np.array([1, 2, 0, 0.5, 1], np.float32),
}


def step(part, obs, action, key):
    """A model that its action drives, whose task goes on with a chance of 0.5 to 0.9."""
    next_obs = part * obs + action[:, None] + jax.random.normal(key, obs.shape)
    return Step(next_obs, obs[:, 0] - action, 0.5 + 0.2 * action)


KNOWN = bits.Model(lambda key: jnp.float32(0.5), lambda part, batch: part * batch["reward"].sum(), step)


def test_a_batch_is_rollouts_of_the_policy_from_what_was_seen():
    """obs, action, weight: of all starts the first step, then of all the second; each weighs what went on till then."""
    base, seen = config("dqn", temperature=50.0), []
    plain = dqn.recipe(DISCRETE, base)
    watch = stateless(lambda parts, batch, ctx: (seen.append(batch), ({}, {}))[1], writes=())
    agent = plain.agent
    watched = type(agent)(agent.init, agent.act, {"watch": watch})
    recipe = dyna.add(type(plain)(watched, plain.source), DISCRETE, dyna.Config(horizon=HORIZON), base, KNOWN)
    parts = disturbed(jax.jit(recipe.agent.init)(KEY), "critic")
    assert list(recipe.agent.rules) == ["model", "watch"]

    @jax.jit
    def ours(parts):
        recipe.agent.rules["watch"].update(parts, (), BATCH, Ctx(KEY, jnp.int32(4)))
        return seen.pop()

    @jax.jit
    def theirs(parts):
        key, obs, weight, rows = fold(KEY, 1 << 31), BATCH["obs"], jnp.ones(B), []
        for t in range(HORIZON):
            keys = jax.random.split(fold(key, 2 * t), B)
            act = lambda i, obs=obs, keys=keys: agent.act(parts, (), obs[i], Ctx(keys[i], jnp.int32(4)), True)[0]
            action = jnp.stack([act(i) for i in range(B)])
            out = step(parts["model"], obs, action, fold(key, 2 * t + 1))
            made = {"next_obs": out.next_obs, "reward": out.reward, "discount": out.discount}
            rows.append({"obs": obs, "action": action, "weight": weight, **made})
            obs, weight = out.next_obs, weight * out.discount
        return {name: jnp.concatenate([row[name] for row in rows]) for name in rows[0]}

    near(ours(parts), theirs(parts))


def model_loss(live, parts, batch, key):
    """-log N(r; mu, 1) less a constant, - log of a Bernoulli for the end and of one for each bit, of none at an end."""
    sizes = {"bits": LENGTH, "reward": 1, "over": 1}
    x = jnp.concatenate([batch["obs"], jnp.eye(ACTIONS)[batch["action"]]], axis=1)
    given = jax.ShapeDtypeStruct((LENGTH + ACTIONS,), jnp.float32)
    told = {n: net(MLP((8,), size, jax.nn.elu), given).apply(live["model"][n], x) for n, size in sizes.items()}
    bernoulli = lambda logit, x: jnp.log(jnp.where(x > 0.5, 1 / (1 + jnp.exp(-logit)), 1 / (1 + jnp.exp(logit))))
    each = -bernoulli(told["bits"], batch["next_obs"]).sum(axis=1) * batch["discount"]
    ends = -bernoulli(told["over"][:, 0], 1 - batch["discount"])
    return mean((told["reward"][:, 0] - batch["reward"]) ** 2 / 2 + ends + each, batch), {}


def test_the_model_learns_what_follows_by_the_authors_optimiser():
    """m and v of .9 and .99, 1e-5 beneath, and each weight falls by a millionth of itself, whatever the rate is."""
    own = {"horizon": 2, "model": {"widths": (8,), "lr": 0.01, "decay": 0.05}}
    recipe = small("dqn+dyna", dyna=own)
    rule = recipe.agent.rules["model"]
    assert (rule.reads, rule.writes) == (("model",), ("model",))
    parts = disturbed(jax.jit(recipe.agent.init)(KEY), "model")
    slope = jax.jit(jax.value_and_grad(model_loss, has_aux=True))
    update, state = jax.jit(rule.update), rule.init(parts)
    m = v = jax.tree.map(jnp.zeros_like, parts["model"])
    for i in (1, 2):
        (value, _), g = slope({"model": parts["model"]}, parts, BATCH, KEY)
        g = g["model"]
        after, state, metrics = update(parts, state, BATCH, Ctx(KEY, jnp.int32(0)))
        near(metrics, {"loss": value})
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, g)
        stepped = lambda x, m, v, i=i: x - 0.01 * (m / (1 - 0.9**i)) / (jnp.sqrt(v / (1 - 0.99**i)) + 1e-5) - 0.05 * x
        near(moment(state, "nu")["model"], v)
        near(after, {**parts, "model": jax.tree.map(stepped, parts["model"], m, v)})
        parts = after
    defaults(bits.Config(), widths=(64, 64), lr=1e-3, eps=1e-5, b2=0.99, decay=1e-6)


def test_the_agents_own_rules_see_the_rollouts_and_read_all_parts():
    recipe, plain = small("dqn+dyna"), small("dqn")
    assert list(recipe.agent.rules) == ["model", *plain.agent.rules]
    assert set(recipe.agent.shapes) == {*plain.agent.shapes, "model"}
    for name, rule in plain.agent.rules.items():
        assert set(recipe.agent.rules[name].reads) == set(recipe.agent.shapes)
        assert recipe.agent.rules[name].writes == rule.writes


def test_the_base_has_the_authors_optimiser_too():
    """Of a squared error, at the defaults that the sum has."""
    assert dyna.NUMBERS == {"eps": 1e-5, "b2": 0.99, "decay": 1e-6}
    kind = type(config("dqn+dyna"))
    assert (kind(n=1).eps, kind(n=1).b2, kind(n=1).decay) == (1e-5, 0.99, 1e-6)
    assert (dqn.Config().eps, dqn.Config().b2, dqn.Config().decay) == (1e-8, 0.999, 0.0)
    own = {"lr": 0.02, "eps": 0.3, "b2": 0.7, "decay": 0.1}
    agent = small("dqn", **own).agent
    rule, parts = agent.rules["critic"], disturbed(jax.jit(agent.init)(KEY), "critic")
    batch = {name: jnp.asarray(x) for name, x in BATCH.items()}

    @jax.jit
    def both(parts):
        g = jax.grad(lambda live: rule.loss(live, parts, batch, KEY)[0])({"critic": parts["critic"]})["critic"]
        return g, rule.update(parts, rule.init(parts), batch, Ctx(KEY, jnp.int32(0)))[0]

    g, after = both(parts)
    stepped = lambda x, g: x - 0.02 * g / (jnp.abs(g) + 0.3) - 0.1 * x  # at first m = g and v = g^2
    near(after["critic"], jax.tree.map(stepped, parts["critic"], g))


def test_configuration():
    assert dyna.Config().horizon == 10 and dyna.Config().model == bits.Config()
    bounded(dyna.Config, {"horizon": 1})


def test_what_it_cannot_go_on_is_refused():
    base, plain = config("dqn", n=3), small("dqn")
    with pytest.raises(BadInput, match="n is 3, and the model of dyna learns what follows one step"):
        dyna.add(plain, DISCRETE, dyna.Config(), base)
    dyna.add(plain, DISCRETE, dyna.Config(), object())  # of what has no n
    remembers = type(plain.agent)(plain.agent.init, plain.agent.act, plain.agent.rules, memory=lambda: jnp.zeros(2))
    with pytest.raises(BadInput, match="memory of what was before"):
        dyna.add(type(plain)(remembers, plain.source), DISCRETE, dyna.Config(), config("dqn"))
