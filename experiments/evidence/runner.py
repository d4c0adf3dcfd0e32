"""Runs a claim: its arms on the seeds, the verdict, a JSON record and a figure beside it."""

import json
import math
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evidence import Arm, Claim, Finding, Outcome, Scale, Trained, overall, unknown
from jaxrl.statistics import interval, iqm

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "results" / "evidence"
SCRATCH = ROOT / "runs" / "evidence"  # smoke and tuning runs: they show that a claim runs, not whether it holds


def run(claim: Claim, scale: str, tune: bool = False, out: Path | None = None, keep: bool = False) -> dict[str, Any]:
    """Run and judge a claim, write `ID-SCALE.json` and `ID-SCALE.png`, and return the record.

    Until the last arm is done the finished ones stand in `ID-SCALE.unfinished`, from which `keep` takes them.

    Args:
        scale: a name among the claim's scales.
        tune: use the tuning seeds; the record then lists no test seed.
        out: the folder to write to; None is docs/results/evidence, or runs/evidence for smoke and tuning runs.
        keep: do not run an arm again that a run broken off, or the record, holds with the same settings and seeds.
            Each arm in the record names the commit that it was run from.

    Raises:
        BadInput: the claim has no such scale.
    """
    if scale not in claim.scales:
        raise unknown(f"scale of {claim.id}", scale, claim.scales)
    size = claim.scales[scale]
    seeds = (claim.tuning_seeds if tune else claim.test_seeds)[: size.seeds]
    origin = provenance()  # of the code that runs, which the tree may leave behind meanwhile
    folder = out or (SCRATCH if tune or scale == "smoke" else COMMITTED)
    stem = f"{claim.id}-{scale}{'-tune' if tune else ''}"
    draft, place = folder / f"{stem}.unfinished", folder / f"{stem}.json"
    what = {"metric": claim.metric, "steps": size.steps, "seeds": list(seeds)}
    held = {**finished(place, what), **finished(draft, what)} if keep else {}
    arms = {}
    for name, arm in claim.arms.items():
        asked = about(arm, size)
        old = held.get(name, {})
        if asked and asked == {field: old.get(field) for field in asked}:
            arms[name] = old
            print(f"{claim.id} {scale}, {name}: kept from {old['commit'][:9]}", file=sys.stderr)
            continue
        start = time.perf_counter()
        outcome = arm(size, seeds)
        took = {"compile_seconds": round(outcome.compile_seconds, 2), "wall_seconds": _since(start)}
        arms[name] = {**asked, **summary(outcome), "commit": origin["commit"], **took}
        print(
            f"{claim.id} {scale}, {name}: {_figures(outcome.scores)} in {took['wall_seconds']:.1f} s", file=sys.stderr
        )
        write(draft, {**what, "arms": arms})
    found = judged(claim, arms)
    record = {
        "id": claim.id,
        "paper": claim.paper,
        "claim": claim.claim,
        "verdict": found.pop("verdict"),
        "scale": scale,
        "test_seeds": [] if tune else list(seeds),
        "tuning_seeds": list(claim.tuning_seeds),
        "metric": claim.metric,
        **found,
        "expected": claim.expected,
        "seeds": list(seeds),
        "arms": arms,
        "environment": claim.environment,
        "steps": size.steps,
        **origin,
        "command": f"python -m experiments.evidence {claim.id} --scale {scale}{' --tune' if tune else ''}",
        **{name: _rounded(sum(arm[name] for arm in arms.values())) for name in ("compile_seconds", "wall_seconds")},
    }
    write(place, record)
    draft.unlink(missing_ok=True)
    draw(record, place.with_suffix(".png"))
    return record


def judged(claim: Claim, arms: dict[str, Any]) -> dict[str, Any]:
    """The verdict of these arms' scores, the main check's two sides and effect, and all checks."""
    scores = {name: np.array(arm["scores"], np.float64) for name, arm in arms.items()}
    findings = tuple(check.judge(scores) for check in claim.checks)
    checks = [{"check": f.check, "verdict": f.verdict, **_numbers(f), "level": f.level} for f in findings]
    return {"verdict": overall(findings), **headline(claim, findings, arms), "checks": checks}


def judge_again(claim: Claim, path: Path) -> dict[str, Any]:
    """The record in a file with its scores judged by the checks and intervals of today; writes it and its figure.

    Nothing is run: scores, commits and dates stay. Bands of learning curves stay as well, as the seeds' curves are not
    in a record.

    Raises:
        BadInput: an arm of the claim that the record does not hold.
    """
    record = json.loads(path.read_text())
    for name in claim.arms:
        if name not in record["arms"]:
            raise unknown(f"arm in the record of {claim.id}", name, record["arms"])
    for arm in record["arms"].values():
        arm |= _interval(arm["scores"])
    record |= judged(claim, record["arms"])
    write(path, record)
    draw(record, path.with_suffix(".png"))
    return record


def finished(path: Path, what: dict[str, Any]) -> dict[str, Any]:
    """The arms in a record or a draft of one, where it is of the same metric, steps and seeds; none otherwise."""
    held = json.loads(path.read_text()) if path.exists() else {}
    return held["arms"] if what == {field: held.get(field) for field in what} else {}


