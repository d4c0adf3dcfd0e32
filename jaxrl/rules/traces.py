"""ObGD: eligibility traces under an overshooting bound, as one optimiser  (Elsayed et al. 2024, algorithm 3).

The loss of a streaming rule is minus the prediction to be increased, so that minus its gradient is the trace's g:

    z <- decay z + g,   M = lr kappa max(|delta|, 1) ||z||_1,   theta <- theta + min(lr, lr / M) delta z,

with the L1 norm over all parameters of the network, then z <- 0 where the trace is reset. The TD error `delta` and
`reset` reach it as `signals` of `minimise`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.core import PyTree


class TraceState(NamedTuple):
    """The eligibility traces, shaped as the parameters."""

    trace: PyTree


def obgd(
    decay: float | jax.Array, kappa: float = 2.0, lr: float | jax.Array = 1.0, bound: bool = True
) -> optax.GradientTransformationExtraArgs:
    """The optimiser above.

    Args:
        decay: gamma times lambda.
        kappa: how far below overshooting the bound keeps a step; 2 for values, 3 for policies in the paper.
        bound: False takes every step at `lr`, the ablation.
    """

    def init(params):
        return TraceState(jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None, *, delta, reset, **extra):
        del params, extra
        delta = jnp.squeeze(delta)
        trace = jax.tree.map(lambda z, g: decay * z - g, state.trace, gradients)
        norm = sum(jnp.abs(z).sum() for z in jax.tree.leaves(trace))
        overshoot = lr * kappa * jnp.maximum(jnp.abs(delta), 1.0) * norm
        rate = lr / jnp.maximum(overshoot, 1.0) if bound else lr
        steps = jax.tree.map(lambda z: rate * delta * z, trace)
        # After the step: the paper's pseudo-code resets before it, and its author calls that a slip.
        kept = 1.0 - jnp.squeeze(reset).astype(jnp.float32)
        return steps, TraceState(jax.tree.map(lambda z: kept * z, trace))

    return optax.GradientTransformationExtraArgs(init, update)
