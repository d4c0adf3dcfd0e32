"""In what type a network computes: parameters and outputs stay wide while what is between them is narrow.

Losses, targets, optimisers and statistics see the outputs alone and so stay in float32; gradients arrive there too, as
the cast of the parameters is part of what is differentiated. float16 wants `jaxrl.rules.precision.loss_scaled` beside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.core import PyTree, unknown
from jaxrl.nets.mlp import Net


class Policy(NamedTuple):
    """Types of the parameters kept, of the computation, and of the outputs."""

    param: jnp.dtype
    compute: jnp.dtype
    output: jnp.dtype


def computing(name: str) -> Policy:
    """'float32', or parameters and outputs of float32 around a computation in 'bfloat16' or 'float16'.

    Raises:
        BadInput: any other name.
    """
    if name not in (known := ("float32", "bfloat16", "float16")):
        raise unknown("precision", name, known)
    return Policy(jnp.dtype("float32"), jnp.dtype(name), jnp.dtype("float32"))


def cast(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    """The floating leaves of a pytree in that type; integers, booleans and keys as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def in_precision(net: Net, how: Policy) -> Net:
    """The network by that policy. Its normalisers still take their statistics in float32."""

    def apply(parameters, *inputs):
        output = net.apply(cast(parameters, how.compute), *cast(inputs, how.compute))
        return cast(output, how.output)

    return Net(lambda key: cast(net.init(key), how.param), apply)
