"""Data sets: every row is drawn, alike, and nothing is added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput
from jaxrl.sources import dataset

DATA = {"x": np.arange(5), "y": np.arange(10.0).reshape(5, 2)}


def test_rows_are_drawn_alike_and_stay_together():
    source = dataset(DATA, 4)
    batches = jax.vmap(lambda key: source.sample((), {}, key))(jax.random.split(jax.random.key(0), 500))
    assert batches["x"].shape == (500, 4)
    assert_array_equal(batches["y"], np.asarray(batches["x"])[..., None] * 2 + [0, 1])
    assert_allclose(np.bincount(np.asarray(batches["x"]).reshape(-1), minlength=5) / 2000, 0.2, atol=0.03)


def test_a_data_set_is_what_it_is():
    source = dataset(DATA, 5)
    assert source.init(None) == () and source.add((), {}, None) == () and source.size(()) == 5
    assert dataset(DATA, 1).sample((), {}, jax.random.key(0))["x"].shape == (1,)


@pytest.mark.parametrize(
    "data, batch, words",
    [
        ({}, 1, "no arrays"),
        ({"x": jnp.float32(1)}, 1, r"data\['x'\] has shape \(\)"),
        ({"x": np.zeros((0, 2))}, 1, r"shape \(0, 2\)"),
        ({"x": np.zeros(5), "y": np.zeros(4)}, 1, r"data\['y'\] has 4 samples"),
        (DATA, 6, "batch is 6"),
        (DATA, 0, "batch is 0"),
    ],
)
def test_what_is_no_data_set_is_refused(data, batch, words):
    with pytest.raises(BadInput, match=words):
        dataset(data, batch)
