"""What is wrong with an environment, found before a training run finds it.

Four stages, each reached only where the ones before found nothing: what the specs say; what `reset` and `step` return,
from their shapes alone; whether tracing them twice gives the same program; and, compiled for the first time, how a few
hundred steps of uniform actions behave.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Box, Discrete, Env, TimeStep, where
from jaxrl.core import each_key, fold

LONGEST = 2_000  # steps of a trial where nobody says how many
SIDE_BY_SIDE = 8  # environments in a trial


class Examined(NamedTuple):
    """What an examination found. Fields: findings, sentences as of `findings`; compile_seconds, the trial's, and
    steps_per_second, environment steps with their resets at 8 side by side; both are of CPU time, which what else runs
    on the machine changes least, and NaN where there was no trial."""

    findings: list[str]
    compile_seconds: float = float("nan")
    steps_per_second: float = float("nan")


def findings(env: Env, steps: int | None = None) -> list[str]:
    """Readable sentences, empty where nothing is wrong. Those that begin with 'note:' are remarks, not faults.

    Args:
        steps: length of the trial; None is one step more than the limit (at most 2000), or 256 without a limit; 0
            leaves it out, so that nothing is compiled.
    """
    return examined(env, steps).findings


def examined(env: Env, steps: int | None = None) -> Examined:
    """`findings`, and what the trial cost."""
    if not isinstance(env, Env):
        return Examined([f"it is a {type(env).__name__}, not an Env."])
    if steps is None:
        steps = 256 if env.specs.limit is None else min(env.specs.limit + 1, LONGEST)
    for stage in (_of_specs, _of_shapes, _of_purity):
        found = list(stage(env))
        if found:
            return Examined(found)
    return _tried(env, steps) if steps else Examined([])


# ----------------------------------------------------------------------------------------------------------- specs


def _of_specs(env: Env) -> Iterator[str]:
    action, limit = env.specs.action, env.specs.limit
    for name, leaf in _named(env.specs.observation, "specs.observation"):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            yield f"{name} is a {type(leaf).__name__}; it must be a jax.ShapeDtypeStruct."
    if isinstance(action, Box):
        yield from _of_bounds(action)
    elif not isinstance(action, Discrete):
        yield f"specs.action is a {type(action).__name__}; it must be a Box or a Discrete."
    elif action.n < 1:
        yield f"specs.action has n = {action.n}; there is at least 1 action."
    if limit is not None and limit < 1:
        yield f"specs.limit is {limit}; an episode has at least 1 step (None where nothing bounds it)."


def _of_bounds(box: Box) -> Iterator[str]:
    try:
        low, high = (np.broadcast_to(np.asarray(bound), box.shape) for bound in (box.low, box.high))
    except ValueError:
        yield f"specs.action has bounds {box.low} and {box.high} that do not fit its shape {box.shape}."
        return
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        yield "specs.action has an infinite bound, so that uniform actions are not defined: give finite ones."
    elif not (low < high).all():
        yield "specs.action has a low that is not below its high."


# ---------------------------------------------------------------------------------------------------------- shapes


def _of_shapes(env: Env) -> Iterator[str]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.specs.action.shape, env.specs.action.dtype)
    try:
        before, out = jax.eval_shape(_spoken("reset", env.reset), key)
        faults = [*_of_timestep("reset", out, env)]
        if not faults:
            after, out = jax.eval_shape(_spoken("step", env.step), before, action)
            faults = [*_of_timestep("step", out, env), *_of_change(before, after)]
    except _FoundError as finding:
        faults = [str(finding)]
    yield from faults


class _FoundError(Exception):
    """A sentence, raised from inside a trace."""


def _spoken(name: str, fn: Callable) -> Callable:
    """`fn`, whose own exceptions and wrong kinds of results become findings."""

    def traced(*args):
        try:
            result = fn(*args)
        except Exception as error:  # whatever an environment raises is what there is to report
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise _FoundError(f"{name} raised {type(error).__name__}: {reason}") from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], TimeStep)):
            raise _FoundError(f"{name} returned a {type(result).__name__}; it must return (state, TimeStep).")
        for path, leaf in _named(result[1]._asdict(), f"{name}'s TimeStep"):
            if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
                raise _FoundError(f"{path} is a Python {type(leaf).__name__}; make it an array, as jnp.float32(1).")
        return result

    return traced


def _of_timestep(name: str, out: TimeStep, env: Env) -> Iterator[str]:
    wanted, shown = env.specs.observation, out.obs
    if jax.tree.structure(wanted) != jax.tree.structure(shown):
        yield (
            f"{name}'s observation has the structure {jax.tree.structure(shown)}; specs.observation says "
            f"{jax.tree.structure(wanted)}."
        )
    else:
        for (path, want), (_, have) in zip(_named(wanted, f"{name}'s observation"), _named(shown, "")):
            if (want.shape, want.dtype) != (have.shape, have.dtype):
                yield f"{path} is {_kind(have)}; specs.observation says {_kind(want)}."
    agents = out.reward.shape
    if out.reward.dtype != jnp.float32 or len(agents) > 1:
        yield f"{name}'s reward is {_kind(out.reward)}; it must be float32 [] (or [agents])."
    if out.terminated.dtype != jnp.bool_ or out.terminated.shape not in ((), agents):
        yield f"{name}'s terminated is {_kind(out.terminated)}; it must be bool [] (or [agents], as the reward)."
    if out.truncated.dtype != jnp.bool_ or out.truncated.shape != ():
        yield f"{name}'s truncated is {_kind(out.truncated)}; it must be bool []."


def _of_change(before: Any, after: Any) -> Iterator[str]:
    """A state that changes its type would fail in a scan, or compile everything a second time."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        yield (
            f"the state has the structure {jax.tree.structure(before)} after reset and {jax.tree.structure(after)} "
            "after step; it must not change."
        )
        return
    for (path, old), (_, new) in zip(_named(before, "state"), _named(after, "state")):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            yield f"{path} is {_kind(old)} after reset and {_kind(new)} after step; it must not change."
        elif old.weak_type != new.weak_type:
            weak, strong = ("reset", "step") if old.weak_type else ("step", "reset")
            yield (
                f"{path} is weakly typed after {weak} and typed after {strong}, so that everything would compile "
                f"twice: make it with its type, as jnp.{old.dtype}(0)."
            )


