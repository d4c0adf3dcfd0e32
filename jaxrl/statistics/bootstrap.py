"""The interquartile mean and percentile bootstrap intervals.

Follows Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021): aggregate by the
interquartile mean, resample runs within tasks, report intervals instead of point estimates.

Not here: hypothesis tests, and intervals for a single run (one number has none).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    resamples: int = 2000,
    seed: int = 0,
    statistic: Statistic = iqm,
    strata: bool = False,
) -> tuple[float, float]:
    """A percentile bootstrap interval of a statistic of all scores.

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
        (low, high).

    Raises:
        BadInput: no scores, one that is NaN or infinite, more than two axes, or a setting out of range.
    """
    _settings(confidence, resamples)
    draws = _resampled(_checked("scores", scores), resamples, np.random.default_rng(seed), strata)
    return _percentiles(statistic(draws, axis=-1), confidence)


def difference(
    treated: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 2000,
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
    draws_ours, draws_theirs = (statistic(_resampled(group, resamples, rng, strata), axis=-1) for group in groups)
    return ours - theirs, *_percentiles(draws_ours - draws_theirs, confidence)


def improvement(
    treated: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The probability that a treated run beats a baseline run; ties count half. Both are [seeds].

    The Mann-Whitney statistic divided by the number of pairs, with a bootstrap over either group.

    Returns:
        (probability, low, high).
    """
    _settings(confidence, resamples)
    groups = _checked("treated", treated).ravel(), _checked("baseline", baseline).ravel()
    rng = np.random.default_rng(seed)
    above, below = (_resampled(group, resamples, rng, strata=False) for group in groups)
    return float(_beats(*groups)), *_percentiles(_beats(above, below), confidence)


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
