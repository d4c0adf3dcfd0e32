"""Rollouts: ticks in their order, those that have not come yet, and the newest alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxrl.core import BadInput
from jaxrl.sources import latest, rollout

T, N = 2, 3
EXAMPLE = {"x": jax.ShapeDtypeStruct((T, N), jnp.int32), "end": jax.ShapeDtypeStruct((T, N), jnp.bool_)}


def tick(number):
    return {"x": 100 * number + jnp.arange(T * N, dtype=jnp.int32).reshape(T, N), "end": jnp.zeros((T, N), bool)}


@pytest.mark.parametrize("ticks, seen", [(1, 1), (1, 4), (3, 1), (3, 2), (3, 3), (3, 4), (3, 5), (3, 7)])
def test_the_last_ticks_in_order(ticks, seen):
    source = rollout(ticks)
    s = source.init(EXAMPLE)
    assert source.size(s) == 0
    for number in range(1, seen + 1):
        s = source.add(s, tick(number), None)
    batch = source.sample(s, {}, None)
    last = [tick(number)["x"] for number in range(max(seen - ticks, 0) + 1, seen + 1)]
    none = [np.zeros((T, N), int)] * (ticks - len(last))
    assert_array_equal(batch["x"], np.concatenate([*none, *last]))
    assert source.size(s) == len(last) * T * N
    if ticks == 1:
        assert "weight" not in batch
    else:
        assert_array_equal(batch["weight"], np.repeat([0] * len(none) + [1] * len(last), T)[:, None] * np.ones(N))
        assert batch["weight"].dtype == jnp.float32


def test_a_rollout_is_one_tick_where_nobody_says_and_never_less():
    assert rollout().init(EXAMPLE)["ticks"]["x"].shape == (1, T, N)
    with pytest.raises(BadInput, match="ticks is 0"):
        rollout(0)


def test_the_newest_tick_is_flat():
    source = latest()
    s = source.init(EXAMPLE)
    for number in (1, 2, 3):
        s = source.add(s, tick(number), None)
    assert_array_equal(source.sample(s, {}, None)["x"], tick(3)["x"].reshape(-1))
    assert source.size(s) == T * N