# ---------------------------------------------------------------------------------------------------------- purity


def _of_purity(env: Env) -> Iterator[str]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.specs.action.shape, env.specs.action.dtype)
    state = jax.eval_shape(env.reset, key)[0]
    for name, fn, args in (("reset", env.reset, (key,)), ("step", env.step, (state, action))):
        try:
            pure = _program(_spoken(name, fn), args) == _program(_spoken(name, fn), args)
        except _FoundError as finding:
            yield str(finding)
            continue
        if not pure:
            yield (
                f"{name} is not pure: tracing it twice gave two programs. Take randomness from the key or the state, "
                "and keep nothing in Python between calls."
            )


def _program(fn: Callable, args: Iterable) -> tuple[str, list[bytes]]:
    """What a function computes, as text and constants; addresses of Python objects in it say nothing."""
    # A new function each time, since tracing is cached by identity.
    traced = jax.make_jaxpr(lambda *args: fn(*args))(*args)
    constants = [np.asarray(c).tobytes() for c in traced.consts if not jnp.issubdtype(c.dtype, jax.dtypes.prng_key)]
    return re.sub(r"0x[0-9a-f]+", "", str(traced)), constants


# ------------------------------------------------------------------------------------------------------- behaviour


def _tried(env: Env, steps: int) -> Examined:
    began = time.process_time()
    run = jax.jit(lambda key: _trial(env, steps, key)).lower(jax.random.key(0)).compile()
    compiled = time.process_time()
    seen, again = (jax.tree.map(np.asarray, run(jax.random.key(0))) for _ in range(2))
    ran = time.process_time()
    found = list(_of_behaviour(env, steps, seen))
    if any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (seen, again)))):
        found.append("the same key gave two streams: the program does something that it does not show to jax.")
    return Examined(found, compiled - began, 2 * steps * SIDE_BY_SIDE / (ran - compiled))


