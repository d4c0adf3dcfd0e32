"""Interquartile means and bootstrap intervals against hand-worked cases, scipy and a known distribution."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from jaxrl.core import BadInput
from jaxrl.statistics import difference, improvement, interval, iqm


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([0.0, 3.0, 9.0], 4.0),  # floor(3 / 4) = 0: the plain mean
        ([100.0, 1.0, 3.0, -50.0], 2.0),  # one from either end
        ([5.0, 1.0, 2.0, 3.0, 4.0], 3.0),
        (list(range(10)), 4.5),  # two from either end: the mean of 2 .. 7
        ([0, 0, 0, 6, 8, 900, 900, 900], 3.5 + 450 / 2),  # the mean of 0, 6, 8, 900
        ([[1.0, 2.0], [3.0, 400.0]], 2.5),  # all scores together
    ],
)
def test_iqm_by_hand(scores, expected):
    assert iqm(scores) == pytest.approx(expected)


def test_iqm_cuts_as_scipy_does():
    rng = np.random.default_rng(0)
    for n in range(1, 23):
        scores = rng.normal(size=(3, n))
        np.testing.assert_allclose(iqm(scores, axis=1), stats.trim_mean(scores, 0.25, axis=1))
        np.testing.assert_allclose(iqm(scores), stats.trim_mean(scores.ravel(), 0.25))


def test_one_outlier_does_not_move_iqm():
    scores = np.arange(8.0)
    assert iqm([*scores[:-1], 1e9]) == iqm(scores)


@pytest.mark.parametrize("scores", [[3.0] * 5, [[3.0] * 4] * 2, [3.0]])
@pytest.mark.parametrize("strata", [False, True])
def test_constant_scores_have_an_interval_of_no_width(scores, strata):
    assert interval(scores, strata=strata) == (3.0, 3.0)
    assert difference(scores, scores, strata=strata) == (0.0, 0.0, 0.0)


def test_interval_is_the_percentiles_of_known_resamples():
    """The mean of two draws from {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4."""
    assert interval([0.0, 1.0], confidence=0.95, statistic=np.mean) == (0.0, 1.0)
    assert interval([0.0, 1.0], confidence=0.4, statistic=np.mean) == (0.5, 0.5)


def test_interval_is_a_function_of_its_seed():
    scores = np.random.default_rng(1).normal(size=10)
    assert interval(scores, seed=3) == interval(scores, seed=3)
    assert interval(scores, seed=3) != interval(scores, seed=4)


def test_a_normal_mean_is_covered_about_as_often_as_promised():
    """30 scores of a normal: a percentile bootstrap of the mean covers a little less than 95 % of the time."""
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(400):
        low, high = interval(rng.normal(2.0, 5.0, size=30), resamples=400, seed=trial, statistic=np.mean)
        covered.append(low <= 2.0 <= high)
    assert 0.90 <= np.mean(covered) <= 0.97


def test_width_agrees_with_the_standard_error():
    scores = np.random.default_rng(0).normal(size=200)
    low, high = interval(scores, statistic=np.mean)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(200), rel=0.08)


def test_rows_of_seeds_are_resampled_but_rows_of_tasks_are_kept():
    """Rows that differ among each other and are constant within: all of the chance is in which rows are drawn."""
    scores = np.repeat([[0.0], [10.0], [20.0], [30.0]], 5, axis=1)
    low, high = interval(scores, statistic=np.mean)
    assert low < 10 and high > 20
    assert interval(scores, statistic=np.mean, strata=True) == (15.0, 15.0)


def test_one_seed_leaves_its_episodes_to_draw():
    episodes = np.arange(12.0)
    low, high = interval(episodes[None], statistic=np.mean)
    assert low < 5.5 < high
    assert high - low == pytest.approx(2 * 1.96 * episodes.std() / np.sqrt(12), rel=0.1)


def test_ignoring_seeds_would_narrow_the_interval():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 1)) * 10 + rng.normal(size=(6, 20))
    width = lambda pair: pair[1] - pair[0]
    assert width(interval(scores)) > 2 * width(interval(scores.ravel()))


def test_difference_by_hand_and_its_sign():
    treated, baseline = [10.0, 11.0, 12.0, 13.0], [1.0, 2.0, 3.0, 4.0]
    effect, low, high = difference(treated, baseline)
    assert effect == 9.0 and 6 <= low < 9 < high <= 12
    assert difference(baseline, treated)[0] == -9.0
    assert difference(treated, baseline, statistic=np.max)[0] == 9.0


def test_improvement_by_hand():
    assert improvement([2.0, 3.0], [0.0, 1.0]) == (1.0, 1.0, 1.0)
    assert improvement([0.0, 1.0], [2.0, 3.0]) == (0.0, 0.0, 0.0)
    assert improvement([1.0], [1.0]) == (0.5, 0.5, 0.5)
    probability, low, high = improvement([1.0, 3.0], [1.0, 2.0])  # pairs: tie, loss, win, win
    assert probability == 0.625 and low < probability < high


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: iqm([1.0, np.nan, 2.0]), r"nan in scores at index \[1\]"),
        (lambda: interval([[1.0, 2.0], [3.0, np.inf]]), r"inf in scores at index \[1, 1\]"),
        (lambda: difference([1.0, 2.0], [np.nan, 1.0]), r"nan in baseline at index \[0\]"),
        (lambda: improvement([np.nan], [1.0]), r"nan in treated at index \[0\]"),
        (lambda: iqm([]), "no scores"),
        (lambda: interval(3.0), "0 axes"),
        (lambda: interval(np.zeros((2, 2, 2))), "3 axes"),
        (lambda: interval([1.0], confidence=95), "confidence is 95"),
        (lambda: interval([1.0], resamples=0), "resamples is 0"),
    ],
)
def test_bad_input_is_named(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()


def test_statistics_need_no_jax():
    code = "import sys, jaxrl.statistics as s; s.interval([1., 2.]); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
