"""The interquartile mean and bootstrap intervals that cover with few runs.

Follows Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021): aggregate by the
interquartile mean, resample runs within tasks, report intervals instead of point estimates.

Deviations: their percentile intervals cover 75 % from 3 runs and 90 % from 5 where 95 % is asked, as resamples of n
runs vary less than n runs do. Ours take the percentiles at the quantile of Student's t with n - 1 degrees of freedom in
place of the normal's (Welch's degrees for a difference), which keeps their skewness; below 5 runs, whose resamples have
too few values, they are estimate +- t s, with the bootstrap's standard error s times sqrt(n / (n - 1)). By simulation
(`python -m experiments.coverage`) they cover 92 to 97 %, and a difference of equal arms lies above 0 in 1 to 2.4 % of
cases, where 2.5 % are allowed. Few runs of a task that is either solved or not are the exception: where a third or a
half of runs solve it, 72 and 76 % are covered from 3 runs, 86 and 94 % from 5; no method mends that.

Not here: hypothesis tests. A single run has no interval: NaN.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtr, stdtrit

# statistic(scores [..., n], axis=-1) -> [...]; `numpy.mean` and `numpy.median` are of this kind too.
Statistic = Callable[..., NDArray[np.float64]]


def iqm(scores: ArrayLike, axis: int | None = None) -> NDArray[np.float64]:
    """The interquartile mean: the mean of what is left after cutting floor(n / 4) scores from either end.

    Whole scores are cut, as `scipy.stats.trim_mean(scores, 0.25)` does, so that figures compare with published ones:
    of 10 scores the middle 6 count, of 5 the middle 3, and up to 3 scores it is the plain mean.

    Args:
        scores: of any shape.
        axis: the axis to average over; None takes all scores together.

    Returns:
        float64, [] where axis is None.

    Raises:
        BadInput: no scores, or one that is NaN or infinite.
    """
    scores = _checked("scores", scores)
    if axis is None:
        scores, axis = scores.ravel(), 0
    n = scores.shape[axis]
    middle = np.take(np.sort(scores, axis=axis), range(n // 4, n - n // 4), axis=axis)
    return middle.mean(axis=axis)


def interval(
    scores: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    statistic: Statistic = iqm,
    strata: bool = False,
) -> tuple[float, float]:
    """A bootstrap interval of a statistic of all scores, as the module has it.

    Args:
        scores: [seeds], which are resampled; or [rows, columns], of which there are two readings.
            By default rows are seeds and columns their episodes: each resample draws seeds, then episodes anew within
            each seed drawn, because both are chance. One row leaves only the episodes to draw.
            With `strata` rows are tasks and columns seeds: every task stays, seeds are drawn within each.
        confidence: the share of intervals that should hold the true value.
        resamples: how many resamples to draw.
        seed: of the draws; the same scores and seed give the same interval.
        statistic: called as `statistic(draws [resamples, n], axis=-1)`.
        strata: see scores.

    Returns:
        (low, high); NaN where there is one score alone.

    Raises:
        BadInput: no scores, one that is NaN or infinite, more than two axes, or a setting out of range.
    """
    _settings(confidence, resamples)
    scores, rng = _checked("scores", scores), np.random.default_rng(seed)
    values = statistic(_resampled(scores, resamples, rng, strata), axis=-1)
    variance, freedom, runs = _variance(values, scores, strata)
    return _covering(statistic(scores.reshape(1, -1), axis=-1).item(), values, variance, freedom, runs, confidence)


def percentile_interval(
    scores: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    statistic: Statistic = iqm,
    strata: bool = False,
) -> tuple[float, float]:
    """The percentile bootstrap interval, as published figures have it: too narrow with few runs. As `interval`."""
    _settings(confidence, resamples)
    draws = _resampled(_checked("scores", scores), resamples, np.random.default_rng(seed), strata)
    return _percentiles(statistic(draws, axis=-1), confidence)


def difference(
    treated: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    statistic: Statistic = iqm,
    strata: bool = False,
) -> tuple[float, float, float]:
    """How much more the treated runs score than the baseline's: statistic(treated) - statistic(baseline).

    The groups are resampled independently, as runs are not pairs: equal seeds of two algorithms share no noise. The
    arguments are those of `interval`.

    Returns:
        (effect, low, high).
    """
    _settings(confidence, resamples)
    groups = _checked("treated", treated), _checked("baseline", baseline)
    rng = np.random.default_rng(seed)
    ours, theirs = (statistic(group.reshape(1, -1), axis=-1).item() for group in groups)
    draws = [statistic(_resampled(group, resamples, rng, strata), axis=-1) for group in groups]
    (a, of_a, n), (b, of_b, m) = (_variance(values, group, strata) for values, group in zip(draws, groups))
    # Welch and Satterthwaite's degrees of freedom of a sum of two variances.
    freedom = (a + b) ** 2 / (a**2 / of_a + b**2 / of_b) if a + b > 0 else 1.0
    of_effect = (draws[0] - draws[1], a + b, freedom, min(n, m), confidence)
    return ours - theirs, *_covering(ours - theirs, *of_effect)


def improvement(
    treated: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The probability that a treated run beats a baseline run; ties count half. Both are [seeds].

    The Mann-Whitney statistic divided by the number of pairs, with a percentile bootstrap over either group, which is
    too narrow below some ten runs each.

    Returns:
        (probability, low, high).
    """
    _settings(confidence, resamples)
    groups = _checked("treated", treated).ravel(), _checked("baseline", baseline).ravel()
    rng = np.random.default_rng(seed)
    above, below = (_resampled(group, resamples, rng, strata=False) for group in groups)
    return float(_beats(*groups)), *_percentiles(_beats(above, below), confidence)


