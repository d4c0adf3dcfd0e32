"""How often the intervals of `jaxrl.statistics` cover what they estimate, by simulation.

    python -m experiments.coverage [--trials 2000]

A row a kind of scores and a number of runs: the share of intervals of the interquartile mean that hold that of the
distribution, the share of intervals of the difference of two equal arms that lie above 0 (2.5 % are allowed), and the
share that the percentile interval alone covers.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jaxrl.statistics import difference, interval, iqm
from jaxrl.statistics.bootstrap import percentile_interval

Scores = Callable[[np.random.Generator, int], NDArray]


def two_values(share: float) -> Scores:
    """Scores near 1 in that share of runs and near 0 in the others, as of a task that is solved or not."""
    return lambda rng, n: (rng.uniform(size=n) < share) + 0.05 * rng.normal(size=n)


KINDS: dict[str, Scores] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "heavy tails (t, 3 degrees)": lambda rng, n: rng.standard_t(3, size=n),
    "skewed (log-normal)": lambda rng, n: rng.lognormal(size=n),
    "a fifth solved": two_values(0.2),
    "a third solved": two_values(1 / 3),
    "half solved": two_values(0.5),
}


def row(draw: Scores, runs: int, trials: int, seed: int = 0) -> tuple[float, float, float]:
    """Shares of `trials`: covered, a false difference above 0, covered by percentiles alone."""
    rng = np.random.default_rng(seed)
    truth = float(iqm(draw(rng, 2_000_000)))
    covered, above, plain = [], [], []
    for trial in range(trials):
        scores, other = draw(rng, runs), draw(rng, runs)
        low, high = interval(scores, resamples=3000, seed=trial)
        covered.append(low <= truth <= high)
        low, high = percentile_interval(scores, resamples=3000, seed=trial)
        plain.append(low <= truth <= high)
        above.append(difference(scores, other, resamples=3000, seed=trial)[1] > 0)
    return float(np.mean(covered)), float(np.mean(above)), float(np.mean(plain))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="intervals a row")
    trials = parser.parse_args().trials
    print("| scores | runs | covered | difference of equal arms above 0 | percentiles alone cover |")
    print("|---|---|---|---|---|")
    for name, draw in KINDS.items():
        for runs in (3, 5, 8, 10):
            covered, above, plain = row(draw, runs, trials)
            print(f"| {name} | {runs} | {covered:.1%} | {above:.1%} | {plain:.1%} |", flush=True)


if __name__ == "__main__":
    main()
