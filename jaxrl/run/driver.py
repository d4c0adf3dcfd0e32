"""One run from beginning to end on the host: chunks, and between them what a host has to do.

`execute` is a function of an environment, a recipe and a directory. It parses no flags and knows no names of agents.
Between chunks, in this order: the check that all is finite (`jaxrl.run.health`), checkpoint, evaluation, the log of the
chunk before, the progress bar. A checkpoint carries the metrics that are not logged yet, so a run that is continued
logs what the uninterrupted one does.

What a run answers: a dict (the last line on stdout). Raises `BadInput` for what the user can mend, `Diverged` where
numbers are no longer finite, of all seeds.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np

from jaxrl.core import BadInput, Env, Metrics, Recipe
from jaxrl.host import SLOWLY, Host
from jaxrl.interrupts import Stop, saving, stopping
from jaxrl.loop import Run, check_lengths, layout
from jaxrl.run import checkpoint, manifest, rewind
from jaxrl.run.directory import (
    Damaged,
    Home,
    commit,
    device,
    differences,
    generator,
    holds,
    locked,
    ours,
    sealed,
    unsealed,
    versions,
    write,
    writing,
)
from jaxrl.run.health import Health
from jaxrl.run.plot import curve
from jaxrl.run.programs import Many, Programs, compiled, many
from jaxrl.run.progress import Bar, say
from jaxrl.run.sinks import Guarded, JsonLines, Sink, TensorBoard, Wandb, mark_of, plain, read
from jaxrl.sources.budget import human, require
from jaxrl.statistics import interval, iqm
from jaxrl.transitions import NOT_FINITE, NotFinite

# What a run says of `layout`'s choice.
LAYOUT = {
    "map": "one after another in one program (lax.map), as suits a CPU",
    "vmap": "side by side (vmap), as suits an accelerator",
}


@dataclass(frozen=True)
class Settings:
    """How a run is run. None of it but seed, seeds and chunk has a say in the numbers.

    Attributes:
        steps: frames to train for, rounded up to whole chunks.
        seed: of the first seed; the others count on from it.
        seeds: how many are trained side by side.
        chunk: frames between the host's turns; None chooses about a twentieth of the run, 1000 to 50000.
        evaluate_episodes: of the policy without exploration, after each chunk, for each seed.
        saving: largest share of the wall time spent on checkpoints; the last one is always written.
        resume: continue what the directory holds; a directory without a checkpoint is started afresh.
        at: with resume, continue from the checkpoint of this step rather than the newest one: newer ones are set aside,
            and learning rates may differ from then on.
        budget: bytes that the sources of all seeds may take together; None allows half of what is free.
        wandb: record to Weights & Biases as well.
        again: the command that continues this run, for README.txt.
    """

    steps: int = 100_000
    seed: int = 0
    seeds: int = 1
    chunk: int | None = None
    evaluate_episodes: int = 8
    saving: float = 0.05
    resume: bool = False
    at: int | None = None
    budget: int | None = None
    wandb: bool = False
    again: str = ""

    def __post_init__(self):
        least = {"steps": 1, "seed": 0, "seeds": 1, "chunk": 1, "evaluate_episodes": 1, "saving": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                raise BadInput(f"{name} is {value}; it must be at least {low} and finite.")
        if self.seed + self.seeds > 2**32:  # a generator's seed has 32 bits: those above would be those below
            raise BadInput(f"seed is {self.seed} with {self.seeds} seeds; all must be below 2^32 (4294967296).")
        if self.at is not None and not self.resume:
            raise BadInput(f"at is {self.at} without --resume, which it is about: add that, or leave --at away.")


class Position(NamedTuple):
    """What stays right under a kill at any moment: a run, and its last chunk's metrics if they are not logged yet."""

    run: Run
    pending: dict[str, list[float | None]] | None


