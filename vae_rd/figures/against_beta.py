"""Against beta: information (figure 8), log p(x) with its reliability, memorisation; a table in, a Figure out."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from vae_rd.analysis import naming, quantities
from vae_rd.analysis.tables import TableError
from vae_rd.figures import curve_names, style
from vae_rd.figures.labels import Labeller
from vae_rd.measures.registry import is_share

BATCH = 512  # of the minibatch estimate


def information_figure(curves: pd.DataFrame) -> Figure:
    """Figure 8: mutual information (above) and marginal KL (below) against beta, a column per network.

    Solid: exact. Dashed: the minibatch estimate. The band is max(0, H - D) <= I <= R with H = log N; on grey images
    H - D is negative and bounds nothing.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    train = curves[curves["partition"] == "train"]
    networks = list(train.groupby(["architecture", "num_layers"], sort=False))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _grid(2, len(networks), sharey="row")
        for (information, marginal), ((architecture, layers), points) in zip(grid.T, networks):
            points = points.sort_values("beta")
            information.set_title(naming.describe({"architecture": architecture, "num_layers": layers}))
            _draw_bounds(information, points)
            for axes, name, colour in ((information, quantities.MUTUAL_INFORMATION, style.COLOURS[0]),
                                       (marginal, quantities.MARGINAL_KL, style.COLOURS[1])):
                _draw(axes, points, name + quantities.MINIBATCH, colour, **style.SECOND_LINE, markersize=5.5)
                _draw(axes, points, name, colour)
        _, high = _range(train, [quantities.MUTUAL_INFORMATION, quantities.MUTUAL_INFORMATION + quantities.MINIBATCH])
        grid[0, 0].set_ylim(0, 1.18 * max(high, np.log(BATCH), np.log(train["num_train"].max())))
        grid[1, 0].set_yscale("symlog", linthresh=10)
        low, high = _range(train, [quantities.MARGINAL_KL, quantities.MARGINAL_KL + quantities.MINIBATCH])
        grid[1, 0].set_ylim(min(0, 1.3 * low), max(1, 1.6 * high))
        grid[1, 0].yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
        grid[0, 0].set_ylabel("mutual information\n(nats per image)")
        grid[1, 0].set_ylabel("marginal KL\n(nats per image)")
        _key(figure, [("exact", style.FIRST_LINE), (f"minibatch of {BATCH}", style.SECOND_LINE)],
             band="max(0, log N \N{MINUS SIGN} D) \u2264 MI \u2264 R")
        _finish(figure, grid)
        for axes, (_, points) in zip(grid[0], networks):
            _name_caps(axes, points)
    return figure


