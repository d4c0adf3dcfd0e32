"""A law of all agents and additions: where a clock of 32 bits ends, learning and everything periodic goes on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.core import Env, Specs, TimeStep, Wide, first
from jaxrl.loop import loop
from tests.small import EVERYONE, small, specs

KEY = jax.random.key(21)


def world(on: Specs) -> Env:
    """Observations of any shape, of a walk along a line; rewards of the action; episodes of nine steps at most."""
    seen = on.observation
    many = jnp.arange(1.0, 1 + math.prod(seen.shape)).reshape(seen.shape)
    obs = lambda x: (jnp.sin(many * x) * (100 if seen.dtype == jnp.uint8 else 1)).astype(seen.dtype)

    def step(state, action):
        x, t = state
        x = x + 1 + (action.sum() > 0)
        now = (x, t + 1)
        return now, TimeStep(obs(x), action.sum() - 0.1 * x, x % 7 == 0, (t >= 8) & (x % 7 != 0))

    def reset(key):
        x = jax.random.randint(key, (), 1, 5)
        return (x, jnp.int32(0)), first(obs(x))

    return Env(reset, step, on, "line")


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYONE)
def test_learning_goes_on_beyond_32_bits(name):
    one = loop(world(specs(name)), small(name))
    ticks = math.lcm(*(period // one.frames for period in one.periods))
    ticks = max(ticks, -(-24 // ticks) * ticks)
    span = ticks * one.frames
    chunk = jax.jit(one.chunk, static_argnums=1)
    run, _ = chunk(jax.jit(one.init)(KEY), ticks)  # so that replay holds what learning needs
    for edge in (2**31, 2**32):
        start = edge // span * span
        after, metrics = chunk(run._replace(step=Wide.of(start)), 2 * ticks)
        assert start <= edge < int(after.step) == start + 2 * span
        learned = {n: x for n, x in metrics.items() if not n.startswith("episode/")}
        assert all(np.isfinite(x) for x in learned.values()), {n: float(x) for n, x in learned.items()}
        moved = jax.tree.map(lambda a, b: (a != b).any(), run.parts, after.parts)
        assert any(map(bool, jax.tree.leaves(moved)))
