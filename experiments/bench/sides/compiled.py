"""A side that is one compiled function, called again and again on what it gave."""

import jax
import jax.numpy as jnp

from experiments.bench.worker import Side


def compiled(fn, carry, units: int, *rest) -> Side:
    """A window is `fn(carry, *rest)`, which gives the next carry; whether its numbers are finite is told in the end."""
    state = {"carry": carry}

    def compile():
        state["fn"] = jax.jit(fn, donate_argnums=0).lower(state["carry"], *rest).compile()

    def window():
        state["carry"] = jax.block_until_ready(state["fn"](state["carry"], *rest))

    return Side(units, compile, window, lambda: finite(state["carry"]))


def finite(tree) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))
