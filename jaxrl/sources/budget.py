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


def available(meminfo: str = "/proc/meminfo", root: str = "/") -> int | None:
    """Bytes free for new arrays where jax puts them: the accelerator's, else the host's; None where nobody tells.

    The host's are those of the machine, or what the container or job that this process is in may still take.

    Args:
        root: of the file system in which the limits of control groups are looked up.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    found = [free for free in (machine(meminfo), container(root)) if free is not None]
    return min(found) if found else None


def machine(meminfo: str) -> int | None:
    """Bytes free of the machine's memory."""
    if Path(meminfo).exists():
        for line in Path(meminfo).read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf") else {}
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in names:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


# Where control groups are mounted, and their files: the limit, the use, and the statistics' name of what of that use
# is a cache of files which gives way. Version 2, then version 1.
GROUPS = (
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def container(root: str = "/") -> int | None:
    """Bytes that the control groups of this process leave to it: the least over a group and those around it; None
    where none has a limit."""
    groups: dict[str, str] = {}
    for line in _lines(Path(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    found = []
    for controller, mount, *files in GROUPS:
        top, path = Path(root, mount), groups.get(controller, "/").strip("/")
        within = [top / path, *(top / path).parents]
        # A container sees its own group as the top, whatever path it is told.
        found += [_left(group, *files) for group in within[: len(Path(path).parts) + 1]]
    return min((free for free in found if free is not None), default=None)


def _left(group: Path, limit: str, use: str, cache: str) -> int | None:
    """Bytes that one control group leaves; None where it has no limit."""
    most, used = (next(iter(_lines(group / name)), "") for name in (limit, use))
    if not (most.isdigit() and used.isdigit()):
        return None
    rows = (line.split() for line in _lines(group / "memory.stat"))
    gives = next((int(row[1]) for row in rows if row[:1] == [cache] and len(row) == 2), 0)
    return max(0, int(most) - max(0, int(used) - gives))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def require(size: int, budget: int | None, what: str) -> None:
    """Raise `BadInput` with the figure where `what` of `size` bytes exceeds the budget (None: half of what is free)."""
    free = available() if budget is None else None
    limit = budget if free is None else free // 2
    if limit is not None and size > limit:
        given = f"the budget of {human(limit)}" if free is None else f"half of the {human(free)} that are free"
        raise BadInput(
            f"{what} needs {human(size)} ({size:,} bytes), more than {given}: lower capacity or raise budget (bytes)."
        )
