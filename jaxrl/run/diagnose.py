"""What made a part infinite or NaN, an environment or a rule, found by playing the run again from its last good state.

A run is a function of its state, so nothing has to be recorded while it goes well: the bad chunk is played once more
tick by tick, and the bad tick rule by rule.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Batch, Ctx, Parts, PyTree, Rule, batched, fold
from jaxrl.loop import LEARN, OBSERVE, RATIO, REFRESH, SAMPLE, Run, happen
from jaxrl.run.checkpoint import is_key, leaves
from jaxrl.run.programs import Many, finite, learned, of_run
from jaxrl.transitions import Place, locate


class Finding(NamedTuple):
    """found, a part or a rule's state, and writer, the rule or event that wrote it, in words; step, the clock after the
    bad tick; batch that the rule was given (empty for an event); bad, its first field that was not finite, or None."""

    found: str
    writer: str
    step: int
    batch: Batch
    bad: str | None


def first_bad(verdict: Mapping[str, Any]) -> tuple[str, int] | None:
    """(name, row of the seed) of the first that is not finite."""
    for name, good in verdict.items():
        rows = np.atleast_1d(np.asarray(good))
        if not rows.all():
            return name, int(np.argmin(rows))
    return None


def one_seed(run: Run, row: int, many: bool) -> Run:
    """The run of one seed out of many."""
    if not many:
        return run
    return jax.tree.map(lambda x: x[row], run._replace(step=()))._replace(step=run.step)


def diagnose(runs: Many, run: Run, ticks: int) -> Place | Finding | None:
    """What spoils a chunk of one seed that begins finite: the first place of what was collected that is not finite, or
    the rule or event that wrote such a part, whichever came first; None where all stays finite."""
    collect, learn, check = (jax.jit(fn) for fn in (runs.one.collect, runs.one.learn, lambda run: finite(of_run(run))))
    recipe = runs.recipe
    if recipe.starts is not None:
        envs = batched(runs.env, recipe.num_envs, recipe.starts)
        run = run._replace(envs=envs.refresh(run.envs, run.parts, fold(fold(run.key, run.step), REFRESH)))
    for _ in range(ticks):
        began = int(run.step)
        ready, transitions = collect(run)
        place = locate(transitions, ready.last, began, runs.one.frames // recipe.unroll)
        if place:
            return place
        run, _ = learn(ready, transitions)
        if first_bad(check(run)):
            return next(culprits(runs, ready, transitions), None)
        for i, event in enumerate(recipe.events):
            if int(run.step) % event.period == 0:
                run, _ = jax.jit(happen, static_argnums=(1, 2))(run, i, event)
                if bad := first_bad(check(run)):
                    return Finding(bad[0], f"event '{event.name}'", int(run.step), {}, None)
    return None


def culprits(runs: Many, run: Run, transitions: Batch) -> Iterator[Finding]:
    """One tick's learning, rule by rule, with the keys that the loop gives: each that leaves something not finite."""
    agent, source, frames = runs.recipe.agent, runs.recipe.source, runs.one.frames
    began, after = run.step - frames, int(run.step)
    stream = lambda which: fold(fold(run.key, began), which)

    ctx = Ctx(stream(OBSERVE), began, began // frames)
    parts, _, _, found = yield from apply(agent.observe, run.parts, run.observe, transitions, ctx, after)
    if found:
        return
    held = source.add(run.source, transitions, ctx)
    number = began // frames * runs.one.updates
    ratio = runs.recipe.ratio
    count = ratio(parts, Ctx(stream(RATIO), began, number)) if callable(ratio) else ratio
    states = run.rules
    for i in range(int(count)):
        batch = source.sample(held, parts, fold(stream(SAMPLE), i))
        ctx = Ctx(fold(stream(LEARN), i), began, number + i, None, i)
        parts, states, metrics, found = yield from apply(agent.rules, parts, states, batch, ctx, after)
        if found:
            return
        held = held if source.note is None else source.note(held, batch, metrics)


def apply(rules: Mapping[str, Rule], parts: Parts, states: PyTree, batch: Batch, ctx: Ctx, after: int):
    """The rules in order, as `chain` runs them: yields a Finding and stops at the first that spoils something.

    Args:
        after: the clock after the tick.
    """
    states, metrics = dict(states), {}
    for i, (name, rule) in enumerate(rules.items()):
        parts, states[name], found = jax.jit(rule.update)(
            parts, states[name], batch, ctx._replace(key=fold(ctx.key, i))
        )
        metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
        bad = first_bad(finite(learned(parts, {name: states[name]})))
        if bad:
            yield Finding(bad[0], f"rule '{name}'", after, batch, spoilt(batch))
            return parts, states, metrics, True
    return parts, states, metrics, False


def spoilt(batch: Batch) -> str | None:
    """The first field of a batch with a number in it that is not finite."""
    for name, leaf in leaves(batch).items():
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.isfinite(leaf).all()):
            return name
    return None


def dump(batch: Batch, path: Path) -> None:
    """The batch as an .npz file, a field a leaf; keys as their data, 16-bit floats widened."""
    plain = {}
    for name, leaf in leaves(batch).items():
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        plain[name] = array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
    np.savez(path, **plain)
