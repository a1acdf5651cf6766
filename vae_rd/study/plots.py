"""Rate-distortion figures: the curves table in, a Figure out, nothing written."""

import math
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_rd.study import look, plane, words

PANELS_ACROSS = 3


def rd_figure(curves: pd.DataFrame, facet: Sequence[str] = ("dataset", "split"),
              partitions: Sequence[str] = ("train", "test"), across: int = PANELS_ACROSS) -> Figure:
    """RD curves: a panel per value of the facet columns, a curve per other difference, train dashed, test solid.

    Args:
        curves: rows of one checkpoint of `tables.curves`.
        facet: columns whose combinations get a panel each.
        partitions: which partitions to draw.
        across: most panels side by side.
    """
    curves = curves[curves["partition"].isin(partitions)]
    panels = list(curves.groupby(list(facet), sort=False)) if facet else [((), curves)]
    names = _differing(curves, facet)
    looks = _looks(curves, names)
    with matplotlib.rc_context(look.STYLE):
        figure, grid = _panels(len(panels), across)
        drawn = [_draw_panel(axes, panel, names, looks) for axes, (_, panel) in zip(grid, panels)]
        titled = [name for name in facet if len(panels) == 1 or curves[name].nunique() > 1]
        for axes, (values, _) in zip(grid, panels):
            constant = {name: value for name, value in zip(facet, values) if name in titled}
            network = {} if len(looks) > 1 else curves[["architecture", "num_layers"]].iloc[0].to_dict()
            axes.set_title(words.describe({**network, **constant}))
        _key(figure, partitions)
        _finish(figure, grid, drawn, label_series=len(looks) > 1)
    return figure


def _differing(curves: pd.DataFrame, facet: Sequence[str]) -> list[str]:
    """The columns, beta apart, in which curves of one panel differ: what names a curve."""
    fields = curves.columns[:curves.columns.get_loc("partition")].drop("beta")  # those of Config come first
    names = {name for name in fields if name not in facet and curves[name].nunique(dropna=False) > 1}
    if names & {"architecture", "num_layers"}:
        names |= {"architecture", "num_layers"} - set(facet)
    return [name for name in fields if name in names]


def _looks(curves: pd.DataFrame, names: list[str]) -> dict[tuple, tuple[str, str, str]]:
    """Label, colour and marker of every curve, by the values that name it."""
    values = curves[names].drop_duplicates().sort_values(names) if names else pd.DataFrame(index=[0])
    keys = list(values.itertuples(index=False, name=None)) or [()]
    colours = look.COLOURS if len(keys) <= len(look.COLOURS) else look.ordered_colours(len(keys))
    return {key: (words.describe(dict(zip(names, key))), colours[place], look.MARKERS[place % len(look.MARKERS)])
            for place, key in enumerate(keys)}


def _panels(count: int, across: int):
    """A Figure and its `count` Axes, which share their limits."""
    columns = min(count, across)
    rows = math.ceil(count / columns)
    width = look.COLUMN_WIDTH if columns == 1 else look.TEXT_WIDTH
    height = rows * (2.5 if columns == 1 else width / columns * 0.86) + 0.35
    figure = look.figure(width, height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < count)
        if place + columns >= count:
            axes.set_xlabel("rate (nats per image)")
            axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel("distortion (nats per image)")
    return figure, list(grid.flat[:count])


def _draw_panel(axes, panel: pd.DataFrame, names: list[str], looks: dict) -> list[plane.Series]:
    drawn = []
    for key, (label, colour, marker) in looks.items():
        chosen = panel[(panel[names] == list(key)).all(axis=1)] if names else panel
        for partition, points in chosen.groupby("partition", sort=False):
            drawn.append(plane.Series(points.sort_values("beta"), partition, label, colour, marker))
            plane.draw_series(axes, drawn[-1])
    return drawn


def _key(figure: Figure, partitions: Sequence[str]) -> None:
    """What the line styles mean, below the panels."""
    marks = {"color": "0.25", "marker": "o"}
    handles = [Line2D([], [], label=words.PARTITIONS[name], **marks,
                      **(plane.TRAIN_LINE if name == "train" else plane.TEST_LINE)) for name in partitions]
    handles.append(Line2D([], [], linestyle="none", marker="*", markersize=8, markerfacecolor="white",
                          markeredgecolor="0.25", label=f"\u03b2 = {plane.STAR_BETA:g}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _finish(figure: Figure, grid: list, drawn: list[list[plane.Series]], label_series: bool) -> None:
    floors = [plane.entropy_floor(series) for series in drawn]
    for axes, floor in zip(grid, floors):
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom=min(bottom, floor - 0.09 * (top - floor)) if floor > 0 else bottom)
    for axes in grid:
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim(), autoscale_on=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, series in zip(grid, drawn):
        plane.finish_plane(axes, series, label_series)