@dataclass
class Clock:
    """Seconds so far, over all the processes that a run has had."""

    wall: float = 0.0
    compile: float = 0.0
    train: float = 0.0
    saving: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def stored(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.began
        return {"wall": self.wall + seconds, "compile": self.compile, "train": self.train, "saving": self.saving}


def execute(
    env: Env | Host,
    recipe: Recipe,
    path: str | Path,
    settings: Settings = Settings(),
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, or continue, the run in a directory.

    Args:
        about: JSON that names what is run (agent, environment, configuration). A run continues only with the same.

    Returns:
        The run's last line; `finished` is False where a signal stopped it, after it was saved.

    Raises:
        BadInput, Diverged: see the module.
    """
    home, runs = Home(Path(path)), many(env, recipe, settings.seed, settings.seeds)
    ours(home)
    with locked(home) as lock:
        if settings.at is None:
            found = checkpoint.newest(home.checkpoints, say, set_aside=settings.resume)
        else:
            found = rewind.chosen(home, settings.at)
        if found:
            manifest.check(*found)
        if found and not settings.resume:
            raise BadInput(f"run {home.path} already holds checkpoints: add --resume, or choose another --run.")
        config = agreed(home, runs, settings, about or {}, found)
        drive = Drive(home, runs, settings, config, lock)
        if found:
            step = found[1]["step"]
            if step > config["frames"]:
                raise BadInput(f"steps is {settings.steps}, but this run is already at {step}: ask for at least that.")
            if step == config["frames"] and settings.at is None and (line := finished(home, step)):
                say(f"{home.path} is finished at step {step:,}.")
                return line
            checkpoint.match(found[1], runs.shapes())
            if settings.at is not None:
                with writing(home):
                    rewind.set_aside(home, step, found[1]["metrics"])
        drive.announce(found[1]["step"] if found else 0)
        with writing(home):
            drive.describe()
        try:
            return drive.go(found)
        finally:
            drive.close()


# ------------------------------------------------------------------------------------------------- what was agreed


def agreed(home: Home, runs: Many, settings: Settings, about: dict, found: tuple[Path, dict] | None) -> dict:
    """The configuration of this run: as asked for, with the chunk length of what is continued.

    Raises:
        BadInput: the run in the directory was made with something else, by name and both values.
    """
    stored = found[1]["config"] if found else None
    tick, periods = runs.loop.frames, runs.loop.periods
    chunk = settings.chunk or (stored["chunk"] if stored else chunk_length(tick, settings.steps, periods))
    config = {
        "about": about,
        "seed": settings.seed,
        "seeds": settings.seeds,
        "chunk": chunk,
        "steps": settings.steps,
        "frames": -(-settings.steps // chunk) * chunk,
        "versions": versions(),
        "device": device(),
        "generator": generator(),
        "commit": commit(),
        "again": settings.again,
        "changes": [],
    }
    check_lengths(runs.loop, config["frames"], chunk)
    if stored:
        if (was := stored.get("generator", config["generator"])) != config["generator"]:
            raise BadInput(
                f"JAX_DEFAULT_PRNG_IMPL is {config['generator']}, but run {home.path} draws its numbers by {was}: "
                f"set JAX_DEFAULT_PRNG_IMPL={was}."
            )
        same = lambda c: {**c["about"], **{name: c[name] for name in ("seed", "seeds", "chunk")}}
        changes = rewind.changes(home, differences(same(config), same(stored)), settings.at)
        config["changes"] = [*stored.get("changes", []), *changes]
        for name, mine, theirs in differences(
            config["versions"] | {"device": config["device"]}, stored["versions"] | {"device": stored["device"]}
        ):
            say(f"{name} is {mine}, and was {theirs} when this run was saved: it continues, but not bit for bit.")
        try:
            unsealed(home.config)
        except Damaged as error:
            say(f"{error}; it is written anew from the checkpoint.")
            with writing(home):
                write(home.config, sealed(stored))
    return config


def chunk_length(tick: int, steps: int, periods: tuple[int, ...] = ()) -> int:
    """Frames a chunk: about a twentieth of the run, within 1000 and 50000, and equal chunks; with events, one that all
    their periods divide, or that divides them all where that is too long."""
    total = math.ceil(steps / tick)
    ticks = max(1, round(min(max(steps / 20, 1000), 50_000) / tick))
    if periods:
        common, longest = math.gcd(*periods) // tick, math.lcm(*periods) // tick
        if ticks >= longest:
            return tick * (ticks // longest * longest)
        return tick * max((d for d in range(1, min(ticks, common) + 1) if common % d == 0), default=1)
    return tick * math.ceil(total / math.ceil(total / ticks))


def readme(home: Home, settings: Settings, config: dict) -> str:
    again = settings.again or "call jaxrl.run.execute again with Settings(resume=True)"
    return (
        f"A jaxrl run of {config['frames']:,} frames. To continue it, or to see its last line again:\n\n    {again}\n"
    )


def finished(home: Home, step: int) -> dict | None:
    """The stored last line of a run that ended at this step, if it is there and intact."""
    try:
        stored = unsealed(home.result)
    except Damaged as error:
        say(f"{error}; the last line is made again.")
        return None
    if stored["line"]["steps"] != step:
        return None
    held = home.metrics.read_bytes() if home.metrics.exists() else b""
    if stored["metrics"] and hashlib.sha256(held).hexdigest() != stored["metrics"]["sha256"]:
        say(f"{home.metrics} is not what the run wrote: some of its rows were damaged, lost or edited.")
    return stored["line"]


# ---------------------------------------------------------------------------------------------------- from a to b


class Drive:
    """The host's side of one run. `go` is the loop; each of the other methods is one thing that a turn does."""

    at: Position
    programs: Programs
    health: Health
    lines: JsonLines
    sinks: list[Sink]
    last_save: float | None = None  # seconds that the last checkpoint took
    unsaved: str = ""  # why the newest checkpoint could not be written

    def __init__(self, home: Home, runs: Many, settings: Settings, config: dict, lock: TextIO):
        self.home, self.runs, self.settings, self.config, self.lock = home, runs, settings, config, lock
        self.chunk, self.frames = config["chunk"], config["frames"]
        self.clock, self.saved, self.scores = Clock(), -1, None
        self.say: Callable[[str], None] = say
        self.stack = ExitStack()  # of a lock that was taken anew

    def announce(self, step: int) -> None:
        """Sizes and rounding, before anything is allocated. Raises BadInput where memory or disk cannot hold the run.

        Args:
            step: at which it is continued.
        """
        shapes = self.runs.shapes()
        size, source = checkpoint.size(shapes), checkpoint.size(shapes.source)
        say(f"The source takes {human(source)} of memory, a checkpoint {human(size)} on disk.")
        seeds = len(self.runs.seeds)
        require(source, self.settings.budget, f"the source of {seeds} seeds" if seeds > 1 else "the source")
        self.check_disk(size, (self.frames - step) // self.chunk)
        if self.frames != self.settings.steps:
            say(f"{self.settings.steps:,} steps are rounded up to {self.frames:,}, whole chunks of {self.chunk:,}.")
        if self.runs.batched:
            say(f"{len(self.runs.seeds)} seeds train {LAYOUT[layout()]}.")
        if self.runs.on_host:
            say(f"{self.runs.env.name} runs on the host: {SLOWLY}.")
        if self.runs.env.specs.limit is None:
            say(f"{self.runs.env.name} is endless: the policy is not evaluated, and the last line has no return.")

    def check_disk(self, size: int, chunks: int) -> None:
        """Raise BadInput where the disk cannot hold the checkpoints that are kept, and one more while it is written.

        Those that are there already count as held, and the oldest of several makes room where there is none.

        Args:
            size: of a checkpoint, in bytes.
            chunks: that are left to train.
        """
        keep, there = checkpoint.kept(size), len(checkpoint.published(self.home.checkpoints))
        most = min(keep + 1, there + chunks)
        needed = max(0, most - there - (there > 1)) * size
        free = shutil.disk_usage(self.home.path).free
        if free < needed:
            raise BadInput(
                f"run {self.home.path} has {human(free)} left on its disk and needs {human(needed)} more, as "
                f"{most} checkpoints of {human(size)} lie there at a time: free some of it, lower the agent's capacity "
                "or choose another --run."
            )

    def describe(self) -> None:
        """Write what was asked for, and how to continue."""
        write(self.home.config, sealed(self.config))
        write(self.home.readme, readme(self.home, self.settings, self.config).encode())

    def go(self, found: tuple[Path, dict] | None) -> dict[str, Any]:
        """The whole run."""
        extra = found[1] if found else {}
        if found:
            seconds = extra["seconds"]
            self.clock = Clock(seconds["wall"], seconds["compile"], seconds["train"], seconds["saving"])
        say("Compiling ...")
        self.programs = compiled(
            self.runs, self.chunk // self.runs.loop.frames, self.settings.evaluate_episodes, not found
        )
        self.clock.compile += self.programs.compile_seconds
        self.at = self.start(found)
        begin, lost = lambda good: self.start(good).run, extra.get("diverged", [])
        self.health = Health(self.runs, self.programs, self.home, self.chunk, begin, lost, lambda line: self.say(line))
        with ExitStack() as stack:
            stop = stack.enter_context(stopping())
            bar = stack.enter_context(Bar(self.frames, int(self.at.run.step), self.clock.compile))
            self.say = bar.say
            self.lines = self.metrics(extra)
            self.sinks = [self.lines, *self.others()]
            for sink in self.sinks:
                stack.callback(sink.close)
            try:
                self.turns(stop, bar)
            except KeyboardInterrupt:
                self.rescue()
                raise
        self.say = say
        self.plot()
        step = int(self.at.run.step)
        if self.unsaved:
            raise BadInput(
                f"run {self.home.path} ends unsaved at step {step:,} ({self.unsaved}), {self.kept()}: mend that, then "
                "add --resume."
            )
        if step < self.frames:
            say(f"Stopped and saved at step {step:,}. To continue: {self.settings.again or 'resume'}")
            return {"finished": False, "signal": stop.signal, "steps": step, "run": str(self.home.path)}
        return self.finish()

    def close(self) -> None:
        """Close simulators on the host, and a lock that was taken anew."""
        with self.stack:
            if hasattr(self, "programs"):
                self.programs.close()

    def turns(self, stop: Stop, bar: Bar) -> None:
        """Chunks until the end or a signal. A continued run first logs what its checkpoint had not logged yet."""
        step = int(self.at.run.step)
        if self.at.pending is not None:
            self.log(bar)
        while step < self.frames and not stop.signal:
            began = time.perf_counter()
            self.at = self.played()
            step = int(self.at.run.step)
            self.clock.train += time.perf_counter() - began
            fault = self.programs.fault()
            if stop.signal or fault or step == self.frames or self.affordable():
                self.save()
            if fault:
                raise BadInput(f"{fault} Of this run, {self.kept()}: mend the environment, then add --resume.")
            if not stop.signal or step == self.frames:
                self.log(bar)
        if stop.signal:
            self.save()

    def played(self) -> Position:
        """One more chunk. Raises `Diverged` where no seed stays finite."""
        before = self.health.before(self.at.run.parts)
        try:
            with jax.transfer_guard_device_to_host("disallow"):
                run, metrics = jax.block_until_ready(self.programs.chunk(self.at.run))
        except NotFinite as error:
            raise self.health.hosted(error) from error
        except jax.errors.JaxRuntimeError as error:
            raise BadInput(f"{failure(error)}; {self.kept()}.") from error
        run = self.health.check(before, run, metrics, int(run.step))
        return Position(run, self.table({name: x for name, x in metrics.items() if name != NOT_FINITE}))

    def start(self, found: tuple[Path, dict] | None) -> Position:
        """The run in a checkpoint, or a fresh one."""
        if found is None:
            return Position(jax.block_until_ready(self.programs.init(self.runs.keys())), None)
        self.saved = found[1]["step"]
        return Position(checkpoint.load(*found, self.runs.shapes()), found[1]["pending"])

    def metrics(self, extra: dict) -> JsonLines:
        """The metrics file at a checkpoint, of which `extra` is the manifest; a fresh one where that is empty."""
        mark = extra.get("metrics")
        if extra and mark is None:
            say(f"The checkpoint of step {extra['step']:,} does not say what {self.home.metrics} held: its rows stay.")
            mark = mark_of(self.home.metrics, extra["step"], extra["pending"] is not None)
        return JsonLines(self.home.metrics, mark, self.say)

    def others(self) -> list[Sink]:
        """The sinks beside metrics.jsonl."""
        sinks = []
        if find_spec("tensorboardX"):
            sinks.append(Guarded("TensorBoard", lambda: TensorBoard(self.home.tensorboard), self.say))
            sinks[-1].write(read(self.home.metrics))
        if self.settings.wandb:
            sinks.append(Guarded("wandb", lambda: Wandb(self.home, self.config), self.say))
        return sinks

    def table(self, metrics: Metrics) -> dict[str, list[float | None]]:
        """Metrics on the host: a list of [seeds] numbers by name."""
        return {
            name: [plain(x) for x in np.atleast_1d(value).tolist()] for name, value in jax.device_get(metrics).items()
        }

    def affordable(self) -> bool:
        """Would one more checkpoint keep within the share of the wall time that may go into them?"""
        seconds = self.clock.stored()
        guess = 0.2 + checkpoint.size(self.at.run) / 200e6  # seconds, at 200 MB/s
        last = guess if self.last_save is None else self.last_save
        return seconds["saving"] + last <= self.settings.saving * seconds["wall"]

    def save(self) -> None:
        """A checkpoint of where the run is, unless it was just written. One that fails is said, and tried again."""
        at, step = self.at, int(self.at.run.step)
        if step == self.saved:
            return
        began = time.perf_counter()
        extra = {"pending": at.pending, "metrics": self.lines.mark(), "seconds": self.clock.stored()}
        extra |= {"config": self.config, "diverged": self.health.stored()}
        with saving():
            try:
                self.settle()
                checkpoint.save(self.home.checkpoints, at.run, extra, say=self.say)
            except OSError as error:
                self.unsaved, before = error.strerror or str(error), self.unsaved
                if not before:
                    self.say(f"Step {step:,} could not be saved ({self.unsaved}); {self.kept()}.")
                return
        if self.unsaved:
            self.say(f"Step {step:,} is saved: checkpoints are written again.")
        self.unsaved, self.saved, self.last_save = "", step, time.perf_counter() - began
        self.clock.saving += self.last_save

    def settle(self) -> None:
        """Make the directory anew where it was removed in mid-run.

        Raises:
            BadInput: it is another process's by now.
        """
        if holds(self.home, self.lock):
            return
        self.home.path.mkdir(parents=True, exist_ok=True)
        if self.home.lock.exists():
            raise BadInput(f"run {self.home.path} was removed while it trained, and is another process's now: it ends.")
        self.say(
            f"Run {self.home.path} was removed while it trained: it is made anew, with what is saved from here on."
        )
        self.lock, self.saved = self.stack.enter_context(locked(self.home)), -1
        self.describe()

    def kept(self) -> str:
        """What there is to go on from, in words."""
        return f"the last checkpoint is of step {self.saved:,}" if self.saved >= 0 else "no checkpoint was written"

    def rescue(self) -> None:
        """Save after an interrupt that came in the middle of a turn, unless the chunk had already taken the run."""
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.at.run)):
            self.say("Interrupted inside a chunk: the run stays at its last checkpoint.")
        else:
            self.save()
            self.say(f"Interrupted; {self.kept()}.")

    def evaluate(self, run: Run) -> np.ndarray | None:
        """Returns [seeds, episodes] of the policy without exploration, of the seeds that have not diverged."""
        if self.programs.evaluate is None:
            return None
        scores = self.programs.evaluate(run.parts, self.runs.keys(), run.step)
        return np.atleast_2d(np.asarray(scores["return"], np.float64))[self.health.rows()]

    def log(self, bar: Bar) -> None:
        """Evaluate, write the rows of the chunk before, move the bar."""
        run, pending, step = *self.at, int(self.at.run.step)
        self.scores = self.evaluate(run)
        rows = []
        for i, row in enumerate(self.health.rows()):
            score = {} if self.scores is None else {"evaluation/return": plain(self.scores[i].mean())}
            found = {name: x[row] for name, x in pending.items()}
            rows.append({"step": step, "seed": self.runs.seeds[row], **found, **score})
        with saving():
            for sink in self.sinks:
                sink.write(rows)
            self.at = Position(run, None)
        bar.update(step, self.rate(step), None if self.scores is None else float(self.scores.mean()))

    def rate(self, step: int) -> float:
        """Frames (of the clock that all seeds share) a second of training: evaluation and the like apart."""
        return step / max(self.clock.train, 1e-9)

    def finish(self) -> dict[str, Any]:
        """The last line of the run, stored for whoever asks again."""
        if self.scores is None:
            self.scores = self.evaluate(self.at.run)
        if self.health.lost:
            say(f"{self.health.names()} diverged: statistics are over the seeds that finished.")
        good = self.scores is not None and bool(np.isfinite(self.scores).all())
        low, high = map(plain, interval(self.scores)) if good else (None, None)
        seconds, step = self.clock.stored(), int(self.at.run.step)
        line = {
            "return_iqm": float(iqm(self.scores)) if good else None,
            "return_low": low,
            "return_high": high,
            "steps": step,
            "seeds": self.settings.seeds,
            "diverged": sorted(self.health.lost),
            "wall_seconds": round(seconds["wall"], 3),
            "compile_seconds": round(seconds["compile"], 3),
            "steps_per_second": round(self.rate(step), 3),
            "parameters_sha256": checkpoint.fingerprint(self.at.run.parts),
            "finished": True,
            "run": str(self.home.path),
        }
        self.store(line)
        return line

    def store(self, line: dict) -> None:
        """Keep the last line for whoever asks again, unless rows of metrics are still to be written."""
        if self.lines.held:
            say(f"{len(self.lines.held)} rows of {self.home.metrics} could not be written: mend that, then --resume.")
            return
        try:
            write(self.home.result, sealed({"line": line, "metrics": self.lines.mark()}))
        except OSError as error:
            say(f"{self.home.result} cannot be written ({error.strerror}): --resume makes it again.")

    def plot(self) -> None:
        about = self.config["about"]
        title = " on ".join(str(about[name]) for name in ("agent", "env") if name in about) or self.home.path.name
        rows = [row for row in read(self.home.metrics) if row["seed"] not in self.health.lost]
        Guarded("curve.png", lambda: curve(rows, self.home.curve, title), say)


def failure(error: Exception) -> str:
    """What a compiled program failed of, in a sentence: memory, or what a callback of the environment raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "RESOURCE_EXHAUSTED" in lines[0]:
        return f"the device has too little memory ({lines[0]}): lower num_envs, the batch or the capacity"
    return f"the compiled program failed ({lines[-1]}): mend the environment, or the callback that it calls"