def _of_behaviour(env: Env, steps: int, seen: dict[str, np.ndarray]) -> Iterator[str]:
    limit, length, end = env.specs.limit, seen["length"], seen["terminated"] | seen["truncated"]
    if not seen["start_finite"].all():
        yield "reset's observation is not finite for some keys."
    for what in ("observation", "reward"):
        if not seen[what].all():
            yield f"step's {what} is not finite, first at step {length[~seen[what]].min()} of an episode."
    if (seen["terminated"] & seen["truncated"]).any():
        yield "an episode ended terminated and truncated at once: where the task is over, no limit cuts it short."
    if seen["mistold"].any():
        yield f"specs.over says otherwise than terminated, first at step {length[seen['mistold']].min()} of an episode."
    if limit is None and not end.any():
        yield f"no episode ended in {steps} steps and specs.limit is None: wrap it in time_limit(env, steps)."
    if limit is not None and length.max() > limit:
        yield f"an episode went on after specs.limit = {limit} steps: truncate it there, or wrap it in time_limit."
    if end.all() and limit != 1:
        yield "every episode ended at its first step: is a flag inverted? Where it is meant, specs.limit = 1 says so."
    if isinstance(env.specs.action, Box) and seen["beyond"][0]:
        yield "note: an action beyond its bounds acts as such: clip it in step, or wrap it in scale_action."
    if seen["alike"]:
        yield "note: reset shows the same observation for every key."


def _trial(env: Env, steps: int, key: jax.Array) -> dict[str, jax.Array]:
    """What a few environments side by side do under uniform actions: facts [steps, N], by name."""
    # The first two begin alike: at the first step one is given the highest action, and the other a higher one.
    twins = lambda key: jax.vmap(lambda i: fold(key, i))(jnp.maximum(jnp.arange(SIDE_BY_SIDE), 1))
    box = env.specs.action
    reset, step = jax.vmap(env.reset), jax.vmap(env.step)
    over = None if env.specs.over is None else jax.vmap(env.specs.over)

    def act(key, t):
        action = jax.vmap(box.sample)(each_key(key, SIDE_BY_SIDE))
        if isinstance(box, Discrete):
            return action
        high, low = (jnp.broadcast_to(jnp.asarray(bound, box.dtype), box.shape) for bound in (box.high, box.low))
        return jnp.where(t == 0, action.at[:2].set(jnp.stack([high, 2 * high - low])), action)

    def once(carry, t):
        state, length = carry
        key_action, key_reset = jax.random.split(fold(key, t + 1))
        state, out = step(state, act(key_action, t))
        length = length + 1
        terminated = out.terminated.reshape(SIDE_BY_SIDE, -1).all(axis=-1)
        facts = {
            "length": length,
            "terminated": terminated,
            "truncated": out.truncated,
            "observation": _finite(out.obs),
            "reward": _finite(out.reward),
            "mistold": jnp.zeros_like(terminated) if over is None else over(out.obs) != terminated,
            "beyond": _differ((out.obs, out.reward)),
            "stream": _total(out.obs),
        }
        state = jax.lax.cond(out.end.any(), lambda: where(out.end, reset(twins(key_reset))[0], state), lambda: state)
        return (state, jnp.where(out.end, 0, length)), facts

    state, out = reset(twins(fold(key, 0)))
    _, facts = jax.lax.scan(once, (state, jnp.zeros(SIDE_BY_SIDE, jnp.int32)), jnp.arange(steps))
    alike = jnp.stack([(leaf == leaf[:1]).all() for leaf in jax.tree.leaves(out.obs)]).all()
    return {**facts, "start_finite": _finite(out.obs), "alike": alike}


def _finite(tree: Any) -> jax.Array:
    """bool [N]: all numbers of each are finite."""
    rows = [jnp.isfinite(leaf.reshape(leaf.shape[0], -1)).all(axis=-1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(rows).all(axis=0)


def _total(tree: Any) -> jax.Array:
    """float32 [N]: the sum of all numbers of each."""
    rows = [leaf.reshape(leaf.shape[0], -1).astype(jnp.float32).sum(axis=-1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(rows).sum(axis=0)


def _differ(tree: Any) -> jax.Array:
    """bool []: the first two of [N] are not the same."""
    return jnp.stack([(leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(tree)]).any()


def _named(tree: Any, root: str) -> list[tuple[str, Any]]:
    return [(root + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype} {list(leaf.shape)}"
