"""The figure of a claim: learning curves of its arms, and their scores with intervals."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from experiments.evidence import Claim, Outcome, Verdict
from jaxrl.statistics import interval, iqm


def draw(claim: Claim, verdict: Verdict, scale: str, outcomes: dict[str, Outcome], path: Path) -> None:
    """Curves on the left (where an arm has one), a bar of scores on the right; bands and bars are 95 % intervals."""
    with_curves = any(outcome.curve.size for outcome in outcomes.values())
    height = max(3.6, 1.6 + 0.45 * len(outcomes))
    figure, axes = plt.subplots(
        1, 1 + with_curves, figsize=(5.2 + 5.2 * with_curves, height), layout="constrained", squeeze=False
    )
    colors = dict(zip(outcomes, plt.cm.tab10.colors * len(outcomes)))
    if with_curves:
        _curves(axes[0, 0], outcomes, colors)
    _scores(axes[0, -1], claim, outcomes, colors)
    figure.suptitle(f"{claim.id} at scale {scale}: {verdict}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})  # no version inside: equal data, equal file
    plt.close(figure)


def _curves(ax, outcomes, colors) -> None:
    seeds = max(len(outcome.scores) for outcome in outcomes.values())
    for name, outcome in outcomes.items():
        if outcome.curve.size:
            middle, low, high = band(outcome.curve)
            ax.plot(outcome.steps, middle, color=colors[name], label=name)
            ax.fill_between(outcome.steps, low, high, color=colors[name], alpha=0.18, linewidth=0)
    ax.set(xlabel="frames", ylabel="return of training episodes", title=f"IQM over {seeds} seeds, 95 % interval")
    ax.title.set_size(9)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, frameon=False)


def _scores(ax, claim, outcomes, colors) -> None:
    for at, (name, outcome) in enumerate(outcomes.items()):
        low, high = interval(outcome.scores)
        ax.hlines(at, low, high, color=colors[name], linewidth=7, alpha=0.35)
        ax.plot(outcome.scores, np.full(len(outcome.scores), at), "o", color=colors[name], markersize=3)
        ax.plot(iqm(outcome.scores), at, "|", color=colors[name], markersize=16, markeredgewidth=2)
    for level in sorted({check.level for check in claim.checks if hasattr(check, "level")}):
        ax.axvline(level, color="0.35", linestyle="--", linewidth=1, label=f"asked for: {level:g}")
        ax.legend(fontsize=8, frameon=False, loc="best")
    ax.set_yticks(range(len(outcomes)), outcomes, fontsize=8)
    ax.set_ylim(len(outcomes) - 0.4, -0.6)
    ax.set_xlabel(claim.metric, fontsize=8)
    ax.set_title("score: a dot a seed, IQM and 95 % interval", fontsize=9)
    ax.grid(axis="x", alpha=0.3)


def band(curve: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """IQM, low and high [points] of a curve [seeds, points]; NaN where no seed measured anything."""
    found = np.full((3, curve.shape[1]), np.nan)
    for point, column in enumerate(curve.T):
        values = column[np.isfinite(column)]
        if len(values):
            found[:, point] = (iqm(values), *interval(values, resamples=400))
    return tuple(found)
