"""The usual arm of a claim: a recipe trained by `jaxrl.loop`, all seeds in one compiled program."""

import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from envs.core import scale_action
from experiments.evidence import FirstBelow, GreedyReturn, Outcome, Scale, TrainingReturn, bad_input
from jaxrl.core import Box, Env, Parts, Recipe, stateless
from jaxrl.loop import evaluate, loop, over_seeds
from jaxrl.run.programs import EVALUATE
from jaxrl.statistics import iqm


def train(
    env: Env,
    recipe: Recipe,
    score: TrainingReturn | FirstBelow | GreedyReturn,
    scale: Scale,
    seeds: tuple[int, ...],
    layout: str | None = None,
    seconds: float | None = None,
) -> Outcome:
    """Train each seed for `scale.steps` frames (rounded down to whole points of the curve) and score it.

    With `seconds` of wall time, compilation apart, training ends at the first point after them.
    """
    layout = layout or ("map" if jax.default_backend() == "cpu" else "vmap")
    many = over_seeds(loop(env, counting(recipe)), layout)
    ticks, points = _chunks(scale, many.frames)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    init, seconds_init = compiled(many.init, keys)
    run = init(keys)
    chunk, seconds_chunk = compiled(lambda run: many.chunk(run, ticks), run, donate=True)
    returns, counts = [], []
    began = time.perf_counter()
    while len(returns) < points and (seconds is None or time.perf_counter() - began < seconds):
        run, metrics = chunk(run)
        shown = score.metric if isinstance(score, FirstBelow) else "episode/return"
        returns.append(np.asarray(metrics[shown], np.float64))
        counts.append(np.asarray(metrics["ended/episodes"], np.float64) * ticks)
    returns, counts = np.stack(returns, 1), np.stack(counts, 1)  # [seeds, points]
    steps = many.frames * ticks * np.arange(1, returns.shape[1] + 1)
    if isinstance(score, TrainingReturn):
        scores, seconds_score = late_mean(returns, counts, score.after, seeds), 0.0
    elif isinstance(score, FirstBelow):
        scores, seconds_score = -first_below(returns, score.level) * many.frames * ticks, 0.0
    else:
        scores, seconds_score = greedy(env, recipe, run.parts, keys, score.episodes, layout)
    outcome = Outcome(scores, steps, returns, seconds_init + seconds_chunk + seconds_score)
    return outcome._replace(axes=("frames", score.metric)) if isinstance(score, FirstBelow) else outcome


def bounded(env: Env) -> Env:
    """The environment with continuous actions in [-1, 1], where the agents act."""
    return scale_action(env) if isinstance(env.specs.action, Box) else env


def counting(recipe: Recipe) -> Recipe:
    """The recipe with one more metric, how many episodes ended a tick, so that windows can be averaged by episode."""
    count = stateless(lambda parts, batch, ctx: ({}, {"episodes": batch["end"].sum()}), writes=())
    return replace(recipe, agent=replace(recipe.agent, observe={**recipe.agent.observe, "ended": count}))


def late_mean(returns: NDArray, counts: NDArray, after: float, seeds: tuple[int, ...]) -> NDArray:
    """Mean over the episodes of the points that begin after a share of the run: [seeds] from [seeds, points] twice.

    Raises:
        BadInput: a seed ended no episode there, by name.
    """
    late = slice(int(np.ceil(after * returns.shape[1])), None)
    total, count = np.nansum(returns[:, late] * counts[:, late], axis=1), counts[:, late].sum(axis=1)
    if (count == 0).any():
        seed = seeds[int(np.argmin(count))]
        raise bad_input(f"seed {seed} ended no episode in the part scored: lengthen the scale's steps.")
    return total / count


def first_below(curve: NDArray, level: float) -> NDArray:
    """The number of the first point below the level, counted from 1; one more than there are where none is: [seeds]."""
    below = np.concatenate([curve < level, np.ones((len(curve), 1), bool)], axis=1)
    return below.argmax(axis=1) + 1.0


def greedy(env: Env, recipe: Recipe, parts: Parts, keys: jax.Array, episodes: int, layout: str):
    """The IQM [seeds] over greedy episodes on the task's own starts, and the seconds of compiling."""

    def play(parts, key):
        return evaluate(env, recipe.agent, parts, jax.random.fold_in(key, EVALUATE), episodes)["return"]

    each = jax.vmap(play) if layout == "vmap" else lambda parts, keys: jax.lax.map(lambda x: play(*x), (parts, keys))
    run, seconds = compiled(each, parts, keys)
    return iqm(np.asarray(run(parts, keys)), axis=1), seconds


def compiled(fn: Callable, *args, donate: bool = False) -> tuple[Callable, float]:
    """The function compiled ahead for these arguments, and the seconds that took."""
    began = time.perf_counter()
    ready = jax.jit(fn, donate_argnums=(0,) if donate else ()).lower(*args).compile()
    return ready, time.perf_counter() - began


def _chunks(scale: Scale, frames: int) -> tuple[int, int]:
    """Ticks a point and the number of points, so that the run is as long as the scale allows and no longer."""
    ticks = scale.steps // frames
    if ticks < 2:
        raise bad_input(f"a scale of {scale.steps} steps is shorter than two ticks of {frames} frames: lengthen it.")
    points = min(scale.points, ticks)
    return ticks // points, points
