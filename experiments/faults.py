"""Kill runs and flip bytes of what they saved, and see what becomes of them.

    python -m experiments.faults --kills 20 --flips 50

Kills: SIGKILL before the first checkpoint, in the middle of a save, and at random moments; each run is then continued,
and its final parameters must equal, bit for bit, those of a run that nobody disturbed. Flips: one bit of one byte of
one file of a finished run, which is then asked for its last line again. The flip must be *detected* (a sentence is
said, and the answer is right or refused) or *harmless* (the answer is right); nothing saved may be lost. One inside a
checkpoint must moreover fail that checkpoint's manifest.

Writes a record, and exits with 1 where anything else was seen.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import answer, flags, say_json
from jaxrl.errors import BadInput

TRAIN = [
    *("--agent", "sac", "--env", "pendulum", "--steps", "1600", "--chunk", "200", "--saving", "1000"),
    *("--agent.widths", "16", "16", "--agent.batch", "16", "--agent.capacity", "1000", "--agent.warmup", "200"),
]
PROGRAM = "experiments.faults"
PATIENCE = 300.0  # seconds after which a process is not waited for any longer


@dataclasses.dataclass(frozen=True)
class Options:
    kills: Annotated[int, tyro.conf.arg(help="runs to kill")] = 20
    flips: Annotated[int, tyro.conf.arg(help="bytes to flip")] = 50
    seed: Annotated[int, tyro.conf.arg(help="of the moments and the bytes")] = 0
    out: Annotated[Path, tyro.conf.arg(help="where the record goes")] = Path("docs/results/faults.json")


# ----------------------------------------------------------------------------------------------------------- kills


def start(run: Path, *more: str) -> subprocess.Popen:
    """A training process of its own."""
    command = [sys.executable, "-m", "experiments.train", *TRAIN, "--run", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(run: Path, *more: str) -> dict[str, Any]:
    """Train to the end: the run's last line."""
    process = start(run, *more)
    out, err = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise RuntimeError(f"training exited with {process.returncode}: {err}")
    return json.loads(out.splitlines()[-1])


def saving(run: Path) -> bool:
    """A checkpoint is half written."""
    return any((run / "checkpoints").glob(".draft-*"))


def begun(run: Path) -> bool:
    """Nothing is saved yet, and the process has come as far as writing down what it was asked for."""
    return (run / "README.txt").exists() and not (run / "checkpoints").exists()


def after(seconds: float) -> Callable[[Path], bool]:
    """That long since the chunks began: imports and compilation take most of so short a run, and save nothing."""
    due: list[float] = []

    def moment(run: Path) -> bool:
        if not due and (run / "metrics.jsonl").exists():
            due.append(time.monotonic() + seconds)
        return bool(due) and time.monotonic() >= due[0]

    return moment


def kill(run: Path, moment: Callable[[Path], bool]) -> dict[str, Any]:
    """Kill a run when its moment has come: what it had saved by then."""
    process = start(run)
    began = time.monotonic()
    while process.poll() is None and not moment(run) and time.monotonic() - began < PATIENCE:
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    return {
        "seconds": round(time.monotonic() - began, 3),
        "killed": process.returncode == -9,
        "checkpoints": sum(path.name.isdigit() for path in (run / "checkpoints").glob("*")),
        "while_saving": saving(run),
    }


def kills(count: int, folder: Path, rng: random.Random, expected: dict, seconds: float) -> list[dict[str, Any]]:
    """Kill and continue `count` runs. `expected` is the last line of an undisturbed one, whose chunks took `seconds`.

    A kill that comes when the run has ended tries nothing: it is drawn again, and `late` says how often.

    Raises:
        RuntimeError: a run ended before its kill ten times over.
    """
    trials = []
    for i in range(count):
        directed = {0: ("before the first checkpoint", begun), 1: ("during a save", saving)}
        for late in range(10):
            run = folder / f"killed-{i}-{late}"
            name, moment = directed[i] if i in directed else ("random", after(rng.uniform(0.0, seconds)))
            seen = kill(run, moment)
            if seen["killed"]:
                break
            shutil.rmtree(run)
        else:
            raise RuntimeError(f"the run ended before it could be killed ({name}), ten times over.")
        line = finish(run, "--resume")
        equal = line["parameters_sha256"] == expected["parameters_sha256"]
        trials.append({"moment": name, **seen, "late": late, "bit_equal": equal})
        shutil.rmtree(run)
    return trials


# ----------------------------------------------------------------------------------------------------------- flips


