"""The parameters that served best so far, and new ones like them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.core import Key, Parts, PyTree, Rule, stateless

EMPTY = jnp.finfo(jnp.float32).min  # of all numbers that a run may keep the least: an infinite one counts as diverged


class Archive(NamedTuple):
    """returns float32 [n], `EMPTY` where nothing is kept yet; members, the parts kept, with a leading [n]."""

    returns: jax.Array
    members: PyTree


def archive(parts: Parts, names: Sequence[str], size: int) -> Archive:
    """An empty archive for `size` copies of those parts."""
    room = lambda x: jnp.zeros((size, *x.shape), x.dtype)
    return Archive(jnp.full(size, EMPTY, jnp.float32), {name: jax.tree.map(room, parts[name]) for name in names})


def keep_best(part: str, names: Sequence[str]) -> Rule:
    """An observe rule: what acted in an episode whose return is above the least that is kept takes that one's place.

    Of several episodes that end within a tick the best counts. Huang et al. 2025 (MENTOR), section 3.2.
    """

    def keep(parts, batch, ctx):
        returns, members = parts[part]
        best = jnp.where(batch["end"], batch["info"]["episode"]["return"], -jnp.inf).max()
        worst = returns.argmin()
        better = best > returns[worst]
        put = lambda kept, now: kept.at[worst].set(jnp.where(better, now, kept[worst]))
        new = jax.tree.map(put, members, {name: parts[name] for name in names})
        return {part: Archive(put(returns, best), new)}, {}

    return stateless(keep, part, names)


def like_them(kept: Archive, otherwise: PyTree, key: Key) -> PyTree:
    """A draw from a normal fitted to each parameter over what is kept; `otherwise` while that is fewer than two."""
    filled = kept.returns > EMPTY
    count = filled.sum()
    flat, like = ravel_pytree(otherwise)
    noise = like(jax.random.normal(key, flat.shape))  # of all at once: a draw for each would take seconds to compile

    def draw(members, now, noise):
        weight = filled.reshape(-1, *(1 for _ in now.shape))
        mean = (weight * members).sum(axis=0) / jnp.maximum(count, 1)
        variance = (weight * (members - mean) ** 2).sum(axis=0) / jnp.maximum(count - 1, 1)
        std = jnp.maximum(jnp.sqrt(variance), 1e-7)
        return jnp.where(count >= 2, mean + std * noise, now)

    return jax.tree.map(draw, kept.members, otherwise, noise)
