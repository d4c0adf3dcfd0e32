"""A trained policy out of a run directory. It only reads: a run that is still training can be looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.core import Agent, BadInput, Ctx, Env, Key, Parts, PyTree, Recipe, Wide
from jaxrl.host import Host, Player
from jaxrl.run import checkpoint, manifest
from jaxrl.run.directory import Home
from jaxrl.run.programs import Many, many, played, scorer
from jaxrl.run.progress import say


@dataclass(frozen=True)
class Saved:
    """The newest intact checkpoint of a run: its seeds' loops, their parts ([seeds] first where there are several),
    the clock, what was asked for, and the seeds that diverged, with the step at which their parts were left."""

    runs: Many
    parts: Parts
    step: int
    config: dict[str, Any]
    diverged: dict[int, int] = field(default_factory=dict)

    def rows(self) -> list[int]:
        """The rows of the seeds that did not diverge."""
        return [row for row, seed in enumerate(self.runs.seeds) if seed not in self.diverged]


def saved(path: str | Path, build: Callable[[dict], tuple[Env | Host, Recipe]]) -> Saved:
    """Read a run's parts.

    Args:
        build: environment and recipe from what the run was made with, the `about` of `execute`.

    Raises:
        BadInput: there is no checkpoint, none is intact, or the parts are not those of this recipe.
    """
    home = Home(Path(path))
    found = checkpoint.newest(home.checkpoints, say, rooms=("parts",))
    if found is None:
        raise BadInput(f"run {home.path} holds no checkpoint: train it first, or check the path.")
    manifest.check(*found)
    config = found[1]["config"]
    runs = many(*build(config["about"]), config["seed"], config["seeds"])
    diverged = {lost["seed"]: lost["step"] for lost in found[1].get("diverged", [])}
    return Saved(runs, checkpoint.load_parts(*found, runs.shapes().parts), found[1]["step"], config, diverged)


def returns(run: Saved, episodes: int) -> np.ndarray:
    """Returns [seeds, episodes] of the policy without exploration, on the starts that training was evaluated on; of the
    seeds that did not diverge.

    Raises:
        BadInput: fewer than 1 episode; an environment that never ends.
    """
    if episodes < 1:
        raise BadInput(f"episodes is {episodes}; at least 1 is needed.")
    if isinstance(run.runs.env, Host):
        player = Player(run.runs.env, run.runs.recipe.agent, episodes, run.runs.recipe.num_envs, say)
        closing, play = player.close, played(run.runs, player)
    else:
        closing, play = lambda: None, jax.jit(scorer(run.runs, episodes))
    try:
        found = play(run.parts, run.runs.keys(), Wide.of(run.step))["return"]
    finally:
        closing()
    return np.atleast_2d(np.asarray(found, np.float64))[run.rows()]


@dataclass(frozen=True)
class Policy:
    """`policy(obs) -> action` for one environment; an agent with memory also gives and takes that.

    Attributes:
        env: what it was trained on; actions are this environment's.
    """

    env: Env | Host
    agent: Agent
    parts: Parts
    clock: int = 0  # frames it was trained for, on which exploration may depend

    def __post_init__(self):
        object.__setattr__(self, "_act", jax.jit(self.agent.act, static_argnums=4))

    def memory(self) -> PyTree:
        """What an episode begins with."""
        return self.agent.memory()

    def step(self, obs: PyTree, memory: PyTree, key: Key | None = None) -> tuple[jax.Array, PyTree]:
        """(action, memory); with a key it explores, as much as at the end of its training."""
        ctx = Ctx(jax.random.key(0) if key is None else key, Wide.of(self.clock))
        action, memory, _ = self._act(self.parts, memory, obs, ctx, key is not None)
        return action, memory

    def __call__(self, obs: PyTree) -> jax.Array:
        """The action without exploration of an agent that needs no memory.

        Raises:
            BadInput: the agent has a memory.
        """
        if jax.tree.leaves(self.memory()):
            raise BadInput("this agent has a memory: call policy.step(obs, memory), beginning with policy.memory().")
        return self.step(obs, self.memory())[0]


def load(path: str | Path, build: Callable[[dict], tuple[Env | Host, Recipe]], seed: int | None = None) -> Policy:
    """The policy of one of a run's seeds, unless said otherwise the first that did not diverge; see `saved`.

    Raises:
        BadInput: the run has no such seed; see `saved`.
    """
    run = saved(path, build)
    seeds = run.runs.seeds
    if seed is not None and seed not in seeds:
        raise BadInput(f"seed is {seed}, and run {path} has {seeds[0]} to {seeds[-1]}.")
    row = run.rows()[0] if seed is None else seeds.index(seed)
    if seed in run.diverged:
        say(f"Seed {seed} of {path} diverged: this is its policy of step {run.diverged[seed]:,}.")
    parts = jax.tree.map(lambda x: x[row], run.parts) if run.runs.batched else run.parts
    return Policy(run.runs.env, run.runs.recipe.agent, parts, run.step)
