"""Rate-distortion figures: the curves table in, a Figure out, nothing written."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_rd.analysis import naming
from vae_rd.analysis.tables import TableError
from vae_rd.config import Config
from vae_rd.figures import curve_names, rd_axes, restarts, style

FACET = ("dataset", "split", "likelihood")  # columns that have a panel each unless the caller says otherwise
PANELS_ACROSS = 3
LOG_FROM = 12.0  # an automatic rate axis is logarithmic when the largest rate is so many times the smallest


def rd_figure(curves: pd.DataFrame, facet: Sequence[str] = FACET, hue: Sequence[str] | None = None,
              partitions: Sequence[str] = ("train", "test"), across: int = PANELS_ACROSS, rate_axis: str = "auto",
              pictures: dict[tuple, dict[str, np.ndarray]] | None = None,
              remarks: Sequence[str] = ()) -> Figure:
    """A panel per value of the facet columns, a curve per value of the hue columns; test solid, train dashed.

    Panels of one data set and one likelihood share their axes; rates and distortions of others are not comparable.

    Args:
        curves: rows of `tables.curves`; panels come in the order of their first rows.
        facet: columns whose combinations get a panel each; no panel may have several likelihoods.
        hue: columns that name a curve; by default all fields of Config in which curves of a panel differ.
        partitions: which partitions to draw.
        across: at most this many panels side by side; but four panels make a square.
        rate_axis: linear (straight iso-ELBO lines), log, or auto: log where the rates span too much to be read.
        pictures: for panels, by their facet values: pictures [h, w, c] uint8 by caption, shown in a row above.
        remarks: further lines at the end of the legend.

    Raises:
        TableError: if there is nothing to draw, or a panel has curves of several likelihoods.
    """
    curves = curves[curves["partition"].isin(partitions)]
    if curves.empty:
        raise TableError(f"curves must have points of partition {' or '.join(partitions)} (got none of the checkpoint, "
                         "and of the rows, that are to be drawn). Leave out a condition.")
    panels = list(curves.groupby(list(facet), sort=False)) if facet else [((), curves)]
    for _, panel in panels:
        _check_comparable(panel)
    share_axes = len(curves[["dataset", "likelihood"]].drop_duplicates()) == 1
    names = list(curve_names.differing(curves, facet) if hue is None else hue)
    looks = curve_names.looks(curves, names)
    with matplotlib.rc_context(style.STYLE):
        figure, grid, above = _panels(len(panels), 2 if len(panels) == 4 else across, share_axes, bool(pictures))
        drawn = []
        for axes, top, (values, panel) in zip(grid, above or grid, panels):
            drawn.append(_draw_panel(axes, panel, names, looks))
            top.set_title(_title(curves, facet, values, looks))
            if pictures:
                _draw_strip(top, pictures.get(values, {}))
        if rate_axis == "log" or rate_axis == "auto" and needs_log_axis(curves):
            for axes in grid:
                rd_axes.make_logarithmic(axes)
        style.legend_below(figure, [*_key(partitions, looks, curves), *(style.words_only(text) for text in remarks)])
        _finish(figure, grid, drawn, label_series=1 < len(looks) <= curve_names.DIRECT_LABELS)
    return figure


def draw_rd(axes: Axes, curves: pd.DataFrame, hue: Sequence[str] | None = None,
            partitions: Sequence[str] = ("train", "test")) -> Axes:
    """Rate-distortion curves on one Axes of the caller's, with legend, iso-ELBO lines and entropy floor.

    Args:
        axes: Matplotlib Axes; its limits are set and then stay.
        curves: rows of `tables.curves`.
        hue: columns that name a curve; by default all fields of Config in which the curves differ.
        partitions: which partitions to draw.

    Returns:
        The Axes.

    Raises:
        TableError: if the curves are of several likelihoods.
    """
    curves = curves[curves["partition"].isin(partitions)]
    _check_comparable(curves)
    names = list(curve_names.differing(curves, ()) if hue is None else hue)
    looks = curve_names.looks(curves, names)
    with matplotlib.rc_context(style.STYLE):
        series = _draw_panel(axes, curves, names, looks)
        _label_axes(axes, bottom=True, left=True, share_axes=True)
        if needs_log_axis(curves):
            rd_axes.make_logarithmic(axes)
        axes.legend(handles=_key(partitions, looks, curves), loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        rd_axes.draw_floor(axes, series)
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim(), autoscale_on=False)
        axes.figure.canvas.figure.draw_without_rendering()
        rd_axes.finish_plane(axes, series, label_series=1 < len(looks) <= curve_names.DIRECT_LABELS)
    return axes


def _check_comparable(panel: pd.DataFrame) -> None:
    """Raises TableError for curves of several likelihoods, which share no axis of distortion."""
    likelihoods = list(panel["likelihood"].unique())
    if len(likelihoods) > 1:
        raise TableError("curves on the same axes must be of one likelihood, as those of others are not "
                         f"comparable (got {', '.join(likelihoods)}). Try the rows of one of them, or likelihood among "
                         "the facets.")


def _title(curves: pd.DataFrame, facet: Sequence[str], values: tuple, looks: dict) -> str:
    """The facet values that tell panels apart; of one panel those that are constant too, of one curve its network.

    That a likelihood is the paper's goes without saying where there is no other.
    """
    single = len(curves[list(facet)].drop_duplicates()) == 1
    shown = {name: value for name, value in zip(facet, values) if curves[name].nunique() > 1
             or single and (name, value) != ("likelihood", Config().likelihood)}
    network = {} if len(looks) > 1 else curves[["architecture", "num_layers"]].iloc[0].to_dict()
    return naming.describe({**network, **shown})


def _panels(count: int, across: int, share_axes: bool, pictures: bool) -> tuple[Figure, list[Axes], list[Axes]]:
    """A Figure, its `count` Axes and, with pictures, the Axes above each."""
    columns = min(count, across)
    rows = math.ceil(count / columns)
    width = style.MIDDLE_WIDTH if columns == 1 else style.TEXT_WIDTH
    panel = 2.9 if columns == 1 else width / columns * (0.72 if columns == 2 else 0.86)
    figure = style.figure(width, rows * (panel + 0.55 * pictures) + 0.4)
    cells = figure.add_gridspec(rows * (1 + pictures), columns, height_ratios=([0.22, 1] if pictures else [1]) * rows)
    grid: list[Axes] = []
    above: list[Axes] = []
    for index in range(count):
        row, column = divmod(index, columns)
        first = grid[0] if grid and share_axes else None
        axes = figure.add_subplot(cells[row * (1 + pictures) + pictures, column], sharex=first, sharey=first)
        grid.append(axes)
        if pictures:
            above.append(figure.add_subplot(cells[2 * row, column]))
        _label_axes(axes, bottom=index + columns >= count, left=column == 0, share_axes=share_axes)
    return figure, grid, above


def _label_axes(axes: Axes, bottom: bool, left: bool, share_axes: bool) -> None:
    if bottom or not share_axes:
        axes.set_xlabel("rate (nats per image)")
    if left:
        axes.set_ylabel("distortion (nats per image)")
    axes.tick_params(labelbottom=bottom or not share_axes, labelleft=left or not share_axes)


def _draw_panel(axes: Axes, panel: pd.DataFrame, names: list[str], looks: dict) -> list[rd_axes.Series]:
    drawn = []
    for key, (label, colour, marker) in looks.items():
        for partition, points in curve_names.rows(panel, names, key).groupby("partition", sort=False):
            drawn.append(rd_axes.Series(points.sort_values("beta"), partition, label, colour, marker))
            rd_axes.draw_series(axes, drawn[-1])
    return drawn


def _draw_strip(axes: Axes, pictures: dict[str, np.ndarray]) -> None:
    """A row of pictures with their captions below."""
    axes.axis("off")
    for index, (caption, picture) in enumerate(pictures.items()):
        shown = picture if picture.shape[-1] == 3 else picture[..., 0]
        axes.imshow(shown, extent=(index + 0.03, index + 0.97, 0.03, 0.97), cmap="gray", vmin=0, vmax=255)
        axes.text(index + 0.5, -0.06, caption, ha="center", va="top", fontsize=4.5)
    axes.set(xlim=(0, max(1, len(pictures))), ylim=(-0.45, 1), aspect="equal", anchor="S")  # imshow had set others


def needs_log_axis(curves: pd.DataFrame) -> bool:
    """Whether the rates of these curves are to be read on a logarithmic axis."""
    rates = curves["rate_mean"].dropna()
    return bool(len(rates) and rates.min() > 0 and rates.max() > LOG_FROM * rates.min())


def _key(partitions: Sequence[str], looks: dict, curves: pd.DataFrame) -> list[Line2D]:
    """Legend handles: line styles, the star, the bars, and the curves where they are too many for the panels."""
    handles = [Line2D([], [], label=naming.PARTITIONS[name], color="0.25",
                      **(style.SECOND_LINE if name == "train" else style.FIRST_LINE)) for name in partitions]
    handles.append(rd_axes.star_handle())
    if len(looks) > curve_names.DIRECT_LABELS:
        handles += [Line2D([], [], color=colour, marker=marker, label=label)
                    for label, colour, marker in looks.values()]
    return [*handles, style.words_only(restarts.words(curves))]


def _finish(figure: Figure, grid: list[Axes], drawn: list[list[rd_axes.Series]], label_series: bool) -> None:
    """Draws the entropy floors, fixes limits and layout, then places the texts."""
    for axes, series in zip(grid, drawn):
        rd_axes.draw_floor(axes, series)
    for axes in grid:
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim(), autoscale_on=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, series in zip(grid, drawn):
        rd_axes.finish_plane(axes, series, label_series)
