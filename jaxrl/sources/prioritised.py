"""Prioritised replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952), proportional variant, on the same ring.

The sum tree has a fan of 16: a million slots are 5 levels and cost 7 % more than their own priorities. Every node is
the sum of its children computed anew, never adjusted by a difference, so that rounding does not drift.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Source, unknown
from jaxrl.sources import budget as room
from jaxrl.sources import ring as rings

FAN = 16
EPSILON = 1e-6  # added to each error, so that what was predicted exactly can still be drawn

Tree = tuple[jax.Array, ...]  # float32 levels from the leaves (padded to a multiple of FAN) to the root's children


def plant(size: int) -> Tree:
    """A tree of `size` zeros."""
    levels = [-(-size // FAN) * FAN]
    while levels[-1] > FAN:
        levels.append(-(-levels[-1] // FAN // FAN) * FAN)
    return tuple(jnp.zeros(level) for level in levels)


def grow(tree: Tree, leaves: jax.Array, changed: jax.Array) -> Tree:
    """The tree with new leaves, sums made anew above those that changed (flat int32 [K])."""
    levels = [leaves]
    for above in tree[1:]:
        changed = changed // FAN
        sums = levels[-1].reshape(-1, FAN)[changed].sum(axis=1)
        levels.append(above.at[changed].set(sums))
    return tuple(levels)


def descend(tree: Tree, share: jax.Array) -> jax.Array:
    """The leaves at which these shares [B] in [0, 1) of the total lie: int32 [B]. None of priority 0 is returned.

    A tree whose total is 0 gives leaf 0. Shares are float32, which resolves 2^-24 of the total: with a million leaves
    the chance of a single one is true to some percent, that of many together to far less.
    """
    at = jnp.zeros(share.shape, jnp.int32)
    for level in reversed(tree):
        children = level.reshape(-1, FAN)[at]
        ends = jnp.cumsum(children, axis=1)
        # The share of what is left, rather than the rest of a difference: each level's rounding stays its own.
        mark = share * ends[:, -1]
        which = (ends <= mark[:, None]).sum(axis=1)
        alive = FAN - 1 - jnp.argmax(children[:, ::-1] > 0, axis=1)
        which = jnp.where(ends[:, -1] > 0, jnp.minimum(which, alive), 0)
        weight, end = (jnp.take_along_axis(x, which[:, None], axis=1)[:, 0] for x in (children, ends))
        share = jnp.clip((mark - (end - weight)) / jnp.where(weight > 0, weight, 1), 0, 1)
        at = at * FAN + which.astype(jnp.int32)
    return at


class Prioritised(NamedTuple):
    """ring; tree over its flat slots, 0 where nothing may be drawn; most, the largest priority yet, float32 []."""

    ring: rings.Ring
    tree: Tree
    most: jax.Array


def prioritised(
    capacity: int,
    batch: int,
    exponent: float | jax.Array = 0.6,
    beta: float | jax.Array = 0.4,
    metric: str = "critic/td_error",
    n: int = 1,
    gamma: float | jax.Array = 0.99,
    sequence: int | None = None,
    frames: int | None = None,
    keep: str | tuple[str, ...] = (),
    budget: int | None = None,
    fade: tuple[float, float] | None = None,
) -> Source:
    """A replay that draws in proportion to `(|error| + 1e-6) ** exponent`, new transitions at the largest seen.

    Args:
        exponent: alpha of the paper; 0 draws uniformly.
        beta: how far the weights correct for drawing unevenly; 1 corrects in full.
        metric: the metric of the update that holds each sample's error, [B] or [B, ...] (averaged).
        fade: (rate, floor): a priority counts rate ** age of itself, never less than `floor`, at an age in transitions
            added since (an episode's end counts as two). Draws then have no strata, and weights know nothing of age.
        (others): those of `uniform`.

    The batch's `weight` is (1 / (size P)) ** beta over the largest of the batch, times the mask of a sequence.

    Raises:
        BadInput: as `uniform`; exponent or beta below 0; a fade outside (0, 1]; an update without `metric`, or with one
            value for all.
    """
    if fade is not None and not (0 < fade[0] <= 1 and 0 < fade[1] <= 1):
        raise BadInput(f"fade is {fade}; its rate and its floor must lie above 0 and be at most 1.")
    for name, value in (("exponent", exponent), ("beta", beta)):
        if isinstance(value, float | int) and value < 0:
            raise BadInput(f"{name} is {value}; it is at least 0.")
    layout = rings.Layout(capacity, batch, n, gamma, sequence, frames, keep, budget)

    def empty(example):
        ring = rings.allocate(layout, example)
        return Prioritised(ring, plant(ring.nodes["mark"].size), jnp.ones(()))

    def init(example):
        whole = room.footprint(jax.eval_shape(empty, example))
        room.require(whole, budget, f"a prioritised replay of capacity {capacity}")
        return empty(example)

    def add(s, transitions, ctx):
        here, following, _ = rings.places(s.ring, transitions["end"])
        ring = rings.write(layout, s.ring, transitions)
        columns = jnp.arange(ring.head.shape[0])
        flat = lambda rows: (rows * columns.size + columns).reshape(-1)
        # In the order in which the ring is written, so that a slot which is both ends as a start.
        leaves = s.tree[0].at[flat(following)].set(0).at[flat(here)].set(s.most)
        changed = [flat(following), flat(here)]
        if frames:
            behind = rings.oldest(layout, ring)
            whole = rings.drawable(layout, ring, behind, columns)
            leaves = leaves.at[flat(behind)].multiply(whole.reshape(-1))
            changed.append(flat(behind))
        return s._replace(ring=ring, tree=grow(s.tree, leaves, jnp.concatenate(changed)))

    def stratified(s, key):
        share = (jnp.arange(batch) + jax.random.uniform(key, (batch,))) / batch  # one draw a stratum
        return descend(s.tree, share)

    def faded(s, key, rate, floor):
        """By rejection, exact at any age: the tree would have to change everywhere with each transition."""

        def propose(key):
            share, accepted = jax.random.uniform(key, (2, 2 * batch))
            index = descend(s.tree, share)
            return index, accepted < jnp.maximum(rate ** rings.since(s.ring, index).astype(jnp.float32), floor)

        return rings.first_accepted(propose, batch, key, s.ring.rows > 0)

    def sample(s, parts, key):
        index = stratified(s, key) if fade is None else faded(s, key, *fade)
        envs = s.ring.head.shape[0]
        out = rings.read(layout, s.ring, index // envs, index % envs)
        # The size and the total cancel against the largest weight.
        rarity = 1 / jnp.maximum(s.tree[0][index], jnp.finfo(jnp.float32).tiny)
        weight = (rarity / rarity.max()) ** beta
        out["weight"] = weight[:, None] * out["weight"] if sequence else weight
        return out

    def note(s, sampled, metrics):
        if metric not in metrics:
            raise unknown("metric that prioritised(metric=...) reads", metric, metrics)
        error, index = per_sample(jnp.abs(metrics[metric]), sampled, metric), sampled["index"]
        old = s.tree[0][index]
        # A skipped update has NaN for errors, and a slot may have been overwritten since: both stay as they are.
        new = jnp.where(jnp.isfinite(error) & (old > 0), (error + EPSILON) ** exponent, old)
        # A slot drawn twice takes the larger, whatever the order of writing. The zeros are made from `new` so that
        # XLA reads the old before it writes: without that order it copies all leaves (340 us for a million).
        leaves = s.tree[0].at[index].set(jnp.minimum(new, 0)).at[index].max(new)
        return s._replace(tree=grow(s.tree, leaves, index), most=jnp.maximum(s.most, new.max()))

    return Source(init, add, sample, lambda s: rings.held(s.ring), note, lambda s: rings.everything(layout, s.ring))


def per_sample(error: jax.Array, batch: dict, metric: str) -> jax.Array:
    """[B] from [B, ...]: the mean over further axes, over a sequence's real entries alone."""
    size = batch["index"].shape[0]
    if error.shape[:1] != (size,):
        raise BadInput(
            f"metric '{metric}' has shape {error.shape}; a priority needs one value a sample, [{size}, ...]."
        )
    weight = batch["weight"]
    if error.shape[: weight.ndim] != weight.shape:
        return error.reshape(size, -1).mean(axis=1)
    real = (weight > 0).reshape(weight.shape + (1,) * (error.ndim - weight.ndim))
    real = jnp.broadcast_to(real, error.shape).reshape(size, -1)
    return jnp.where(real, error.reshape(size, -1), 0).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
