"""Canaries: a property of XLA's code that speed relies on, and a fault of it that is still there."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib import version as jaxlib

from tests.lint import main, shifted_writes

LOCKED = ("0.10.2", "0.11.2")  # of requirements.lock


def written(rows: int, steps: int = 300) -> float:
    """Least seconds that `steps` writes of one row into a donated buffer take, inside one loop."""
    write = lambda b: jax.lax.fori_loop(0, steps, lambda i, b: b.at[i % rows].set(jnp.float32(i)), b)
    compiled = jax.jit(write, donate_argnums=0).lower(jnp.zeros((rows, 8))).compile()
    buffer, seconds = compiled(jnp.zeros((rows, 8))), []
    for _ in range(7):
        began = time.perf_counter()
        buffer = jax.block_until_ready(compiled(buffer))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_a_small_write_into_a_large_buffer_costs_the_write():
    """jax 0.11.1 copies the buffer at every step: 600 times the cost of a small one here, where it should be 1."""
    assert written(100_000) < 30 * max(written(100), 2e-6)


def shifted(x):
    base = x + 1
    into = lambda array, update: array.at[1:].set(update)  # unseen by the rule, which this test is about
    return into(base, base[:-1]).reshape(1, *x.shape)


def concatenated(x):
    base = x + 1
    return jnp.concatenate([base[:1], base[:-1]]).reshape(1, *x.shape)


def rolled(x):
    base = x + 1
    return jnp.roll(base, 1, axis=0).at[0].set(base[0]).reshape(1, *x.shape)


@pytest.mark.parametrize("shape", [(8, 16), (4, 1), (16,), (4, 3, 2)])
def test_a_shift_by_concatenation_or_roll_is_right(shape):
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    right = np.concatenate([x[:1], x[:-1]])[None] + 1
    for way in (concatenated, rolled):
        np.testing.assert_array_equal(jax.jit(way)(x), right)


def test_a_shifted_write_is_still_wrong_on_cpus():
    """Where this fails XLA has mended it: then tests/lint.py and the warning in docs/custom-env.md can go."""
    x = np.arange(128, dtype=np.int32).reshape(8, 16)
    right = np.concatenate([x[:1], x[:-1]])[None] + 1
    wrong = not np.array_equal(jax.jit(shifted)(x), right)
    assert wrong or jaxlib.__version__ not in LOCKED


def test_none_of_our_code_writes_a_slice_of_an_array_into_it():
    assert main() == 0


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("b.at[1:].set(b[:-1])", 1),
        ("y = self.b.at[:, 1:].add(2 * self.b[:, :-1])", 1),
        ("jax.lax.dynamic_update_slice(b, b[:3], (1, 0))", 1),
        ("lax.dynamic_update_slice_in_dim(b, lax.dynamic_slice_in_dim(b, 0, 3), 1, 0)", 1),
        ("b.at[i].set(b[i] + 1)", 0),
        ("b.at[1:].set(c[:-1])", 0),
        ("b.at[0].set(b[1:].sum())", 0),
        ("jnp.concatenate([b[:1], b[:-1]])", 0),
    ],
)
def test_the_rule_finds_shifted_writes(source, found):
    assert len(list(shifted_writes(source))) == found
