"""Whether what agents and environments hand over has the shapes and dtypes of the specs: seen when it is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.errors import BadInput

PyTree = Any


def fitting(specs: Any, name: str, actions: jax.Array) -> None:
    """Raise `BadInput`, when it is traced, unless actions [N, ...] have the shape and the dtype of the specs."""
    wanted, found = bare(specs.action, 0), bare(actions)
    if found != wanted:
        raise BadInput(
            f"the agent acts with {shown(found)}, and {name} takes {shown(wanted)}: build the agent from that "
            f"environment's specs, or choose one that takes observations of {shown(specs.observation)}."
        )


def showing(specs: Any, name: str, obs: PyTree) -> None:
    """Raise `BadInput`, when it is traced, unless observations [N, ...] after a step are as the specs say."""
    wanted, found = bare(specs.observation, 0), bare(obs)
    if found != wanted:
        raise BadInput(
            f"{name} shows {shown(found)} after a step, and its specs say {shown(wanted)}: mend one of them."
        )


def bare(tree: PyTree, batch: int = 1) -> PyTree:
    """Shapes and dtypes alone, without that many leading axes."""
    dtype = lambda x: jax.dtypes.canonicalize_dtype(x.dtype, allow_extended_dtype=True)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[batch:], dtype(x)), tree)


def shown(tree: PyTree) -> str:
    """Shapes and dtypes in words: 'float32[3]', or by name where there are several."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    text = lambda x: f"{jnp.dtype(x.dtype).name}{list(x.shape)}"
    if len(leaves) == 1 and not leaves[0][0]:
        return text(leaves[0][1])
    return ", ".join(f"{text(x)} '{jax.tree_util.keystr(path, simple=True, separator='/')}'" for path, x in leaves)
