"""Batches from a fixed set of arrays."""

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, PyTree, Source


def dataset(data: PyTree, batch: int) -> Source:
    """Minibatches drawn uniformly, with replacement, from arrays that share a leading axis [S, ...].

    The data are constants of the program rather than state: a checkpoint does not hold them, seeds share them, and
    `add` changes nothing; the price is some 4 s of compilation for each 100 MB. Batches are [batch, ...].

    Raises:
        BadInput: no arrays, leading axes that differ (by leaf), or a batch out of 1 .. S.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise BadInput("data holds no arrays: give a pytree of arrays that share a leading axis.")
    size = 0
    for path, leaf in leaves:
        name = f"data{jax.tree_util.keystr(path)}"
        shape = jnp.shape(leaf)
        if not shape or not shape[0]:
            raise BadInput(f"{name} has shape {shape}: it needs a leading axis of at least 1 sample.")
        size = size or shape[0]
        if shape[0] != size:
            raise BadInput(f"{name} has {shape[0]} samples where the other arrays have {size}: cut them to one length.")
    if not 1 <= batch <= size:
        raise BadInput(f"batch is {batch}, but the data hold {size} samples: choose 1 to {size}.")
    data = jax.tree.map(jnp.asarray, data)

    def sample(s, parts, key):
        rows = jax.random.randint(key, (batch,), 0, size)
        return jax.tree.map(lambda x: x[rows], data)

    return Source(
        init=lambda example: (),
        add=lambda s, transitions, ctx: s,
        sample=sample,
        size=lambda s: jnp.int32(size),
    )
