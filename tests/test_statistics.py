"""Interquartile means and bootstrap intervals against hand-worked cases, scipy and a known distribution."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from jaxrl.core import BadInput
from jaxrl.statistics import difference, improvement, interval, iqm, proportion
from jaxrl.statistics.bootstrap import percentile_interval


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


@pytest.mark.parametrize("scores", [[3.0] * 5, [[3.0] * 4] * 2, [3.0, 3.0]])
@pytest.mark.parametrize("strata", [False, True])
def test_constant_scores_have_an_interval_of_no_width(scores, strata):
    assert interval(scores, strata=strata) == (3.0, 3.0)
    assert difference(scores, scores, strata=strata) == (0.0, 0.0, 0.0)


def test_interval_is_the_percentiles_of_known_resamples():
    """The mean of two draws from {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4."""
    assert percentile_interval([0.0, 1.0], confidence=0.95, statistic=np.mean) == (0.0, 1.0)
    assert percentile_interval([0.0, 1.0], confidence=0.4, statistic=np.mean) == (0.5, 0.5)


def test_one_run_has_no_interval():
    assert np.isnan(interval([3.0])).all() and np.isnan(interval([[3.0]])).all()
    assert np.isnan(difference([3.0], [1.0, 2.0, 3.0])[1:]).all() and difference([3.0], [1.0])[0] == 2
    assert np.isnan(interval([[1.0], [2.0]], strata=True)).all()


def test_below_five_runs_the_interval_is_students():
    """Of the mean of 0, 1 and 2: 1 +- 4.3027 / sqrt(3), as t has 2 degrees of freedom and the deviation is 1."""
    low, high = interval([0.0, 1.0, 2.0], resamples=200_000, statistic=np.mean)
    assert (low, high) == pytest.approx((1 - 4.3027 / 3**0.5, 1 + 4.3027 / 3**0.5), abs=0.01)
    _, low, high = difference([10.0, 11.0, 12.0], [0.0, 1.0, 2.0], resamples=200_000, statistic=np.mean)
    reach = 2.7764 * (2 / 3) ** 0.5  # 4 degrees of freedom
    assert (low, high) == pytest.approx((10 - reach, 10 + reach), abs=0.01)


def test_from_five_runs_on_percentiles_are_taken_at_students_quantile():
    """2.7764 deviations of t with 4 degrees of freedom are exceeded by a normal with a probability of 0.00275."""
    scores = np.random.default_rng(3).normal(size=5)
    wide = interval(scores, resamples=50_000)
    assert wide == percentile_interval(scores, confidence=1 - 2 * 0.0027485, resamples=50_000)


def test_a_difference_of_groups_of_unlike_spread_has_welchs_degrees_of_freedom():
    """A group without spread leaves the other's: 2.7764 deviations from five runs, as alone."""
    scores, still = np.random.default_rng(3).normal(size=5), np.zeros(9)
    _, low, high = difference(scores, still, resamples=50_000)
    assert (low, high) == pytest.approx(interval(scores, resamples=50_000), abs=0.05)


@pytest.mark.parametrize("runs", [3, 5, 8])
def test_intervals_cover_with_few_runs(runs):
    """About 95 % where 95 % is asked; percentiles alone cover 75 and 90 % from 3 and 5."""
    rng = np.random.default_rng(runs)
    found = [interval(rng.normal(2.0, 5.0, size=runs), resamples=3000, seed=trial) for trial in range(600)]
    assert np.mean([low <= 2.0 <= high for low, high in found]) >= 0.915


@pytest.mark.parametrize("runs", [3, 5])
def test_equal_arms_seldom_differ(runs):
    """A difference above 0 without any effect: 2.5 % are allowed; percentiles have 10 and 3.7 % from 3 and 5."""
    rng = np.random.default_rng(runs)
    pairs = [rng.normal(size=(2, runs)) for _ in range(600)]
    assert np.mean([difference(*pair, resamples=2000, seed=i)[1] > 0 for i, pair in enumerate(pairs)]) <= 0.03


def test_the_exact_interval_of_a_proportion():
    """Clopper and Pearson: of 10 of 10 the lower end is 0.025 ** (1 / 10); of 0 the upper one is its complement."""
    assert proportion(10, 10) == pytest.approx((0.025**0.1, 1.0))
    assert proportion(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert proportion(2, 3) == pytest.approx((0.0943, 0.9916), abs=1e-4)
    for of in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(BadInput, match="successes are"):
            proportion(*of)


def test_interval_is_a_function_of_its_seed():
    scores = np.random.default_rng(1).normal(size=10)
    assert interval(scores, seed=3) == interval(scores, seed=3)
    assert interval(scores, seed=3) != interval(scores, seed=4)


def test_a_normal_mean_is_covered_about_as_often_as_promised():
    """30 scores of a normal: a bootstrap of the mean covers about 95 % of the time."""
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(400):
        low, high = interval(rng.normal(2.0, 5.0, size=30), resamples=400, seed=trial, statistic=np.mean)
        covered.append(low <= 2.0 <= high)
    assert 0.91 <= np.mean(covered) <= 0.98


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
    assert high - low == pytest.approx(2 * 2.201 * episodes.std() / np.sqrt(12), rel=0.1)  # t of 11 degrees of freedom


def test_ignoring_seeds_would_narrow_the_interval():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 1)) * 10 + rng.normal(size=(6, 20))
    width = lambda pair: pair[1] - pair[0]
    assert width(interval(scores)) > 2 * width(interval(scores.ravel()))


def test_difference_by_hand_and_its_sign():
    treated, baseline = [10.0, 11.0, 12.0, 13.0], [1.0, 2.0, 3.0, 4.0]
    effect, low, high = difference(treated, baseline)
    assert effect == 9.0 and 4 <= low < 9 < high <= 14
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
