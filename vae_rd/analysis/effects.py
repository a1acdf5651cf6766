"""The numbers that claims are judged by, each from the curves of `Runs`, with an interval.

They raise NotEnough where runs or measures are missing. With one restart they still give the plain difference, whose
interval has NaN for its ends. Margins come from `claims`; shares are of a curve's whole fall (`statistics.extent`)
where nothing else is said.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.naming import describe
from vae_rd.analysis.paired import FLOOR, NotEnough, Runs, Wanted
from vae_rd.analysis.quantities import (
    LOG_PX,
    LOG_PX_AIS,
    MARGINAL_KL,
    MEMORISED,
    MUTUAL_INFORMATION,
    NEAREST,
    TRUSTED,
    UNRELIABLE,
)
from vae_rd.analysis.statistics import Interval
from vae_rd.sweeps import experiments
from vae_rd.sweeps.experiments import CNNS, MLPS, THREE_LAYERS

MEMORISED_AT_MEAN = f"{MEMORISED}_at_mean"  # of reconstructions at the posterior's mean, not at a sample of it
MEMORISED_AT_MEAN_CONTROL = f"{MEMORISED_AT_MEAN}_control"


class Finding(NamedTuple):
    """A number with its interval, and a note for the reader."""

    interval: Interval
    note: str = ""
    p_value: float = np.nan
    missing: bool = False  # whether some of what the number is a share of has too few runs


class Setting(NamedTuple):
    """One panel's curve: a network, a split and further fields of Config."""

    network: dict
    split: str
    where: dict

    @property
    def name(self) -> str:
        """Its name in titles and notes."""
        return describe({**self.where, "split": self.split, **self.network})


def rise(runs: Runs, network: dict, split: str, **where: str) -> Finding:
    """The largest rise of D as beta falls, share of the curve's fall: 0 or less where it falls all the way."""
    _, values = runs.curve("distortion", network, split, **where)
    return Finding(_scaled(statistics.largest_rise(values), statistics.extent(values)))


def depth(runs: Runs, network: dict, split: str, margin: float = 0.0, **where: str) -> Finding:
    """By how much the lowest interior D lies below the lower end of the curve, share of its fall."""
    values = _with_interior(*runs.curve("distortion", network, split, **where))
    fall = statistics.extent(values)
    found = statistics.interior_minimum(values, margin * fall)
    return Finding(_scaled(found.depth, fall), p_value=found.p_value)


def rise_difference(runs: Runs, first: Setting, second: Setting) -> Finding:
    """Rise of the first curve minus that of the second, each as a share of its own fall."""
    return Finding(statistics.minus(*(rise(runs, one.network, one.split, **one.where).interval
                                      for one in (first, second))))


def depth_difference(runs: Runs, first: Setting, second: Setting) -> Finding:
    """Depth of the first curve's minimum (nats) minus that of the second's, which counts as 0 where there is none."""
    one, other = (statistics.interior_minimum(_with_interior(
        *runs.curve("distortion", setting.network, setting.split, **setting.where))).depth
        for setting in (first, second))
    return Finding(statistics.minus(one, Interval(*np.maximum(other, 0.0).tolist())))


def gap(runs: Runs, network: dict, split: str) -> Finding:
    """The largest generalisation gap in D over beta, share of the fall of test D."""
    _, (test, train) = runs.curves([("distortion", network, split, {"partition": name}) for name in ("test", "train")])
    return Finding(_scaled(statistics.largest(statistics.levels(test - train)), statistics.extent(test)))


def mean_difference(runs: Runs, first: tuple, second: tuple) -> Finding:
    """One curve minus another, mean over beta; each (quantity, network, split, further conditions)."""
    _, (one, other) = runs.curves([first, second])
    return Finding(statistics.t_interval((one - other).mean(1)))


def excess_difference(runs: Runs, network: dict, first: str, second: str, absolute: bool = False) -> Finding:
    """Test D above the entropy floor on one split minus another, mean over beta, as a share of the latter's D."""
    _, (one, floor, other, other_floor) = runs.curves([(quantity, network, split, {}) for split in (first, second)
                                                       for quantity in ("distortion", FLOOR)])
    found = statistics.t_interval(((one - floor - other + other_floor) / other.mean(0)).mean(1))
    return Finding(_absolute(found) if absolute else found)


def distance_difference(runs: Runs, first: str, second: str) -> Finding:
    """Absolute difference of two splits' mean nearest-neighbour distances, as a share of the latter."""
    one, other = runs.one_value(NEAREST, first), runs.one_value(NEAREST, second)
    share = abs(one - other) / other
    return Finding(Interval(share, share, share))  # of fixed data: no restarts, no interval


