"""Environments: the records of `jaxrl.core` and the wrappers that take one Env and give one Env.

Wrappers do one thing each and stack. They never reset an episode (`batched` does) and never look at more than one
environment (`batched` vmaps). Whatever they remember lives in the state, beside the wrapped environment's own under
`inner`, in typed arrays: a weakly typed one would change its type at the first step and compile everything twice.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.core import (
    BadInput,
    Box,
    Discrete,
    Env,
    Envs,
    PyTree,
    Specs,
    TimeStep,
    batched,
    first,
    unknown,
    where,
)

__all__ = [
    "BadInput",
    "Box",
    "Discrete",
    "Env",
    "Envs",
    "Specs",
    "TimeStep",
    "action_repeat",
    "bare",
    "batched",
    "contextual",
    "first",
    "flat_observation",
    "frame_stack",
    "scale_action",
    "time_limit",
]


def bare(state: PyTree) -> PyTree:
    """The state of the environment itself, without what wrappers keep beside it."""
    while isinstance(state, dict) and "inner" in state:
        state = state["inner"]
    return state


def _with_bare(state: PyTree, new: PyTree) -> PyTree:
    wrapped = isinstance(state, dict) and "inner" in state
    return {**state, "inner": _with_bare(state["inner"], new)} if wrapped else new


def contextual(env: Env, observe: bool = False, **fields: float | jax.Array | tuple[float, float]) -> Env:
    """The environment under other circumstances: each field a number, or a (low, high) to draw from at each reset.

    Numbers may be traced, so that a batch of contexts is a `vmap` over them. Starts are drawn as in the usual context.
    `info["context"]` holds the values in force, float32 [] by name.

    Args:
        observe: append the values, in the order given, to an observation that is one vector.

    Raises:
        BadInput: a field that the environment does not have, or a range whose low is above its high.
    """
    for name, value in fields.items():
        if name not in env.context:
            raise unknown(f"context field of {env.name}", name, env.context)
        if isinstance(value, tuple) and value[0] > value[1]:
            raise BadInput(f"context field '{name}' has low {value[0]} above high {value[1]}: exchange them.")

    def show(context, out):
        if observe:
            out = out._replace(obs=jnp.concatenate([out.obs, jnp.stack([context[name] for name in fields])]))
        return out._replace(info={**out.info, "context": context})

    def reset(key):
        key_start, key_draw = jax.random.split(key)
        state, out = env.reset(key_start)
        draws = zip(fields.items(), jax.random.uniform(key_draw, (len(fields),)))
        between = lambda value, u: value[0] + u * (value[1] - value[0]) if isinstance(value, tuple) else value
        context = {name: jnp.asarray(between(value, u), jnp.float32) for (name, value), u in draws}
        inner = bare(state)
        inner = inner._replace(context={**inner.context, **context})
        return _with_bare(state, inner), show(context, out)

    def step(state, action):
        now = {name: bare(state).context[name] for name in fields}
        state, out = env.step(state, action)
        return state, show(now, out)

    specs = env.specs
    if observe:
        size = specs.observation.shape[0] + len(fields)
        specs = replace(specs, observation=jax.ShapeDtypeStruct((size,), jnp.float32), over=None)
    return replace(env, reset=reset, step=step, specs=specs)


def never(obs: PyTree) -> jax.Array:
    """`Specs.over` of a task that goes on for ever, whose clock alone ends it."""
    return jnp.bool_(False)


def time_limit(env: Env, steps: int) -> Env:
    """The environment, truncated after `steps` of its steps. Where the task itself ends on that step, it terminates.

    Raises:
        BadInput: `steps` is below 1.
    """
    if steps < 1:
        raise BadInput(f"steps of time_limit is {steps}; an episode has at least 1 step.")

    def reset(key):
        inner, out = env.reset(key)
        return {"inner": inner, "t": jnp.int32(0)}, out

    def step(state, action):
        inner, out = env.step(state["inner"], action)
        t = state["t"] + 1
        late = (t >= steps) & ~out.terminated.all()
        return {"inner": inner, "t": t}, out._replace(truncated=out.truncated | late)

    limit = steps if env.specs.limit is None else min(steps, env.specs.limit)
    return replace(env, reset=reset, step=step, specs=replace(env.specs, limit=limit))


def action_repeat(env: Env, n: int) -> Env:
    """Each action held for `n` steps: rewards are summed, and an end inside the repeat is the end of it.

    The rest of a repeat in which the episode ended adds nothing: state, observation, flags and info are those of the
    ending step.

    Raises:
        BadInput: `n` is below 1.
    """
    if n < 1:
        raise BadInput(f"action repeat is {n}; an action is held for at least 1 step.")

    def step(state, action):
        # Zeros in the shape of a TimeStep that has not ended: one trace of the step serves all n.
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(env.step, state, action)[1])

        def once(carry, _):
            state, so_far = carry
            after, out = env.step(state, action)
            out = out._replace(reward=so_far.reward + out.reward)
            return where(~so_far.end, (after, out), carry), None

        return jax.lax.scan(once, (state, nothing), None, length=n)[0]

    limit = None if env.specs.limit is None else -(-env.specs.limit // n)
    return replace(env, step=step, specs=replace(env.specs, frames=env.specs.frames * n, limit=limit))


def scale_action(env: Env) -> Env:
    """The environment with actions in [-1, 1] (clipped to it), mapped linearly onto the bounds of its Box.

    Where that Box holds integers each of them has an equal share of [-1, 1].

    Raises:
        BadInput: the actions are not a Box, or a bound is infinite.
    """
    box = env.specs.action
    if not isinstance(box, Box):
        raise BadInput(f"scale_action needs continuous actions; {env.name} has {box}.")
    low, high = jnp.asarray(box.low, box.dtype), jnp.asarray(box.high, box.dtype)
    if not bool(jnp.isfinite(low).all() & jnp.isfinite(high).all()):
        raise BadInput(f"scale_action needs finite bounds; {env.name} has {box.low} to {box.high}.")

    # Middle and half-width, so that bounds of [-1, 1] leave an action as it is, to the last bit.
    middle, half = (low + high) / 2, (high - low) / 2

    def linear(action):
        return jnp.clip(middle + half * action, low, high)

    def whole(action):
        count = (high - low + 1).astype(jnp.float32)
        at = jnp.floor((jnp.clip(action, -1, 1) + 1) / 2 * count)
        return low + jnp.minimum(at, count - 1).astype(box.dtype)

    integers = jnp.issubdtype(box.dtype, jnp.integer)
    dtype, scale = (jnp.float32, whole) if integers else (box.dtype, linear)
    step = lambda state, action: env.step(state, scale(action))
    return replace(env, step=step, specs=replace(env.specs, action=Box(box.shape, -1.0, 1.0, dtype)))


def vectors(observation: PyTree) -> tuple[tuple[str, int], ...]:
    """(name, how many numbers) of each leaf of an observation, in the order in which they are concatenated.

    Raises:
        BadInput: it holds no numbers at all, or an image (uint8 [H, W, C]) beside others.
    """
    found = jax.tree_util.tree_leaves_with_path(observation)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "observation" for path, _ in found]
    for name, (_, leaf) in zip(names, found):
        if len(leaf.shape) == 3 and leaf.dtype == jnp.uint8:
            raise BadInput(
                f"the observation holds an image, '{name}' {list(leaf.shape)}, beside others: agents see one image or "
                "one vector, so choose among them in a wrapper."
            )
    sizes = tuple((name, math.prod(leaf.shape)) for name, (_, leaf) in zip(names, found))
    if not sum(size for _, size in sizes):
        raise BadInput("observations are empty: show at least one number, if a constant.")
    return sizes


def concatenated(observation: PyTree, xp: Any = jnp) -> jax.Array:
    """All numbers of an observation as one float32 vector, leaf by leaf; `xp` is jax's or numpy's module."""
    return xp.concatenate([xp.ravel(xp.asarray(leaf)).astype(xp.float32) for leaf in jax.tree.leaves(observation)])


def flat_observation(env: Env) -> Env:
    """The environment whose observation, a pytree or an array of any shape, is one float32 vector.

    Raises:
        BadInput: see `vectors`.
    """
    layout = vectors(env.specs.observation)

    def reset(key):
        state, out = env.reset(key)
        return state, out._replace(obs=concatenated(out.obs))

    def step(state, action):
        state, out = env.step(state, action)
        return state, out._replace(obs=concatenated(out.obs))

    seen = jax.ShapeDtypeStruct((sum(size for _, size in layout),), jnp.float32)
    return replace(env, reset=reset, step=step, specs=replace(env.specs, observation=seen, over=None, layout=layout))


def is_plain(observation: PyTree) -> bool:
    """Whether an observation is one vector or one image already, as agents see them."""
    shape = getattr(observation, "shape", None)
    return shape is not None and (
        (len(shape) == 1 and shape[0] > 0) or (len(shape) == 3 and observation.dtype == jnp.uint8)
    )


def frame_stack(env: Env, k: int) -> Env:
    """The last `k` observations side by side on the last axis, newest last; a reset repeats the first one.

    Raises:
        BadInput: `k` is below 1 or longer than an episode, or an observation is a scalar, without an axis to stack on.
    """
    if k < 1:
        raise BadInput(f"frame_stack's k is {k}; at least 1 frame is needed.")
    if env.specs.limit is not None and k > env.specs.limit + 1:
        shown = env.specs.limit + 1
        raise BadInput(f"frame_stack's k is {k}, but an episode of {env.name} shows {shown} observations: lower k.")
    if any(not leaf.shape for leaf in jax.tree.leaves(env.specs.observation)):
        raise BadInput(f"frame_stack needs observations with an axis; {env.name} has a scalar: give it the shape (1,).")

    def show(inner, frames, out):
        return {"inner": inner, "frames": frames}, out._replace(obs=frames)

    def reset(key):
        inner, out = env.reset(key)
        return show(inner, jax.tree.map(lambda x: jnp.concatenate([x] * k, axis=-1), out.obs), out)

    def push(frames, newest):
        return jnp.concatenate([frames[..., newest.shape[-1] :], newest], axis=-1)

    def step(state, action):
        inner, out = env.step(state["inner"], action)
        return show(inner, jax.tree.map(push, state["frames"], out.obs), out)

    observation = jax.tree.map(partial(_wider, k=k), env.specs.observation)
    return replace(env, reset=reset, step=step, specs=replace(env.specs, observation=observation, over=None))


def _wider(spec: jax.ShapeDtypeStruct, k: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*spec.shape[:-1], spec.shape[-1] * k), spec.dtype)
