"""The two planes of the page to explore, as Bokeh draws them: rate against distortion, and distortion over distance."""

from typing import Any

import numpy as np
import pandas as pd
from bokeh import models, plotting
from matplotlib.colors import to_hex

from vae_rd.figures import rd_axes, rd_curves, style

WIDTHS, HEIGHTS = (740, 600), (560, 290)  # pixels: of the curves and of the histogram
_LABEL = (75, 16)  # pixels: the size of a line's label
_RATE_TICKS = [float(f"{digit}e{power}") for power in range(-3, 5) for digit in (1, 2, 5)]  # of a log axis
_SMALL = {"text_font_size": "11px", "text_color": style.QUIET}


def plane(points: pd.DataFrame, rows: pd.DataFrame) -> Any:
    """The plane of these curves and runs, with floor and iso-ELBO lines; both are to be drawn on it.

    The rate has a log axis where it spans as much as in the printed figures.

    Args:
        points: rows of `tables.curves`.
        rows: the runs' own rows, as `tables.collect` returned them; all of their points lie in the plane.
    """
    wide = rd_curves.needs_log_axis(points)
    floor = rd_axes.floor_of(points)
    below = pd.Series([floor.level] if floor else [])
    plot = plotting.figure(width=WIDTHS[0], height=HEIGHTS[0], x_axis_type="log" if wide else "linear",
                           x_range=_range(rows["rate"], wide),
                           y_range=_range(pd.concat([rows["distortion"], below])),
                           x_axis_label="rate (nats per image)", y_axis_label="distortion (nats per image)",
                           tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location="right", name="curves")
    if wide:
        plot.xaxis.update(ticker=models.FixedTicker(ticks=_RATE_TICKS), formatter=models.BasicTickFormatter())
    _look(plot)
    _draw_diagonals(plot, wide, (points["rate_mean"] + points["distortion_mean"]).min())
    if floor:
        plot.add_layout(models.Span(location=floor.level, dimension="width", line_dash="dotted", level="underlay"))
        plot.text([plot.x_range.start], [floor.level], [floor.text], text_baseline="bottom", name="floor", x_offset=6,
                  **_SMALL)
    return plot


def _draw_diagonals(plot: Any, wide: bool, least: float) -> None:
    """Lines of constant ELBO, those of the printed figures, with their values where there is room; bent on a log axis.
    """
    rates, distortions = ((axis.start, axis.end) for axis in (plot.x_range, plot.y_range))
    scale = np.log if wide else np.asarray
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    labels: list[tuple[np.ndarray, float, float, str]] = []
    for level in rd_axes.elbo_levels(rates, distortions, wide, least):
        left, right = (float(np.clip(level - end, *rates)) for end in distortions[::-1])
        # Rounded, as the last bits differ between processors, and so would the published page.
        across = np.round(np.geomspace(left, right, 100) if wide else [left, right], 9).clip(*rates)
        lines.append((across, level - across))
        place = np.array([(scale(right) - scale(rates[0])) / np.ptp(scale(rates)) * WIDTHS[0],
                          (level - right - distortions[0]) / np.ptp(distortions) * HEIGHTS[0]])  # pixels
        if not labels or (np.abs(place - labels[-1][0]) > _LABEL).any():
            labels.append((place, right, level - right, rd_axes.elbo_text(level)))
    plot.multi_line([line[0] for line in lines], [line[1] for line in lines], color=style.QUIET, line_width=0.7,
                    alpha=0.5, level="underlay", name="diagonals")
    plot.text(*([label[column] for label in labels] for column in (1, 2, 3)), text_align="right",
              text_baseline="bottom", x_offset=-6, y_offset=-2, name="elbo", level="underlay", **_SMALL)


def _range(values: pd.Series, logarithmic: bool = False) -> models.Range1d:
    """The range of an axis, which stays as it is when curves are hidden."""
    values = values[values > 0] if logarithmic else values  # the rate of one sample per image may be below 0
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        margin = (high / low) ** 0.05
        return models.Range1d(low / margin, high * margin)
    margin = 0.05 * (high - low) or 1.0
    return models.Range1d(low - margin, high + margin)


def add_tools(plot: Any, drawn: list, legend: dict[str, list]) -> None:
    """Hovering, tapping, and the legend below the plane."""
    tips = [("run", "@run"), ("curve", "@curve, @partition"), ("\u03b2, seed", "@beta, @seed"),
            ("rate", "@rate{0.00}"), ("distortion", "@distortion{0.00}"),
            ("mutual information", "@mutual_information"), ("log p(x), importance sampling", "@log_px"),
            ("log p(x), AIS", "@log_px_ais")]
    plot.add_tools(models.HoverTool(renderers=drawn, tooltips=tips), models.TapTool(renderers=drawn))
    items = [models.LegendItem(label=label, renderers=lines) for label, lines in legend.items()]
    plot.add_layout(models.Legend(
        items=items, ncols=3, spacing=6, border_line_color=None, label_text_font_size="12px", location="center",
        title="filled, solid: test; hollow, dashed: train; lines through the means of the restarts",
        title_text_font_size="12px", title_text_font_style="normal"), "below")


def histogram() -> tuple[Any, dict[str, Any]]:
    """The plane of distortion against distance, still empty, and what a click changes of it."""
    cells = models.ColumnDataSource({name: [] for name in ("left", "right", "bottom", "top", "count")})
    means = models.ColumnDataSource({"x": [], "y": []})
    colours = [to_hex(colour) for colour in style.ordered_colours(64)[::-1]]
    mapper = models.LogColorMapper(palette=colours, low=1, high=2)
    plot = plotting.figure(width=WIDTHS[1], height=HEIGHTS[1], x_range=models.Range1d(0, 1),
                           y_range=models.Range1d(0, 1), name="histogram",
                           x_axis_label="distance to the nearest training image (L2, pixels in [0, 1])",
                           y_axis_label="distortion (nats per image)", tools="save", toolbar_location=None,
                           title="Distortion of all test images against their distance to the training set")
    _look(plot)
    quads = plot.quad("left", "right", "bottom", "top", source=cells, line_color=None,
                      fill_color={"field": "count", "transform": mapper})
    plot.line("x", "y", source=means, color=style.COLOURS[1], line_width=2)
    plot.scatter("x", "y", source=means, color=style.COLOURS[1], size=5, legend_label="mean of a bin")
    plot.legend[0].update(label_text_font_size="11px", border_line_color=None, background_fill_alpha=0.6,
                          location="top_left")
    plot.add_tools(models.HoverTool(renderers=[quads], tooltips=[("test images", "@count")]))
    plot.add_layout(models.ColorBar(color_mapper=mapper, width=10, title="images",
                                    title_text_font_size="11px", title_text_font_style="normal"), "right")
    return plot, {"cells": cells, "means": means, "x_range": plot.x_range, "y_range": plot.y_range, "mapper": mapper}


def _look(plot: Any) -> None:
    """Upright texts and quiet lines, as in the printed figures."""
    for axis in plot.axis:
        axis.update(axis_label_text_font_style="normal", axis_label_text_font_size="13px",
                    major_label_text_font_size="12px")
    plot.title.update(text_font_size="12px", text_font_style="normal")
    plot.grid.grid_line_color = "#E6E6E6"
    plot.outline_line_color = None
