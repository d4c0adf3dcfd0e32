"""A replay of what no environment has said: transitions of a model, put in by an event."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Batch, PyTree, Source, below
from jaxrl.sources import budget as room

FIELDS = ("obs", "action", "reward", "discount", "next_obs")


class Pile(NamedTuple):
    """The state. Fields: rows, transitions [C, ...]; head int32 [], where to write next; count int32 [], how many are
    held; window int32 [], how many of the newest are drawn from: what is older waits to be overwritten."""

    rows: Batch
    head: jax.Array
    count: jax.Array
    window: jax.Array


@dataclass(frozen=True)
class Generated(Source):
    """A source with `fill(s, transitions, kept, window=None) -> s`, which appends those of the transitions [B, ...]
    that are kept (bool [B]) and may set the window, and `empty(s) -> s`. `add` changes nothing."""

    fill: Callable[..., Pile] = lambda *given: given[0]
    empty: Callable[[Pile], Pile] = lambda s: s


def generated(capacity: int, batch: int, budget: int | None = None) -> Generated:
    """A replay of single transitions that draws uniformly from the newest of them.

    Batches have obs, action, reward, discount and next_obs, of the shapes and dtypes of the loop's transitions.

    Raises:
        BadInput: a capacity or batch below 1; at `init`, more bytes than the budget (None: half of what is free).
    """
    for name, value in (("capacity", capacity), ("batch", batch)):
        if value < 1:
            raise BadInput(f"{name} is {value}; a replay of generated transitions needs at least 1.")

    def init(example: PyTree) -> Pile:
        row = lambda x: jax.ShapeDtypeStruct((capacity, *x.shape[2:]), x.dtype)
        shapes = jax.tree.map(row, {name: example[name] for name in FIELDS})
        room.require(room.footprint(shapes), budget, f"a replay of {capacity} generated transitions")
        rows = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Pile(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.full((), capacity, jnp.int32))

    def fill(s: Pile, transitions: Batch, kept: jax.Array, window: jax.Array | None = None) -> Pile:
        if kept.shape[0] > capacity:
            raise BadInput(f"{kept.shape[0]} transitions do not go into a replay of {capacity}: raise its capacity.")
        place = s.head + jnp.cumsum(kept) - 1
        at = jnp.where(kept, place % capacity, capacity)  # the others are written nowhere
        new = {name: transitions[name] for name in FIELDS}
        rows = jax.tree.map(lambda x, value: x.at[at].set(value.astype(x.dtype), mode="drop"), s.rows, new)
        more = kept.sum(dtype=jnp.int32)
        window = s.window if window is None else jnp.clip(jnp.asarray(window, jnp.int32), 1, capacity)
        return Pile(rows, (s.head + more) % capacity, jnp.minimum(s.count + more, capacity), window)

    def sample(s: Pile, parts, key):
        back = below(key, (batch,), jnp.maximum(jnp.minimum(s.count, s.window), 1))
        return jax.tree.map(lambda x: x[(s.head - 1 - back) % capacity], s.rows)

    return Generated(
        init,
        lambda s, transitions, ctx: s,
        sample,
        lambda s: s.count,
        fill=fill,
        empty=lambda s: s._replace(head=jnp.zeros_like(s.head), count=jnp.zeros_like(s.count)),
    )
