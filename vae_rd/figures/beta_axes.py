"""Panels over beta: their grid, one quantity with its bars, texts on horizontal lines, the key."""

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

from vae_rd.figures import restarts, style
from vae_rd.figures.labels import Labeller


def grid(rows: int, across: int, sharey: bool | Literal["row"], betas: pd.Series) -> tuple[Figure, np.ndarray]:
    """A Figure and its Axes [rows, across], with these betas on shared axes: see `set_scale`."""
    width = style.COLUMN_WIDTH if across == 1 else style.TEXT_WIDTH
    figure = style.figure(width, rows * min(2.0 if rows < 3 else 1.4, width / across * 0.62) + 0.5)
    panels = figure.subplots(rows, across, sharex=True, sharey=sharey, squeeze=False)
    for axes in panels[-1]:
        axes.set_xlabel("\u03b2")
    for axes in panels.flat:
        set_scale(axes, betas)
    return figure, panels


def set_scale(axes: Axes, betas: pd.Series) -> None:
    """A logarithmic axis of beta; where a beta is 0, linear from there to the next."""
    above = betas[betas > 0]
    if len(above) == len(betas):
        axes.set_xscale("log")
    elif len(above):
        axes.set_xscale("symlog", linthresh=float(above.min()), linscale=0.5)
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))


def draw(axes: Axes, points: pd.DataFrame, name: str, color: ColorType, shift: float = 1.0, **looks: Any) -> None:
    """One quantity against beta, with bars over restarts; nothing if no run has it.

    Args:
        axes: of `grid`.
        points: rows of `tables.curves`, sorted by beta.
        name: of the quantity.
        color: of line and bars.
        shift: factor on beta, so that markers of several curves do not hide each other.
        **looks: of the line.
    """
    if f"{name}_mean" in points and (known := points[f"{name}_mean"].notna()).any():
        points = points[known]  # else the line would break where a beta was not measured
        axes.errorbar(points["beta"].to_numpy(float) * shift, points[f"{name}_mean"].to_numpy(float),
                      yerr=restarts.bars(points, name), color=color, elinewidth=0.7, **{**style.FIRST_LINE, **looks})


def shifts(count: int, betas: pd.Series) -> list[float]:
    """Factors on beta that set so many curves apart.

    Steps of a fiftieth of the axis, but all within a third of the way from a beta to the next.
    """
    gaps = np.diff(np.unique(np.log(betas[betas > 0].to_numpy(float))))  # the axis is logarithmic
    step = max(np.log(10), gaps.sum()) / 50
    if len(gaps):
        step = min(step, gaps.min() / 3 / max(1, count - 1))
    return [float(np.exp((index - (count - 1) / 2) * step)) for index in range(count)]


def write_on_lines(axes: Axes, texts: dict[float, str]) -> None:
    """A text above, or else below, each of some horizontal lines, where it covers no curve."""
    labeller = Labeller(axes)
    for line in axes.lines:
        if line.get_transform() == axes.transData:  # a curve; lines across the whole width have another
            labeller.avoid(np.stack([np.asarray(data, float) for data in line.get_data()], axis=1))
    point = axes.figure.dpi / 72
    shifts = [4.5 * point, -4.5 * point, 8 * point, -8 * point]  # the far ones where a curve runs along the line
    for level, text in texts.items():
        (left, height), (right, _) = labeller.pixels([(beta, level) for beta in axes.get_xlim()])
        places = [(x, height + shift) for shift in shifts for x in np.linspace(right, left, 50)]
        labeller.place(text, places, fontsize=5.5, color="0.3")


def key(figure: Figure, lines: Sequence[tuple[str, dict]], bars: str = "", band: str = "", apart: bool = False) -> None:
    """The legend below the panels.

    Args:
        figure: of `grid`.
        lines: label and looks of each line; grey where they name no colour.
        bars: what the bars are, from `restarts.words`, or how many restarts there are.
        band: what a filled band is.
        apart: whether `shifts` moved the points.
    """
    handles: list[Line2D | Patch] = [Line2D([], [], label=label, **{"color": "0.25", **looks})
                                     for label, looks in lines]
    if band:
        handles.append(Patch(color=style.COLOURS[0], alpha=0.15, label=band))
    handles += [style.words_only(text)
                for text in (bars, "points are moved along \u03b2 to keep curves apart" if apart else "") if text]
    style.legend_below(figure, handles)


def finish(figure: Figure, panels: np.ndarray) -> None:
    """Fixes limits and layout, so that texts can be placed."""
    for axes in panels.flat:
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
