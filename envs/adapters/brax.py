"""brax's environments: 'brax:ant', tested with brax 0.14.2.

The raw environment is adapted, without brax's wrappers: its automatic reset shows the next episode's first observation
in the place of the last, and counts a time limit as an end of the task.
"""

import warnings
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from envs.adapters import built, needed
from envs.adapters.typed import typed
from envs.core import Box, Env, Specs, TimeStep, first, time_limit
from jaxrl.core import unknown


def environment(name: str, limit: int = 1000, **settings: Any) -> Env:
    """brax's environment of that name.

    Args:
        limit: steps of an episode; brax's own default.
        **settings: of the environment's class: `backend="mjx"`, ...
    """
    id = f"brax:{name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of jaxopt, which brax imports
        envs: ModuleType = needed("brax.envs", id, None)
    if name not in envs._envs:
        raise unknown("brax environment", name, envs._envs)
    return adapted(built(id, envs.get_environment, name, **settings), id, limit)


def adapted(raw: Any, id: str, limit: int) -> Env:
    """An environment from brax's or Playground's: `reset` and `step` give states with obs, reward and done.

    Actions are theirs, [-1, 1], and clipped to it. `done` is the task's own end, and so termination.
    """

    def reset(key):
        state = raw.reset(key)
        return state, first(state.obs)

    def step(state, action):
        copied = jax.tree.map(lambda x: x, state)  # some change the dictionaries of the state that they are given
        state = raw.step(copied, jnp.clip(action, -1, 1))
        over = jnp.asarray(state.done) > 0.5
        return state, TimeStep(state.obs, jnp.asarray(state.reward, jnp.float32), over, jnp.bool_(False))

    return time_limit(typed(Env(reset, step, Specs(None, Box((raw.action_size,))), id)), limit)
