"""Intervals over restarts and over images, and tests of the shape of a curve over beta.

Values of a curve come as [restarts, betas], paired by restart: the members of a row share their seed, so differences
between betas are taken within rows, and Student's t over rows is the one assumption (differences about normal).
"""

from typing import NamedTuple

import numpy as np
import scipy.special

LEVEL = 0.95  # coverage of every interval


class Interval(NamedTuple):
    """An estimate with the two ends of its interval; the ends are NaN where too few values carry one."""

    estimate: float
    low: float
    high: float


class InteriorMinimum(NamedTuple):
    """Whether some curve has a minimum away from both ends, where it is and how deep."""

    position: int  # column of the interior mean that lies furthest below both ends
    depth: Interval  # by how much the curve's lowest interior point lies below its lower end
    p_value: float


def t_half_width(std: np.ndarray, count: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half the width of Student's interval for a mean: t_(n-1) * std / sqrt(n); NaN below two values.

    Args:
        std: standard deviations over the values (ddof=1), any shape.
        count: numbers of values, same shape.
        level: coverage.
    """
    std, count = np.asarray(std, float), np.asarray(count, float)
    enough = np.where(count >= 2, count, np.nan)
    return scipy.special.stdtrit(enough - 1, 0.5 + level / 2) * std / np.sqrt(enough)


def t_interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Student's interval for the mean of independent values [n], one per restart; NaN values are left out."""
    values = _present(values)
    if not values.size:
        return Interval(np.nan, np.nan, np.nan)
    half = float(t_half_width(values.std(ddof=1), values.size, level)) if values.size > 1 else np.nan
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def gap_interval(train: np.ndarray, test: np.ndarray, level: float = LEVEL, resamples: int = 2000,
                 seed: int = 0) -> Interval:
    """Percentile bootstrap over images of mean(test) - mean(train), for one trained model.

    It says how well these images determine the gap of THIS model; how restarts differ is another matter.

    Args:
        train: values per training image [n], such as their distortions; NaN values are left out.
        test: values per test image [m], likewise.
        level: coverage.
        resamples: number of draws, of all n and all m images each.
        seed: of the draws.
    """
    import scipy.stats  # takes a second to load; nothing else here needs it
    samples = _present(test), _present(train)
    estimate = float(samples[0].mean() - samples[1].mean())
    if min(map(len, samples)) < 2:
        return Interval(estimate, np.nan, np.nan)
    drawn = scipy.stats.bootstrap(samples, lambda test, train, axis: test.mean(axis) - train.mean(axis),
                                  n_resamples=resamples, batch=20, vectorized=True, confidence_level=level,
                                  method="percentile", rng=np.random.default_rng(seed))
    return Interval(estimate, *map(float, drawn.confidence_interval))


def largest(differences: np.ndarray, level: float = LEVEL) -> Interval:
    """The largest of several mean differences, with an interval that knows it was picked.

    Upper end: the largest of the one-sided upper bounds. No correction is due: it misses only if the bound of the truly
    largest mean misses (intersection-union). Lower end: the largest of the one-sided lower bounds, each at the error
    rate divided by the number of differences (Bonferroni), since any of them may be the one that lies too high.
    Together they cover with at least `level`, whatever the dependence between columns.

    Args:
        differences: [restarts, k], NaN-free.
        level: coverage.
    """
    error = (1 - level) / 2
    low = _bound(differences, -1, error / differences.shape[1])
    high = _bound(differences, +1, error)
    return Interval(float(differences.mean(0).max()), float(low.max()), float(high.max()))


def backtracks(values: np.ndarray) -> np.ndarray:
    """All differences value(lower beta) - value(higher beta) of a curve [restarts, betas ascending], [restarts, pairs].

    A curve that falls as beta falls has none above zero; the largest one is by how much it turns back.
    """
    lower, higher = np.triu_indices(values.shape[1], 1)
    return values[:, lower] - values[:, higher]


def interior_minimum(values: np.ndarray, level: float = LEVEL) -> InteriorMinimum:
    """Tests whether a curve has a minimum away from both ends of its beta axis.

    Null hypothesis: no interior mean lies below both end means. One interior point is below both ends if it is below
    each, so its p-value is the larger of two paired one-sided t tests (intersection-union, exact without correction);
    that SOME interior point is below both is then tested by Bonferroni over the m interior points,
        p = min(1, m * min_j max(p(mean_j < mean_first), p(mean_j < mean_last))),
    which holds whatever the dependence between the points. Reading the position of the lowest mean instead finds an
    interior minimum in most flat or noisy curves.

    Args:
        values: [restarts, betas in order], NaN-free, at least 3 betas; below 2 restarts p is 1.
        level: coverage of the depth's interval, which is corrected in the same way.
    """
    count = values.shape[1] - 2
    if count < 1:
        raise ValueError(f"an interior minimum needs 3 betas or more; this curve has {values.shape[1]}.")
    drops = np.stack([values[:, [end]] - values[:, 1:-1] for end in (0, -1)])  # [ends, restarts, interior]
    evidence = np.max([_p_above_zero(drop) for drop in drops], axis=0)
    error = (1 - level) / 2
    low = np.min([_bound(drop, -1, error / count) for drop in drops], axis=0).max()
    high = np.min([_bound(drop, +1, error / 2) for drop in drops], axis=0).max()
    depths = drops.mean(axis=1).min(axis=0)
    return InteriorMinimum(int(depths.argmax()) + 1, Interval(float(depths.max()), float(low), float(high)),
                           float(min(1.0, count * evidence.min())))


def _p_above_zero(differences: np.ndarray) -> np.ndarray:
    """One-sided p-values [k] of Student's t for mean differences [restarts, k] above zero; 1 where none can be had."""
    count = len(differences)
    if count < 2:
        return np.ones(differences.shape[1])
    mean, error = differences.mean(0), differences.std(0, ddof=1) / np.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(scipy.special.stdtr(count - 1, -mean / error), nan=1.0)


def _bound(differences: np.ndarray, side: int, error: float) -> np.ndarray:
    """One-sided confidence bounds [k] of the means of [restarts, k]: upper for side +1, lower for -1."""
    half = t_half_width(differences.std(0, ddof=1), len(differences), 1 - 2 * error) if len(differences) > 1 else np.nan
    return differences.mean(0) + side * half


def _present(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]
