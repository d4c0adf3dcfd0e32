"""Where the time of a tick goes, and how far each piece of it is from what the device can do.

    python -m experiments.profile AGENT ENV [--repeat 8] [--agent.batch 512]

Operations and bytes of each piece are counted from its compiled program (`jaxrl.statistics.costs`), its time and the
device's ceilings are measured in the same run. Prints a table; writes AGENT-ENV.json and .png to runs/profile. Names
and flags are those of experiments.train. Exit code 2: bad input, said in one sentence.
"""

import dataclasses
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import agent_module, answer, check_env, compile_cache, environment, flags
from jaxrl.agents import addends
from jaxrl.errors import BadInput

PROGRAM = "experiments.profile"
COUNTED = ("flops", "transcendentals", "bytes", "ops")


@dataclasses.dataclass(frozen=True)
class Options:
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help="the agent, as of train", metavar="AGENT")]
    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help="the environment, as of train", metavar="ENV")]
    repeat: Annotated[int | None, tyro.conf.arg(help="frames for which an action is held; default its usual")] = None
    pixels: Annotated[int | None, tyro.conf.arg(help="side of the pictures to learn from, not the state")] = None
    seconds: Annotated[float, tyro.conf.arg(help="of each measurement of a piece")] = 0.2
    turns: Annotated[int, tyro.conf.arg(help="measurements of each, all pieces in turn; their median counts")] = 7
    out: Annotated[Path, tyro.conf.arg(help="folder of the record and the picture")] = Path("runs/profile")


def parse(args: Sequence[str]) -> tuple[Any, Any]:
    """(options, the agent's module). Agent and environment come first, so that the agent's own flags are known."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), args))
    if len(names) == 2:
        addends(names[0])
        check_env(names[1])
    elif not {"-h", "--help"} & set(args):
        raise BadInput(f"{len(names)} names before the flags: python -m {PROGRAM} AGENT ENV takes these two first.")
    if not names:
        flags(Options, args, PROGRAM, __doc__)  # answers and exits
    module = agent_module(names[0])
    own = dataclasses.field(default_factory=module.Config)
    both = dataclasses.make_dataclass("Options", [("agent", module.Config, own)], bases=(Options,), frozen=True)
    options: Any = flags(both, args, PROGRAM, __doc__)
    for field in ("seconds", "turns"):
        if getattr(options, field) <= 0:
            raise BadInput(f"{field} is {getattr(options, field)}; it must be above 0.")
    return options, module


def profile(env: Any, recipe: Any, seconds: float, turns: int, small: bool = False) -> dict[str, Any]:
    """The record: ceilings, a row for each piece, the tick, and what of the tick no piece explains."""
    import jax

    from experiments.profile import measure
    from jaxrl.loop import loop

    one = loop(env, recipe)
    tick = measure.whole(one, jax.random.key(0))
    ticking = measure.Meter(tick.fn, tick.held)
    ticking.run(recipe.warmup // one.frames + 2)  # to where it learns
    run = jax.tree.map(jax.numpy.copy, ticking.held)  # what goes on is donated
    parts = list(measure.pieces(env, recipe, one, run))
    ceilings = measure.ceilings(small)
    meters = [ticking, *(measure.Meter(*piece[2:]) for piece in parts), *(meter for meter, _ in ceilings.values())]
    counter = measure.energy_counter()
    times, joules = [[] for _ in meters], []
    for meter in meters:
        meter.window(seconds)  # finds how many turns that takes
    for _ in range(turns):
        for meter, found in zip(meters, times):
            before = counter.read() if meter is ticking and not isinstance(counter, str) else None
            found.append(meter.window(seconds))
            if before is not None:
                joules.append(counter.spent(before, counter.read()) / (meter.n * one.frames))
    best = {name: work / min(found) for (name, (_, work)), found in zip(ceilings.items(), times[1 + len(parts) :])}
    peaks = {
        "flops": max(rate for name, rate in best.items() if name.startswith("product")),
        "bytes": max(rate for name, rate in best.items() if name.startswith("triad")),
    }
    rows = [
        {"name": piece.name, "calls": piece.calls, **judged(meter.cost, piece.calls, found, peaks)}
        for piece, meter, found in zip(parts, meters[1:], times[1:])
    ]
    total = spread(times[0])
    for row in rows:
        row["share"] = row["calls"] * row["seconds"]["median"] / total["median"]
    sums = {name: sum(row["calls"] * row[name] for row in rows) for name in (*COUNTED, "arithmetic", "waterline")}
    return {
        "clock": measure.the_clock()[0],
        "cores": measure.cores(),
        "ceilings": {**best, "peak_flops": peaks["flops"], "peak_bytes": peaks["bytes"]},
        "call_seconds": measure.call_seconds(),
        "pieces": rows,
        "tick": {
            "frames": one.frames,
            "seconds": total,
            **sums,
            "gap": total["median"] / sums["waterline"],
            "unexplained": 1 - sum(row["share"] for row in rows),
        },
        "energy": {"absent": counter}
        if isinstance(counter, str)
        else {"counter": counter.name, "joules_per_frame": spread(joules)},
    }


def judged(cost: Any, calls: float, found: Sequence[float], peaks: dict[str, float]) -> dict[str, Any]:
    """What is said of a piece, a call: counts, seconds, and the least time that the ceilings allow (its waterline)."""
    arithmetic = (cost.flops + cost.transcendentals) / peaks["flops"]
    waterline = max(arithmetic, cost.bytes / peaks["bytes"])
    seconds = spread(found)
    return {
        **{name: getattr(cost, name) for name in COUNTED},
        "open_loops": cost.open_loops,
        "uncounted": sorted(cost.uncounted),
        "seconds": seconds,
        "arithmetic": arithmetic,
        "waterline": waterline,
        "gap": seconds["median"] / waterline if waterline else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "median": statistics.median(values), "high": max(values)}


# ----------------------------------------------------------------------------------------------------------- words


def scaled(value: float, unit: str = "") -> str:
    """Three digits and an SI prefix: 1.23 M."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}".rstrip()
    return f"{value * 1e9:.3g} n{unit}" if value else "0"


