"""Numbers of the shape of one curve over beta, and of the difference between two (claims C1, C2, C4 to C7, C9).

Each takes the curves from `Runs` and returns a Finding; it raises NotEnough where runs or measures are missing. With
one restart the number is still given, and its interval has NaN for its ends. Margins come from `claims`; shares are of
a curve's whole fall (`statistics.extent`) unless a function says otherwise.
"""

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.finding import Finding, Setting, scaled
from vae_rd.analysis.paired import FLOOR, NotEnough, Runs
from vae_rd.analysis.statistics import LEVEL, Interval
from vae_rd.measures.neighbours import NEAREST


def rise(runs: Runs, network: dict, split: str, level: float = LEVEL, **where: str) -> Finding:
    """The largest rise of D as beta falls, share of the curve's fall: 0 or less where it falls all the way."""
    _, values = runs.curve("distortion", network, split, **where)
    return Finding(scaled(statistics.largest_rise(values, level), statistics.extent(values)))


def depth(runs: Runs, network: dict, split: str, margin: float = 0.0, level: float = LEVEL, **where: str) -> Finding:
    """By how much the lowest interior D lies below the lower end of the curve, share of its fall."""
    values = _with_interior(*runs.curve("distortion", network, split, **where))
    fall = statistics.extent(values)
    found = statistics.interior_minimum(values, margin * fall, level)
    return Finding(scaled(found.depth, fall), p_value=found.p_value)


def rise_difference(runs: Runs, first: Setting, second: Setting, level: float = LEVEL) -> Finding:
    """Rise of the first curve minus that of the second, each as a share of its own fall; 0 where it always falls.

    So of two curves that fall all the way none is closer to monotone, however steep either is.
    """
    return Finding(statistics.minus(*(_above_zero(rise(runs, one.network, one.split, level, **one.where).interval)
                                      for one in (first, second))))


def depth_difference(runs: Runs, first: Setting, second: Setting) -> Finding:
    """Depth of the first curve's minimum (nats) minus that of the second's, which counts as 0 where there is none."""
    one, other = (statistics.interior_minimum(_with_interior(
        *runs.curve("distortion", setting.network, setting.split, **setting.where))).depth
        for setting in (first, second))
    return Finding(statistics.minus(one, _above_zero(other)))


def gap(runs: Runs, network: dict, split: str) -> Finding:
    """The largest generalisation gap in D over beta, share of the fall of test D."""
    _, (test, train) = runs.curves([("distortion", network, split, {"partition": name}) for name in ("test", "train")])
    return Finding(scaled(statistics.largest(statistics.levels(test - train)), statistics.extent(test)))


def mean_difference(runs: Runs, first: tuple, second: tuple) -> Finding:
    """One curve minus another, mean over beta; each (quantity, network, split, further conditions)."""
    _, (one, other) = runs.curves([first, second])
    return Finding(statistics.t_interval((one - other).mean(1)))


def excess_difference(runs: Runs, network: dict, first: str, second: str, absolute: bool = False) -> Finding:
    """Test D above the floor on one split minus another, as a share of the latter's D: mean over beta.

    Absolute: the mean over beta of the absolute differences.

    Raises NotEnough where the likelihood is a density: D may be negative, and its zero means nothing.
    """
    _, (one, floor, other, other_floor) = runs.curves([(quantity, network, split, {}) for split in (first, second)
                                                       for quantity in ("distortion", FLOOR)])
    shares = (one - floor - other + other_floor) / other.mean(0)
    return Finding(statistics.mean_absolute(shares) if absolute else statistics.t_interval(shares.mean(1)))


def distance_difference(runs: Runs, first: str, second: str) -> Finding:
    """Absolute difference of two splits' mean nearest-neighbour distances, as a share of the latter."""
    one, other = runs.one_value(NEAREST, first), runs.one_value(NEAREST, second)
    share = abs(one - other) / other
    return Finding(Interval(share, share, share))  # of fixed data: no restarts, no interval


def _with_interior(betas: np.ndarray, values: np.ndarray) -> np.ndarray:
    if len(betas) < 3:
        raise NotEnough(f"a minimum between the ends needs 3 betas or more (got {len(betas)})")
    return values


def _above_zero(interval: Interval) -> Interval:
    """The interval of max(0, value)."""
    return Interval(*np.maximum(interval, 0.0).tolist())
