"""MEX of a small world: value less misfit, climbed by Adam, against the paper's objective written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import mex_tabular
from jaxrl.core import Ctx
from tests.pinned import KEY, bounded, defaults, near
from tests.small import ACTIONS, STATES, TABLE

H, ETA, MOST, SOFT = 10, 0.2, 1.5, 0.3
CONFIG = mex_tabular.Config(eta=ETA, most=MOST, steps=3, lr=0.2, softness=SOFT)


def counts(first):
    rng = np.random.default_rng(2)
    n = rng.integers(0, 4, (STATES, ACTIONS, STATES + 1)) * rng.integers(0, 2, (STATES, ACTIONS, 1))
    seen = {"next": n, "reward": n.sum(axis=-1) * rng.uniform(size=(STATES, ACTIONS)), "first": np.array(first)}
    return jax.tree.map(jnp.float32, seen)


def hypothesis(model):
    """Chances [S, A, S + 1], the last one of an end, and rewards from 0 to the most."""
    chances = jnp.exp(model["next"]) / jnp.exp(model["next"]).sum(axis=-1, keepdims=True)
    return chances, MOST / (1 + jnp.exp(-model["reward"]))


def misfit(model, counts):
    """-log-likelihood of every transition, and the squared error of each pair's mean reward as often as it was met."""
    chances, r = hypothesis(model)
    n = counts["next"].sum(axis=-1)
    mean = jnp.where(n > 0, counts["reward"] / jnp.where(n > 0, n, 1), 0)
    return -(counts["next"] * jnp.log(chances)).sum() + (n * (r - mean) ** 2).sum()


def worth(model, best):
    chances, r = hypothesis(model)
    v, q = jnp.zeros(STATES), []
    for _ in range(H):
        q.append(r + jnp.stack([chances[..., to] * v[to] for to in range(STATES)]).sum(axis=0))
        v = best(q[-1])
    return jnp.stack(q[::-1])


def soft(q):
    weight = jnp.exp(q / SOFT) / jnp.exp(q / SOFT).sum(axis=1, keepdims=True)
    return (weight * q).sum(axis=1)


def objective(model, counts):
    """eta L(f; D) - V_f(s_1), of starts as often as they were seen."""
    starts = counts["first"] / jnp.maximum(counts["first"].sum(), 1)
    return ETA * misfit(model, counts) - (starts * soft(worth(model, soft)[0])).sum()


@pytest.mark.parametrize("first", [[3, 1, 0, 0], [1, 0, 0, 0]])
def test_a_plan_is_of_the_hypothesis_that_was_climbed_to(first):
    agent, seen = mex_tabular.recipe(TABLE, CONFIG).agent, counts(first)
    rng = np.random.default_rng(3)
    model = {"next": rng.normal(size=(STATES, ACTIONS, STATES + 1)), "reward": rng.normal(size=(STATES, ACTIONS))}
    model = jax.tree.map(jnp.float32, model)
    rule = agent.observe["plan"]
    parts = {"counts": seen, "model": model, "plan": jnp.zeros((H, STATES, ACTIONS))}
    update = jax.jit(lambda parts, state: rule.update(parts, state, {}, Ctx(KEY, jnp.int32(0))))
    after, state, metrics = update(parts, rule.init(parts))
    slope = jax.jit(jax.grad(objective))
    m = v = jax.tree.map(lambda x: np.zeros(x.shape), model)
    for t in range(1, 4):
        g = slope(model, seen)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * np.asarray(g), m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * np.asarray(g) ** 2, v, g)
        rate = jax.tree.map(lambda m, v, t=t: m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v)
        model = jax.tree.map(lambda x, step: jnp.asarray(x - 0.2 * step, jnp.float32), model, rate)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-3, atol=2e-4), after["model"], model)
    wanted = worth(after["model"], lambda q: q.max(axis=1))
    near((after["plan"], metrics), (wanted, {"misfit": misfit(after["model"], seen)}))
    assert_array_equal(after["counts"]["next"], seen["next"])
    again, _, _ = update(after, state)
    near(again["plan"], worth(again["model"], lambda q: q.max(axis=1)))
    assert set(rule.writes) == {"model", "plan"}


def test_every_hypothesis_is_as_likely_at_the_start():
    """All chances 1 / (S + 1), all rewards half the most; the first plan is of what was climbed to from there."""
    chances, r = mex_tabular.table({"next": jnp.zeros((2, 1, 3)), "reward": jnp.zeros((2, 1))}, MOST)
    assert_allclose(chances, np.log(1 / 3), rtol=1e-6)
    assert_allclose(r, MOST / 2)
    start = jax.jit(mex_tabular.recipe(TABLE, CONFIG).agent.init)(KEY)
    assert set(start) == {"counts", "model", "plan"}
    near(start["plan"], worth(start["model"], lambda q: q.max(axis=1)))
    near(start["model"], {"next": np.zeros((STATES, ACTIONS, STATES + 1)), "reward": np.zeros((STATES, ACTIONS))})


def test_configuration():
    defaults(mex_tabular.Config(), epsilon=0.0, eta=1.0, most=1.0, steps=20, lr=0.1, softness=0.1)
    bounded(mex_tabular.Config, {"eta": 0.0, "most": 0.0, "steps": 1, "lr": 0.0}, {"epsilon": (0.0, 1.0)})
