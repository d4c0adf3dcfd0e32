"""Is everything finite that environments and policies gave, and where not?

Only what learning looks at counts: an observation that follows a discount of 0 may be anything, as that of a simulation
which ended because it blew up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Batch, Parts, PyTree

NOT_FINITE = "collected/not_finite"  # metric: share of ticks in which something was not finite


class Place(NamedTuple):
    """A number that is not finite: field, the path of its leaf ('next_obs/position'); environment, its index; step, the
    clock at which it came, in frames."""

    field: str
    environment: int
    step: int

    def __str__(self) -> str:
        return f"'{self.field}' of environment {self.environment} is not finite at step {self.step}"


class NotFinite(ValueError):
    """A simulator on the host gave a number that is not finite, or was given one by an agent of these parts."""

    def __init__(self, place: Place, parts: Parts):
        super().__init__(str(place))
        self.place, self.parts = place, parts


def checked(transitions: Batch, last: PyTree) -> list[tuple[str, int, jax.Array]]:
    """(path, steps after which its first row came, bool [T, N]: all numbers are finite) of each leaf that is looked at.

    Of those that came at one time, causes are before what they spoil.

    Args:
        transitions: of one tick, [T, N, ...], of jax or of numpy.
        last: what is acted on next, [N, ...].
    """
    discount = transitions["discount"]
    ends = ~(discount > 0).any(axis=_beyond(discount))
    following = jax.tree.map(lambda x: x[None], last)
    steps: int = transitions["end"].shape[0]
    fields: list[tuple[str, int, PyTree, Any]] = [
        ("next_obs", 1, transitions["next_obs"], ends),
        ("obs", 0, transitions["obs"], False),
        ("obs", steps, following, False),
        ("reward", 1, transitions["reward"], False),
        ("discount", 1, discount, False),
        ("action", 0, transitions["action"], False),
    ]
    return [
        (_path(name, path), after, _all_finite(leaf) | excused)
        for name, after, tree, excused in fields
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]


def any_bad(transitions: Batch, last: PyTree) -> jax.Array:
    """bool []: something that is looked at is not finite; see `checked`."""
    return ~jnp.array([good.all() for _, _, good in checked(transitions, last)]).all()


def locate(transitions: Batch, last: PyTree, began: int, frames: int) -> Place | None:
    """The first place, in time, that is not finite; None where there is none. Outside jit; see `checked`.

    Args:
        began: the clock as the tick began.
        frames: how far one step of all environments moves it.
    """
    found = []
    for path, after, good in checked(transitions, last):
        bad = np.argwhere(~np.asarray(good))
        found += [Place(path, int(i), began + (after + int(t)) * frames) for t, i in bad[:1]]
    return min(found, key=lambda place: place.step) if found else None


def _path(name: str, path: tuple) -> str:
    return "/".join([name, *([jax.tree_util.keystr(path, simple=True, separator="/")] if path else [])])


def _all_finite(x):
    """bool [T, N] from [T, N, ...], in jax or in numpy as x is."""
    good = np.isfinite(x) if isinstance(x, np.ndarray) else jnp.isfinite(x)
    return good.all(axis=_beyond(x))


def _beyond(x) -> tuple[int, ...]:
    """The axes after [T, N]."""
    return tuple(range(2, x.ndim))
