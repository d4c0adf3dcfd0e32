"""`python -m experiments.evidence [ID ...] --scale SCALE`: one verdict line a claim; all claims without an ID."""

import argparse
import sys
from pathlib import Path

from experiments.evidence import claims, unknown

SCALES = ("smoke", "cpu", "gpu")


def main(argv: list[str] | None = None) -> int:
    known = claims()
    parser = argparse.ArgumentParser(prog="python -m experiments.evidence", description=__doc__)
    parser.add_argument("id", nargs="*", help=f"what to judge: {', '.join(known)}; all of them if left out")
    parser.add_argument("--scale", default="smoke", help="smoke (seconds), cpu (minutes to about an hour) or gpu")
    parser.add_argument("--tune", action="store_true", help="run on the tuning seeds, which judge nothing")
    parser.add_argument("--keep", action="store_true", help="run no arm again that is done: go on, or add arms")
    parser.add_argument("--judge", action="store_true", help="run nothing: judge the scores of the records again")
    parser.add_argument("--out", type=Path, help="folder for the record and the figure")
    args = parser.parse_args(argv)
    try:
        chosen = [_chosen(known, name) for name in args.id] or list(known.values())
        if args.scale not in SCALES:
            raise unknown("scale", args.scale, SCALES)
        return _judge(chosen, args)
    except ValueError as bad:
        from jaxrl.core import BadInput  # only now: the core imports jax

        if not isinstance(bad, BadInput):
            raise
        print(bad, file=sys.stderr)
        return 2


def _chosen(known, name):
    if name not in known:
        raise unknown("claim", name, known)
    return known[name]


def _judge(chosen, args) -> int:
    from experiments.cli import compile_cache, quiet_stdout
    from experiments.evidence.runner import COMMITTED, judge_again, line, run

    if args.judge:
        places = [(claim, (args.out or COMMITTED) / f"{claim.id}-{args.scale}.json") for claim in chosen]
        missing = [place.name for _, place in places if args.id and not place.exists()]
        if missing:
            raise unknown("record", missing[0], [place.name for place in COMMITTED.glob("*.json")])
        for claim, place in places:
            if place.exists():
                print(line(judge_again(claim, place)), flush=True)
        return 0
    compile_cache()
    for claim in chosen:
        # Without names, what has no such scale is passed over rather than refused.
        if args.id or args.scale in claim.scales:
            with quiet_stdout():
                record = run(claim, args.scale, args.tune, args.out, args.keep)
            print(line(record), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
