"""Going on from an older checkpoint: which there are, what is set aside for it, and what may differ from then on.

Nothing is deleted: newer checkpoints, rows of metrics after the chosen one and the last line of a finished run are kept
beside what the run goes on with.

    checkpoints/000000008000.newer      metrics-after-4000.jsonl      result-after-4000.json
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxrl.core import BadInput
from jaxrl.run import checkpoint
from jaxrl.run.directory import Damaged, Home, write
from jaxrl.run.progress import say


def chosen(home: Home, step: int) -> tuple[Path, dict]:
    """The checkpoint of that step and its manifest.

    Raises:
        BadInput: there is none, or it is not intact; with those that there are.
    """
    path = home.checkpoints / f"{step:012d}"
    there = [int(path.name) for path in checkpoint.published(home.checkpoints)]
    if not there:
        raise BadInput(f"at is {step}, but run {home.path} holds no checkpoint: leave --at away.")
    if step not in there:
        raise BadInput(f"at is {step}, but run {home.path} holds checkpoints of {_listed(there)}: choose one of those.")
    try:
        return path, checkpoint.verify(path)
    except Damaged as error:
        raise BadInput(f"at is {step}, but {error}: choose another of {_listed(there)}.") from error


def set_aside(home: Home, step: int, mark: dict | None) -> None:
    """Put away what came after a checkpoint. The newest goes first: broken off, it is as if an older one were chosen.

    Args:
        mark: what metrics.jsonl held by then, as its checkpoint has it.
    """
    later = [path for path in checkpoint.published(home.checkpoints) if int(path.name) > step]
    rows = home.metrics.read_bytes()[mark["bytes"] if mark else 0 :] if home.metrics.exists() else b""
    if rows:
        write(_after(home.metrics, step), rows)
    if later and home.result.exists():
        os.rename(home.result, _after(home.result, step))
    for path in later:
        os.rename(path, checkpoint.free(path.with_suffix(".newer")))


def changes(home: Home, differences: Iterable[tuple[str, Any, Any]], at: int | None) -> list[dict[str, Any]]:
    """What the configuration keeps of fields that differ from a step on: step, field, from and to.

    Args:
        differences: (dotted name, value asked for, value that the run was made with).
        at: the step of the chosen checkpoint, from which on a learning rate may differ; None where none was chosen.

    Raises:
        BadInput: another field differs, by name and both values.
    """
    found = []
    for name, mine, theirs in differences:
        field = name.split(".")[-1]
        rate = name.startswith("config.") and (field == "lr" or field.endswith("_lr"))
        if not rate or at is None:
            how = ", go on with --at STEP, which accepts it," if rate else ""
            raise BadInput(
                f"{name} is {mine}, but run {home.path} was made with {theirs}: give that{how} or choose another --run."
            )
        found.append({"step": at, "field": name, "from": theirs, "to": mine})
    for change in found:
        say(f"{change['field']} is {change['to']} from step {at:,} on, and was {change['from']} before.")
    return found


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _after(path: Path, step: int) -> Path:
    return checkpoint.free(path.with_stem(f"{path.stem}-after-{step}"))
