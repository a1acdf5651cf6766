"""Intervals and tests against SciPy, by simulated coverage and error rates; naive readings as negative controls."""

import numpy as np
import pytest
import scipy.stats

from vae_rd.analysis import statistics

TRIALS = 2000
SLACK = 3 * np.sqrt(0.05 * 0.95 / TRIALS)  # three standard errors of a simulated 5%


def rows(mean, count=5, spread=1.0, trials=TRIALS, seed=0):
    """Simulated curves [trials, restarts, betas]; a seed's betas share a part of their noise."""
    random = np.random.default_rng(seed)
    shared = random.standard_normal((trials, count, 1))
    return np.asarray(mean) + spread * (random.standard_normal((trials, count, len(mean))) + 0.7 * shared)


def test_t_interval_is_scipys():
    values = np.array([3.0, 4.5, 2.2, 3.3, 9.1])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.t_interval(values) == pytest.approx((values.mean(), *expected))
    assert statistics.t_interval([*values, np.nan]) == pytest.approx((values.mean(), *expected))


@pytest.mark.parametrize("values, estimate", [([], np.nan), ([2.0], 2.0)])
def test_too_few_values_have_no_interval(values, estimate):
    interval = statistics.t_interval(values)
    np.testing.assert_equal(tuple(interval), (estimate, np.nan, np.nan))


def test_t_interval_covers_as_often_as_it_says():
    covered = [low <= 10 <= high for _, low, high in map(statistics.t_interval, rows([10.0])[:, :, 0])]
    assert abs(np.mean(covered) - 0.95) < SLACK


def test_gap_interval_covers_and_leaves_nan_out():
    random = np.random.default_rng(0)
    covered = []
    for trial in range(200):
        train, test = random.gamma(5, 10, 300), random.gamma(5, 11, 500)
        train[:20] = np.nan
        gap = statistics.gap_interval(train, test, resamples=300, seed=trial)
        covered.append(gap.low <= 5 <= gap.high)
        assert gap.estimate == pytest.approx(test.mean() - np.nanmean(train))
    assert 0.89 < np.mean(covered) < 0.99


def test_gap_of_a_large_split_is_quick_and_normal():
    random = np.random.default_rng(0)
    train, test = random.standard_normal(20_000), 2 + random.standard_normal(20_000)
    gap = statistics.gap_interval(train, test)
    half = 1.96 * np.sqrt(train.var() / train.size + test.var() / test.size)
    np.testing.assert_allclose((gap.low, gap.high), (gap.estimate - half, gap.estimate + half), atol=0.002)


@pytest.mark.parametrize("means", [[0, 0, 0, 0], [0, 0.5, 1, 1], [3, 0, 0, -4], [2, 2, -9, -9]])
def test_largest_covers_though_picked(means):
    intervals = [statistics.largest(trial) for trial in rows(means)]
    assert np.mean([low > max(means) for _, low, _ in intervals]) < 0.025 + SLACK
    assert np.mean([high < max(means) for *_, high in intervals]) < 0.025 + SLACK


def test_the_uncorrected_lower_bound_would_fail():
    naive = [max(statistics.t_interval(column).low for column in trial.T) for trial in rows([0] * 8, trials=500)]
    assert np.mean(np.array(naive) > 0) > 0.06


def test_backtracks_are_all_pairs():
    values = np.array([[1.0, 5.0, 2.0]])
    np.testing.assert_array_equal(statistics.backtracks(values), [[-4.0, -1.0, 3.0]])


FLAT = [0] * 8
NO_INTERIOR_MINIMUM = {"flat": FLAT, "falling": list(range(8, 0, -1)), "rising": list(range(8)),
                       "hill": [0, 2, 4, 5, 5, 4, 2, 0], "as low as one end, the other far up": [0] * 7 + [90]}


@pytest.mark.parametrize("means", NO_INTERIOR_MINIMUM.values(), ids=NO_INTERIOR_MINIMUM.keys())
def test_no_interior_minimum_is_found_where_there_is_none(means):
    found = [statistics.interior_minimum(trial).p_value <= 0.05 for trial in rows(means)]
    assert np.mean(found) < 0.05 + SLACK


def test_reading_the_position_of_the_lowest_mean_would_find_one_in_a_flat_curve():
    assert np.mean([0 < trial.mean(0).argmin() < 7 for trial in rows(FLAT)]) > 0.5


def test_an_interior_minimum_is_found_placed_and_measured():
    means = [6, 3, 1, 0, 2, 4, 8, 15]
    results = [statistics.interior_minimum(trial) for trial in rows(means, spread=0.7)]
    assert np.mean([result.p_value <= 0.05 for result in results]) > 0.9
    assert np.mean([result.position in (2, 3, 4) for result in results]) > 0.95
    assert np.mean([result.depth.low <= 6 <= result.depth.high for result in results]) > 0.95 - SLACK


def test_interior_minimum_is_two_scipy_tests_and_a_bonferroni_factor():
    values = rows([2, 0, 0.5, 3], trials=1)[0]
    tests = [[scipy.stats.ttest_rel(values[:, j], values[:, end], alternative="less") for end in (0, -1)]
             for j in (1, 2)]
    expected = min(max(test.pvalue for test in ends) for ends in tests)
    assert statistics.interior_minimum(values).p_value == pytest.approx(min(1, 2 * expected))


def test_pairing_by_seed_is_used():
    values = np.array([1.0, 0.0, 2.0]) + 1000.0 * np.arange(5)[:, None] + 0.01 * rows(FLAT[:3], trials=1)[0]
    assert statistics.interior_minimum(values).p_value < 1e-4


def test_edges_of_interior_minimum():
    assert statistics.interior_minimum(np.zeros((5, 3))).p_value == 1
    assert statistics.interior_minimum(np.array([[1.0, 0.0, 1.0]])).p_value == 1
    exact = statistics.interior_minimum(np.tile([1.0, 0.0, 1.0], (5, 1)))
    assert exact.p_value == 0 and exact.depth == (1, 1, 1) and exact.position == 1
    with pytest.raises(ValueError, match="needs 3 betas or more; this curve has 2"):
        statistics.interior_minimum(np.zeros((5, 2)))