def peak(runs: Runs, quantity: str, sign: int, partitions: tuple[str, ...], split: str, at: float,
         margin: float) -> Finding:
    """By how much a 3-layer curve misses a peak at one beta: below 0 where it has one.

    A curve has its peak there if no beta is better by the margin or more, and both ends are worse by more than
    the margin: so a flat curve has none. The number, in nats, is the largest over the other betas of how much better
    each is, less the margin for an inner beta, plus the margin for an end.

    Args:
        runs: of one scale.
        quantity: a metric, or LOG_PX for the best estimate of log p(x) available.
        sign: +1 if large values are good, -1 if small ones are.
        partitions: of one the quantity itself is meant, of two the first minus the second.
        split: of the training set.
        at: the beta of the peak.
        margin: in nats.
    """
    note = ""
    if quantity == LOG_PX:
        betas, images, note = _log_px(runs, partitions, split)
        parts = [part.mean(2) for part in images]
    else:
        betas, parts = runs.curves([(quantity, THREE_LAYERS, split, {"partition": name}) for name in partitions])
    best = _at(betas, at)
    others = np.delete(np.arange(len(betas)), best)
    found = statistics.between(sign * (parts[0] if len(parts) == 1 else parts[0] - parts[1]), others, [best])
    if quantity == LOG_PX:
        errors = [_image_error(part.mean(0), others, best) for part in images]
        found = found._replace(image_error=np.sqrt(sum(error**2 for error in errors)),
                               image_freedom=min(part.shape[2] for part in images) - 1)
    shift = np.where(np.isin(others, (0, len(betas) - 1)), margin, -margin)
    return Finding(statistics.largest(found._replace(mean=found.mean + shift)), note)


def memorisation_growth(runs: Runs, network: dict, split: str, small: float, large: float) -> Finding:
    """Memorised share beyond the control: the largest at betas from `large` on, minus the largest up to `small`."""
    betas, (memorised, control) = runs.curves([(name, network, split, {}) for name in
                                               (MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL)])
    high, low = np.flatnonzero(betas >= large), np.flatnonzero(betas <= small)
    return Finding(statistics.largest_smallest(statistics.between(memorised - control, high[:, None], low[None])))


def missing_information(runs: Runs, network: dict, split: str) -> Finding:
    """The largest share of log N that MI lacks below beta = 1."""
    betas, (values, sizes) = runs.curves([(name, network, split, {"partition": "train"})
                                          for name in (MUTUAL_INFORMATION, "num_train")])
    return Finding(statistics.largest(statistics.differences((1 - values / np.log(sizes))[:, betas < 1])))


def information_lost(runs: Runs, network: dict, split: str) -> Finding:
    """MI at beta = 1 minus that at the largest beta, share of log N."""
    betas, (values, sizes) = runs.curves([(name, network, split, {"partition": "train"})
                                          for name in (MUTUAL_INFORMATION, "num_train")])
    _above_one(betas)
    return Finding(_one(statistics.between(values / np.log(sizes), [_at(betas, 1.0)], [len(betas) - 1])))


def marginal_kl_left(runs: Runs, network: dict, split: str) -> Finding:
    """The largest marginal KL above beta = 1, share of that at the smallest beta."""
    betas, values = runs.curve(MARGINAL_KL, network, split, partition="train")
    return Finding(statistics.largest(statistics.differences((values / values[:, :1])[:, _above_one(betas)])))


def share_of_growth(runs: Runs, network: dict, split: str) -> Finding:
    """The part of the rate's growth below beta = 1 that is marginal KL."""
    betas, parts = runs.curves([(name, network, split, {"partition": "train"})
                                for name in (MUTUAL_INFORMATION, MARGINAL_KL)])
    information, marginal = (values[:, 0] - values[:, betas < 1][:, -1] for values in parts)
    return Finding(statistics.t_interval(marginal / (information + marginal)))


def gap_changes(runs: Runs, network: dict, split: str) -> Finding:
    """Absolute change of the gap in D without the marginal KL minus that without the MI, each of the mean over beta."""
    _, parts = runs.curves([("distortion", network, split, {"rate_terms": terms, "partition": partition})
                            for terms in ("mutual_information", "marginal_kl", "both")
                            for partition in ("test", "train")])
    without_kl, without_mi, both = ((test - train).mean(1) for test, train in zip(parts[::2], parts[1::2]))
    one, other = without_kl - both, without_mi - both
    # |one| - |other| is the largest over signs s of the smallest over signs t of s one + t other
    signed = np.stack([s * one + t * other for s in (1, -1) for t in (1, -1)], axis=1).reshape(-1, 2, 2)
    return Finding(statistics.largest_smallest(statistics.differences(signed)))


def lower_beta_helps(runs: Runs, setting: Setting, beta: float) -> Finding:
    """Test D at beta = 1 minus that at a lower one (nats)."""
    betas, values = runs.curve("distortion", setting.network, setting.split, **setting.where)
    return Finding(_one(statistics.between(values, [_at(betas, 1.0)], [_at(betas, beta)])))


