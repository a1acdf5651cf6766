"""What a learned scale does to beta: the scale, and rate against the fixed scale's beta; a table in, a Figure out."""

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
    """Scale against beta (above), and rate against effective beta (below), where runs that train alike lie on one line.

    A column per number of layers, a line per likelihood, training images. Dashed: the root of the pictures' mean
    squared error. A learned scale settles a little above it, as pictures are means cut to [0, 1].

    Args:
        curves: rows of `tables.curves` for one checkpoint, with EFFECTIVE_BETA.
        looks: label, colour and marker of every likelihood, from `curve_names.looks`.
    """
    train = curves[curves["partition"] == "train"]
    error = f"{quantities.MEAN_SQUARED_ERROR}_mean"
    panels = list(train.groupby(FACET))
    looks = {key: look for key, look in looks.items() if key[0] in set(train["likelihood"])}
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(2, len(panels), "row", train["beta"])
        for (scale, rate), (layers, chosen) in zip(grid.T, panels):
            scale.set_title(naming.describe({FACET: layers}))
            scale.set_xlabel("\N{GREEK SMALL LETTER BETA}")
            scale.tick_params(labelbottom=True)
            rate.set_xlabel(f"\N{GREEK SMALL LETTER BETA} \N{MULTIPLICATION SIGN} (scale / {NORMAL_SCALE:g})\u00b2")
            for key, (_, colour, marker) in looks.items():
                points = curve_names.rows(chosen, ["likelihood"], key).sort_values("beta")
                beta_axes.draw(scale, points, LIKELIHOOD_SCALE, colour, marker=marker)
                at_fixed = points.assign(beta=points[f"{EFFECTIVE_BETA}_mean"])
                beta_axes.draw(rate, at_fixed, "rate", colour, marker=marker)
                if error in points:
                    scale.plot(points["beta"], points[error]**0.5, color=colour,
                               **{**style.SECOND_LINE, "marker": marker, "markersize": 5.5})
        for axes in grid.flat:
            axes.set_yscale("log")
            style.number_log_axis(axes.yaxis)
        grid[0, 0].set_ylabel("scale of a pixel")
        grid[1, 0].set_ylabel("train rate\n(nats per image)")
        lines = [(label, {"color": colour, "marker": marker}) for label, colour, marker in looks.values()]
        beta_axes.key(figure, [*lines, ("root of the mean squared error, train", style.SECOND_LINE)],
                      restarts.words(train, "rate", LIKELIHOOD_SCALE))
        beta_axes.finish(figure, grid)
    return figure
