"""ObGD against algorithm 3 of Elsayed et al. 2024, step by step in NumPy: traces, the bound, and what a reset ends."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.rules.traces import obgd

RNG = np.random.default_rng(1)
PARAMS = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}


def algorithm(decay, kappa, lr, bound, steps):
    """z <- decay z + g, M = lr kappa max(|delta|, 1) |z|_1, theta <- theta + min(lr, lr / M) delta z; resets after."""
    z = {"w": np.zeros((2, 3)), "b": np.zeros(3)}
    for gradient, delta, reset in steps:
        z = {name: decay * z[name] + gradient[name] for name in z}
        most = lr * kappa * max(abs(delta), 1) * sum(abs(one).sum() for one in z.values())
        rate = min(lr, lr / most) if bound else lr
        yield {name: rate * delta * z[name] for name in z}
        z = {name: z[name] * (not reset) for name in z}


@pytest.mark.parametrize("size", [3.0, 0.01], ids=["bound", "free"])
@pytest.mark.parametrize(
    "decay, kappa, lr, bound", [(0.8, 2.0, 1.0, True), (0.5, 3.0, 0.1, True), (0.8, 2.0, 0.1, False)]
)
def test_each_step(decay, kappa, lr, bound, size):
    steps = [
        ({"w": size * RNG.normal(size=(2, 3)), "b": size * RNG.normal(size=3)}, delta, reset)
        for delta, reset in ((0.3, False), (-4.0, False), (1.5, True), (-0.2, False), (2.0, False))
    ]
    tx = obgd(decay, kappa, lr, bound)
    state = tx.init(PARAMS)
    for (gradient, delta, reset), expected in zip(steps, algorithm(decay, kappa, lr, bound, steps)):
        # The loss is minus the prediction: its gradient is minus the g of the trace.
        minus = {name: jnp.float32(-g) for name, g in gradient.items()}
        found, state = tx.update(minus, state, delta=jnp.float32([delta]), reset=jnp.array([reset]))
        for name in PARAMS:
            assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-7)


def test_values_are_kept_two_times_below_overshooting_and_take_whole_steps_where_nobody_says():
    gradient = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    call = lambda tx: tx.update(gradient, tx.init(PARAMS), delta=jnp.float32(2), reset=jnp.bool_(False))[0]["b"]
    assert_allclose(call(obgd(0.9)), call(obgd(0.9, 2.0, 1.0, True)))
    assert_allclose(call(obgd(0.9)), -2 / (2 * 2 * 9) * np.ones(3), rtol=1e-6)
