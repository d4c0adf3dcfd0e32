"""`python -m experiments.bench [CASE ...]`: measure, print a line a record, and write docs/results/bench/NAME.json."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from experiments.bench import measure
from experiments.bench.cases import CASES, Case, quick


def run(case: Case) -> tuple[list[dict], dict[str, str]]:
    """The records of a case, and a sentence for each absent side. Raises RuntimeError where a side fails."""
    if case.kind == "compile":
        found, absent = measure.compile_seconds(case.sides, case.repeats)
    elif case.kind == "figures":
        found, absent = measure.figures(case.sides, case.pairs[0].peer)
    else:
        found, absent = measure.rates(case.sides, case.repeats)
    if any(pair.ours in absent for pair in case.pairs):
        raise RuntimeError(f"our own side cannot run: {absent}")
    records = []
    for pair in case.pairs:
        peer = found.get(pair.peer)
        pick = lambda one, figure=pair.figure: one and {**one, "each": one[figure]}
        note = case.note + (f"; {pair.peer} is absent: {absent[pair.peer]}" if pair.peer in absent else "")
        records.append(
            measure.record(pair.name, case.unit, pick(found[pair.ours]), pick(peer), note, pair.goal, pair.goal_of)
            | {"against": pair.peer}
        )
    return records, absent


def line(found: dict) -> str:
    """One record in words."""
    number = lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
    text = f"{found['name']:<28} ours {number(found['ours']):>10}"
    if found["peer"] is None:
        text += f"   {found['against']} absent: no ratio is claimed"
    else:
        low, median, high = (found[f"ratio_{which}"] for which in ("low", "median", "high"))
        text += f"   {found['against']:<12} {number(found['peer']):>10}   ratio {median:.2f} ({low:.2f} to {high:.2f})"
    if found["goal"] is not None:
        sense = {"ratio": "at least", "ours": "ours at most", "rate": "ours at least"}[found["goal_of"]]
        verdict = {True: "met", False: "MISSED", None: "not judged"}[found["met"]]
        text += f"   goal {sense} {found['goal']}: {verdict}"
    return f"{text}   [{found['unit']}]"


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all, if none is named")
    parser.add_argument("--quick", action="store_true", help="short windows, to see that all runs; to runs/bench")
    parser.add_argument("--repeats", type=int, help="turns of each side")
    parser.add_argument("--out", type=Path, help="folder of the records (docs/results/bench)")
    given = parser.parse_args(words)
    for name in given.cases:
        if name not in CASES:
            parser.error(f"unknown case '{name}': there are {', '.join(CASES)}.")
    if given.repeats is not None and given.repeats < 1:
        parser.error(f"--repeats is {given.repeats}; at least 1 turn is needed.")
    return given


def main(words: list[str]) -> int:
    given = arguments(words)
    out = given.out or measure.ROOT / ("runs/bench" if given.quick else "docs/results/bench")
    where = measure.circumstances(["python", "-m", "experiments.bench", *words])
    failed = 0
    for name in given.cases or CASES:
        case = quick(CASES[name]) if given.quick else CASES[name]
        if given.repeats:
            case = replace(case, repeats=given.repeats)
        print(f"{name}: {case.note}", file=sys.stderr)
        try:
            records, absent = run(case)
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed += 1
            continue
        for peer, reason in absent.items():
            print(f"{name}: {peer} is absent: {reason}", file=sys.stderr)
        for found in records:
            print(line(found), flush=True)
            measure.write(out, found | where)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
