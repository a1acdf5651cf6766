"""Intervals over restarts and over images, and tests of the shape of a curve over beta.

Values of a curve come as [restarts, betas], paired by restart: the members of a row share their seed, so differences
between betas are taken within rows, and means over rows are taken to be about normal (Student's t). `between` and
`levels` also pool the spread over betas, which assumes that it is about the same at all of them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special

LEVEL = 0.95  # coverage of every interval
# Fewer have no interval of their own (of two, Student's is 12.7 times as wide as they lie apart). Bounds pooled over
# betas exist from two restarts on; `paired.MIN_RESTARTS` says how many the verdicts need.
MIN_VALUES = 3


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


def t_half_width(std: npt.ArrayLike, count: npt.ArrayLike, level: float = LEVEL) -> np.ndarray:
    """Half the width of Student's interval for a mean: t_(n-1) * std / sqrt(n); NaN below MIN_VALUES values.

    Args:
        std: standard deviations over the values (ddof=1), any shape.
        count: numbers of values, same shape.
        level: coverage.
    """
    std, count = np.asarray(std, float), np.asarray(count, float)
    enough = np.where(count >= MIN_VALUES, count, np.nan)
    return scipy.special.stdtrit(enough - 1, 0.5 + level / 2) * std / np.sqrt(enough)


def t_interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Student's interval for the mean of independent values [n], one per restart; NaN values are left out."""
    values = _present(values)
    if not values.size:
        return Interval(np.nan, np.nan, np.nan)
    half = float(t_half_width(values.std(ddof=1), values.size, level)) if values.size > 1 else np.nan
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def gap_interval(train: np.ndarray, test: np.ndarray, level: float = LEVEL) -> Interval:
    """Welch's interval over images of mean(test) - mean(train), for one trained model.

    It says how well these images determine the gap of THIS model; how restarts differ is another matter.

    Args:
        train: values per training image [n], such as their distortions; NaN values are left out.
        test: values per test image [m], likewise.
        level: coverage.
    """
    import scipy.stats  # takes a second to load; nothing else here needs it
    samples = _present(test), _present(train)
    estimate = float(samples[0].mean() - samples[1].mean())
    if min(map(len, samples)) < 2:
        return Interval(estimate, np.nan, np.nan)
    found = scipy.stats.ttest_ind(*samples, equal_var=False).confidence_interval(level)
    return Interval(estimate, float(found.low), float(found.high))


