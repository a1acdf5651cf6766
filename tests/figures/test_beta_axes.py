"""Axes over beta: where curves of the same beta go, and texts on horizontal lines."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vae_rd.figures import beta_axes, restarts


@pytest.mark.parametrize("betas", [[0.001, 5.0], [0.0, 0.001, 5.0], [0.0], [1.0]])
def test_curves_are_set_apart_by_a_little_whatever_the_betas(betas):
    factors = np.array(beta_axes.shifts(3, pd.Series(betas)))
    assert factors[1] == 1 and np.isfinite(factors).all() and (np.diff(factors) > 0).all()
    assert factors[2] / factors[0] < 1.5


def test_many_curves_stay_nearer_to_their_own_beta_than_to_the_next():
    factors = np.array(beta_axes.shifts(9, pd.Series([0.001, 0.1, 0.3, 5.0])))
    assert 0.1 * factors[-1] < np.sqrt(0.1 * 0.3) < 0.3 * factors[0]
    assert factors[-1] / factors[0] == pytest.approx(3 ** (1 / 3))


def test_a_beta_of_0_is_in_sight_and_the_others_keep_their_places():
    betas = pd.Series([0.0, 0.001, 0.1, 5.0])
    figure, ((axes,),) = beta_axes.grid(1, 1, True, betas)
    points = pd.DataFrame({"beta": betas, "value_mean": [4.0, 3.0, 2.0, 1.0], "value_std": 0.1, "value_n": 3})
    beta_axes.draw(axes, points, "value", "black")
    figure.draw_without_rendering()
    places = axes.transAxes.inverted().transform(axes.transData.transform(np.column_stack([betas, betas])))[:, 0]
    assert 0 < places[0] and (np.diff(places) > 0.05).all() and places[-1] < 1
    assert places[2] - places[1] == pytest.approx((places[3] - places[2]) * 2 / np.log10(50), rel=1e-3)
    assert beta_axes.grid(1, 1, True, betas[1:])[1][0, 0].get_xscale() == "log"


@pytest.mark.parametrize("counts, words", [
    ([3, 3, 3], "bars: standard deviation (3 restarts)"),
    ([1, np.nan, 1], "bars: standard deviation (3 restarts), none (1)")])
def test_bars_are_those_of_the_quantities_that_are_drawn(counts, words):
    points = pd.DataFrame({"rate_n": [3, 3, 3], "own_n": counts, "all_n": [3, 3, 3]})
    assert restarts.words(points, "own", "all", "none") == words
    assert restarts.words(points) == "bars: standard deviation (3 restarts)"


@pytest.mark.parametrize("height", [9.757, 9.643])
def test_a_text_on_a_line_covers_no_curve_not_even_one_of_two_points(height):
    figure = Figure(figsize=(2, 2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlim=(0.1, 10), ylim=(9, 10.4))
    axes.axhline(9.7)
    axes.plot([0.1, 10], [height, height])
    beta_axes.write_on_lines(axes, {9.7: "log N = 9.70"})
    box = axes.texts[0].get_window_extent()
    y = axes.transData.transform((1, height))[1]
    assert not box.y0 < y < box.y1
