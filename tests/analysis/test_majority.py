"""In how many settings something holds: how often half of them are taken for most of them."""

import numpy as np
import pytest

from vae_rd.analysis import majority, statistics
from vae_rd.analysis.finding import Finding

TRIALS = 400
EFFECT = 50.0  # standard deviations over restarts: there is no doubt about it


def shares(num_settings, num_true, level=None, restarts=3, effect=EFFECT):
    """Intervals [TRIALS, 2] of the share of settings whose mean is above 0, which it is in the first few."""
    random = np.random.default_rng([num_settings, num_true, restarts])

    def number(runs, setting, **asked):
        values = effect * (setting < num_true) + random.standard_normal(restarts)
        return Finding(statistics.t_interval(values, level or asked["level"]))

    found = [majority.share_that_holds(None, list(range(num_settings)), str, number, most=0.5).interval
             for _ in range(TRIALS)]
    return np.array(found)[:, 1:]


@pytest.mark.parametrize("num_settings, num_true", [(22, 11), (22, 10), (3, 1), (1, 0)])
def test_half_are_rarely_taken_for_most(num_settings, num_true):
    low, high = shares(num_settings, num_true).T
    assert (low > 0.5).mean() < 0.05 and (high < 0.5).mean() < 0.05  # 0.025 each, and three standard errors


def test_counting_verdicts_at_the_usual_level_would_take_half_for_most():
    low, _ = shares(22, 11, level=0.95).T
    assert (low > 0.5).mean() > 0.15


@pytest.mark.parametrize("num_settings", [1, 3, 22])
def test_all_are_found_to_be_most_and_none_the_opposite(num_settings):
    low, high = shares(num_settings, num_settings).T
    assert (low == 1).mean() > 0.9 and (high == 1).all()
    low, high = shares(num_settings, num_settings, effect=-EFFECT).T
    assert (low == 0).all() and (high == 0).mean() > 0.9