def underfits(runs: Runs, setting: Setting) -> Finding:
    """From beta = 1 to the largest: the smaller of 2 (rise of test D) - (rise of train D), and the reverse (nats).

    Above 0 where both rise, and each by more than half of what the other does, which is to say that both rise by more
    than the gap changes. Penalising the MI so that train D rises and test D does not would be regularisation.
    """
    betas, values = runs.curves([("distortion", setting.network, setting.split,
                                  {**setting.where, "partition": partition}) for partition in ("test", "train")])
    _above_one(betas)
    test, train = (part[:, -1] - part[:, _at(betas, 1.0)] for part in values)
    return Finding(statistics.smallest(statistics.differences(np.stack([2 * test - train, 2 * train - test], axis=1))))


def majority(runs: Runs, settings: list, name: Callable[..., str], number: Callable[..., Finding],
             margin: float = 0.0) -> Finding:
    """The share of settings in which a number lies above a margin.

    The interval counts the settings in which that is certain, and those in which it is not excluded; one without enough
    runs is of the latter kind. The estimate is of the settings that have runs.
    """
    found, missing = {}, []
    for setting in settings:
        try:
            found[name(setting)] = number(runs, setting).interval
        except NotEnough:
            missing.append(name(setting))
    if not found:
        raise NotEnough(f"none of {len(settings)} settings has enough restarts")
    holds = [one for one, interval in found.items() if interval.low > margin]
    opposite = [one for one, interval in found.items() if interval.high < margin]
    undecided = [one for one in found if one not in holds and one not in opposite]
    sides = {"holds": holds, "the opposite holds": opposite, "undecided": undecided, "not enough runs": missing}
    note = "; ".join(f"{words}: {' | '.join(names)}" for words, names in sides.items() if names)
    share = np.mean([interval.estimate > margin for interval in found.values()])
    return Finding(Interval(float(share), len(holds) / len(settings), 1 - len(opposite) / len(settings)), note,
                   missing=bool(missing))


def settings(scale: experiments.Scale) -> list[Setting]:
    """Every network, split and data set of the paper's figures 3 to 7."""
    splits = dict.fromkeys((scale.large, scale.small, "checkerboard", *scale.cv, *scale.cd))
    return [*(Setting(network, split, {}) for split in splits for network in MLPS),
            *(Setting(network, scale.small, {}) for network in CNNS),
            *(Setting(network, scale.other, {"dataset": dataset}) for dataset in experiments.OTHER_DATASETS
              for network in MLPS)]


def _log_px(runs: Runs, partitions: tuple[str, ...], split: str) -> tuple[np.ndarray, list[np.ndarray], str]:
    """Betas, log p(x) per image of each partition [restarts, betas, images], and how and on how many it was estimated.

    By annealed importance sampling where runs have it of every partition; else by importance sampling, if that can be
    trusted. The two err by different amounts, so a gap never has one on each side.
    """
    def wanted(quantity: str) -> list[Wanted]:
        return [(quantity, THREE_LAYERS, split, {"partition": name}) for name in partitions]

    quantity, way = LOG_PX_AIS, "annealed importance sampling"
    try:
        runs.curves(wanted(quantity))
    except NotEnough:
        quantity, way = LOG_PX, "importance sampling"
        betas, shares = runs.curves(wanted(UNRELIABLE))
        for name, share in zip(partitions, shares):
            if (flagged := share.mean(0) > TRUSTED).any():
                raise NotEnough(f"{split}, {name}: importance-sampled log p(x) is unreliable at beta = "
                                f"{', '.join(f'{beta:g}' for beta in betas[flagged])}, and there is no annealed "
                                "estimate at enough betas") from None
    betas, parts = runs.image_curves(wanted(quantity))
    counts = " and ".join(f"{part.shape[2]} {name}" for part, name in zip(parts, partitions))
    return betas, parts, f"{counts} images by {way}"


def _image_error(values: np.ndarray, first: np.ndarray, second: int) -> np.ndarray:
    """Standard errors over images of differences between columns of [betas, images], paired by image."""
    paired = values[first] - values[[second]]
    return paired.std(1, ddof=1) / np.sqrt(paired.shape[1])


def _with_interior(betas: np.ndarray, values: np.ndarray) -> np.ndarray:
    if len(betas) < 3:
        raise NotEnough(f"a minimum between the ends needs 3 betas or more (got {len(betas)})")
    return values


def _above_one(betas: np.ndarray) -> np.ndarray:
    if not (betas > 1).any():
        raise NotEnough("no beta above 1")
    return betas > 1


def _at(betas: np.ndarray, beta: float) -> int:
    return int(np.argmin(np.abs(betas - beta)))


def _one(difference: statistics.Differences) -> Interval:
    return statistics.largest(difference)


def _absolute(interval: Interval) -> Interval:
    """The interval of the absolute value."""
    crosses = interval.low < 0 < interval.high
    ends = sorted((abs(interval.low), abs(interval.high)))
    return Interval(abs(interval.estimate), 0.0 if crosses else ends[0], ends[1])


def _scaled(interval: Interval, unit: float) -> Interval:
    return Interval(*(float(value / unit) if unit else np.nan for value in interval))
