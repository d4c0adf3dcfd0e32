"""Workers that take turns, and the ratios of what they did.

Sides run interleaved (A B C, A B C, ...) in one session, so that a slow spell of the machine meets all of them; time is
the process's own CPU time, so that a busy neighbour is not counted. A ratio is ours over the peer's within a turn.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = {"ours": ROOT / ".venv/bin/python", "peers": ROOT / ".venv-bench/bin/python"}
PEERS = ("rejax", "sbx", "sb3", "purejaxrl", "mbrl")

LESS_IS_BETTER = ("core-seconds", "bytes")


class AbsentError(Exception):
    """A peer that is not installed here; the message says what is missing."""


class Worker:
    """One side's process: `ready` is its first answer; `window()` gives CPU seconds; `finish()` ends it."""

    def __init__(self, python: Path, target: str, settings: dict, environment: dict[str, str] | None = None):
        if not Path(python).exists():
            raise AbsentError(f"there is no {Path(python).parent.parent.name}: `make bench-peers` makes it.")
        self.target = target
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the worker)
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", "experiments.bench.worker", target, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        first = self.answer()
        if "absent" in first:
            self.close()
            raise AbsentError(first["absent"])
        self.ready = first["ready"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"{self.target} stopped:\n{self.log.read()[-4000:]}")
        return json.loads(line)

    def window(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def finish(self) -> dict:
        """End the input; the last answer, refused where a state is not finite: a NaN simulation steps fast."""
        self.process.stdin.close()
        last = self.answer()
        self.close()
        if not last["finite"]:
            raise RuntimeError(f"{self.target} ended in states that are not finite: its rate means nothing.")
        return last

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            pipe.close()


def interpreter(target: str) -> Path:
    """The libraries of PEERS live in the peers' environment, everything else (brax is a dependency of ours) in ours."""
    return PYTHON["peers" if target.partition(":")[0].rpartition(".")[2] in PEERS else "ours"]


def equal_work(ready: dict[str, dict]) -> None:
    """Raise RuntimeError unless all sides that learn have as many parameters and update them as often."""
    for what in ("parameters", "updates"):
        known = {name: answer[what] for name, answer in ready.items() if answer[what] is not None}
        if len(set(known.values())) > 1:
            raise RuntimeError(f"the sides do different work, so that no ratio means anything: {what} {known}.")


def ratios(ours: list[float], peer: list[float]) -> dict[str, float]:
    """Lowest, median and highest of ours over the peer's, turn by turn; rates, so that above 1 is ours."""
    each = [a / b for a, b in zip(ours, peer, strict=True)]
    return {"ratio_low": min(each), "ratio_median": statistics.median(each), "ratio_high": max(each)}


def take_turns(workers: dict[str, Worker], repeats: int) -> dict[str, list[float]]:
    """Rates, units a CPU second, of every side in every turn."""
    rates = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            rates[name].append(worker.ready["units"] / worker.window())
    return rates


def start(sides: dict[str, tuple[str, dict]], environment: dict[str, str] | None = None):
    """Workers by name, and a sentence for each side that is absent."""
    workers, absent = {}, {}
    for name, (target, settings) in sides.items():
        try:
            workers[name] = Worker(interpreter(target), target, settings, environment)
        except AbsentError as missing:
            absent[name] = str(missing)
        except BaseException:
            for worker in workers.values():
                worker.close()
            raise
    return workers, absent


def rates(sides: dict[str, tuple[str, dict]], repeats: int) -> tuple[dict[str, dict], dict[str, str]]:
    """Run a timed case: what is known of each side (`each`, a rate a turn, beside its first answer), and the absent."""
    workers, absent = start(sides)
    try:
        equal_work({name: worker.ready for name, worker in workers.items()})
        each = take_turns(workers, repeats)
        found = {name: {"each": each[name], **worker.ready, **worker.finish()} for name, worker in workers.items()}
        return found, absent
    finally:
        for worker in workers.values():
            worker.close()


def compile_seconds(sides: dict[str, tuple[str, dict]], repeats: int) -> tuple[dict[str, dict], dict[str, str]]:
    """CPU seconds of trace and compilation, each in a new process: `cold` with an empty cache, then `warm` with it."""
    found, absent = {}, {}
    for _ in range(repeats):
        for name, (target, settings) in sides.items():
            with tempfile.TemporaryDirectory() as cache:
                environment = {
                    "JAX_COMPILATION_CACHE_DIR": cache,
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                }
                for heat in ("cold", "warm"):
                    one = {name: (target, {**settings, "warm": False})}
                    workers, missing = start(one, environment)
                    absent |= missing
                    for worker in workers.values():
                        side = found.setdefault(name, {**worker.ready, "cold": [], "warm": []})
                        side[heat].append(worker.ready["seconds"]["compile"])
                        worker.close()
    return found, absent


def figures(sides: dict[str, tuple[str, dict]], peer: str) -> tuple[dict[str, dict], dict[str, str]]:
    """What our one side counts of itself and of what it is held against, under the name `peer`."""
    workers, absent = start(sides)
    found = {}
    for name, worker in workers.items():
        counted, ready = worker.ready["figures"], worker.ready
        found |= {name: {**ready, "each": [counted["ours"]]}, peer: {**ready, "each": [counted["peer"]]}}
        worker.finish()
    return found, absent


# --------------------------------------------------------------------------------------------------------- records


def record(name: str, unit: str, ours: dict, peer: dict | None, note: str, goal: float | None, goal_of: str) -> dict:
    """One JSON record. `ours` and `peer` hold `each` (a value a turn); an absent peer gives nulls and the reason.

    Args:
        goal_of: what the goal binds: 'ratio' (the median is at least the goal), 'ours' (our figure is at most the goal)
            or 'rate' (our figure is at least the goal).
    """
    if unit in LESS_IS_BETTER and peer:  # turned over, so that above 1 is still ours
        compared = ratios(peer["each"], ours["each"])
    elif peer:
        compared = ratios(ours["each"], peer["each"])
    else:
        compared = {"ratio_low": None, "ratio_median": None, "ratio_high": None}
    mine = statistics.median(ours["each"])
    if goal is None or (goal_of == "ratio" and not peer):
        met = None
    else:
        met = (
            mine <= goal
            if goal_of == "ours"
            else (mine if goal_of == "rate" else compared["ratio_median"] or 0) >= goal
        )
    describe = lambda side: {key: side.get(key) for key in ("parameters", "updates", "seconds", "peak_bytes")}
    return {
        "name": name,
        "unit": unit,
        "ours": mine,
        "peer": statistics.median(peer["each"]) if peer else None,
        **compared,
        "goal": goal,
        "goal_of": goal_of,
        "met": met,
        "note": note,
        "repeats": len(ours["each"]),
        "ours_side": describe(ours),
        "peer_side": describe(peer) if peer else None,
        "versions": {"ours": ours["versions"], "peer": peer["versions"] if peer else None},
    }


def circumstances(command: list[str]) -> dict:
    """Where and from what the figures came: the same for every record of a run."""
    return {
        "command": shlex.join(command),
        "commit": commit(),
        "device": device(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def commit() -> str:
    """The commit, with `-dirty` where tracked files differ from it; 'unknown' outside a repository."""
    try:
        ask = lambda *words: (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        )
        return ask("rev-parse", "HEAD").strip() + ("-dirty" if ask("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device() -> str:
    """The processor, one core of which did the work."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"one core of {name}"


def write(folder: Path, found: dict) -> Path:
    """NAME.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['name']}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    part.replace(path)
    return path