def proportion(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a probability, of which so many of some trials succeeded  (Clopper and Pearson 1934).

    Returns:
        (low, high).

    Raises:
        BadInput: more successes than trials, fewer than 0, no trial, or a confidence out of range.
    """
    _settings(confidence, 1)
    if not 0 <= successes <= trials or trials < 1:
        raise _refusal(f"successes are {successes} of {trials} trials; they lie between 0 and the trials, at least 1.")
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high


def _beats(treated: NDArray, baseline: NDArray) -> NDArray:
    """[..., n] and [..., m] -> [...]: the share of the n x m pairs that the treated wins."""
    margin = treated[..., :, None] - baseline[..., None, :]
    return ((margin > 0) + 0.5 * (margin == 0)).mean(axis=(-2, -1))


def _resampled(scores: NDArray, resamples: int, rng: np.random.Generator, strata: bool) -> NDArray:
    """[resamples, n] from [n] or [rows, columns]."""
    if scores.ndim not in (1, 2):
        raise _refusal(f"scores have {scores.ndim} axes; give [seeds], [seeds, episodes] or [tasks, seeds].")
    scores = np.atleast_2d(scores)
    rows, columns = scores.shape
    shape = (resamples, rows)
    row = np.broadcast_to(np.arange(rows), shape) if strata else rng.integers(rows, size=shape)
    column = rng.integers(columns, size=(*shape, columns))
    return scores[row[..., None], column].reshape(resamples, -1)


FEW = 5  # runs below which percentiles of resamples say too little


def _variance(values: NDArray, scores: NDArray, strata: bool) -> tuple[float, float, int]:
    """The variance of a statistic whose bootstrap values are given, its degrees of freedom, and how many runs vary."""
    rows, columns = np.atleast_2d(scores).shape
    tasks, runs = (rows, columns) if strata else (1, columns if rows == 1 else rows)
    return float(values.var(ddof=1)) * runs / max(runs - 1, 1), float(tasks * max(runs - 1, 1)), runs


def _covering(
    estimate: float, values: NDArray, variance: float, freedom: float, runs: int, confidence: float
) -> tuple[float, float]:
    """The interval of the module's docstring, from the bootstrap values of an estimate; NaN from one run."""
    if runs == 1:
        return np.nan, np.nan
    quantile = float(stdtrit(freedom, (1 + confidence) / 2))
    if runs < FEW:
        return estimate - quantile * variance**0.5, estimate + quantile * variance**0.5
    return _percentiles(values, float(2 * ndtr(quantile) - 1))


def _percentiles(values: NDArray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _checked(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(scores, np.float64)
    if scores.size == 0:
        raise _refusal(f"no {name}, shape {scores.shape}; at least 1 score is needed.")
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        value, at = scores[tuple(bad[0])], ", ".join(map(str, bad[0]))
        raise _refusal(
            f"there is {value} in {name} at index [{at}] ({len(bad)} of {scores.size} are not finite): find out why "
            "that run has no score before averaging the others."
        )
    return scores


def _settings(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise _refusal(f"confidence is {confidence}; it is a share between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise _refusal(f"resamples is {resamples}; at least 1 is needed.")


def _refusal(sentence: str) -> Exception:
    # Imported where it is raised: the core imports jax, which reading a table of scores should not cost.
    from jaxrl.core import BadInput

    return BadInput(sentence)
