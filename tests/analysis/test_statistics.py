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
    for _ in range(1000):
        train, test = random.gamma(5, 10, 300), random.gamma(5, 11, 500)
        train[:20] = np.nan
        gap = statistics.gap_interval(train, test)
        covered.append(gap.low <= 5 <= gap.high)
        assert gap.estimate == pytest.approx(test.mean() - np.nanmean(train))
    assert abs(np.mean(covered) - 0.95) < SLACK


def test_gap_of_a_large_split_is_quick_and_normal():
    random = np.random.default_rng(0)
    train, test = random.standard_normal(20_000), 2 + random.standard_normal(20_000)
    gap = statistics.gap_interval(train, test)
    half = 1.96 * np.sqrt(train.var() / train.size + test.var() / test.size)
    np.testing.assert_allclose((gap.low, gap.high), (gap.estimate - half, gap.estimate + half), atol=0.002)


@pytest.mark.parametrize("means", [[0, 0, 0, 0], [0, 0.5, 1, 1], [3, 0, 0, -4], [2, 2, -9, -9]])
def test_largest_covers_though_picked(means):
    intervals = [statistics.largest(statistics.differences(trial)) for trial in rows(means)]
    assert np.mean([low > max(means) for _, low, _ in intervals]) < 0.025 + SLACK
    assert np.mean([high < max(means) for *_, high in intervals]) < 0.025 + SLACK


def test_the_uncorrected_lower_bound_would_fail():
    naive = [max(statistics.t_interval(column).low for column in trial.T) for trial in rows([0] * 8, trials=500)]
    assert np.mean(np.array(naive) > 0) > 0.06


@pytest.mark.parametrize("means", [[[0, 0, 0], [0, 0, 0]], [[1, 2, 9], [0, 5, 5]], [[0, 0, 4], [0, 4, 0]]])
def test_largest_smallest_covers_though_both_are_picked(means):
    means = np.array(means, float)
    trials = [trial.reshape(-1, *means.shape) for trial in rows(means.ravel())]
    intervals = [statistics.largest_smallest(statistics.differences(trial)) for trial in trials]
    truth = means.min(1).max()
    assert np.mean([low > truth for _, low, _ in intervals]) < 0.025 + SLACK
    assert np.mean([high < truth for *_, high in intervals]) < 0.025 + SLACK


def test_smallest_is_minus_the_largest_of_the_negatives():
    found, reverse = (statistics.differences(sign * rows([1, 2, 3], trials=1)[0]) for sign in (1, -1))
    estimate, low, high = statistics.largest(reverse)
    assert statistics.smallest(found) == pytest.approx((-estimate, -high, -low))


def test_the_largest_rise_is_of_a_lower_beta_over_a_higher_one():
    assert statistics.largest_rise(np.array([[1.0, 5.0, 2.0]])).estimate == 3
    assert statistics.largest_rise(np.array([[1.0, 2.0, 5.0]])).estimate == -1
    assert statistics.extent(np.array([[1.0, 5.0, 2.0], [1.0, 3.0, 2.0]])) == 3


def anova(curve):
    """Mean squares of restarts, and of the rest, by least squares on indicators of rows and columns."""
    count, betas = curve.shape
    row, column = np.divmod(np.arange(curve.size), betas)
    columns = np.eye(betas)[column]
    both = np.hstack([columns, np.eye(count)[row]])
    without, full = (curve.ravel() - design @ np.linalg.lstsq(design, curve.ravel(), rcond=None)[0]
                     for design in (columns, both))
    rest = (full**2).sum()
    return ((without**2).sum() - rest) / (count - 1), rest / ((count - 1) * (betas - 1))


def test_differences_on_a_curve_go_by_the_larger_spread():
    curve = rows([5, 1, 0, 3, 8], count=3, trials=1)[0]
    found = statistics.between(curve, [0, 1, 4], [2])
    own = scipy.stats.sem(curve[:, [0, 1, 4]] - curve[:, [2]])
    np.testing.assert_allclose(found.error, np.maximum(own, np.sqrt(2 * anova(curve)[1] / 3)))
    np.testing.assert_allclose(found.mean, (curve[:, [0, 1, 4]] - curve[:, [2]]).mean(0))
    assert found.freedom == 8
    high = found.mean + scipy.stats.t(8).ppf(0.99) * found.error
    np.testing.assert_allclose(found.bound(+1, 0.01), high)


def test_levels_of_a_curve_go_by_satterthwaites_degrees_of_freedom():
    curve = rows([5, 1, 0, 3], count=4, trials=1)[0]
    found = statistics.levels(curve)
    restarts, rest = anova(curve)
    pooled = curve.var(0, ddof=1).mean()
    assert pooled == pytest.approx(restarts / 4 + rest * 3 / 4)
    np.testing.assert_allclose(found.error, np.maximum(scipy.stats.sem(curve), np.sqrt(pooled / 4)))
    assert found.freedom == pytest.approx(pooled**2 / ((restarts / 4)**2 / 3 + (rest * 3 / 4)**2 / 9))


@pytest.mark.parametrize("shared", [0.0, 0.7, 5.0])
def test_levels_cover_however_much_a_restart_has_at_all_betas(shared):
    random = np.random.default_rng(0)
    trials = random.standard_normal((TRIALS, 3, 6)) + shared * random.standard_normal((TRIALS, 3, 1))
    intervals = [statistics.largest(statistics.levels(trial)) for trial in trials]
    assert np.mean([low > 0 for _, low, _ in intervals]) < 0.025 + SLACK
    assert np.mean([high < 0 for *_, high in intervals]) < 0.025 + SLACK


