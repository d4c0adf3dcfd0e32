"""UCBVI: optimistic values by backward induction against the paper's algorithm, written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import ucbvi
from jaxrl.core import Ctx
from tests.pinned import KEY, bounded, defaults
from tests.small import ACTIONS, STATES, TABLE

H = 10


def counts():
    rng = np.random.default_rng(1)
    n = rng.integers(0, 60, (STATES, ACTIONS, STATES + 1)) * rng.integers(0, 2, (STATES, ACTIONS, 1))
    n[0, 0], n[1, 1], n[2, 2] = 0, 900, np.eye(STATES + 1)[1]  # never, often and once
    assert (n.sum(axis=-1) == 0).sum() > 2
    reward = 1.5 * n.sum(axis=-1) * rng.uniform(size=(STATES, ACTIONS))
    return {"next": n, "reward": reward, "first": np.eye(STATES)[0]}


def optimistic(counts, scale, confidence, most):
    """Q_h = min(r + P V_{h+1} + scale H L / sqrt(N), all that can be earned from there); that bound where N is 0."""
    q = np.zeros((H, STATES, ACTIONS))
    v = np.zeros(STATES)
    for h in reversed(range(H)):
        for s in range(STATES):
            for a in range(ACTIONS):
                n, bound = counts["next"][s, a].sum(), most * (H - h)
                if n == 0:
                    q[h, s, a] = bound if scale else 0
                    continue
                onward = sum(counts["next"][s, a, to] / n * v[to] for to in range(STATES))
                bonus = most * scale * H * confidence / np.sqrt(n)
                q[h, s, a] = min(counts["reward"][s, a] / n + onward + bonus, bound)
        v = q[h].max(axis=1)
    return q


@pytest.mark.parametrize("scale", [0.3, 0.0])
def test_a_plan_is_the_papers(scale):
    config = ucbvi.Config(scale=scale, confidence=1.5, most=1.5)
    agent, seen = ucbvi.recipe(TABLE, config).agent, counts()
    parts = {"counts": jax.tree.map(jnp.float32, seen), "plan": jnp.zeros((H, STATES, ACTIONS))}
    after, _, metrics = jax.jit(lambda parts: agent.observe["plan"].update(parts, (), {}, Ctx(KEY, 0)))(parts)
    wanted = optimistic(seen, scale, 1.5, 1.5)
    assert_allclose(after["plan"], wanted, rtol=1e-4, atol=1e-5)
    met = seen["next"].sum(axis=-1) > 0
    bounds = 1.5 * np.arange(H, 0, -1)[:, None, None]
    assert ((wanted == bounds)[:, met].any() or not scale) and (wanted < bounds)[:, met].any()
    assert metrics == {} and agent.observe["plan"].writes == ("plan",)
    start = jax.jit(agent.init)(KEY)
    assert set(start) == {"counts", "plan"}
    assert_allclose(start["plan"], np.broadcast_to(bounds if scale else 0, (H, STATES, ACTIONS)))


def test_configuration():
    defaults(ucbvi.Config(), epsilon=0.0, scale=7.0, confidence=10.0, most=1.0)
    bounded(ucbvi.Config, {"scale": 0.0, "confidence": 0.0, "most": 0.0}, {"epsilon": (0.0, 1.0)})
