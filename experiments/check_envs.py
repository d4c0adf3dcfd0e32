"""Step every environment of ours and report what is wrong with it: `python -m experiments.check_envs [NAME ...]`.

Slower than the tests, which look at shapes alone and step a few. Exits with 1 where anything was found.
"""

from collections.abc import Sequence

from envs.registry import check_env, make, names
from experiments.cli import answer, compile_cache


def main(args: Sequence[str]) -> int:
    compile_cache()
    wrong = 0
    for name in args or names():
        faults = [finding for finding in check_env(make(name)) if not finding.startswith("note:")]
        print(f"{name:<28} {'; '.join(faults) or 'nothing wrong'}", flush=True)
        wrong += len(faults)
    return 1 if wrong else 0


if __name__ == "__main__":
    answer(main)
