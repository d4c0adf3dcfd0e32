"""What host simulators share: spaces in our records, actions scaled, observations as float32 vectors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import BadInput, Box
from jaxrl.simulators import Simulator, Step


class Repeated:
    """A simulator whose actions are held for `n` steps, as `envs.core.action_repeat` holds them."""

    def __init__(self, inner: Simulator, n: int):
        self.inner, self.n, self.reset = inner, n, inner.reset
        self.close = getattr(inner, "close", lambda: None)

    def step(self, action: np.ndarray) -> Step:
        total = 0.0
        for _ in range(self.n):
            out = self.inner.step(action)
            total += out.reward
            if out.terminated or out.truncated:
                break
        return out._replace(reward=total)


def repeated(make: Any, n: int) -> Any:
    """`make`, each of whose simulators holds its actions for `n` steps.

    Raises:
        BadInput: `n` is below 1.
    """
    if n < 1:
        raise BadInput(f"action repeat is {n}; an action is held for at least 1 step.")
    return make if n == 1 else lambda: Repeated(make(), n)


def scaled(id: str, low: Any, high: Any, whole: bool = False) -> tuple[Box, Any]:
    """(the Box of [-1, 1] that agents act in, action -> what the simulator takes, clipped), from finite bounds [...].

    Args:
        whole: the simulator takes integers, each of which has an equal share of [-1, 1].

    Raises:
        BadInput: a bound is infinite.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise BadInput(f"environment '{id}' has actions without finite bounds, which cannot be scaled to [-1, 1].")
    middle, half = (low + high) / 2, (high - low) / 2
    if whole:
        count = high - low + 1
        share = lambda action: (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
        return Box(low.shape), lambda action: low + np.minimum(np.floor(share(action) * count), count - 1)
    return Box(low.shape), lambda action: np.clip(middle + half * np.asarray(action, np.float64), low, high)


def spec(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
