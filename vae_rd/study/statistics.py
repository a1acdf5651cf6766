"""Intervals over restarts and over images, and tests of the shape of a curve over beta."""

from typing import NamedTuple

import numpy as np
import scipy.stats

LEVEL = 0.95  # coverage of every interval


class Interval(NamedTuple):
    """An estimate with the two ends of its interval; the ends are NaN where too few values carry one."""

    estimate: float
    low: float
    high: float


def t_half_width(std: np.ndarray, count: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half the width of Student's interval for a mean: t_(n-1) * std / sqrt(n); NaN below two values.

    Args:
        std: standard deviations over the values (ddof=1), any shape.
        count: numbers of values, same shape.
        level: coverage.
    """
    std, count = np.asarray(std, float), np.asarray(count, float)
    enough = np.where(count >= 2, count, np.nan)
    return scipy.stats.t.ppf(0.5 + level / 2, enough - 1) * std / np.sqrt(enough)


def t_interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Student's interval for the mean of independent values, one per restart; NaN values are left out."""
    values = _present(values)
    if not values.size:
        return Interval(np.nan, np.nan, np.nan)
    half = float(t_half_width(values.std(ddof=1), values.size, level)) if values.size > 1 else np.nan
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def _present(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]