def table(record: dict[str, Any]) -> str:
    """The record in words: all figures are of a tick."""
    rows = [("piece", "calls", "ops", "FLOP", "bytes", "time", "share", "waterline", "gap")]
    for row in record["pieces"]:
        of = lambda value, row=row: scaled(row["calls"] * value)
        time = scaled(row["calls"] * row["seconds"]["median"], "s")
        least, gap = scaled(row["calls"] * row["waterline"], "s"), f"{row['gap']:.3g}" if row["gap"] else ""
        counts = of(row["ops"]), of(row["flops"] + row["transcendentals"]), of(row["bytes"])
        name = row["name"] + "*" * bool(row["open_loops"] or row["uncounted"])
        rows.append((name, f"{row['calls']:.3g}", *counts, time, f"{row['share']:.1%}", least, gap))
    tick = record["tick"]
    rest = tick["unexplained"] * tick["seconds"]["median"]
    rows.append(("no piece's", "", "", "", "", scaled(rest, "s"), f"{tick['unexplained']:.1%}", "", ""))
    counts = scaled(tick["ops"]), scaled(tick["flops"] + tick["transcendentals"]), scaled(tick["bytes"])
    ends = scaled(tick["waterline"], "s"), f"{tick['gap']:.3g}"
    rows.append(("tick", "1", *counts, scaled(tick["seconds"]["median"], "s"), "", *ends))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(f"{word:<{w}}" if i == 0 else f"{word:>{w}}" for i, (word, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    open_ones = [row["name"] for row in record["pieces"] if row["open_loops"]]
    uncounted = sorted({name for row in record["pieces"] for name in row["uncounted"]})
    if open_ones:
        lines.append(f"* loops that end when their data say so are counted once: {', '.join(open_ones)}")
    if uncounted:
        lines.append(f"* not counted as arithmetic: {', '.join(uncounted)}")
    units = {"product": "FLOP/s", "triad": "B/s"}
    rates = {name: units.get(name.split()[0]) for name in record["ceilings"]}
    named = ", ".join(f"{name} {scaled(record['ceilings'][name], unit)}" for name, unit in rates.items() if unit)
    lines.append(f"ceilings: {named}; a call from Python takes {scaled(record['call_seconds'], 's')}")
    lines.append(f"measured in {record['clock']} on {record['device']}, of which {record['cores']} used")
    energy = record["energy"]
    told = energy.get("absent") or f"{scaled(energy['joules_per_frame']['median'], 'J')} a frame ({energy['counter']})"
    lines.append(f"energy: {'absent, ' if 'absent' in energy else ''}{told}")
    return "\n".join(lines)


def main(args: Sequence[str]) -> int:
    options, module = parse(args)
    compile_cache()
    from experiments.evidence.runner import provenance
    from experiments.train import written
    from jaxrl.host import Host

    env, repeat = environment(options.env, options.repeat, options.pixels)
    if isinstance(env, Host):
        raise BadInput(f"environment '{options.env}' runs on the host, outside the program: profile one that is JAX.")
    recipe = module.recipe(env.specs, options.agent)
    about = {"agent": options.name, "env": options.env, "repeat": repeat, "pixels": options.pixels}
    record = {**about, "config": written(options.agent), **provenance()}
    record |= profile(env, recipe, options.seconds, options.turns)
    print(table(record))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.name}-{options.env.replace(':', '-')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    try:
        from experiments.profile.plot import figure
    except ModuleNotFoundError as missing:
        print(f"no picture: {missing.name} is not installed (pip install jaxrl[plot]).", file=sys.stderr)
    else:
        figure(record, path.with_suffix(".png"))
    print(f"record and picture: {path.with_suffix('')}.*", file=sys.stderr)
    return 0


if __name__ == "__main__":
    answer(main)
