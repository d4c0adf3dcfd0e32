"""Arms without an environment: a network descends a loss on generated data, all seeds in one compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.evidence import Outcome, Scale
from jaxrl.core import Key, PyTree, fold
from jaxrl.loop import layout

# Streams of a seed's key: what the task is, where the network begins, the batches it sees, and what judges it.
TASK, BEGIN, BATCHES, JUDGED = range(4)


def each_seed(one: Callable[[Key], jax.Array], seeds: tuple[int, ...]) -> Outcome:
    """The scores of `one(key) -> []` on each seed, one after another in one program."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    return Outcome(np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys), np.float64))


def fitted(
    scale: Scale,
    seeds: tuple[int, ...],
    task: Callable[[Key], PyTree],
    init: Callable[[Key], PyTree],
    loss: Callable[[PyTree, PyTree, Key], jax.Array],
    score: Callable[[PyTree, PyTree, Key], jax.Array],
    lr: float = 1e-3,
) -> Outcome:
    """Adam for `scale.steps` steps on each seed, scored at `scale.points` points and at the end.

    Args:
        task: what a seed has to learn (data, teachers), from a key that all arms share.
        loss: (parameters, task, key) -> scalar; it draws its batch.
        score: (parameters, task, key) -> scalar, of the same key at every point.
    """
    tx = optax.adam(lr)
    each = max(scale.steps // scale.points, 1)

    def one(key):
        given = task(fold(key, TASK))
        parameters = init(fold(key, BEGIN))

        def step(carry, i):
            parameters, state = carry
            slope = jax.grad(loss)(parameters, given, fold(fold(key, BATCHES), i))
            steps, state = tx.update(slope, state, parameters)
            return (optax.apply_updates(parameters, steps), state), None

        def point(carry, p):
            carry, _ = jax.lax.scan(step, carry, p * each + jnp.arange(each))
            return carry, score(carry[0], given, fold(key, JUDGED))

        _, curve = jax.lax.scan(point, (parameters, tx.init(parameters)), jnp.arange(scale.points))
        return curve

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    over = jax.vmap(one) if layout() == "vmap" else lambda keys: jax.lax.map(one, keys)
    curve = np.asarray(jax.jit(over)(keys), np.float64)
    return Outcome(curve[:, -1], each * np.arange(1, scale.points + 1), curve, axes=("updates", "score"))
