"""Is everything finite that environments and policies gave, also when it is squared, and where not?

Only what learning looks at counts: an observation that follows a discount of 0 may be anything, as that of a simulation
which ended because it blew up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Batch, PyTree

NOT_FINITE = "collected/not_finite"  # metric: share of ticks in which something was not finite
LARGEST = np.sqrt(np.finfo(np.float32).max)  # 1.8e19: losses and optimisers square what they are given


class Place(NamedTuple):
    """A number that is not finite: field, the path of its leaf ('next_obs/position'); environment, its index; step, the
    clock at which it came, in frames; value, the number where it is only its square that float32 does not hold."""

    field: str
    environment: int
    step: int
    value: float | None = None

    def __str__(self) -> str:
        how = "not finite" if self.value is None else f"{self.value:.3g}, too large to be squared,"
        return f"'{self.field}' of environment {self.environment} is {how} at step {self.step}"


class NotFinite(ValueError):
    """A simulator on the host gave a number that is not finite, or was given one by the agent of this run."""

    def __init__(self, place: Place, run: PyTree):
        super().__init__(str(place))
        self.place, self.run = place, run


def checked(transitions: Batch, last: PyTree) -> list[tuple[str, int, jax.Array, jax.Array]]:
    """(path, steps after which its first row came, bool [T, N]: all numbers can be squared, and the leaf) of each leaf
    that is looked at.

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
        (_path(name, path), after, (abs(leaf) <= LARGEST).all(axis=_beyond(leaf)) | excused, leaf)
        for name, after, tree, excused in fields
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]


def any_bad(transitions: Batch, last: PyTree) -> jax.Array:
    """bool []: something that is looked at is not finite; see `checked`."""
    return ~jnp.array([good.all() for _, _, good, _ in checked(transitions, last)]).all()


def locate(transitions: Batch, last: PyTree, began: int, frames: int) -> Place | None:
    """The first place, in time, that is not finite; None where there is none. Outside jit; see `checked`.

    Args:
        began: the clock as the tick began.
        frames: how far one step of all environments moves it.
    """
    found = []
    for path, after, good, leaf in checked(transitions, last):
        for t, i in np.argwhere(~np.asarray(good))[:1]:
            numbers = np.asarray(leaf[t, i], np.float64).ravel()
            value = float(max(numbers, key=abs)) if np.isfinite(numbers).all() else None
            found.append(Place(path, int(i), began + (after + int(t)) * frames, value))
    return min(found, key=lambda place: place.step) if found else None


def _path(name: str, path: tuple) -> str:
    return "/".join([name, *([jax.tree_util.keystr(path, simple=True, separator="/")] if path else [])])


def _beyond(x) -> tuple[int, ...]:
    """The axes after [T, N]."""
    return tuple(range(2, x.ndim))
