"""The compiled programs of a run: each is lowered and compiled once, before the first chunk, and its time is known."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Env, Parts, PyTree, Recipe, Wide, fold
from jaxrl.host import Host, Hosted, Player, host_loop
from jaxrl.loop import Loop, Run, evaluate, layout, loop, over_seeds
from jaxrl.run.progress import say

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


def learned(parts: Parts, states: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Parts, and the states of rules, by what they are called in a sentence.

    An optimiser's moments may overflow where no parameter does: what they belong to would never move again.
    """
    named = {f"part '{name}'": part for name, part in parts.items()}
    return named | {f"the state of rule '{name}'": state for name, state in states.items()}


def of_run(run: Run) -> dict[str, PyTree]:
    """All that the rules of a run have `learned`."""
    return learned(run.parts, {**run.observe, **run.rules})


def finite(found: dict[str, PyTree]) -> dict[str, jax.Array]:
    """bool [] for each name: every number there is finite."""
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return {
        name: jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(part) if inexact(x)] or [True]))
        for name, part in found.items()
    }


@dataclass(frozen=True)
class Programs:
    """`chunk(run)` donates its run; `evaluate` is None where an episode never ends.

    `fault()` is the sentence about a simulator on the host that is at fault, None while there is none; `close()` closes
    all simulators.
    """

    init: Callable[[jax.Array], Run]
    chunk: Callable[[Run], tuple[Run, PyTree]]
    finite: Callable[[dict[str, PyTree]], dict[str, jax.Array]]
    evaluate: Callable[[Parts, jax.Array, Wide], PyTree] | None
    compile_seconds: float
    fault: Callable[[], str | None] = lambda: None
    close: Callable[[], None] = lambda: None


def compiled(runs: Many, ticks: int, episodes: int, fresh: bool) -> Programs:
    """Everything that a run will call, compiled ahead; `init` only where the run is fresh."""
    began = time.perf_counter()
    shapes, keys, endless = runs.shapes(), runs.keys(), runs.env.specs.limit is None

    def ahead(fn: Callable, *args: PyTree, **how: Any) -> Callable:
        return jax.jit(fn, **how).lower(*args).compile()

    host: dict[str, Any] = {}
    if isinstance(runs.env, Host):
        chunk, score, host = hosted(runs, ticks, episodes)
    else:
        chunk = ahead(lambda run: runs.loop.chunk(run, ticks), shapes, donate_argnums=0)
        score = ahead(scorer(runs, episodes), shapes.parts, keys, shapes.step) if not endless else None
    return Programs(
        init=ahead(runs.loop.init, keys) if fresh else jax.jit(runs.loop.init),
        chunk=chunk,
        finite=ahead(lambda found: runs.each(finite, found), of_run(shapes)),
        evaluate=None if endless else score,
        compile_seconds=time.perf_counter() - began,
        **host,
    )


def hosted(runs: Many, ticks: int, episodes: int) -> tuple[Callable, Callable, dict[str, Callable]]:
    """(chunk, evaluate, the rest of `Programs`) over simulators on the host."""
    simulators, frames = Hosted(runs.env, runs.recipe, runs.one, runs.seeds[0], say), runs.one.frames
    # A run that a simulator at fault cut short within a chunk goes on to the end of that chunk.
    left = lambda run: ticks - int(run.step) // frames % ticks
    player = Player(runs.env, runs.recipe.agent, episodes, runs.recipe.num_envs, say)

    def close():
        simulators.close()
        player.close()

    rest = {"fault": lambda: simulators.fault, "close": close}
    return lambda run: simulators.chunk(run, left(run)), played(runs, player), rest


def played(runs: Many, player: Player) -> Callable[[Parts, jax.Array, Wide], PyTree]:
    """As `scorer`, on the host."""
    number = lambda step: (EVALUATE, runs.seeds[0], int(step))
    return lambda parts, key, step: player(parts, fold(fold(key, EVALUATE), step), number(step))


def scorer(runs: Many, episodes: int) -> Callable[[Parts, jax.Array, Wide], PyTree]:
    """`(parts, keys, step) -> evaluate's metrics` for all seeds, pure; the clock alone decides its randomness."""

    def score(parts: Parts, keys: jax.Array, step: Wide) -> PyTree:
        agent = runs.recipe.agent
        play = lambda parts, key: evaluate(runs.env, agent, parts, fold(fold(key, EVALUATE), step), episodes)
        return runs.each(play, parts, keys)

    return score
