"""Denoisers of vectors: an update and an average at a time, whom a fit learns from, and what draws are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import below
from jaxrl.equations.diffusion import denoiser, denoising_loss, heun, noise_level, noise_levels
from jaxrl.models import diffusion
from jaxrl.models.diffusion import Config, conditional, descended, generator, held, seen, sound, standard

KEY = jax.random.key(14)
SMALL = Config(width=4, blocks=1, embedding=4, updates=20, batch=2, lr=0.05, apart=2, levels=3, churn=2.0, lot=4)
X = np.random.default_rng(14).normal(size=(8, 3)).astype(np.float32) * [1, 10, 1] + [0, 4, 0]
WEIGHT = np.array([1, 0, 1, 1, 2, 1, 0, 1], np.float32)


@pytest.mark.parametrize("updates, apart, average, copied", [(12, 2, 0.995, 100), (12, 2, 0.6, 3), (9, 1, 0.995, 4)])
def test_parameters_descend_and_are_averaged_now_and_then(updates, apart, average, copied, monkeypatch):
    """AdamW without decay, the rate falling to 0 as a cosine, gradients of a norm of 1 at most; averages by steps."""
    monkeypatch.setattr(diffusion, "COPIED", copied)
    config = Config(updates=updates, apart=apart, average=average, lr=0.3, clip=1.0)
    target = lambda key: jnp.float32([3, -0.2]) + jax.random.normal(key, (2,))
    loss = lambda w, key: ((w - target(key)) ** 2).sum()
    found, losses = descended(loss, jnp.zeros(2), KEY, config)
    w = mean = m = v = np.zeros(2)
    for i in range(updates):
        aim = np.asarray(target(jax.random.fold_in(KEY, i)), np.float64)
        assert_allclose(losses[i], ((w - aim) ** 2).sum(), rtol=2e-3)
        g = 2 * (w - aim)
        g = g * min(1, 1 / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        rate = 0.3 * (1 + np.cos(np.pi * i / updates)) / 2
        w = w - rate * (m / (1 - 0.9 ** (i + 1))) / (np.sqrt(v / (1 - 0.99 ** (i + 1))) + 1e-8)
        if i % apart == 0:
            stays = min(average, 1 - (1 + max(i - copied, 0)) ** (-2 / 3))
            mean = stays * mean + (1 - stays) * w
    assert_allclose(found, mean, rtol=2e-3, atol=1e-4)


def test_the_average_is_the_last_for_a_hundred_updates():
    assert diffusion.COPIED == 100


def test_columns_are_standardised_over_what_is_held_but_for_raw_ones():
    norm = standard(jnp.array(X), jnp.array(WEIGHT), (2,))
    rows = X[WEIGHT > 0]
    assert_allclose(norm["mean"], [*rows.mean(axis=0)[:2], 0], rtol=1e-5, atol=1e-6)
    assert_allclose(norm["std"], [*(rows.std(axis=0)[:2] + 1e-5), 1], rtol=1e-5)
    every = standard(jnp.array(X), jnp.array(WEIGHT))
    assert_allclose(every["std"], rows.std(axis=0) + 1e-5, rtol=1e-5)
    same = standard(jnp.zeros((4, 1)), jnp.ones(4))
    assert_allclose(same["std"], 1 + 1e-5, rtol=1e-7)


def test_rows_that_are_held_are_drawn_alike():
    draw = held(jnp.array(WEIGHT), 6)
    found = np.asarray(jax.vmap(draw)(jax.random.split(KEY, 300)))
    assert_allclose(np.bincount(found.reshape(-1), minlength=8) / 1800, (WEIGHT > 0) / 6, atol=0.03)
    assert_array_equal(held(jnp.zeros(4), 3)(KEY), [0, 0, 0])


def test_a_part_that_is_no_number_is_not_taken():
    old, new = {"a": jnp.zeros(2), "b": jnp.float32(1)}, {"a": jnp.ones(2), "b": jnp.float32(2)}
    part, diverged = sound(new, old)
    assert_array_equal(part["a"], [1, 1])
    assert part["b"] == 2 and not diverged
    part, diverged = sound({**new, "a": jnp.float32([1, jnp.inf])}, old)
    assert_array_equal(part["a"], [0, 0])
    assert part["b"] == 1 and diverged


def test_what_nothing_is_given_for_has_no_columns():
    assert seen(None, 5).shape == (5, 0)
    assert seen(jnp.ones((5, 2)), 5).shape == (5, 2)


@pytest.fixture(scope="module")
def given():
    return np.random.default_rng(1).normal(size=(8, 2)).astype(np.float32)


def test_a_fit_learns_from_what_is_held(given):
    """Every update: rows, their levels and noise, in standardised columns, with the noise that is known of them."""
    known = np.abs(np.random.default_rng(2).normal(size=(8, 1))).astype(np.float32) * 0.1
    model = generator(3, SMALL, (2,), 2)
    start = model.init(KEY)
    asked = {"known": jnp.array(known), "given": jnp.array(given)}
    part, metrics = jax.jit(lambda key: model.fit(start, jnp.array(X), jnp.array(WEIGHT), key, **asked))(KEY)
    network = conditional(3, 2, SMALL)
    norm = standard(jnp.array(X), jnp.array(WEIGHT), (2,))
    z = (X - norm["mean"]) / norm["std"]
    rows = np.flatnonzero(WEIGHT > 0)
    key_init, key_fit = jax.random.split(KEY)

    def loss(parameters, key):
        key_rows, key_loss = jax.random.split(key)
        at = jnp.array(rows)[below(key_rows, (2,), len(rows))]
        total = 0.0
        for row, key in zip(at, jax.random.split(key_loss, 2)):
            key_level, key_noise = jax.random.split(key)
            field = denoiser(
                lambda x, noise, row=row: network.apply(parameters, jnp.concatenate([x, jnp.array(given)[row]]), noise)
            )
            of = jnp.array(known)[row] / norm["std"]
            total += denoising_loss(field, z[row], noise_level(key_level), key_noise, of)
        return total / 2

    averaged, losses = jax.jit(lambda: descended(loss, network.init(key_init), key_fit, SMALL))()
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=2e-3, atol=1e-4), part["network"], averaged)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), part["norm"], norm)
    assert_allclose(metrics["loss"], losses[-2:].mean(), rtol=1e-3)  # the last tenth of 20
    assert not metrics["diverged"]


@pytest.mark.parametrize("count", [1, 6])
def test_draws_come_in_lots_from_noise(count, given):
    """Of 4 side by side, the last lot cut; each from a start of its own, in the data's units."""
    model = generator(3, SMALL, (), 2)
    part = model.init(KEY)
    part["norm"] = {"mean": jnp.float32([1, 2, 3]), "std": jnp.float32([1, 10, 100])}
    found = jax.jit(lambda key: model.draw(part, key, count, jnp.array(given[:count])))(KEY)
    lots, lot = -(-count // 4), min(4, count)
    keys = [one for key in jax.random.split(KEY, lots) for one in jax.random.split(key, lot)][:count]
    network, levels = conditional(3, 2, SMALL), noise_levels(3)

    def one(key, about):
        key_start, key_steps = jax.random.split(key)
        field = denoiser(lambda x, noise: network.apply(part["network"], jnp.concatenate([x, about]), noise))
        return heun(field, key_steps, jax.random.normal(key_start, (3,)), levels, 2.0)

    expected = np.stack([one(key, jnp.array(about)) for key, about in zip(keys, given)])
    assert_allclose(found, expected * [1, 10, 100] + [1, 2, 3], rtol=1e-3, atol=1e-3)


def test_a_generator_begins_without_units():
    part = generator(3, SMALL).init(KEY)
    assert_array_equal(part["norm"]["mean"], [0, 0, 0])
    assert_array_equal(part["norm"]["std"], [1, 1, 1])
    jax.tree.map(assert_array_equal, part["network"], conditional(3, 0, SMALL).init(KEY))
    assert optax.tree_utils.tree_norm(part["network"]) > 0