@pytest.mark.parametrize("place", [0, 3, 7])
def test_errors_stay_small_where_a_beta_scatters_three_times_as_much(place):
    """Flat curves, for the interior minimum; curves that rise by exactly a margin, for the largest rise.

    Two standard errors of the simulation lie between these bounds and what `between` says: 5% and 7%.
    """
    spreads = np.where(np.arange(8) == place, 3.0, 1.0)
    found = [statistics.interior_minimum(spreads * trial).p_value < 0.05 for trial in rows(FLAT, count=3)]
    assert np.mean(found) < 0.06
    means = np.array([2.0, 0, 3, 6, 9, 12, 15, 18])
    rises = [statistics.largest_rise(means + spreads * trial / 3) for trial in rows(FLAT, count=3)]
    assert np.mean([high < 2 for *_, high in rises]) < 0.08 and np.mean([low > 2 for _, low, _ in rises]) < 0.08


@pytest.mark.slow
def test_the_pooled_spread_alone_would_err_where_a_beta_scatters_more():
    spreads = np.where(np.arange(8) == 0, 3.0, 1.0)
    errors = []
    for trial in rows(FLAT, count=3):
        curve = np.array([2.0, 0, 3, 6, 9, 12, 15, 18]) + spreads * trial / 3
        upper = (curve[:, 0] - curve[:, 1]).mean() + scipy.stats.t(14).ppf(0.975) * np.sqrt(2 * anova(curve)[1] / 3)
        errors.append(upper < 2)
    assert np.mean(errors) > 0.1


def test_images_and_restarts_add_in_quadrature():
    found = statistics.Differences(np.zeros(1), np.array([3.0]), 4, np.array([4.0]), 9)
    halves = scipy.stats.t(4).ppf(0.975) * 3, scipy.stats.t(9).ppf(0.975) * 4
    assert statistics.largest(found) == pytest.approx((0, -np.hypot(*halves), np.hypot(*halves)))


@pytest.mark.parametrize("means", [[0, 0, 0, 0], [3, -3, 3, -3], [4, 4, 4, 4], [9, 0, 0, -1]])
def test_the_mean_absolute_value_covers(means):
    intervals = [statistics.mean_absolute(trial) for trial in rows(means)]
    covered = [low <= np.abs(means).mean() <= high for _, low, high in intervals]
    assert np.mean(covered) > 0.95 - SLACK
    assert np.isnan(statistics.mean_absolute(rows(means)[0, :1])[1:]).all()


def test_the_absolute_value_of_the_mean_would_let_signs_cancel():
    curves = rows([9, -9, 9, -9])
    assert np.mean([abs(statistics.t_interval(curve.mean(1)).estimate) < 2 for curve in curves]) > 0.95
    assert np.mean([statistics.mean_absolute(curve).low > 2 for curve in curves]) > 0.95


def test_a_difference_of_two_intervals_covers():
    first, second = rows([4.0], count=4)[:, :, 0], rows([1.0], count=4, spread=0.5, seed=1)[:, :, 0]
    intervals = [statistics.minus(statistics.t_interval(one), statistics.t_interval(other))
                 for one, other in zip(first, second)]
    assert 0.95 - SLACK < np.mean([low <= 3 <= high for _, low, high in intervals]) < 0.99
    assert statistics.minus(statistics.Interval(5, 2, 6), statistics.Interval(1, 0, 5)) == pytest.approx(
        (4, 4 - 5, 4 + np.sqrt(2)))


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
    margins = [statistics.interior_minimum(trial, 6).p_value <= 0.05 for trial in rows(means, spread=0.7)]
    assert np.mean(margins) < 0.025 + SLACK


@pytest.mark.parametrize("margin", [0.0, 0.8])
def test_interior_minimum_is_t_tests_with_a_bonferroni_factor(margin):
    values = rows([2, 0, 0.5, 3], trials=1)[0]
    pooled = np.sqrt(2 * anova(values)[1] / len(values))
    expected = 1.0
    for j in (1, 2):
        drops = [values[:, end] - values[:, j] for end in (0, -1)]
        scores = [(drop.mean() - margin) / max(scipy.stats.sem(drop), pooled) for drop in drops]
        expected = min(expected, scipy.stats.t(12).sf(min(scores)))
    found = statistics.interior_minimum(values, margin)
    assert found.p_value == pytest.approx(min(1, 2 * 2 * expected))
    assert found.depth.estimate == pytest.approx((np.minimum(*values.mean(0)[[0, -1]]) - values.mean(0)[1:-1]).max())


def test_pairing_by_seed_is_used():
    values = np.array([1.0, 0.0, 2.0]) + 1000.0 * np.arange(5)[:, None] + 0.01 * rows(FLAT[:3], trials=1)[0]
    assert statistics.interior_minimum(values).p_value < 1e-4


def test_edges_of_interior_minimum():
    assert statistics.interior_minimum(np.zeros((5, 3))).p_value == 1
    assert statistics.interior_minimum(np.array([[1.0, 0.0, 1.0]])).p_value == 1
    exact = statistics.interior_minimum(np.tile([1.0, 0.0, 1.0], (5, 1)))
    assert exact.p_value == 0 and exact.depth == (1, 1, 1) and exact.position == 1
    with pytest.raises(ValueError, match="needs 3 betas or more .got 2"):
        statistics.interior_minimum(np.zeros((5, 2)))