def log_px_figure(curves: pd.DataFrame) -> Figure:
    """log p(x) and ELBO of test images against beta, a panel per split; hollow where log p(x) cannot be trusted.

    The dotted line is the ceiling that grey targets impose: minus the entropy floor.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    test = curves[curves["partition"] == "test"]
    splits = list(test.groupby("split", sort=False))
    networks = list(test.groupby(["architecture", "num_layers"], sort=False).groups)
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _grid(1, len(splits), sharey=True)
        for axes, (split, rows) in zip(grid[0], splits):
            axes.set_title(naming.describe({"split": split}))
            for network, colour in zip(networks, style.COLOURS):
                points = rows[(rows["architecture"] == network[0]) & (rows["num_layers"] == network[1])]
                points = points.sort_values("beta")
                _draw(axes, points, quantities.LOG_PX, colour)
                _draw(axes, points, "elbo", colour, linestyle=(0, (1, 1.2)), marker=None)
                flagged = points[~(points.get(f"{quantities.UNRELIABLE}_mean", np.nan) <= quantities.TRUSTED)]
                axes.plot(flagged["beta"], flagged[f"{quantities.LOG_PX}_mean"], "o", color=colour,
                          markerfacecolor="white", markersize=4.2, zorder=4)
                _draw(axes, points, quantities.LOG_PX_AIS, colour, linestyle="none", marker="x", markersize=4)
            axes.axhline(-rows["entropy_floor_mean"].mean(), color="black", linewidth=0.7, linestyle=(0, (1, 1.5)))
        grid[0, 0].set_ylabel("test log p(x) (nats per image)")
        kinds = [("log p(x), importance sampling", style.FIRST_LINE),
                 ("not to be trusted", {**style.FIRST_LINE, "markerfacecolor": "white", "linestyle": "none"}),
                 ("AIS", {"linestyle": "none", "marker": "x"}), ("ELBO", {"linestyle": (0, (1, 1.2))})]
        _key(figure, kinds, [(naming.describe({"architecture": name, "num_layers": layers}), colour)
                             for (name, layers), colour in zip(networks, style.COLOURS)])
        _finish(figure, grid)
        for axes, (_, rows) in zip(grid[0], splits):
            ceiling = -rows["entropy_floor_mean"].mean()
            _write_on_lines(axes, {ceiling: f"ceiling of grey targets \N{MINUS SIGN}{-ceiling:.1f}"})
    return figure


def samples_figure(curves: pd.DataFrame) -> Figure:
    """log p(x) of test images against the number of importance samples, a panel per network and a line per beta.

    A line that still rises at its right end has not converged. The smallest training set is drawn.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    test = curves[(curves["partition"] == "test") & (curves["num_train"] == curves["num_train"].min())]
    pattern = re.compile(rf"{quantities.LOG_PX_SAMPLES}([0-9]+)_mean")
    sizes = sorted(int(found[1]) for found in map(pattern.fullmatch, test.columns) if found)
    networks = list(test.groupby(["architecture", "num_layers"], sort=False))
    betas = sorted(test["beta"].unique())
    colours = style.ordered_colours(len(betas))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _grid(1, len(networks), sharey=True)
        for axes, ((architecture, layers), points) in zip(grid[0], networks):
            axes.set(title=naming.describe({"architecture": architecture, "num_layers": layers}),
                     xlabel="importance samples per image")
            for beta, colour in zip(betas, colours):
                rows = points[points["beta"] == beta]
                means = [rows[f"{quantities.LOG_PX_SAMPLES}{size}_mean"].mean() for size in sizes]
                axes.plot(sizes, means, color=colour, marker="o", markersize=2)
        grid[0, 0].set_ylabel("test log p(x) (nats per image)")
        _key(figure, [], [(f"\u03b2 = {beta:g}", colour) for beta, colour in zip(betas, colours)])
        _finish(figure, grid)
    return figure


def measures_figure(curves: pd.DataFrame, measures: dict[str, str], partition: str = "test",
                    facet: str = "split") -> Figure:
    """Any measures against beta: a row per measure, a column per value of `facet`, a curve per network.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
        measures: label of the y axis by column; those that no run has are left out.
        partition: of which images.
        facet: a field of Config.
    """
    rows = curves[curves["partition"] == partition]
    measures = {name: label for name, label in measures.items() if f"{name}_mean" in rows}
    panels = list(rows.groupby(facet, sort=False))
    networks = list(rows.groupby(["architecture", "num_layers"], sort=False).groups)
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _grid(len(measures), len(panels), sharey="row")
        for column, (value, chosen) in enumerate(panels):
            grid[0, column].set_title(naming.describe({facet: value}))
            for axes, name in zip(grid[:, column], measures):
                for network, colour, marker in zip(networks, style.COLOURS, style.MARKERS):
                    points = chosen[(chosen["architecture"] == network[0]) & (chosen["num_layers"] == network[1])]
                    _draw(axes, points.sort_values("beta"), name, colour, marker=marker)
        for axes, (name, label) in zip(grid[:, 0], measures.items()):
            axes.set_ylabel(label)
            if is_share(name):
                axes.set_ylim(-0.04, 1.04)
        _key(figure, [], [(naming.describe({"architecture": name, "num_layers": layers}), colour)
                          for (name, layers), colour in zip(networks, style.COLOURS)])
        _finish(figure, grid)
    return figure


def draw_quantity(axes: Axes, curves: pd.DataFrame, quantity: str, hue: Sequence[str] | None = None) -> Axes:
    """One quantity against beta on an Axes of the caller's: means, and bars of one standard deviation over restarts.

    Args:
        axes: Matplotlib Axes.
        curves: rows of `tables.curves` for one partition and checkpoint.
        quantity: name of a metric or of a measured number.
        hue: columns that name a curve; by default all fields of Config in which the curves differ.

    Returns:
        The Axes.

    Raises:
        TableError: if no run has the quantity.
    """
    if f"{quantity}_mean" not in curves or curves[f"{quantity}_mean"].isna().all():
        known = ", ".join(name.removesuffix("_mean") for name in curves if name.endswith("_mean"))
        raise TableError(f"quantity must be one that the runs have (got {quantity!r}). Try one of {known}.")
    with matplotlib.rc_context(style.STYLE):
        names = list(curve_names.differing(curves, ()) if hue is None else hue)
        for key, (label, colour, marker) in curve_names.looks(curves, names).items():
            points = curve_names.rows(curves, names, key).sort_values("beta")
            _draw(axes, points, quantity, colour, marker=marker, label=label)
        axes.set(xscale="log", xlabel="\u03b2", ylabel=quantity.replace("_", " "))
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return axes


