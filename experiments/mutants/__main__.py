"""How many one-token changes of the product its tests notice.

    python -m experiments.mutants [--count 200] [--seed 0]
    python -m experiments.mutants --paths jaxrl/agents/sac.py --all --quick

Draws that many of all places (`places.py`), so that each file has a share by its number of them; of which are drawn,
an edit elsewhere changes nothing. Each mutant meets the tests of its file (`tests_of`), up to the first that fails. It
is killed where one fails, and where they take five times as long as without it, which is counted apart. Survivors are
listed, each with the reason from `explained.json` where there is one: `{file: {line: {change: reason}}}`.

Writes a record, unless --paths is given; the exit code is 0 whatever survives, and 2 where tests fail without mutants.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import answer, flags, say_json
from experiments.mutants.places import Mutant, mutants
from experiments.mutants.trial import ROOT, Outcome, verdicts
from jaxrl.errors import BadInput

PROGRAM = "experiments.mutants"
ROOMS = ("equations", "rules", "sources", "models", "planning", "agents")
ALONE = ("jaxrl/core.py", "jaxrl/loop.py")
EXPLAINED = Path(__file__).parent / "explained.json"
LEAST = 60.0  # seconds at least that a mutant's tests may take

# Tests that cover a file beside tests/unit/ROOM/test_FILE.py, and take seconds.
BESIDE = {
    "jaxrl/core.py": ("core",),
    "jaxrl/loop.py": ("loop",),
    "jaxrl/equations/categorical.py": ("equations", "heads"),
    "jaxrl/equations/causal.py": ("causal",),
    "jaxrl/equations/diffusion.py": ("diffusion",),
    "jaxrl/equations/distributions.py": ("equations",),
    "jaxrl/equations/policies.py": ("equations",),
    "jaxrl/equations/returns.py": ("equations",),
    "jaxrl/equations/routing.py": ("moe",),
    "jaxrl/equations/tabular.py": ("tabular_learners",),
    "jaxrl/equations/values.py": ("equations",),
    "jaxrl/models/bits.py": ("dyna",),
    "jaxrl/models/diffusion.py": ("diffusion",),
    "jaxrl/models/ensemble.py": ("models",),
    "jaxrl/models/flow.py": ("diffusion",),
    "jaxrl/planning/guided.py": ("planning",),
    "jaxrl/planning/search.py": ("planning",),
    "jaxrl/rules/distillation.py": ("moe",),
    "jaxrl/rules/precision.py": ("precision",),
    "jaxrl/rules/resets.py": ("plasticity",),
    "jaxrl/sources/budget.py": ("sources",),
    "jaxrl/sources/dataset.py": ("sources",),
    "jaxrl/sources/mix.py": ("sources",),
    "jaxrl/sources/onpolicy.py": ("sources",),
    "jaxrl/sources/prioritised.py": ("prioritised",),
    "jaxrl/sources/replay.py": ("sources",),
    "jaxrl/sources/ring.py": ("sources", "prioritised"),
    "jaxrl/agents/mex_tabular.py": ("tabular_learners",),
    "jaxrl/agents/tabular.py": ("tabular_learners",),
    "jaxrl/agents/ucbvi.py": ("tabular_learners",),
}


@dataclasses.dataclass(frozen=True)
class Options:
    count: Annotated[int, tyro.conf.arg(help="mutants to draw")] = 200
    seed: Annotated[int, tyro.conf.arg(help="of the draw")] = 0
    paths: Annotated[tuple[str, ...], tyro.conf.arg(help="only of these files")] = ()
    all: Annotated[bool, tyro.conf.arg(help="every mutant of these files")] = False
    quick: Annotated[bool, tyro.conf.arg(help="only the tests in tests/unit, where a file has some")] = False
    workers: Annotated[int, tyro.conf.arg(help="mutants on trial at a time")] = 2
    out: Annotated[Path, tyro.conf.arg(help="where the record goes")] = Path("docs/results/mutants.json")


def parse(args: Sequence[str]) -> Options:
    options = flags(Options, args, PROGRAM, __doc__)
    for name in ("count", "workers"):
        if getattr(options, name) < 1:
            raise BadInput(f"{name} is {getattr(options, name)}; it is at least 1.")
    if options.all and not options.paths:
        raise BadInput("--all without --paths would take a day: name the files with --paths.")
    for path in options.paths:
        if not (ROOT / path).is_file() or not path.startswith("jaxrl/"):
            raise BadInput(f"'{path}' is no file of jaxrl/: name files from the root, as jaxrl/agents/sac.py.")
    return options


def files() -> list[str]:
    """The files that mutants are drawn from."""
    inside = (path for room in ROOMS for path in sorted((ROOT / "jaxrl" / room).glob("*.py")))
    return [*ALONE, *(str(path.relative_to(ROOT)) for path in inside)]


def tests_of(path: str, quick: bool = False) -> list[str]:
    """The tests that a mutant of a file meets: its own in tests/unit first, then what covers it beside."""
    room, name = Path(path).parts[1:-1], Path(path).name
    own = Path("tests", "unit", *room, f"test_{name}")
    beside = [f"tests/test_{other}.py" for other in BESIDE.get(path, ())]
    if not (ROOT / own).exists():
        return beside
    return [str(own)] if quick else [str(own), *beside]


def drawn(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """That many of the mutants. Each has a number by its seed and text, and those of the least numbers are taken."""
    times: Counter = Counter()

    def number(mutant: Mutant) -> bytes:
        words = (mutant.path, mutant.line, mutant.change)
        times[words] += 1
        return hashlib.sha256(repr((seed, *words, times[words])).encode()).digest()

    return sorted(found, key=number)[:count]


def baseline(tests: list[list[str]], workers: int) -> dict[tuple[str, ...], float]:
    """Seconds that each set of tests takes without a mutant. Raises BadInput where one fails."""
    seconds = {}
    for _, asked, outcome in verdicts(((None, one, 1800.0) for one in tests), workers):
        if outcome.verdict != "survived":
            raise BadInput(f"tests fail without any mutant, and have to be mended first: {outcome.said}.")
        seconds[tuple(asked)] = outcome.seconds
    return seconds


def tried(chosen: list[Mutant], options: Options) -> list[tuple[Mutant, Outcome]]:
    """The mutants with what became of them, in the order in which they were drawn."""
    tests = {mutant: tests_of(mutant.path, options.quick) for mutant in chosen}
    usual = baseline([list(one) for one in sorted({tuple(one) for one in tests.values()})], options.workers)
    trials = [(one, tests[one], max(LEAST, 5 * usual[tuple(tests[one])])) for one in chosen if tests[one]]
    outcomes = {one: Outcome("untested", 0.0) for one in chosen if not tests[one]}
    for mutant, _, outcome in verdicts(trials, options.workers):
        outcomes[mutant] = outcome
        if outcome.verdict not in ("killed", "timeout"):
            print(f"{mutant.path}:{mutant.begin[0]}: {outcome.verdict}: {mutant.change}", file=sys.stderr, flush=True)
    return [(mutant, outcomes[mutant]) for mutant in chosen]


def explanation(mutant: Mutant, explained: dict[str, Any]) -> str | None:
    return explained.get(mutant.path, {}).get(mutant.line, {}).get(mutant.change)


def summary(outcomes: list[tuple[Mutant, Outcome]]) -> dict[str, Any]:
    """What a record holds of the outcomes."""
    explained = json.loads(EXPLAINED.read_text())
    told: dict[str, Counter] = {}
    for mutant, outcome in outcomes:
        told.setdefault(mutant.path, Counter())[outcome.verdict] += 1
    total = sum(told.values(), Counter())
    survivors = [mutant for mutant, outcome in outcomes if outcome.verdict not in ("killed", "timeout")]
    return {
        "mutants": len(outcomes),
        "killed": total["killed"] + total["timeout"],
        "of_which_by_time": total["timeout"],
        "share": round((total["killed"] + total["timeout"]) / max(len(outcomes), 1), 3),
        "files": {path: dict(told[path]) for path in sorted(told)},
        "survivors": [
            {
                "file": one.path,
                "number": one.begin[0],
                "line": one.line,
                "change": one.change,
                "explained": explanation(one, explained),
            }
            for one in sorted(survivors, key=lambda one: (one.path, one.begin))
        ],
    }


def main(args: Sequence[str]) -> int:
    options, start = parse(args), time.time()
    found = [one for path in options.paths or files() for one in mutants((ROOT / path).read_text(), path)]
    outcomes = tried(found if options.all else drawn(found, options.count, options.seed), options)
    record = {"seed": options.seed, "places": len(found), **summary(outcomes)}
    record["seconds"] = round(time.time() - start)
    if not options.paths:
        from experiments.evidence.runner import provenance

        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**record, **provenance()}, indent=1) + "\n")
    unexplained = sum(one["explained"] is None for one in record["survivors"])
    told = {name: record[name] for name in ("places", "mutants", "killed", "of_which_by_time", "share", "seconds")}
    say_json({**told, "unexplained": unexplained, "files": record["files"]})
    return 0


if __name__ == "__main__":
    answer(main)