class Differences(NamedTuple):
    """Mean differences over restarts, with their standard errors; every field of the same shape, or one number."""

    mean: np.ndarray
    error: np.ndarray  # standard error over restarts; NaN with one restart
    freedom: float  # of that error
    image_error: np.ndarray | float = 0.0  # standard error over the images, where a few stand for all of them
    image_freedom: int = 1

    def bound(self, side: int, error: float) -> np.ndarray:
        """One-sided confidence bounds of the means, upper for side +1 and lower for -1; each misses at rate `error`.

        The two parts of the half width are added in quadrature: restarts and images vary independently.
        """
        parts = [scipy.special.stdtrit(max(freedom, 1), 1 - error) * part for part, freedom in
                 ((self.error, self.freedom), (self.image_error, self.image_freedom))]
        return self.mean + side * np.hypot(*parts)

    def p_above_zero(self) -> np.ndarray:
        """One-sided p-values for means above zero, of restarts alone; 1 where there are too few restarts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(scipy.special.stdtr(max(self.freedom, 1), -self.mean / self.error), nan=1.0)


def differences(values: np.ndarray) -> Differences:
    """Differences [restarts, ...] as they are, each with its own spread over restarts."""
    values = np.asarray(values, float)
    return Differences(values.mean(0), _standard_deviation(values) / np.sqrt(len(values)), len(values) - 1)


def between(curve: np.ndarray, first: np.ndarray | list[int], second: np.ndarray | list[int]) -> Differences:
    """Differences between columns of one curve, `first` minus `second`.

    With 3 restarts a difference's own spread has 2 degrees of freedom, and nothing short of ten standard errors
    survives a Bonferroni correction. The residual of the whole curve, after subtracting the means of its rows and of
    its columns, has (restarts - 1)(betas - 1). The standard error is the larger of the difference's own and the
    residual's, so that a beta whose restarts scatter more than the others is not judged by their spread; the degrees of
    freedom are always the residual's. So bounds miss more often than they should where the beta that decides scatters
    more than the others. In simulations with 3 restarts and 4 or 12 betas, bounds that should miss in 2.5% of cases did
    so in 2% when all betas had the same spread, in 5 and 7% when that beta scattered three times as much, and in 6 and
    8% when six times; bounds that should miss in 0.23% did so in 0.2%, in 0.9 and 2.4%, and in 1.8 and 3.9%.

    Args:
        curve: [restarts, betas], NaN-free.
        first: columns, integers of any shape.
        second: columns to subtract, of a shape that broadcasts with it.
    """
    curve = np.asarray(curve, float)
    found = differences(curve[:, first] - curve[:, second])
    _, rest, freedom = _mean_squares(curve)
    return found if not freedom else found._replace(
        error=np.maximum(found.error, np.sqrt(2 * rest / len(curve))), freedom=freedom)


def levels(curve: np.ndarray) -> Differences:
    """The columns of one curve themselves, which may be differences from another curve.

    Their spread is pooled over the curve too, but includes the shift that a restart has in common at all betas: it is
    the mean of the columns' variances, with the degrees of freedom that Satterthwaite gives to this sum of two mean
    squares. The larger of the two spreads counts, as in `between`.
    """
    curve = np.asarray(curve, float)
    found = differences(curve)
    rows, rest, freedom = _mean_squares(curve)
    count, betas = curve.shape
    parts = rows / betas, rest * (betas - 1) / betas
    if not freedom or not sum(parts):
        return found
    return found._replace(error=np.maximum(found.error, np.sqrt(sum(parts) / count)),
                          freedom=sum(parts)**2 / (parts[0]**2 / (count - 1) + parts[1]**2 / freedom))


def largest_smallest(differences: Differences, level: float = LEVEL) -> Interval:
    """The largest over rows of the smallest in a row, with an interval that allows for both choices.

    Lower end: a row's smallest is above a bound if each of its members is (intersection-union, no correction due), but
    any of the J rows may be the one that lies too high: each bound at the error rate divided by J (Bonferroni). Upper
    end: it misses only if the bound of the truly largest row misses, and that only if one of its L members does: each
    bound at the error rate divided by L. If each bound misses at no more than its rate, together they cover with at
    least `level`, whatever their dependence.

    Args:
        differences: [J, L].
        level: coverage.
    """
    error = (1 - level) / 2
    rows, members = differences.mean.shape
    return Interval(*(float(values.min(1).max()) for values in (
        differences.mean, differences.bound(-1, error / rows), differences.bound(+1, error / members))))


def largest(differences: Differences, level: float = LEVEL) -> Interval:
    """The largest of the mean differences [k]."""
    return largest_smallest(_reshaped(differences, (-1, 1)), level)


def smallest(differences: Differences, level: float = LEVEL) -> Interval:
    """The smallest of the mean differences [k]."""
    return largest_smallest(_reshaped(differences, (1, -1)), level)


def minus(one: Interval, other: Interval) -> Interval:
    """The difference of two independent estimates: their half widths in quadrature, each on the side that matters.

    This is the "method of variance estimates recovery" (Zou and Donner 2008), for intervals that are not symmetric.
    """
    return Interval(one.estimate - other.estimate,
                    one.estimate - other.estimate - np.hypot(one.estimate - one.low, other.high - other.estimate),
                    one.estimate - other.estimate + np.hypot(one.high - one.estimate, other.estimate - other.low))


def extent(curve: np.ndarray) -> float:
    """The largest minus the smallest mean of a curve [restarts, betas]: its whole fall, the unit of its shape."""
    means = np.mean(curve, axis=0)
    return float(means.max() - means.min())


def largest_rise(curve: np.ndarray, level: float = LEVEL) -> Interval:
    """The largest value(lower beta) - value(higher beta) of a curve [restarts, betas ascending].

    A curve that falls as beta falls has none above zero.
    """
    return largest(between(curve, *np.triu_indices(curve.shape[1], 1)), level)


def interior_minimum(curve: np.ndarray, margin: float = 0.0, level: float = LEVEL) -> InteriorMinimum:
    """Tests whether a curve has a minimum away from both ends of its beta axis, deeper than a margin.

    Null hypothesis: no interior mean lies below both end means by more than the margin. The depth is the largest over
    interior points of the smaller of its two drops, so `largest_smallest` gives its interval. The p-value is that
    interval's: with m interior points
        p = min(1, 2 m min_j max(p(first - mean_j > margin), p(last - mean_j > margin))),
    which is below 1 - level exactly where the interval's lower end is above the margin. (The 2 is for the interval's
    other end.) Reading the position of the lowest mean instead finds an interior minimum in most flat or noisy curves.

    Args:
        curve: [restarts, betas in order], NaN-free, at least 3 betas; below 2 restarts p is 1.
        margin: in the curve's unit.
        level: coverage of the depth's interval.
    """
    count = curve.shape[1] - 2
    if count < 1:
        raise ValueError(f"an interior minimum needs 3 betas or more (got {curve.shape[1]}).")
    drops = between(curve, np.array([[0, count + 1]]), np.arange(1, count + 1)[:, None])
    evidence = drops._replace(mean=drops.mean - margin).p_above_zero().max(1)
    return InteriorMinimum(int(drops.mean.min(1).argmax()) + 1, largest_smallest(drops, level),
                           float(min(1.0, 2 * count * evidence.min())))


def mean_absolute(curve: np.ndarray, level: float = LEVEL) -> Interval:
    """The mean over betas of the absolute mean of a curve [restarts, betas], such as a difference of two curves.

    The ends are the least and the largest that it can be within a band that covers the curve at all betas at once
    (Bonferroni). Signs that change over beta do not cancel, as they would in the absolute value of the mean.
    """
    found = levels(curve)
    band = np.stack([found.bound(side, (1 - level) / 2 / len(found.mean)) for side in (-1, +1)])
    across = band[0] * band[1] < 0
    least = np.where(across, 0.0, np.abs(band).min(0))
    return Interval(*(float(values.mean()) for values in (np.abs(found.mean), least, np.abs(band).max(0))))


def _reshaped(differences: Differences, shape: tuple[int, int]) -> Differences:
    mean, error, image_error = (np.broadcast_to(part, differences.mean.shape).reshape(shape) for part in
                                (differences.mean, differences.error, differences.image_error))
    return differences._replace(mean=mean, error=error, image_error=image_error)


def _mean_squares(curve: np.ndarray) -> tuple[float, float, int]:
    """Of restarts, and of the rest without the means of rows and columns, with the latter's degrees of freedom."""
    count, betas = curve.shape
    freedom = (count - 1) * (betas - 1)
    if not freedom:
        return np.nan, np.nan, 0
    rows = curve.mean(1, keepdims=True) - curve.mean()
    rest = curve - curve.mean(0) - rows
    return float(betas * (rows**2).sum() / (count - 1)), float((rest**2).sum() / freedom), freedom


def _standard_deviation(values: np.ndarray) -> np.ndarray:
    return values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)


def _present(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]
