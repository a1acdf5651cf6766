"""The scale of normal likelihoods against beta, and the beta of the fixed scale that it amounts to; table to Figure."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from vae_rd.analysis import naming, quantities
from vae_rd.catalogue import LIKELIHOOD_SCALE, NORMAL_SCALE
from vae_rd.figures import beta_axes, curve_names, restarts, style

EFFECTIVE_BETA = "effective_beta"  # column: the beta at which the normal likelihood of fixed scale trains alike
FACET = "num_layers"  # a column of panels per value


def effective_beta(beta: Any, scale: Any) -> Any:
    """beta * (scale / 0.1)^2: the beta of the fixed scale 0.1 that weighs rate and squared errors alike.

        distortion + beta * rate = (squared error + 2 scale^2 beta * rate) / (2 scale^2) + constant
    """
    return beta * (scale / NORMAL_SCALE) ** 2


def with_effective_beta(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that report one scale for all images, with EFFECTIVE_BETA."""
    rows = table[table[LIKELIHOOD_SCALE].notna()]
    return rows.assign(**{EFFECTIVE_BETA: effective_beta(rows["beta"], rows[LIKELIHOOD_SCALE])})


def scale_figure(curves: pd.DataFrame, looks: dict[tuple, tuple]) -> Figure:
    """Scale (above) and effective beta (below) against beta, a column per number of layers, a line per likelihood.

    Dashed: the root of the mean squared error of training images, which a learned scale settles at.

    Args:
        curves: rows of `tables.curves` for one checkpoint, with EFFECTIVE_BETA.
        looks: label, colour and marker of every likelihood, from `curve_names.looks`.
    """
    train = curves[curves["partition"] == "train"]
    error = f"{quantities.MEAN_SQUARED_ERROR}_mean"
    panels = list(train.groupby(FACET))
    looks = {key: look for key, look in looks.items() if key[0] in set(train["likelihood"])}
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(2, len(panels), sharey="row")
        for (scale, effective), (layers, chosen) in zip(grid.T, panels):
            scale.set_title(naming.describe({FACET: layers}))
            for key, (_, colour, marker) in looks.items():
                points = curve_names.rows(chosen, ["likelihood"], key).sort_values("beta")
                beta_axes.draw(scale, points, LIKELIHOOD_SCALE, colour, marker=marker)
                beta_axes.draw(effective, points, EFFECTIVE_BETA, colour, marker=marker)
                if error in points:
                    scale.plot(points["beta"], points[error]**0.5, color=colour,
                               **{**style.SECOND_LINE, "marker": marker, "markersize": 5.5})
        for axes in grid.flat:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        for axes in grid[0]:  # where scales seldom span a factor of ten
            style.number_log_axis(axes.yaxis)
        grid[0, 0].set_ylabel("scale of a pixel")
        grid[1, 0].set_ylabel(f"\N{GREEK SMALL LETTER BETA} at the fixed\nscale of {NORMAL_SCALE:g}")
        lines = [(label, {"color": colour, "marker": marker}) for label, colour, marker in looks.values()]
        beta_axes.key(figure, [*lines, ("root of the mean squared error, train", style.SECOND_LINE)],
                      restarts.words(train))
        beta_axes.finish(figure, grid)
    return figure
