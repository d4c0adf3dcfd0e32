"""Environments whose arrays change their types, made into ones whose arrays do not."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from envs.core import Env, PyTree
from jaxrl.core import BadInput


def typed(env: Env, flat: bool = False) -> Env:
    """The environment with each array of state and observation of one type, as a scan needs it.

    Other packages begin counters as Python numbers and let a step turn them into arrays. An array gets the type that
    holds both what `reset` and what `step` give; a boolean observation becomes float32. The specs' observation is read
    off.

    Args:
        flat: make an observation of several axes one vector.

    Raises:
        BadInput: the state's structure or a shape changes from reset to step.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.specs.action.shape, env.specs.action.dtype)
    before, began = jax.eval_shape(env.reset, key)
    after, out = jax.eval_shape(env.step, before, action)
    old, new = (before, began.obs), (after, out.obs)
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    if jax.tree.structure(old) != jax.tree.structure(new) or shapes(old) != shapes(new):
        raise BadInput(f"{env.name} changes the structure or a shape of its state from reset to step: it cannot scan.")
    state_types, obs_types = jax.tree.map(_common, old, new)
    obs_types = jax.tree.map(lambda t: jnp.dtype(jnp.float32) if t == jnp.bool_ else t, obs_types)

    def settled(state: PyTree, out):
        obs = jax.tree.map(_cast, out.obs, obs_types)
        obs = jax.tree.map(jnp.ravel, obs) if flat else obs
        return jax.tree.map(_cast, state, state_types), out._replace(obs=obs)

    def reset(key):
        return settled(*env.reset(key))

    def step(state, action):
        return settled(*env.step(state, action))

    observation = jax.eval_shape(reset, key)[1].obs
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), observation)  # without weak types
    return replace(env, reset=reset, step=step, specs=replace(env.specs, observation=observation, over=None))


def _common(old: jax.ShapeDtypeStruct, new: jax.ShapeDtypeStruct):
    return old.dtype if old.dtype == new.dtype else jnp.promote_types(old.dtype, new.dtype)


def _cast(x, dtype) -> jax.Array:
    return x if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, dtype)