def headline(claim: Claim, findings: tuple[Finding, ...], arms: dict[str, Any]) -> dict[str, Any]:
    """The main check's two sides and its effect; the level stands in for the baseline where there is no other arm."""
    check, found = claim.checks[0], findings[0]
    side = lambda name: {"name": name, **{field: arms[name][field] for field in ("iqm", "low", "high")}}
    baseline = side(check.baseline) if found.level is None else {"name": "threshold", "iqm": found.level}
    return {"baseline": baseline, "treated": side(check.treated), **_numbers(found)}


def about(arm: Arm, size: Scale) -> dict[str, Any]:
    """What the arm trains, where it is one that trains a recipe; as JSON gives it back."""
    if not isinstance(arm, Trained):
        return {}
    task = {name: getattr(arm, name) for name in ("environment", "repeat", "pixels", "starts", "seconds")}
    return json.loads(json.dumps({"agent": arm.agent, **task, "settings": arm.chosen(size)}))


def summary(outcome: Outcome) -> dict[str, Any]:
    """An arm in the record: its IQM with interval, the score of each seed, the same of each point of the curve."""
    curve = [_interval(column[np.isfinite(column)]) for column in outcome.curve.T]
    points = {name: [point[name] for point in curve] for name in ("iqm", "low", "high")}
    scores = [_rounded(x) for x in outcome.scores]
    return {
        **_interval(outcome.scores),
        "scores": scores,
        "curve": {"steps": [int(s) for s in outcome.steps], **points, "axes": list(outcome.axes)},
    }


def provenance() -> dict[str, Any]:
    """When, from which commit, on what device, with which versions."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "mujoco-mjx")
    versions = {"python": platform.python_version(), **{name: _version(name) for name in packages}}
    return {"date": datetime.now(UTC).date().isoformat(), "commit": commit(), "device": device(), "versions": versions}


def commit() -> str:
    """The commit of the code, with `+changes` where the code in the tree differs from it."""
    try:
        git = lambda *args: subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=True
        ).stdout.strip()
        git("ls-files", "--error-unmatch", __file__)  # a repository that merely holds an environment does not track it
        code = ("jaxrl", "envs", "experiments", "pyproject.toml", "requirements.lock")
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device() -> str:
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"cpu, {platform.machine()}, {os.cpu_count()} cores"
    return f"{first.device_kind} x {jax.device_count()}"


def line(record: dict[str, Any]) -> str:
    """The verdict in one line: the main check's effect with its interval, and the first check that does not hold."""
    seeds = f"{len(record['test_seeds'])} test seeds" if record["test_seeds"] else "tuning seeds"
    checks = record["checks"]
    failing = [check for check in checks if check["verdict"] != "supported"]
    effect = f"{checks[0]['check']}: effect {spread(record)}"
    rest = f"{len(checks) - len(failing)} of {len(checks)} checks hold"
    why = "".join(f"; {c['verdict']}: {c['check']}, effect {spread(c)}" for c in failing[:1] if c is not checks[0])
    remark = " A smoke run shows that the claim runs, not whether it holds." if record["scale"] == "smoke" else ""
    return f"{record['id']}: {record['verdict']} ({record['scale']}, {seeds}). {effect}; {rest}{why}.{remark}"


def write(path: Path, record: dict[str, Any]) -> None:
    """Publish the record whole or not at all; lists of numbers stay on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.part")
    draft.write_text(_json(record) + "\n")
    draft.replace(path)


def _json(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict | list) or not value or _flat(value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + "  "
    if isinstance(value, dict):
        items, ends = [f"{json.dumps(k)}: {_json(v, deeper)}" for k, v in value.items()], "{}"
    else:
        items, ends = [_json(v, deeper) for v in value], "[]"
    return f"{ends[0]}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{ends[1]}"


def _flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(x, dict | list) for x in value)


def draw(record: dict[str, Any], path: Path) -> None:
    """The record's figure; without matplotlib, a remark."""
    try:
        from experiments.evidence.plot import figure
    except ModuleNotFoundError as missing:
        print(f"no figure: {missing.name} is not installed (pip install jaxrl[plot]).", file=sys.stderr)
        return
    figure(record, path)


def _numbers(found: Finding) -> dict[str, float | None]:
    return {"effect": _rounded(found.effect), **_bounds(found.low, found.high)}


def _interval(scores) -> dict[str, float | None]:
    """IQM, low and high; null where nothing was measured."""
    if not len(scores):
        return dict.fromkeys(("iqm", "low", "high"))
    return {"iqm": _rounded(float(iqm(scores))), **_bounds(*interval(scores))}


def _bounds(low: float, high: float) -> dict[str, float | None]:
    """An interval in the record: null of one seed, and where no score depends on the seed."""
    bounds = {"low": _rounded(low), "high": _rounded(high)}
    return dict.fromkeys(bounds) if bounds["low"] == bounds["high"] else bounds


def _since(start: float) -> float:
    return float(f"{time.perf_counter() - start:.6g}")


def _figures(scores) -> str:
    return f"IQM {spread(_interval(scores), 'iqm')}"


def spread(of: dict[str, Any], middle: str = "effect") -> str:
    """A figure with its interval, where there is one."""
    return f"{of[middle]:.4g}" + ("" if of["low"] is None else f" [{of['low']:.4g}, {of['high']:.4g}]")


def _rounded(x: float) -> float | None:
    """Six significant digits, and null for what JSON cannot say."""
    return float(f"{x:.6g}") if math.isfinite(x) else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
