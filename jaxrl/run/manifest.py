"""Checks of a checkpoint's manifest before anything acts on it: its seal shows damage, not who wrote it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl.errors import BadInput

Check = Callable[[Any], bool]

text: Check = lambda x: isinstance(x, str)
count: Check = lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 0
positive: Check = lambda x: count(x) and x > 0
number: Check = lambda x: isinstance(x, int | float) and not isinstance(x, bool)


def optional(check: Check) -> Check:
    return lambda x: x is None or check(x)


def each(check: Check) -> Check:
    """A dict whose values pass."""
    return lambda x: isinstance(x, dict) and all(map(check, x.values()))


CONFIG: dict[str, tuple[Check, str]] = {
    "about": (lambda x: isinstance(x, dict), "a dict"),
    "seed": (count, "a whole number of at least 0"),
    "seeds": (positive, "a whole number above 0"),
    "chunk": (positive, "a whole number of frames above 0"),
    "frames": (positive, "a whole number of frames above 0"),
    "versions": (each(text), "a version by package"),
    "device": (text, "a string"),
}
SECONDS = ("wall", "compile", "train", "saving")


def check(path: Path, content: dict) -> None:
    """Raise `BadInput` where a run cannot go on from the manifest of the checkpoint at that path, by field."""
    fault = _of_config(content.get("config")) or _of_rest(content, content["config"]["seeds"])
    if fault:
        raise BadInput(
            f"the manifest of {path} was edited, or is not one of ours: {fault}: restore it from a copy, or move "
            "that checkpoint away, so that an older one is taken."
        )


def of_files(content: Any) -> str | None:
    """What is wrong with what a manifest says of a checkpoint's files, by field; None where nothing is."""
    if not isinstance(content, dict):
        return "its content is no dict"
    if not count(content.get("step")):
        return f"step is {content.get('step')!r}, not a whole number of at least 0"
    if not each(text)(content.get("files")) or any(".." in name.split("/") for name in content["files"]):
        return "files is not a SHA-256 by path within the checkpoint"
    if not each(lambda x: isinstance(x, list) and len(x) == 2)(content.get("leaves")):
        return "leaves is not a dtype and a shape by path"
    return None


def _of_config(config: Any) -> str | None:
    if not isinstance(config, dict):
        return "config is no dict"
    for name, (check, wanted) in CONFIG.items():
        if not check(config.get(name)):
            return f"config.{name} is {config.get(name)!r}, not {wanted}"
    if not isinstance(config.get("changes", []), list):
        return "config.changes is no list"
    return None


def _of_rest(content: dict, seeds: int) -> str | None:
    """Of what is there beside the configuration: pending metrics, the mark of the metrics file, seconds."""
    row = lambda x: isinstance(x, list) and len(x) == seeds and all(map(optional(number), x))
    if "pending" not in content or not optional(each(row))(content["pending"]):
        return f"pending is not a list of {seeds} numbers by metric, or null"
    seconds = content.get("seconds") or {}
    if not each(number)(seconds) or not {*SECONDS} <= {*seconds}:
        return f"seconds lacks a number for one of {', '.join(SECONDS)}"
    lost = lambda x: isinstance(x, dict) and x.keys() == {"seed", "step", "cause"} and count(x["seed"])
    diverged = content.get("diverged", [])
    if not isinstance(diverged, list) or not all(lost(x) and count(x["step"]) and text(x["cause"]) for x in diverged):
        return "diverged is not a list of a seed, a step and a cause each"
    mark = content.get("metrics")
    rows = lambda x: isinstance(x, list) and all(map(text, x))
    marks = lambda x: isinstance(x, dict) and count(x.get("bytes")) and text(x.get("sha256"))
    if not optional(lambda x: marks(x) and rows(x.get("held", [])))(mark):
        return "metrics is not a number of bytes, a SHA-256 and rows that were held, or null"
    return None
