"""Environments that are simulators on the host, stepped by Python outside the compiled loop.

The recipe is the same: one jitted `act` for all environments, one jitted, donated `learn`; what is lost is the scan,
and with it most of the speed. Between them the host steps simulators one after another.

A simulator's state cannot be saved. Checkpoints therefore lie between `collect` and `learn`: a run holds the newest
tick's transitions before anything has learned from them (in `envs`), so that a continued run can truthfully mark the
episodes that were lost with the simulators as truncated there, and begin new ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import (
    Agent,
    BadInput,
    Batch,
    Ctx,
    Env,
    Key,
    Metrics,
    Parts,
    PyTree,
    Recipe,
    Specs,
    TimeStep,
    first,
    fold,
)
from jaxrl.loop import Loop, Run, happen, loop, over_chunk
from jaxrl.shapes import fitting
from jaxrl.simulators import Simulator, Step, Watched
from jaxrl.transitions import NotFinite, locate

SLOWLY = "outside the scan and therefore slower; continued, it begins new episodes"


@dataclass(frozen=True)
class Host:
    """An environment on the host: how to make a simulator of it, and what that takes and gives (as of an Env)."""

    simulator: Callable[[], Simulator]
    specs: Specs
    name: str = "host environment"


def host_loop(host: Host, recipe: Recipe) -> Loop:
    """The loop of a host environment. Its `init`, `act` and `learn` are pure; `Hosted` collects.

    Raises:
        BadInput: a setting of the recipe that cannot run.
    """
    if callable(recipe.starts):
        raise BadInput(f"{host.name} runs on the host and starts where its simulator does: leave `starts` away.")
    one = loop(stand_in(host), recipe)

    def init(key: Key) -> Run:
        run = one.init(key)
        newest = jax.eval_shape(one.collect, run)[1]
        return run._replace(envs=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), newest))

    return one._replace(init=init)


def stand_in(host: Host) -> Env:
    """An Env with the shapes of a host environment and nothing behind them, from which a loop is built."""

    def obs():
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), host.specs.observation)

    def step(state, action):
        return state, TimeStep(obs(), jnp.float32(0), jnp.bool_(False), jnp.bool_(False))

    return Env(lambda key: ((), first(obs())), step, host.specs, host.name)


class Hosted:
    """The simulators of one run, and a chunk over them. It holds what a checkpoint cannot: the rest is in the Run.

    Making one makes the simulators and compiles `act` and `learn`.

    Args:
        seed: of all randomness of the simulators; each episode is reset with a number made of it, the environment's
            index, the clock at which this process took the run up, and a count.
        say: told what simulators raise.
    """

    def __init__(self, host: Host, recipe: Recipe, one: Loop, seed: int, say: Callable[[str], None] = print):
        self.one, self.recipe, self.seed = one, recipe, seed
        named = lambda i: f"environment {i} of {recipe.num_envs} ({host.name})"
        self.simulators = [Watched(host.simulator, host.specs, named(i), say) for i in range(recipe.num_envs)]
        self.episodes = np.zeros(recipe.num_envs, int)
        self.returns, self.lengths = np.zeros(recipe.num_envs, np.float32), np.zeros(recipe.num_envs, np.int32)
        self.began: int | None = None
        self.memory = jax.device_get(_each(recipe.agent.memory(), recipe.num_envs))
        shapes = jax.eval_shape(one.init, jax.random.key(0))
        self.act = jax.jit(one.act).lower(_acting(shapes), jax.ShapeDtypeStruct((), jnp.int32)).compile()
        # The clock of what is learned from: `learn` looks back from the end of its tick.
        learned = lambda run, newest: one.learn(run._replace(step=run.step + one.frames), newest)
        learn = jax.jit(learned, donate_argnums=0)
        self.learn = learn.lower(shapes._replace(envs=()), shapes.envs).compile()
        self.happen = jax.jit(happen, static_argnums=(1, 2), donate_argnums=0)

    @property
    def fault(self) -> str | None:
        """The sentence about the first simulator that is at fault; None where none is."""
        return next((simulator.fault for simulator in self.simulators if simulator.fault), None)

    def close(self) -> None:
        """Close all simulators."""
        for simulator in self.simulators:
            simulator.close()

    def chunk(self, run: Run, ticks: int) -> tuple[Run, Metrics]:
        """As `Loop.chunk`: learn from the newest transitions and collect the next, `ticks` times. Takes the run.

        It ends with the tick in which a simulator is at `fault`, so that the run can be saved.
        """
        run, newest, lost = self.take_up(run)
        table: list[Metrics] = []
        for _ in range(ticks):
            end, episode = newest["end"] & ~lost, newest["info"]["episode"]
            ended = {f"episode/{name}": np.array([x[end].sum(), end.sum()]) for name, x in episode.items()}
            lost = np.zeros_like(end)
            run, metrics = self.learn(run._replace(envs=()), newest)
            for i, event in enumerate(self.recipe.events):
                run, found = self.happen(run, i, event)
                metrics = {**metrics, **found}
            run, newest = self.collect(run)
            table.append({**metrics, **ended})
            if self.fault:
                break
        table = jax.device_get(table)
        columns = {name: jnp.asarray(np.stack([row[name] for row in table])) for name in table[0]}
        metrics = {name: over_chunk(column) for name, column in columns.items()}
        return run._replace(envs=jax.device_put(newest)), metrics

    def take_up(self, run: Run) -> tuple[Run, Batch, np.ndarray]:
        """(the run, its newest transitions, bool [T, N] where episodes were cut off): new episodes, if none are on."""
        newest = jax.device_get(run.envs)
        lost = np.zeros_like(newest["end"])
        if self.began is not None:
            return run, newest, lost
        self.began = int(run.step)
        obs = _stacked([self.begin(i) for i in range(len(self.simulators))])
        run = run._replace(last=jax.device_put(obs))
        if self.began == 0:
            return *self.collect(run), lost
        lost[-1] = ~newest["end"][-1]
        return run._replace(memory=jax.device_put(self.memory)), {**newest, "end": newest["end"] | lost}, lost

    def begin(self, i: int) -> PyTree:
        """A new episode of one simulator."""
        self.returns[i], self.lengths[i] = 0, 0
        self.episodes[i] += 1
        return self.simulators[i].reset(_number(self.seed, i, self.began, self.episodes[i]))

    def collect(self, run: Run) -> tuple[Run, Batch]:
        """One tick of the simulators: (run, transitions [T, N, ...] in numpy). The clock stays: `learn` moves it.

        Raises:
            NotFinite: a number that learning would look at is not finite.
        """
        rows = []
        obs, memory = jax.device_get((run.last, run.memory))
        for t in range(self.recipe.unroll):
            now = _acting(run._replace(last=obs, memory=memory))
            action, after, extras = jax.device_get(self.act(now, np.int32(t)))
            out, following, episode = self.step(action)
            end = out.terminated | out.truncated
            rows.append(
                {
                    "obs": obs,
                    "action": action,
                    "reward": out.reward,
                    "discount": 1 - out.terminated.astype(np.float32),
                    "end": end,
                    "next_obs": out.obs,
                    "memory": memory,
                    "extras": extras,
                    "info": {"episode": episode},
                }
            )
            obs, memory = following, jax.tree.map(lambda new, old, end=end: _pick(end, new, old), self.memory, after)
        newest = _stacked(rows)
        place = locate(newest, obs, int(run.step), self.one.frames // self.recipe.unroll)
        if place:
            raise NotFinite(place, run)
        return run._replace(last=jax.device_put(obs), memory=jax.device_put(memory)), newest

    def step(self, actions: np.ndarray) -> tuple[Step, PyTree, dict[str, np.ndarray]]:
        """(each simulator's Step [N], what to act on next [N], return and length up to now [N])."""
        out = [simulator.step(action) for simulator, action in zip(self.simulators, actions)]
        steps = Step(
            _stacked([o.obs for o in out]),
            np.array([o.reward for o in out], np.float32),
            np.array([o.terminated for o in out], bool),
            np.array([o.truncated and not o.terminated for o in out], bool),
        )
        self.returns, self.lengths = self.returns + steps.reward, self.lengths + np.int32(1)
        episode = {"return": self.returns.copy(), "length": self.lengths.copy()}
        over = steps.terminated | steps.truncated
        return steps, _stacked([self.begin(i) if over[i] else o.obs for i, o in enumerate(out)]), episode


class Player:
    """`(parts, key, number) -> {return, length}` [episodes] without exploration, as `jaxrl.loop.evaluate` does.

    `number` seeds the starts. Simulators are made at the first call and kept until `close`: as many as the agent trains
    on, with which episodes are played in rounds. An episode in which one is at fault has no return: NaN.
    """

    def __init__(self, host: Host, agent: Agent, episodes: int, side_by_side: int, say: Callable[[str], None] = print):
        self.host, self.agent, self.episodes, self.say = host, agent, episodes, say
        self.many = min(episodes, side_by_side)
        self.simulators: list[Watched] = []

        @jax.jit
        def act(parts, memory, obs, key, t, first):
            ctx = lambda i: Ctx(fold(fold(key, t), i), jnp.int32(0))
            policy = lambda i, o, m: agent.act(parts, m, o, ctx(i), False)[:2]
            action, memory = jax.vmap(policy)(first + jnp.arange(self.many), obs, memory)
            fitting(host.specs, host.name, action)
            return action, memory

        self.act = act

    def __call__(self, parts: Parts, key: Key, number: Any) -> dict[str, np.ndarray]:
        named = lambda i: f"environment {i} of the evaluation ({self.host.name})"
        new = range(len(self.simulators), self.many)
        self.simulators += [Watched(self.host.simulator, self.host.specs, named(i), self.say) for i in new]
        rounds = [self.round(parts, key, number, first) for first in range(0, self.episodes, self.many)]
        return {name: np.concatenate([played[name] for played in rounds])[: self.episodes] for name in rounds[0]}

    def round(self, parts: Parts, key: Key, number: Any, first: int) -> dict[str, np.ndarray]:
        """The episodes numbered from `first`, one a simulator."""
        n = self.many
        obs = [s.reset(_number(*np.ravel(number), first + i)) for i, s in enumerate(self.simulators)]
        memory = _each(self.agent.memory(), n)
        total, length, alive = np.zeros(n, np.float32), np.zeros(n, np.int32), first + np.arange(n) < self.episodes
        for t in range(self.host.specs.limit or 0):
            action, memory = self.act(parts, memory, _stacked(obs), key, np.int32(t), np.int32(first))
            for i in np.flatnonzero(alive):
                out = self.simulators[i].step(jax.device_get(action)[i])
                obs[i], alive[i] = out.obs, not (out.terminated or out.truncated)
                total[i], length[i] = total[i] + out.reward, length[i] + 1
            if not alive.any():
                break
        for i, simulator in enumerate(self.simulators):
            if simulator.fault:
                self.say(f"{simulator.fault} This episode has no return.")
                total[i] = np.nan
        return {"return": total, "length": length}

    def close(self) -> None:
        """Close all simulators, and make new ones at the next call."""
        for simulator in self.simulators:
            simulator.close()
        self.simulators = []


def _acting(run: Run) -> Run:
    """What acting needs of a run: nothing else has to enter its program."""
    return run._replace(rules=(), observe=(), source=(), envs=())


def _number(*parts: Any) -> int:
    """A seed from some numbers, the same on every machine: 0 .. 2^31 - 1."""
    return int(np.random.SeedSequence([int(p) for p in parts]).generate_state(1)[0]) >> 1


def _stacked(items: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *items)


def _each(tree: PyTree, size: int) -> PyTree:
    """Each leaf repeated over a leading axis."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *jnp.shape(x))), tree)


def _pick(which: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a where `which` [N], else b, both [N, ...]."""
    return np.where(which.reshape(which.shape + (1,) * (a.ndim - 1)), a, b)
