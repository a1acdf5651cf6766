"""Distortion at matched rate: exact on curves in closed form, restart by restart, and nothing beyond their ends."""

import numpy as np
import pandas as pd
import pytest

from tests.fabricate import fabricate_table
from vae_rd.analysis import matched_rate, statistics
from vae_rd.config import Config

BETAS = (0.001, 0.01, 0.1, 0.3, 1.0, 5.0)
SHIFTS = {0: -3.0, 1: -2.0, 2: -2.5}  # of the mixture's curve, by seed


def point(config, partition, checkpoint):
    """Curves 100 - 20 log R; a prior moves runs along the curve and, by SHIFTS, off it."""
    rate = 30 / (0.3 + config.beta) * (1.4 if config.prior == "mixture" else 1) * (1 + 0.01 * config.seed)
    shift = SHIFTS[config.seed] if config.prior == "mixture" else 10 * config.seed
    level = 10 * config.seed if config.prior == "mixture" else 0
    return {"rate": rate, "distortion": 100 - 20 * np.log(rate) + shift + level + 5 * (partition == "test")}


def table(priors=("standard_normal", "mixture"), seeds=(0, 1, 2), layers=(1, 3), betas=BETAS):
    configs = [Config(prior=prior, seed=seed, num_layers=count, beta=beta)
               for prior in priors for seed in seeds for count in layers for beta in betas]
    rows = fabricate_table(configs, point)
    return rows[(rows["checkpoint"] == "last") & rows["partition"].isin(["train", "test"])]


def test_the_shift_is_found_at_every_rate_whatever_the_betas():
    found = matched_rate.differences(table(), "prior", "standard_normal")
    assert list(found) == ["num_layers", "partition", "prior", "rate", "difference", "low", "high", "without_a_beta",
                           "restarts"]
    assert len(found) == 2 * 2 * matched_rate.NUM_RATES and set(found["restarts"]) == {3}
    interval = statistics.t_interval(np.array(list(SHIFTS.values())))
    for name, value in zip(("difference", "low", "high"), interval):
        np.testing.assert_allclose(found[name], value, rtol=1e-9)
    raw = table().groupby("prior")["distortion"].mean()
    assert abs(raw["mixture"] - raw["standard_normal"] - interval.estimate) > 1, "runs of equal beta do not compare"


def test_rates_are_those_that_all_curves_reach():
    rates = matched_rate.differences(table(), "prior", "standard_normal")["rate"]
    assert rates.min() == pytest.approx(30 / 5.3 * 1.4 * 1.02) and rates.max() == pytest.approx(30 / 0.301)


def test_curves_without_a_common_rate_or_restart_are_left_out():
    both = table()
    away = both.assign(rate=both["rate"].where(both["prior"] != "mixture", both["rate"] * 1e3))
    other = both[(both["prior"] != "mixture") | (both["seed"] == 0)].assign()
    other.loc[other["prior"] == "mixture", "seed"] = 7
    for rows in (away, other, both[both["prior"] == "mixture"], both[both["beta"] == 1.0]):
        assert matched_rate.differences(rows, "prior", "standard_normal").empty


@pytest.mark.parametrize("field, value", [("imports", "parts"), ("eval_images", "50"), ("eval_every", 7)])
def test_modules_and_evaluations_of_a_kind_put_it_into_no_panel_of_its_own(field, value):
    rows = table()
    rows[field] = rows[field].where(rows["prior"] != "mixture", value)
    expected = matched_rate.differences(table(), "prior", "standard_normal")
    pd.testing.assert_frame_equal(matched_rate.differences(rows, "prior", "standard_normal"), expected)


def test_a_second_run_of_a_beta_and_seed_bends_no_curve():
    """As one that was trained with another --import: its rates differ by rounding, and between them lies a cliff."""
    rows = table()
    again = rows[rows["prior"] == "standard_normal"].assign(imports="parts")
    again["rate"] *= 1 + 1e-6
    again["distortion"] += 0.01
    found = matched_rate.differences(pd.concat([rows, again]), "prior", "standard_normal")
    pd.testing.assert_frame_equal(found, matched_rate.differences(rows, "prior", "standard_normal"))


def test_two_restarts_have_no_interval():
    found = matched_rate.differences(table(seeds=(0, 1)), "prior", "standard_normal")
    np.testing.assert_allclose(found["difference"], -2.5)
    assert found[["low", "high"]].isna().all(axis=None) and set(found["restarts"]) == {2}


def test_leaving_a_beta_out_says_what_the_interpolation_may_miss():
    """A bend that no neighbour shows: without beta = 0.1 the difference there is that of the straight lines."""
    found = matched_rate.differences(table(), "prior", "standard_normal")
    assert (found["without_a_beta"] < 0.1).all(), "curves that are smooth in log R miss little"
    bent = table()
    bent.loc[(bent["prior"] == "mixture") & (bent["beta"] == 0.1), "distortion"] += 6
    found = matched_rate.differences(bent, "prior", "standard_normal")
    near = found.loc[(found["rate"] - 30 / 0.4 * 1.4).abs().idxmin()]
    assert near["difference"] == pytest.approx(3.5, abs=1) and near["without_a_beta"] == pytest.approx(6, abs=1)
    two = table()[lambda rows: (rows["prior"] != "mixture") | rows["beta"].isin([0.001, 5.0])]
    for few in (two, table(betas=(0.001, 5.0))):
        assert matched_rate.differences(few, "prior", "standard_normal")["without_a_beta"].isna().all()


def test_interpolation_is_monotone_and_never_extrapolates():
    curve = np.array([[1.0, 50], [2, 20], [4, 19.9], [8, 19.8]])
    values = matched_rate.distortion_at(curve, np.geomspace(1, 8, 100))
    assert (np.diff(values) <= 1e-9).all() and not np.isnan(values).any()
    assert np.isnan(matched_rate.distortion_at(curve, np.array([0.9, 8.1]))).all()
