"""Sources that hold what was just seen and nothing older: rollouts and streams."""

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Source


def rollout(ticks: int = 1) -> Source:
    """The last `ticks` ticks in order, as one time-major batch `[ticks * T, N, ...]`.

    With more than one tick the batch has a `weight` `[ticks * T, N]`, which is 0 for ticks that have not come yet
    (they lead, as zeros) and 1 elsewhere.

    Raises:
        BadInput: fewer than 1 tick.
    """
    if ticks < 1:
        raise BadInput(f"ticks is {ticks}; a rollout is at least 1 tick long.")

    def init(example):
        zeros = jax.tree.map(lambda x: jnp.zeros((ticks, *x.shape), x.dtype), example)
        return {"ticks": zeros, "next": jnp.int32(0), "filled": jnp.int32(0)}

    def add(s, transitions, ctx):
        # A ring over ticks, so that each tick is written once and nothing older moves.
        return {
            "ticks": jax.tree.map(lambda x, new: x.at[s["next"]].set(new), s["ticks"], transitions),
            "next": (s["next"] + 1) % ticks,
            "filled": jnp.minimum(s["filled"] + 1, ticks),
        }

    def sample(s, parts, key):
        if ticks == 1:
            return jax.tree.map(lambda x: x[0], s["ticks"])
        order = (s["next"] + jnp.arange(ticks)) % ticks
        seen = jnp.arange(ticks) >= ticks - s["filled"]
        weight = jnp.broadcast_to(seen[:, None, None], s["ticks"]["end"].shape).astype(jnp.float32)
        batch = {**jax.tree.map(lambda x: x[order], s["ticks"]), "weight": weight}
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def size(s):
        _, time, envs = s["ticks"]["end"].shape
        return s["filled"] * (time * envs)

    return Source(init, add, sample, size)


def latest() -> Source:
    """The newest tick's transitions alone, flattened to `[T * N, ...]`, for agents that learn from the stream."""
    newest = rollout()

    def sample(s, parts, key):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), newest.sample(s, parts, key))

    return Source(newest.init, newest.add, sample, newest.size)