def _grid(rows: int, across: int, sharey: bool | Literal["row"]) -> tuple[Figure, np.ndarray]:
    width = style.COLUMN_WIDTH if across == 1 else style.TEXT_WIDTH
    figure = style.figure(width, rows * min(2.0 if rows < 3 else 1.4, width / across * 0.62) + 0.5)
    grid = figure.subplots(rows, across, sharex=True, sharey=sharey, squeeze=False)
    for axes in grid[-1]:
        axes.set_xlabel("\u03b2")
    for axes in grid.flat:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    return figure, grid


def _draw(axes: Axes, points: pd.DataFrame, name: str, colour: ColorType, **looks: Any) -> None:
    """One quantity against beta, with bars of one standard deviation; nothing if no run has it."""
    if f"{name}_mean" in points and points[f"{name}_mean"].notna().any():
        values = points[["beta", f"{name}_mean", f"{name}_std"]].to_numpy(float)
        axes.errorbar(values[:, 0], values[:, 1], yerr=np.nan_to_num(values[:, 2]), color=colour, elinewidth=0.7,
                      **{**style.FIRST_LINE, **looks})


def _draw_bounds(axes: Axes, points: pd.DataFrame) -> None:
    """The band in which the exact mutual information must lie, and the caps log N and log B."""
    entropy = np.log(points["num_train"].to_numpy(float))
    low = np.maximum(0, entropy - points["distortion_mean"].to_numpy(float))
    axes.fill_between(points["beta"], low, points["rate_mean"], color=style.COLOURS[0], alpha=0.10, linewidth=0)
    for cap in (entropy[0], np.log(BATCH)):
        axes.axhline(cap, color=style.QUIET, linewidth=0.7, linestyle=(0, (1, 1.5)))


def _name_caps(axes: Axes, points: pd.DataFrame) -> None:
    size = int(points["num_train"].iloc[0])
    texts = {np.log(size): f"log N = {np.log(size):.2f}", np.log(BATCH): f"log {BATCH} = {np.log(BATCH):.2f}"}
    _write_on_lines(axes, texts)


def _write_on_lines(axes: Axes, texts: dict[float, str]) -> None:
    """A text above, or else below, each of some horizontal lines, where it covers no curve."""
    labeller = Labeller(axes)
    for line in axes.lines:
        if np.size(line.get_xdata()) > 2:
            labeller.avoid(np.stack([np.asarray(data, float) for data in line.get_data()], axis=1))
    point = axes.figure.dpi / 72
    shifts = [4.5 * point, -4.5 * point, 8 * point, -8 * point]  # the far ones where a curve runs along the line
    for level, text in texts.items():
        (left, height), (right, _) = labeller.pixels([(beta, level) for beta in axes.get_xlim()])
        places = [(place, height + shift) for shift in shifts for place in np.linspace(right, left, 50)]
        labeller.place(text, places, fontsize=5.5, color="0.3")


def _key(figure: Figure, kinds: Sequence[tuple[str, dict]], coloured: Sequence[tuple[str, ColorType]] = (),
         band: str | None = None) -> None:
    handles: list[Line2D | Patch] = []
    handles += [Line2D([], [], color=colour, marker="o", label=label) for label, colour in coloured]
    handles += [Line2D([], [], color="0.25", label=label, **style) for label, style in kinds]
    if band:
        handles.append(Patch(color=style.COLOURS[0], alpha=0.15, label=band))
    across = 2 if figure.get_figwidth() < style.TEXT_WIDTH else 6
    figure.legend(handles=handles, loc="outside lower center", ncols=min(across, len(handles)))


def _range(rows: pd.DataFrame, names: Sequence[str]) -> tuple[float, float]:
    """Least and largest mean of some quantities; 0 and 0 if no run has them."""
    values = np.concatenate([[0.0], *(rows[f"{name}_mean"].dropna() for name in names if f"{name}_mean" in rows)])
    return float(values.min()), float(values.max())


def _finish(figure: Figure, grid: np.ndarray) -> None:
    for axes in grid.flat:
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
