"""In how many settings something holds: the counts of claim C7 and of the headline claims, and what is counted."""

import math
from collections.abc import Callable

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.finding import Finding, Setting, above_one, nearest, single
from vae_rd.analysis.paired import NotEnough, Runs
from vae_rd.analysis.statistics import LEVEL, Interval
from vae_rd.sweeps import experiments
from vae_rd.sweeps.experiments import CNNS, MLPS


def share_that_holds(runs: Runs, settings: list, name: Callable[..., str], number: Callable[..., Finding],
                     most: float, margin: float = 0.0) -> Finding:
    """The share of settings in which a number lies above a margin, to be compared with `most`.

    The interval counts the settings in which that is certain, and those in which it is not excluded; one without enough
    runs is of the latter kind. The estimate is of the settings that have runs.

    That more than a share `most` of n settings are certain, r or more, although fewer than r hold, takes an error in
    one of the n - r + 1 or more that do not: so each is judged at the error rate divided by n - r + 1 (partial
    conjunction, Benjamini and Heller 2008).

    Args:
        runs: the runs.
        settings: what `name` and `number` take.
        name: of a setting, in notes.
        number: of a setting at a level of confidence: number(runs, setting, level=...).
        most: the share that is in question.
        margin: of the number.
    """
    level = 1 - (1 - LEVEL) / (len(settings) - math.floor(len(settings) * most))
    found, missing = {}, []
    for setting in settings:
        try:
            found[name(setting)] = number(runs, setting, level=level).interval
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


def all_settings(scale: experiments.Scale) -> list[Setting]:
    """Every network, split and data set of the paper's figures 3 to 7."""
    splits = dict.fromkeys((scale.large, scale.small, "checkerboard", *scale.cv, *scale.cd))
    return [*(Setting(network, split, {}) for split in splits for network in MLPS),
            *(Setting(network, scale.small, {}) for network in CNNS),
            *(Setting(network, scale.other, {"dataset": dataset}) for dataset in experiments.OTHER_DATASETS
              for network in MLPS)]


def lower_beta_helps(runs: Runs, setting: Setting, beta: float, level: float = LEVEL) -> Finding:
    """Test D at beta = 1 minus that at a lower one (nats)."""
    betas, values = runs.curve("distortion", setting.network, setting.split, **setting.where)
    return Finding(single(statistics.between(values, [nearest(betas, 1.0)], [nearest(betas, beta)]), level))


def underfits(runs: Runs, setting: Setting, level: float = LEVEL) -> Finding:
    """From beta = 1 to the largest: the smaller of 2 (rise of test D) - (rise of train D), and the reverse (nats).

    Above 0 where both rise, and each by more than half of what the other does, which is to say that both rise by more
    than the gap changes. Penalising the MI so that train D rises and test D does not would be regularisation.
    """
    betas, values = runs.curves([("distortion", setting.network, setting.split,
                                  {**setting.where, "partition": partition}) for partition in ("test", "train")])
    above_one(betas)
    test, train = (part[:, -1] - part[:, nearest(betas, 1.0)] for part in values)
    both = statistics.differences(np.stack([2 * test - train, 2 * train - test], axis=1))
    return Finding(statistics.smallest(both, level))
