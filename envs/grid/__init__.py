"""Grids: MiniGrid in JAX, equal to the package minigrid in rules, observations, rewards and layouts."""

from envs.entry import Entry


def _entry(factory: str, **settings) -> Entry:
    return Entry(f"envs.grid.layouts:{factory}", settings=settings)


TABLE = {
    **{f"grid-empty-{n}x{n}": _entry("empty", size=n) for n in (5, 6, 8, 16)},
    **{f"grid-empty-random-{n}x{n}": _entry("empty", size=n, random=True) for n in (5, 6)},
    "grid-fourrooms": _entry("four_rooms"),
    **{f"grid-doorkey-{n}x{n}": _entry("doorkey", size=n) for n in (5, 6, 8, 16)},
    **{f"grid-multiroom-n{n}-s{s}": _entry("multiroom", rooms=n, largest=s) for n, s in ((2, 4), (4, 5))},
    "grid-multiroom-n6": _entry("multiroom", rooms=6, largest=10),
    **{
        f"grid-keycorridor-s{s}r{r}": _entry("keycorridor", size=s, rows=r)
        for s, r in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3))
    },
    **{
        f"grid-obstructedmaze-{doors}dl{marks}": _entry(
            "obstructed_maze", doors=str(doors), hidden="h" in marks, blocked="b" in marks
        )
        for doors in (1, 2)
        for marks in ("", "h", "hb")
    },
    **{
        f"grid-obstructedmaze-{doors.lower()}": _entry("obstructed_maze", doors=doors, hidden=True, blocked=True)
        for doors in ("1Q", "2Q", "full")
    },
    **{
        f"grid-dynamic-obstacles-{n}x{n}": _entry("dynamic_obstacles", size=n, obstacles=balls)
        for n, balls in ((5, 2), (6, 3), (8, 4), (16, 8))
    },
    **{
        f"grid-dynamic-obstacles-random-{n}x{n}": _entry("dynamic_obstacles", size=n, obstacles=balls, random=True)
        for n, balls in ((5, 2), (6, 3))
    },
    **{f"grid-memory-s{n}": _entry("memory", size=n) for n in (7, 9, 11, 13)},
    **{f"grid-memory-s{n}-random": _entry("memory", size=n, random=True) for n in (13, 17)},
}
