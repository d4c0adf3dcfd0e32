"""Environments in gymnax's form, which draw fresh randomness at each step: gymnax's own and Craftax's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.adapters.typed import typed
from envs.core import Box, Discrete, Env, PyTree, Specs, TimeStep, first, time_limit
from jaxrl.core import BadInput


class State(NamedTuple):
    raw: PyTree
    key: jax.Array


def keyed(raw: Any, params: Any, id: str, limit: int, terminated: Callable, flat: bool) -> Env:
    """An environment from an object with `reset_env(key, params)` and `step_env(key, state, action, params)`.

    These are the bare dynamics; its `step` would reset by itself.

    Args:
        limit: steps after which our own limit truncates.
        terminated: `(state after, done) -> bool []`, the end of the task without theirs.
    """

    def reset(key):
        key_start, key = jax.random.split(key)
        obs, state = raw.reset_env(key_start, params)
        return State(state, key), first(obs)

    def step(state, action):
        key_step, key = jax.random.split(state.key)
        obs, after, reward, done, _ = raw.step_env(key_step, state.raw, action, params)
        over = jnp.asarray(terminated(after, jnp.asarray(done, bool)), bool)
        return State(after, key), TimeStep(obs, jnp.asarray(reward, jnp.float32), over, jnp.bool_(False))

    return time_limit(typed(Env(reset, step, Specs(None, _actions(raw.action_space(params), id)), id), flat), limit)


def _actions(space: Any, id: str) -> Box | Discrete:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        whole = jnp.issubdtype(space.dtype, jnp.integer)
        return Box(tuple(space.shape), space.low, space.high, jnp.int32 if whole else jnp.float32)
    raise BadInput(f"environment '{id}' has actions of {space!r}: only a Box and a Discrete are adapted.")
