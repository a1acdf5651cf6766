"""What the numbers that claims are judged by have in common: a number with its interval, and the curve it is of."""

from typing import NamedTuple

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.naming import describe
from vae_rd.analysis.paired import NotEnough
from vae_rd.analysis.statistics import Interval


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


def above_one(betas: np.ndarray) -> np.ndarray:
    """Which betas are above 1: bool, of the same shape; raises NotEnough if none is."""
    if not (betas > 1).any():
        raise NotEnough("no beta above 1")
    return betas > 1


def nearest(betas: np.ndarray, beta: float) -> int:
    """Column of the beta that is nearest to a given one."""
    return int(np.argmin(np.abs(betas - beta)))


def single(difference: statistics.Differences, level: float = statistics.LEVEL) -> Interval:
    """The interval of one difference, [1]."""
    return statistics.largest(difference, level)


def scaled(interval: Interval, unit: float) -> Interval:
    """An interval as a share of a unit; NaN where the unit is 0."""
    return Interval(*(float(value / unit) if unit else np.nan for value in interval))
