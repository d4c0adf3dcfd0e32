"""The figure of a claim, drawn from its record alone: learning curves of its arms, and their scores with intervals."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator


def figure(record: dict[str, Any], path: Path) -> None:
    """Curves on the left (where an arm has one), scores on the right; bands and bars are 95 % intervals.

    An arm has one colour in both, and its name stands beside its scores.
    """
    arms = record["arms"]
    curves = any(arm["curve"]["steps"] for arm in arms.values())
    size = (5.2 + 5.2 * curves, max(3.6, 1.6 + 0.45 * len(arms)))
    fig, axes = plt.subplots(1, 1 + curves, figsize=size, layout="constrained", squeeze=False)
    colors = dict(zip(arms, plt.cm.tab10.colors * len(arms)))
    levels = sorted({check["level"] for check in record["checks"] if check["level"] is not None})
    if curves:
        _curves(axes[0, 0], arms, colors)
    _scores(axes[0, -1], record["metric"], arms, colors, levels)
    fig.suptitle(f"{record['id']} at scale {record['scale']}: {record['verdict']}", fontsize=11)
    fig.savefig(path, dpi=110, metadata={"Software": None})  # no version inside: equal data, equal file
    plt.close(fig)


def _curves(ax, arms, colors) -> None:
    for name, arm in arms.items():
        # Null becomes NaN.
        curve = {part: np.array(arm["curve"][part], float) for part in ("steps", "iqm", "low", "high")}
        ax.plot(curve["steps"], curve["iqm"], color=colors[name])
        ax.fill_between(curve["steps"], curve["low"], curve["high"], color=colors[name], alpha=0.15, linewidth=0)
    across, up = next(iter(arms.values()))["curve"].get("axes", ("frames", "return of training episodes"))
    ax.set(xlabel=across, ylabel=up)
    ax.set_title(f"IQM over {max(len(arm['scores']) for arm in arms.values())} seeds, 95 % interval", fontsize=9)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(alpha=0.3)


def _scores(ax, metric, arms, colors, levels) -> None:
    for at, (name, arm) in enumerate(arms.items()):
        if arm["low"] is not None:
            ax.hlines(at, arm["low"], arm["high"], color=colors[name], linewidth=9, alpha=0.35)
        ax.plot(arm["scores"], np.full(len(arm["scores"]), at), "o", color=colors[name], markersize=3, alpha=0.6)
        ax.plot(arm["iqm"], at, "|", color=colors[name], markersize=18, markeredgewidth=2.5)
    ax.margins(x=0.3 if levels else 0.05)  # room for what is written beside a level
    for level in levels:
        ax.axvline(level, color="0.35", linestyle="--", linewidth=1)
        place = {"xycoords": ("data", "axes fraction"), "xytext": (-3, -9), "textcoords": "offset points"}
        ax.annotate(f"asked for: {level:g}", (level, 1), **place, ha="right", fontsize=8, color="0.35")
    ax.set_yticks(range(len(arms)), arms, fontsize=8)
    for label, color in zip(ax.get_yticklabels(), colors.values()):
        label.set(color=color, fontweight="bold")
    ax.set_ylim(len(arms) - 0.4, -0.7)
    ax.set_xlabel(metric, fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_title("score: a dot a seed, IQM and 95 % interval", fontsize=9)
    ax.grid(axis="x", alpha=0.3)
