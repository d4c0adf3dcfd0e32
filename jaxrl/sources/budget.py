"""What a source costs in memory, said before it is allocated.

`report` makes the sentence that a run prints first; `require` refuses what cannot fit.
"""

import os
from pathlib import Path

import jax

from jaxrl.core import BadInput, PyTree, Source


def footprint(tree: PyTree) -> int:
    """Bytes of all arrays in a pytree of arrays or `ShapeDtypeStruct`s."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def human(size: float) -> str:
    """Bytes in units that people read, 1 kB being 1000 bytes: 34000000 -> '34.0 MB'."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def report(source: Source, example: PyTree, seeds: int = 1) -> str:
    """One sentence: the bytes that the source's state will take, from the shapes of one tick alone.

    Raises:
        BadInput: what the source's own `init` refuses.
    """
    each = footprint(jax.eval_shape(source.init, example))
    return f"The source takes {human(each * seeds)} ({each:,} bytes a seed, {seeds} seed{'s' if seeds > 1 else ''})."


def available(meminfo: str = "/proc/meminfo") -> int | None:
    """Bytes free for new arrays where jax puts them: the accelerator's, else the host's; None where nobody tells."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    if Path(meminfo).exists():
        for line in Path(meminfo).read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf") else {}
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in names:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


def require(size: int, budget: int | None, what: str) -> None:
    """Raise `BadInput` with the figure where `what` of `size` bytes exceeds the budget (None: half of what is free)."""
    free = available() if budget is None else None
    limit = budget if free is None else free // 2
    if limit is not None and size > limit:
        given = f"the budget of {human(limit)}" if free is None else f"half of the {human(free)} that are free"
        raise BadInput(
            f"{what} needs {human(size)} ({size:,} bytes), more than {given}: lower capacity or raise budget (bytes)."
        )
