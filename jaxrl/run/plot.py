"""The learning curve of one run: the mean over its seeds and a 95 % interval of that mean."""

import io
from pathlib import Path

import numpy as np

from jaxrl.run.directory import write
from jaxrl.run.sinks import Row
from jaxrl.statistics import interval

SCORES = {"evaluation/return": "return of the greedy policy", "episode/return": "return while training"}


def curve(rows: list[Row], path: Path, title: str) -> bool:
    """Draw the first of SCORES that the rows hold. False where matplotlib or the scores are missing.

    With one seed there is a line alone: one number has no interval. The axis spans what the seeds scored, beyond which
    the interval of two or three reaches.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    name = next((name for name in SCORES if any(row.get(name) is not None for row in rows)), None)
    if name is None:
        return False
    steps, mean, low, high, seeds = summary(rows, name)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    many = f"mean of {seeds} seeds" if seeds > 1 else "1 seed"
    axes.plot(steps, mean, color="#1f5fa8", linewidth=1.8, marker="o", markersize=3, label=many)
    if seeds > 1:
        axes.fill_between(steps, low, high, color="#1f5fa8", alpha=0.2, linewidth=0, label="95 % interval")
    axes.set_xlabel("environment steps (frames)")
    axes.set_ylabel(f"{SCORES[name]}\n(sum of rewards an episode)")
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.set_xlim(left=0)
    scores = [row[name] for row in rows if row.get(name) is not None]
    margin = 0.05 * (max(scores) - min(scores)) or 1.0
    axes.set_ylim(min(scores) - margin, max(scores) + margin)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="best")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    write(path, picture.getvalue())
    return True


def summary(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Steps, mean, low and high, each [points], and the number of seeds, from the rows that hold `name`."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.get(name) is not None:
            found.setdefault(row["step"], []).append(row[name])
    steps = np.array(sorted(found))
    bounds = np.array([interval(found[step], statistic=np.mean) for step in steps])
    mean = np.array([np.mean(found[step]) for step in steps])
    return steps, mean, bounds[:, 0], bounds[:, 1], max(map(len, found.values()))
