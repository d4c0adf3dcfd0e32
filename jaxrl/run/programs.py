"""The compiled programs of a run: each is lowered and compiled once, before the first chunk, and its time is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Env, Parts, PyTree, Recipe, fold
from jaxrl.host import Host, Hosted, host_loop, play
from jaxrl.loop import Loop, Run, evaluate, layout, loop, over_seeds

EVALUATE = 0xE7A1  # folded into a seed's key: evaluation shares no randomness with training


@dataclass(frozen=True)
class Many:
    """The loop over one or more seeds; with more than one, every field of its run but the clock leads with [seeds]."""

    env: Env | Host
    recipe: Recipe
    one: Loop
    loop: Loop
    seeds: tuple[int, ...]

    @property
    def on_host(self) -> bool:
        return isinstance(self.env, Host)

    @property
    def batched(self) -> bool:
        return len(self.seeds) > 1

    def keys(self) -> jax.Array:
        """The key of the one seed, or [seeds] of them."""
        return (
            jnp.stack([jax.random.key(seed) for seed in self.seeds]) if self.batched else jax.random.key(self.seeds[0])
        )

    def each(self, fn: Callable, *args: PyTree) -> PyTree:
        """`fn` of one seed over all seeds: one after another where cores are few, side by side on accelerators."""
        if not self.batched:
            return fn(*args)
        return jax.lax.map(lambda x: fn(*x), args) if layout() == "map" else jax.vmap(fn)(*args)

    def shapes(self) -> Run:
        return jax.eval_shape(self.loop.init, self.keys())


def many(env: Env | Host, recipe: Recipe, seed: int, seeds: int) -> Many:
    if isinstance(env, Host) and seeds > 1:
        raise BadInput(f"seeds is {seeds}, but {env.name} runs on the host, one seed a process: start several runs.")
    one = host_loop(env, recipe) if isinstance(env, Host) else loop(env, recipe)
    return Many(env, recipe, one, one if seeds == 1 else over_seeds(one), tuple(range(seed, seed + seeds)))


def finite(parts: Parts) -> dict[str, jax.Array]:
    """bool [] for each part: every number in it is finite."""
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return {
        name: jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(part) if inexact(x)] or [True]))
        for name, part in parts.items()
    }


@dataclass(frozen=True)
class Programs:
    """`chunk(run)` donates its run; `evaluate` is None where an episode never ends."""

    init: Callable[[jax.Array], Run]
    chunk: Callable[[Run], tuple[Run, PyTree]]
    finite: Callable[[Parts], dict[str, jax.Array]]
    evaluate: Callable[[Parts, jax.Array], PyTree] | None
    compile_seconds: float


def compiled(runs: Many, ticks: int, episodes: int, fresh: bool) -> Programs:
    """Everything that a run will call, compiled ahead; `init` only where the run is fresh."""
    began = time.perf_counter()
    shapes, keys, endless = runs.shapes(), runs.keys(), runs.env.specs.limit is None

    def ahead(fn: Callable, *args: PyTree, **how: Any) -> Callable:
        return jax.jit(fn, **how).lower(*args).compile()

    if isinstance(runs.env, Host):
        chunk = hosted(runs, ticks)
        score = None if endless else scorer(runs, episodes)
    else:
        chunk = ahead(lambda run: runs.loop.chunk(run, ticks), shapes, donate_argnums=0)
        score = None if endless else ahead(scorer(runs, episodes), shapes.parts, keys, shapes.step)
    return Programs(
        init=ahead(runs.loop.init, keys) if fresh else jax.jit(runs.loop.init),
        chunk=chunk,
        finite=ahead(lambda parts: runs.each(finite, parts), shapes.parts),
        evaluate=score,
        compile_seconds=time.perf_counter() - began,
    )


def hosted(runs: Many, ticks: int) -> Callable[[Run], tuple[Run, PyTree]]:
    """A chunk over simulators on the host."""
    simulators = Hosted(runs.env, runs.recipe, runs.one, runs.seeds[0])
    return lambda run: simulators.chunk(run, ticks)


def scorer(runs: Many, episodes: int) -> Callable[[Parts, jax.Array, jax.Array], PyTree]:
    """`(parts, keys, step) -> evaluate's metrics` for all seeds; the clock alone decides its randomness.

    Pure, unless the environment is on the host.
    """
    if isinstance(runs.env, Host):
        played = play(runs.env, runs.recipe.agent, episodes)
        number = lambda step: (EVALUATE, runs.seeds[0], jax.device_get(step))
        return lambda parts, key, step: played(parts, fold(fold(key, EVALUATE), step), number(step))

    def score(parts: Parts, keys: jax.Array, step: jax.Array) -> PyTree:
        agent = runs.recipe.agent
        play = lambda parts, key: evaluate(runs.env, agent, parts, fold(fold(key, EVALUATE), step), episodes)
        return runs.each(play, parts, keys)

    return score
