"""The pieces of a tick, each a compiled loop of its own, and the device's ceilings, measured in the same way.

A piece runs in a loop inside one program, as it does in a run: called from Python, one of a few microseconds would be
lost in the call. What it is given passes a barrier in each turn, so that XLA cannot move work out of the loop.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Batch, Ctx, Env, PyTree, Recipe, Rule, batched, chain, fold
from jaxrl.loop import LEARN, SAMPLE, Loop, Run, average, tally
from jaxrl.statistics.costs import Cost, cost

MOST = 1 << 28  # turns of a measurement
HORIZON = 10_000  # updates over which it is seen how often a rule acts
POWERCAP = Path("/sys/class/powercap")


class Piece(NamedTuple):
    """`fn(held, given, i) -> (held, out)`, run `calls` times a tick; `held` goes from turn to turn, `given` stays."""

    name: str
    calls: float
    fn: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]]
    held: PyTree = ()
    given: PyTree = ()


class Meter:
    """A piece compiled in a loop: `cost` of a turn, and `window`, which takes the time of many."""

    def __init__(self, fn: Callable, held: PyTree = (), given: PyTree = ()):
        def turns(n, held, given):
            shapes = jax.eval_shape(fn, held, given, n)[1]
            blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            once = lambda i, carry: fn(carry[0], *jax.lax.optimization_barrier((given, i)))
            return jax.lax.fori_loop(0, n, once, (held, blank))

        self.held, self.given = jax.tree.map(jnp.copy, held), given  # a copy: it is donated
        self.program = jax.jit(turns, donate_argnums=1).lower(jnp.int32(1), held, given).compile()
        text = self.program.as_text()
        # The loop's own length is open. One turn more is what a turn costs; the cheapest branch of a conditional
        # counts, so that no program can do with less: an environment's restarts are rare.
        self.cost: Cost = cost(text, 1, min) - cost(text, 0, min)
        self.n = 1

    def run(self, n: int) -> None:
        self.held, _ = jax.block_until_ready(self.program(jnp.int32(n), self.held, self.given))

    def window(self, seconds: float) -> float:
        """Seconds a turn, over about `seconds` of them."""
        clock = the_clock()[1]
        while True:
            began = clock()
            self.run(self.n)
            taken = clock() - began
            if taken > 0.5 * seconds or self.n == MOST:
                return taken / self.n
            self.n = min(1 + math.ceil(self.n * min(10, 0.8 * seconds / max(taken, 1e-9))), MOST)


def the_clock() -> tuple[str, Callable[[], float]]:
    """CPU seconds where the process has one core: those that others take of it then do not count."""
    if jax.default_backend() == "cpu" and cores() == 1:
        return "CPU seconds", time.process_time
    return "seconds", time.perf_counter


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------------- pieces


def whole(one: Loop, key: jax.Array) -> Piece:
    """The tick itself; a chunk is many of them."""

    def tick(run, given, i):
        return one.learn(*one.collect(run))

    return Piece("tick", 1, tick, jax.jit(one.init)(key))


def pieces(env: Env, recipe: Recipe, one: Loop, run: Run) -> Iterator[Piece]:
    """What a tick is made of, in its order, on the arrays of a run."""
    agent, source, unroll, note = recipe.agent, recipe.source, recipe.unroll, recipe.source.note
    envs = batched(env, recipe.num_envs, recipe.starts)
    transitions = jax.jit(one.collect)(run)[1]
    sampled = lambda held, parts, i: source.sample(held, parts, fold(fold(run.key, SAMPLE), i))
    batch = jax.jit(sampled)(run.source, run.parts, 0)
    ctx = Ctx(fold(run.key, LEARN), run.step)
    updates = recipe.ratio
    if callable(updates):  # as many as it asks for now
        updates = int(min(updates(run.parts, ctx), one.updates))

    act: Any = one.act
    yield Piece("act", unroll, lambda held, run, i: ((), act(run, i)), (), run._replace(source=()))

    def stepped(state, action, i):
        state, out, obs = envs.step(state, action)
        return state, (out, obs)

    yield Piece("environment", unroll, stepped, run.envs, jax.jit(act)(run, 0)[0])
    for name, rule in agent.observe.items():
        yield of_rule(f"observe {name}", 1, rule, run.parts, run.observe[name], transitions, ctx)
    yield Piece("add", 1, lambda held, given, i: (source.add(held, *given), ()), run.source, (transitions, ctx))
    yield Piece("sample", updates, lambda _, given, i: ((), sampled(*given, i)), (), (run.source, run.parts))
    for name, rule in agent.rules.items():
        yield of_rule(name, updates, rule, run.parts, run.rules[name], batch, ctx)
    metrics = jax.jit(chain(agent.rules).update)(run.parts, run.rules, batch, ctx)[2]
    if note:
        noted = lambda held, given, i: (note(held, *given), ())
        yield Piece("note", updates, noted, run.source, (batch, metrics))
    total = jax.tree.map(lambda m: jnp.zeros(2), average(metrics))
    yield Piece("metrics", updates, lambda total, given, i: (tally(total, given), ()), total, metrics)


def of_rule(name: str, calls: float, rule: Rule, parts, state, batch: Batch, ctx: Ctx) -> Piece:
    """A rule at an update at which it acts, from the same parts each time, so that nothing drifts."""
    acts = when(rule, parts, batch, ctx)
    at = np.int32(acts.argmax())  # a constant: the branch of `every` is then decided by XLA, and counted as it runs

    def fn(held, given, i):
        parts, state, batch, ctx = given
        parts, state, metrics = rule.update(parts, state, batch, ctx._replace(update=at))
        return (), ({name: parts[name] for name in rule.writes}, state, metrics)

    return Piece(name, calls * float(acts.mean()), fn, (), (parts, state, batch, ctx._replace(update=np.int32(0))))


def when(rule: Rule, parts, batch: Batch, ctx: Ctx) -> np.ndarray:
    """bool [updates]: at which a rule acts, which `every` decides by their number alone."""
    if rule.around is None:
        return np.ones(1, bool)
    probe = marked(rule)
    ran = lambda i: probe.update(parts, (), batch, ctx._replace(update=i))[2]["ran"]
    return np.isfinite(jax.jit(lambda numbers: jax.lax.map(ran, numbers))(jnp.arange(HORIZON)))


def marked(rule: Rule) -> Rule:
    """What is around a rule, around one that only says that it ran: its metric is NaN where `every` skips it."""
    if rule.around is not None:
        wrap, inner = rule.around
        return wrap(marked(inner))
    return Rule(lambda parts: (), lambda parts, state, batch, ctx: (parts, state, {"ran": jnp.float32(1)}))


# -------------------------------------------------------------------------------------------------------- ceilings


def ceilings(small: bool = False) -> dict[str, tuple[Meter, float]]:
    """Meters with the work of a turn: operations of a product of float32 matrices, bytes of a triad by its size."""
    cpu, found = jax.default_backend() == "cpu", {}
    for side in (64,) if small else (512, 2048) if cpu else (2048, 8192):
        a = jnp.ones((side, side)) / side
        found[f"product of {side}"] = Meter(lambda held, a, i: (held, a @ a), (), a), 2.0 * side**3
    for words in (2**16,) if small else (2**16, 2**21, 2**27 if cpu else 2**29):  # in caches, and beyond them
        b = jnp.ones(words // 3)
        triad = Meter(lambda held, given, i: (held, given[0] + 0.5 * given[1]), (), (b, b + 1))
        found[f"triad over {words * 4 / 1e6:.3g} MB"] = triad, 12.0 * (words // 3)
    return found


def call_seconds(calls: int = 1_000) -> float:
    """Of a call from Python that does nothing worth the name."""
    one, x = jax.jit(lambda x: x + 1), jnp.float32(0)
    jax.block_until_ready(one(x))
    clock = the_clock()[1]
    began = clock()
    for _ in range(calls):
        x = jax.block_until_ready(one(x))
    return (clock() - began) / calls


# ---------------------------------------------------------------------------------------------------------- energy


class Counter(NamedTuple):
    """A counter of energy: `read()` gives a count for each device, which begins anew at `ends`; `unit` in joules."""

    name: str
    read: Callable[[], list[int]]
    ends: list[int]
    unit: float

    def spent(self, before: list[int], after: list[int]) -> float:
        return self.unit * sum((b - a) % end for a, b, end in zip(before, after, self.ends))


def energy_counter(folder: Path = POWERCAP) -> Counter | str:
    """The counter of what computes here, or the sentence that says why there is none."""
    if jax.default_backend() == "cpu":
        # Whole packages only: the zones within them, intel-rapl:0:1, are part of the same figure.
        zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        zones = [zone for zone in zones if os.access(zone / "energy_uj", os.R_OK)]
        if not zones:
            return f"no readable energy_uj in {folder}"
        number = lambda zone, field: int((zone / field).read_text())
        ends = [number(zone, "max_energy_range_uj") + 1 for zone in zones]
        return Counter("RAPL, whole packages", lambda: [number(zone, "energy_uj") for zone in zones], ends, 1e-6)
    if jax.default_backend() != "gpu":
        return f"no counter is known for {jax.default_backend()}"
    try:
        import pynvml  # pyright: ignore[reportMissingImports]

        pynvml.nvmlInit()
        if (count := pynvml.nvmlDeviceGetCount()) != 1:
            return f"NVML sees {count} devices and cannot tell which one computes here"
        device: Any = pynvml.nvmlDeviceGetHandleByIndex(0)
        read = lambda: [pynvml.nvmlDeviceGetTotalEnergyConsumption(device)]
        read()
    except ImportError:
        return "pynvml is not installed (pip install nvidia-ml-py)"
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    return Counter("NVML, whole device", read, [1 << 63], 1e-3)
