"""Against the rate: distortion at matched rate minus a reference's, and squared error; a table in, a Figure out."""

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from vae_rd.analysis import naming, quantities
from vae_rd.analysis.matched_rate import WITHOUT_A_BETA
from vae_rd.figures import curve_names, rd_axes, restarts, style

FACET = "num_layers"  # a column of panels per value


def matched_figure(differences: pd.DataFrame, looks: dict[tuple, tuple], field: str, reference: str,
                   partitions: Sequence[str] = ("test", "train")) -> Figure:
    """A row per partition, a column per number of layers, a line per kind of run; below 0 is better than the reference.

    Hollow points are differences that one beta more or less may make: see `matched_rate.WITHOUT_A_BETA`.

    Args:
        differences: what `matched_rate.differences` returned.
        looks: label, colour and marker of every kind, from `curve_names.looks`.
        field: of Config, in which the kinds differ.
        reference: the kind that was subtracted, which is the line at 0.
        partitions: of which images.
    """
    with matplotlib.rc_context(style.STYLE):
        figure, panels = _panels(differences, len(partitions))
        for row, partition in zip(panels, partitions):
            for axes, chosen in row:
                axes.axhline(0, color=style.QUIET, **style.GUIDE)
                for key, (_, colour, marker) in looks.items():
                    points = curve_names.rows(chosen[chosen["partition"] == partition], [field], key)
                    if len(points):
                        half = (points["high"] - points["difference"]).fillna(0)
                        axes.errorbar(points["rate"], points["difference"], yerr=half, color=colour, marker=marker,
                                      elinewidth=0.7)
                        unsure = points[~(points["difference"].abs() > points[WITHOUT_A_BETA])]
                        axes.plot(unsure["rate"], unsure["difference"], color=colour, marker=marker, linestyle="none",
                                  markerfacecolor="white", zorder=4)
            row[0][0].set_ylabel(f"{naming.PARTITIONS[partition]} distortion minus\n"
                                 f"{naming.describe({field: reference})}\nat equal rate (nats per image)")
        for axes in figure.axes:
            rd_axes.make_logarithmic(axes)
        compared = {key: look for key, look in looks.items() if key[0] in set(differences[field])}
        bars = style.words_only(_interval(differences))
        style.legend_below(figure, [*_lines(compared), _hollow(differences[WITHOUT_A_BETA].isna()), bars])
    return figure


def squared_error_figure(curves: pd.DataFrame, hue: Sequence[str] = ("likelihood",),
                         partitions: Sequence[str] = ("test", "train")) -> Figure:
    """Mean squared error against rate, in which curves of different likelihoods compare; a star at beta = 1.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
        hue: fields of Config that name a curve.
        partitions: of which images; those after the first are dashed.
    """
    names, looks = list(hue), curve_names.looks(curves, list(hue))
    lines = dict(zip(partitions, (style.FIRST_LINE, style.SECOND_LINE)))
    with matplotlib.rc_context(style.STYLE):
        figure, ((*panels,),) = _panels(curves, 1)
        for axes, chosen in panels:
            for key, (_, colour, marker) in looks.items():
                for partition, line in lines.items():
                    points = curve_names.rows(chosen[chosen["partition"] == partition], names, key).sort_values("beta")
                    _draw_squared_error(axes, points, colour, {**line, "marker": marker})
            rd_axes.make_logarithmic(axes)
            axes.set_yscale("log")
            style.number_log_axis(axes.yaxis)
        panels[0][0].set_ylabel("squared error\n(mean over pixels)")
        kinds = [Line2D([], [], color="0.25", label=naming.PARTITIONS[name], **line) for name, line in lines.items()]
        bars = style.words_only(restarts.words(curves, quantities.MEAN_SQUARED_ERROR))
        style.legend_below(figure, [*_lines(looks), *kinds, rd_axes.star_handle(), bars])
    return figure


def _draw_squared_error(axes: Axes, points: pd.DataFrame, colour: ColorType, line: dict) -> None:
    name = quantities.MEAN_SQUARED_ERROR
    axes.errorbar(points["rate_mean"], points[f"{name}_mean"], xerr=restarts.bars(points, "rate"),
                  yerr=restarts.bars(points, name), color=colour, elinewidth=0.7, **line)
    rd_axes.draw_star(axes, points, name, colour)


def _panels(rows: pd.DataFrame, height: int) -> tuple[Figure, list[list[tuple[Axes, pd.DataFrame]]]]:
    """A Figure of so many rows, and in each row, for each value of FACET, the Axes and its part of the table."""
    groups = list(rows.groupby(FACET)) if FACET in rows else [(None, rows)]
    figure = style.figure(style.TEXT_WIDTH, 1.9 * height + 0.7)
    grid = figure.subplots(height, max(1, len(groups)), sharex=True, sharey="row", squeeze=False)
    for axes, (value, _) in zip(grid[0], groups):
        axes.set_title("" if value is None else naming.describe({FACET: value}))
    for axes in grid[-1]:
        axes.set_xlabel("rate (nats per image)")
    return figure, [[(axes, chosen) for axes, (_, chosen) in zip(row, groups)] for row in grid]


def _hollow(unknown: pd.Series) -> Line2D:
    """The key's entry for points that may come from the interpolation between betas."""
    beta = "\N{GREEK SMALL LETTER BETA}"
    label = f"leaving out one {beta} changes it by more than its size"
    return Line2D([], [], color="0.25", marker="o", markerfacecolor="white", linestyle="none",
                  label=label + (f", or no {beta} can be left out" if unknown.any() else ""))


def _lines(looks: dict[tuple, tuple]) -> list[Line2D]:
    return [Line2D([], [], color=colour, marker=marker, label=label) for label, colour, marker in looks.values()]


def _interval(differences: pd.DataFrame) -> str:
    counts = differences["restarts"].unique()
    known, without = (" to ".join(str(count) for count in sorted({chosen.min(), chosen.max()})) if len(chosen) else ""
                      for chosen in (counts[counts > 2], counts[counts <= 2]))
    if not known:
        return f"{without or 0} restart{'s' * (without != '1')}, no bars"
    return f"bars: 95% interval over {known} restarts" + (f", none ({without})" if without else "")
