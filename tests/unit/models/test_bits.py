"""The model of bits against Young et al. 2023: three networks, their loss with its slope, and what a step draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Box, Discrete, Specs
from jaxrl.models.bits import Config, dynamics
from jaxrl.nets import MLP, net

KEY = jax.random.key(9)
D, B = 3, 6
RNG = np.random.default_rng(9)
OBS, AFTER = RNG.integers(0, 2, (2, B, D)).astype(np.float32)
BATCH = {
    "obs": OBS, "next_obs": AFTER, "action": np.array([0, 1, 1, 0, 1, 0], np.int32),
    "reward": RNG.normal(size=B).astype(np.float32), "discount": np.array([1, 0, 1, 1, 0, 1], np.float32),
    "weight": np.array([1, 2, 0, 1, 1, 0.5], np.float32),
}  # fmt: skip
SIZES = {"bits": D, "reward": 1, "over": 1}
GIVEN = jax.ShapeDtypeStruct((D + 2,), jnp.float32)
MODEL = dynamics(Specs(jax.ShapeDtypeStruct((D,), jnp.float32), Discrete(2)), Config((4,)))


@pytest.fixture(scope="module")
def part():
    noise = lambda x: x + 0.3 * jnp.float32(RNG.normal(size=x.shape))
    return jax.tree.map(noise, MODEL.init(KEY))


def told(part, obs, action):
    """Logits of bits, rewards and the logit of an end, from the bits and the action's one-hot side by side."""
    x = jnp.concatenate([obs, jnp.eye(2)[action]], axis=1)
    return [net(MLP((4,), size, jax.nn.elu), GIVEN).apply(part[name], x) for name, size in SIZES.items()]


def test_each_network_begins_from_a_key_of_its_own():
    part = MODEL.init(KEY)
    for (name, size), key in zip(SIZES.items(), jax.random.split(KEY, 3)):
        jax.tree.map(assert_array_equal, part[name], net(MLP((4,), size, jax.nn.elu), GIVEN).init(key))


def literal(part):
    """-log p of each bit where the task went on, half the square of the reward's error, and -log p of an end."""
    bits, reward, over = told(part, jnp.array(OBS), jnp.array(BATCH["action"]))
    p, end = jax.nn.sigmoid(bits), jax.nn.sigmoid(over[:, 0])
    missed = -(AFTER * jnp.log(p) + (1 - AFTER) * jnp.log(1 - p)).sum(axis=1)
    on = BATCH["discount"]
    ended = -((1 - on) * jnp.log(end) + on * jnp.log(1 - end))
    each = missed * on + (reward[:, 0] - BATCH["reward"]) ** 2 / 2 + ended
    return (each * BATCH["weight"]).sum() / (BATCH["weight"] > 0).sum()


def test_the_loss_is_the_likelihood_of_what_followed(part):
    batch = jax.tree.map(jnp.array, BATCH)
    value, slope = jax.value_and_grad(MODEL.loss)(part, batch)
    expected, gradient = jax.value_and_grad(literal)(part)
    assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-3, atol=1e-5), slope, gradient)


def test_a_step_draws_each_bit_with_its_chance(part):
    bits, reward, over = told(part, jnp.array(OBS), jnp.array(BATCH["action"]))
    found = MODEL.step(part, jnp.array(OBS), jnp.array(BATCH["action"]), KEY)
    drawn = np.asarray(jax.random.uniform(KEY, (B, D))) < 1 / (1 + np.exp(-np.asarray(bits)))
    assert_array_equal(found.next_obs, drawn.astype(np.float32))
    assert found.next_obs.dtype == jnp.float32
    assert_allclose(found.reward, reward[:, 0], rtol=1e-5)
    assert_allclose(found.discount, 1 / (1 + np.exp(np.asarray(over[:, 0]))), rtol=1e-5)
    assert found.discount.min() < 0.5 < found.discount.max()


def test_only_vectors_are_bits():
    with pytest.raises(BadInput, match="one vector"):
        dynamics(Specs(jax.ShapeDtypeStruct((2, 2), jnp.float32), Discrete(2)))
    boxed = dynamics(Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((3,))), Config((4,)))
    assert boxed.init(KEY)["bits"]
