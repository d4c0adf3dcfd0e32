"""How much the recipes repeat one another: lines in runs of six that stand in two files of `jaxrl/agents/` alike.

`python -m experiments.repeated` prints each file's share and the runs; it exits with 1 where any is 5 % or more.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

AGENTS = Path(__file__).parents[1] / "jaxrl" / "agents"
RUN, LIMIT = 6, 0.05  # lines in a row; share of a file's lines


def lines(text: str) -> list[str]:
    """What a file says, line by line: without indentation, blank lines, imports and comments of their own."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "import ", "from "))]


def repeated(files: Mapping[str, Sequence[str]], run: int = RUN) -> dict[str, list[int]]:
    """By file, the numbers of its lines that are within a run which another file has too."""
    places = defaultdict(set)
    for name, said in files.items():
        for i in range(len(said) - run + 1):
            places[tuple(said[i : i + run])].add((name, i))
    found: dict[str, set[int]] = {name: set() for name in files}
    for where in places.values():
        if len({name for name, _ in where}) > 1:
            for name, i in where:
                found[name].update(range(i, i + run))
    return {name: sorted(numbers) for name, numbers in found.items()}


def recipes() -> dict[str, list[str]]:
    return {path.stem: lines(path.read_text()) for path in sorted(AGENTS.glob("*.py"))}


def share(said: Sequence[str], numbers: Sequence[int]) -> float:
    return len(numbers) / max(len(said), 1)


def main() -> int:
    files = recipes()
    found = repeated(files)
    for name, said in files.items():
        print(f"{name:16} {len(said):4} lines   {share(said, found[name]):6.1%} repeated")
        for number in found[name]:
            print(f"    {said[number]}")
    return int(any(share(files[name], numbers) >= LIMIT for name, numbers in found.items()))


if __name__ == "__main__":
    sys.exit(main())
