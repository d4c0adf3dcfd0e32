"""Uniform replay, of transitions or of sequences."""

import jax

from jaxrl.core import Source, fold
from jaxrl.sources import ring as rings

COVER = 1 << 28  # a stream of keys apart from those of the lots that draw


def uniform(
    capacity: int,
    batch: int,
    n: int = 1,
    gamma: float | jax.Array = 0.99,
    sequence: int | None = None,
    frames: int | None = None,
    keep: str | tuple[str, ...] = (),
    budget: int | None = None,
    ahead: int | None = None,
) -> Source:
    """A replay that draws uniformly from what it holds and stores each observation once.

    A batch's fields are [batch, ...] as `ring.read` lists them; with n > 1 rewards are summed over up to n steps of
    one episode and `discount` carries what they discount, so that `reward + gamma * discount * V(next_obs)` is right
    for every n. A sequence is drawn by one of its steps, which may have any place in it. The arguments are those of
    `ring.Layout`.

    Raises:
        BadInput: batch above capacity, a number out of range; at `init`, a ring larger than the budget, with the
            figure, or transitions that it cannot hold.
    """
    layout = rings.Layout(capacity, batch, n, gamma, sequence, frames, keep, budget, ahead)

    def sample(s, parts, key):
        rows, columns = rings.draw(layout, s, key)
        if sequence:
            rows = rings.covering(layout, s, rows, columns, fold(key, COVER))
        return rings.read(layout, s, rows, columns)

    return Source(
        init=lambda example: rings.allocate(layout, example),
        add=lambda s, transitions, ctx: rings.write(layout, s, transitions),
        sample=sample,
        size=rings.held,
        everything=lambda s: rings.everything(layout, s),
    )