def flips(count: int, finished: Path, folder: Path, rng: random.Random, expected: dict) -> list[dict[str, Any]]:
    """Flip `count` bits, each in a fresh copy of a finished run; files are drawn evenly, so that small ones are hit."""
    from experiments.train import main
    from jaxrl.run import checkpoint
    from jaxrl.run.directory import Damaged

    files = sorted(p.relative_to(finished) for p in finished.rglob("*") if p.is_file() and p.stat().st_size)
    trials = []
    for i in range(count):
        run, name = folder / f"flipped-{i}", rng.choice(files)
        shutil.copytree(finished, run)
        data = bytearray((run / name).read_bytes())
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        data[at] ^= 1 << bit
        (run / name).write_bytes(data)
        manifest = None
        if name.parts[0] == "checkpoints":
            try:
                checkpoint.verify(run / name.parts[0] / name.parts[1])
                manifest = "passed"
            except Damaged:
                manifest = "refused"
        before = sum(1 for path in run.rglob("*") if path.is_file())
        outcome, sentence = ask(main, run, expected)
        kept = sum(1 for path in run.rglob("*") if path.is_file()) >= before
        outcome = "silent" if manifest == "passed" else "lost" if not kept else outcome
        place = {"file": str(name), "byte": at, "bit": bit, "manifest": manifest}
        trials.append({**place, "outcome": outcome, "sentence": sentence})
        shutil.rmtree(run)
    return trials


def ask(main: Callable[[Sequence[str]], int], run: Path, expected: dict) -> tuple[str, str]:
    """Ask a damaged run for its last line: (detected, harmless or silent; what was said)."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([*TRAIN, "--run", str(run), "--resume"])
    except BadInput as error:
        return "detected", place_free(str(error), run)
    line = json.loads(out.getvalue().splitlines()[-1])
    said = [
        text for text in err.getvalue().splitlines() if "SHA-256" in text or "is not what" in text or "holds" in text
    ]
    right = all(line[name] == expected[name] for name in ("parameters_sha256", "return_iqm", "steps"))
    if not right:
        return "silent", ""
    return ("detected", place_free(said[0], run)) if said else ("harmless", "")


def place_free(sentence: str, run: Path) -> str:
    return sentence.replace(str(run), "RUN")


# ---------------------------------------------------------------------------------------------------------- record


def undisturbed(folder: Path) -> tuple[Path, dict[str, Any], float]:
    """(path, last line, seconds that its chunks took) of a run that nothing happens to. It is made twice: the first
    fills the compile cache, the second is timed, and both must agree."""
    first, run = finish(folder / "first"), folder / "undisturbed"
    line = finish(run)
    if first["parameters_sha256"] != line["parameters_sha256"]:
        raise RuntimeError("two undisturbed runs of one seed differ, so nothing can be said about disturbed ones.")
    return run, line, line["wall_seconds"] - line["compile_seconds"]


def examine(options: Options, folder: Path) -> dict[str, Any]:
    """All trials, as a record."""
    from jaxrl.run.directory import commit, device, versions

    began, rng = time.monotonic(), random.Random(options.seed)
    # A cache of its own: a killed process may leave half an entry behind, which others need not meet.
    os.environ["JAXRL_CACHE"] = str(folder / "cache")
    finished, expected, seconds = undisturbed(folder)
    killed = kills(options.kills, folder, rng, expected, seconds)
    flipped = flips(options.flips, finished, folder, rng, expected)
    counts = {name: sum(t["outcome"] == name for t in flipped) for name in ("detected", "harmless", "silent", "lost")}
    good = all(t["bit_equal"] for t in killed) and not counts["silent"] and not counts["lost"]
    return {
        "verdict": "holds" if good else "broken",
        "kills": len(killed),
        "late": sum(t["late"] for t in killed),
        "bit_equal": sum(t["bit_equal"] for t in killed),
        "before_first_checkpoint": sum(not t["checkpoints"] for t in killed),
        "while_saving": sum(t["while_saving"] for t in killed),
        "flips": len(flipped),
        **counts,
        "inside_checkpoints": sum(t["manifest"] is not None for t in flipped),
        "refused_by_manifest": sum(t["manifest"] == "refused" for t in flipped),
        "undisturbed_seconds": round(seconds, 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "parameters_sha256": expected["parameters_sha256"],
        "command": f"python -m {PROGRAM} --kills {options.kills} --flips {options.flips} --seed {options.seed}",
        "train": " ".join(TRAIN),
        "commit": commit(),
        "device": device(),
        "versions": versions(),
        "kill_trials": killed,
        "flip_trials": flipped,
    }


def main(args: Sequence[str]) -> int:
    options = flags(Options, args, PROGRAM, __doc__)
    if options.kills < 0 or options.flips < 0:
        raise BadInput(f"kills is {options.kills} and flips {options.flips}; both are at least 0.")
    with tempfile.TemporaryDirectory() as folder:
        record = examine(options, Path(folder))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    say_json({name: value for name, value in record.items() if not name.endswith("_trials")})
    print(
        f"{record['verdict']}: {record['bit_equal']} of {record['kills']} killed runs ended bit-equal; of "
        f"{record['flips']} flipped bytes {record['detected']} were detected, {record['harmless']} harmless, "
        f"{record['silent'] + record['lost']} neither."
    )
    return 0 if record["verdict"] == "holds" else 1


if __name__ == "__main__":
    answer(main)
