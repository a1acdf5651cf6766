"""Axes over beta: where curves of the same beta go, and texts on horizontal lines."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vae_rd.figures import beta_axes


@pytest.mark.parametrize("betas", [[0.001, 5.0], [0.0, 0.001, 5.0], [0.0], [1.0]])
def test_curves_are_set_apart_by_a_little_whatever_the_betas(betas):
    factors = np.array(beta_axes.shifts(3, pd.Series(betas)))
    assert factors[1] == 1 and np.isfinite(factors).all() and (np.diff(factors) > 0).all()
    assert factors[2] / factors[0] < 1.5


def test_many_curves_stay_nearer_to_their_own_beta_than_to_the_next():
    factors = np.array(beta_axes.shifts(9, pd.Series([0.001, 0.1, 0.3, 5.0])))
    assert 0.1 * factors[-1] < np.sqrt(0.1 * 0.3) < 0.3 * factors[0]
    assert factors[-1] / factors[0] == pytest.approx(3 ** (1 / 3))


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
