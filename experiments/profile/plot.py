"""The picture of a profile, drawn from its record alone: the roofline on the left, the efficiency gap on the right."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, NullFormatter

WATER, DRY, GREY = "#2b7bba", "#e07b39", "0.35"
SEEN = 0.0005  # the least share of a tick that is drawn; the table has all
AROUND = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (2, 2), (2, -2), (0, 3), (0, -3)]
RATE = EngFormatter(places=1)
HALO = [withStroke(linewidth=2.5, foreground="white")]  # where a name crosses a line


def figure(record: dict[str, Any], path: Path) -> None:
    """Points and rows are the pieces of a tick, in its order; the same colour in both."""
    pieces = [piece for piece in record["pieces"] if piece["share"] >= SEEN and piece["waterline"]]
    colors = dict(zip((piece["name"] for piece in pieces), plt.cm.tab10.colors * len(pieces)))
    size = (11.4, max(4.4, 2.4 + 0.36 * len(pieces)))
    fig, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained", width_ratios=(1, 1.05))
    fig.suptitle(title(record), fontsize=11)
    gaps(right, record["tick"], pieces, colors)
    hidden = ", ".join(piece["name"] for piece in record["pieces"] if piece not in pieces)
    rest = f"no piece's: {record['tick']['unexplained']:.1%}" + f";  under {SEEN:.2%}: {hidden}" * bool(hidden)
    right.set_xlabel(rest, fontsize=8.5)
    roofline(fig, left, record["ceilings"], pieces, colors)
    fig.savefig(path, dpi=110, metadata={"Software": None})  # no version inside: equal data, equal file
    plt.close(fig)


def title(record: dict[str, Any]) -> str:
    tick, repeat, second = record["tick"], record["repeat"], EngFormatter("s", places=2)
    held = f", {repeat} frames an action" if repeat > 1 else ""
    took, least = second(tick["seconds"]["median"]), second(tick["waterline"])
    where = f"{record['device']}, of which {record['cores']} used"
    return f"{record['agent']} on {record['env']}{held}: a tick takes {took}, its waterline is {least}  ({where})"


# -------------------------------------------------------------------------------------------------------- roofline


def roofline(fig, ax, ceilings, pieces, colors) -> None:
    """FLOP/s over FLOP a byte; the larger a point, the larger its share of the tick."""
    pieces = [piece for piece in pieces if work(piece)]
    x = [work(piece) / piece["bytes"] for piece in pieces]
    y = [work(piece) / piece["seconds"]["median"] for piece in pieces]
    peak, product = max((rate, name) for name, rate in ceilings.items() if name.startswith("product"))
    triads = sorted(((rate, name) for name, rate in ceilings.items() if name.startswith("triad")), reverse=True)
    low, high = min(*x, 0.5 * peak / triads[0][0]) / 3, max(*x, 2 * peak / triads[-1][0]) * 4
    line = np.geomspace(low, high, 200)
    ax.hlines(peak, peak / triads[0][0], high, color=GREY, label=f"{RATE(peak)}FLOP/s, {product}")
    for (rate, name), style in zip(triads, ("-", "--", ":")):
        ax.plot(line, np.minimum(peak, rate * line), style, color=GREY, label=f"{RATE(rate)}B/s, {name}")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(min(y) / 12, peak * 3))
    ax.set_xlabel("FLOP for each byte read or written", fontsize=9)
    ax.set_ylabel("FLOP/s", fontsize=9)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.tick_params(labelsize=8.5)
    ax.grid(alpha=0.25)
    ax.set_title("each piece under the measured ceilings; size: share of the tick", fontsize=9)
    ax.legend(fontsize=7.5, loc="lower right", framealpha=0.9)
    radii = [3 + 8 * piece["share"] ** 0.5 for piece in pieces]
    for piece, *point, radius in zip(pieces, x, y, radii):
        ax.plot(*point, "o", color=colors[piece["name"]], markersize=2 * radius, alpha=0.85, mec="white", mew=0.8)
    fig.canvas.draw()  # only now is it known where things are
    legend = ax.get_legend().get_window_extent()
    scale = fig.dpi / 72
    taken = [(legend.x0, legend.y0, legend.x1, legend.y1)]
    for *point, radius in zip(x, y, radii):
        px, py = ax.transData.transform(point)
        taken.append((px - radius * scale, py - radius * scale, px + radius * scale, py + radius * scale))
    for piece, *point, radius in zip(pieces, x, y, radii):
        taken.append(label(ax, piece["name"], point, radius + 3, colors[piece["name"]], taken))


def work(piece: dict[str, Any]) -> int:
    return piece["flops"] + piece["transcendentals"]


def label(ax, name, point, away, color, taken) -> tuple[float, float, float, float]:
    """Write a name beside its point where nothing stands yet; returns the box that it fills, in pixels."""
    for right, up in AROUND:
        side = {1: "left", -1: "right", 0: "center"}[np.sign(right)]
        height = {1: "bottom", -1: "top", 0: "center"}[np.sign(up)]
        how = {"ha": side, "va": height, "fontsize": 8.5, "color": color, "fontweight": "bold", "path_effects": HALO}
        text = ax.annotate(name, point, (right * away, up * away), textcoords="offset points", **how)
        box = text.get_window_extent()
        if (right, up) == AROUND[-1] or not any(
            box.x0 < x1 and x0 < box.x1 and box.y0 < y1 and y0 < box.y1 for x0, y0, x1, y1 in taken
        ):
            return box.x0, box.y0, box.x1, box.y1
        text.remove()
    raise AssertionError("the last place is always taken")


# ---------------------------------------------------------------------------------------------------------- gaps


def gaps(ax, tick, pieces, colors) -> None:
    """A row each, in seconds of a tick: its arithmetic alone, its waterline, and what was measured."""
    rows = [("whole tick", 1, {**tick, "share": 1}, "black")]
    rows += [(piece["name"], piece["calls"], piece, colors[piece["name"]]) for piece in pieces]
    beside = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8.5, "annotation_clip": False}
    for at, (_, calls, row, color) in enumerate(rows):
        arithmetic, water = calls * row["arithmetic"], calls * row["waterline"]
        low, median, high = (calls * row["seconds"][which] for which in ("low", "median", "high"))
        ax.hlines(at, arithmetic, water, color=WATER, linewidth=6, alpha=0.4)
        ax.hlines(at, water, median, color=DRY, linewidth=6, alpha=0.4)
        ax.hlines(at, low, high, color="black", linewidth=1.2)
        ax.plot(arithmetic, at, "|", color=WATER, markersize=12, mew=2)
        ax.plot(water, at, "D", color=WATER, markersize=6, mew=0)
        ax.plot(median, at, "o", color=color, markersize=8, mew=0)
        for offset, said in ((34, f"{row['gap']:.3g}x"), (74, f"{row['share']:.1%}")):
            ax.annotate(said, (1, at), (offset, 0), xycoords=ax.get_yaxis_transform(), color=color, **beside)
    for offset, said in ((34, "gap"), (74, "share")):
        ax.annotate(said, (1, 1), (offset, 8), xycoords="axes fraction", fontweight="bold", **beside)
    ax.axhline(0.5, color="0.8", linewidth=1)
    ax.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
    ax.margins(x=0.06)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8.5)
    for name, row in zip(ax.get_yticklabels(), rows):
        name.set(color=row[3], fontweight="bold")
    ax.xaxis.set_major_formatter(EngFormatter("s"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelsize=8.5)
    ax.grid(axis="x", alpha=0.25)
    ax.set_title("how far each is from its waterline, in time a tick", fontsize=9)
    kinds = [("|", WATER, "arithmetic alone"), ("D", WATER, "waterline: arithmetic or bytes"), ("o", GREY, "measured")]
    for mark, color, text in kinds:
        ax.plot([], [], mark, color=color, label=text, mew=2 if mark == "|" else 0, markersize=7)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3, frameon=False)
