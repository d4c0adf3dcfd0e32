"""A layer of experts, forward and back: all experts at every token, or tokens that travel to slots."""

import jax
import jax.numpy as jnp

from experiments.bench.sides.compiled import compiled
from experiments.bench.worker import Side
from jaxrl.nets import MoE, net


def layer(settings: dict) -> Side:
    """Tokens through `MoE(**settings['moe'])` of a width, and their gradient: `units` tokens a window."""
    tokens, width = settings["tokens"], settings["width"]
    made = net(MoE(outputs=width, **settings["moe"]), jax.ShapeDtypeStruct((tokens, width), jnp.float32))
    parameters, x = made.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (tokens, width))
    count = max(settings["units"] // tokens, 1)

    def steps(parameters, x):
        slope = jax.grad(lambda p: (made.apply(p, x) ** 2).mean())
        step = lambda p, _: (jax.tree.map(lambda a, b: a - 1e-3 * b, p, slope(p)), None)
        return jax.lax.scan(step, parameters, length=count)[0]

    return compiled(steps, parameters, count * tokens, x)
