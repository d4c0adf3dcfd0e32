"""Uniform replay is the ring with its own defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput
from jaxrl.sources import uniform

ONES = jnp.ones((1, 1))
tick = lambda number: {
    "obs": number * ONES,
    "next_obs": (number + 1) * ONES,
    "action": number * ONES,
    "reward": number * ONES,
    "discount": ONES,
    "end": ONES < 0,
}


def test_batches_are_of_single_transitions_discounted_by_0_99_where_nobody_says():
    source, three = uniform(9, 4), uniform(9, 4, n=3)
    s = source.init(jax.eval_shape(lambda: tick(1.0)))
    s, _ = jax.lax.scan(lambda s, number: (source.add(s, tick(number), None), None), s, jnp.arange(6.0))
    assert source.size(s) == 6
    batch = jax.jit(source.sample)(s, {}, jax.random.key(0))
    assert_array_equal(batch["reward"], batch["action"])
    assert_array_equal(batch["next_obs"], batch["obs"] + 1)
    assert_array_equal(source.everything(s)["weight"], [1] * 6 + [0] * 4)
    batch = jax.jit(three.sample)(s, {}, jax.random.key(0))
    start = np.asarray(batch["action"])
    expected = [sum(0.99**k * (i + k) for k in range(3) if i + k < 6) for i in start]
    assert_allclose(batch["reward"], expected, rtol=1e-6)
    assert_allclose(batch["discount"], 0.99 ** (np.minimum(6 - start, 3) - 1), rtol=1e-6)


def test_a_batch_is_no_more_than_the_capacity():
    assert uniform(4, 4)
    with pytest.raises(BadInput, match="batch is 5"):
        uniform(4, 5)
