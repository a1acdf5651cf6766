"""A page to explore per experiment: curves with controls, a run's pictures behind every point, the claims' verdicts.

Each is one HTML file that needs no network. Bokeh draws it: 1.7 MB of JavaScript go into the file (of Plotly 4.7), and
what a click does is a few lines that run in the browser (`page_scripts.py`).
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bokeh import events, layouts, models, plotting, resources
from bokeh.document import Document
from bokeh.embed import file_html
from matplotlib.colors import to_hex

from vae_rd.analysis import naming, paired, verdicts
from vae_rd.analysis.tables import TableError, curves, finished, folders
from vae_rd.figures import curve_names, page_scripts, page_texts, paper, rd_curves, style
from vae_rd.sweeps import experiments

PARTITIONS = ("test", "train")
ALWAYS = ("split", "num_layers", "prior")  # fields that have buttons, whether or not they differ
OTHER_RUNS = "other_runs"  # the page of those that no experiment holds
_WIDTHS, _HEIGHTS = (780, 620), (660, 290)  # pixels: of the curves and of the histogram
_BUTTONS = ".bk-btn.bk-active { background: %s; border-color: %s; color: white }" % (("#5B7C99",) * 2)
_TITLES = {"num_layers": "layers"}  # of buttons, where they are not the field's name


class Group(NamedTuple):
    """The finished runs of one page."""

    name: str  # of the file, without suffix
    title: str
    note: str
    runs: set[str]
    scale: str  # whose claims are judged


def pages(table: pd.DataFrame, runs_dir: str | os.PathLike, names: Sequence[str] = (), scale: str | None = None
          ) -> Iterator[tuple[str, str]]:
    """Name and HTML of the page of each experiment that has finished runs, and of the runs that none holds.

    Args:
        table: what `tables.collect` returned.
        runs_dir: where the run directories are: galleries and values per image are read from them.
        names: of experiments; empty: all, and the runs of none.
        scale: of the experiments; None: for each, that with the most finished runs.

    Raises:
        TableError: if there is no finished run to show.
    """
    found = list(groups(table, names, scale))
    if not found:
        raise TableError(f"{runs_dir} holds no finished run{' of ' + ', '.join(names) if names else ''}, so there is "
                         "nothing to explore. Train some with vae_rd.main or vae_rd.sweep, or name another folder with "
                         "--runs_dir.")
    judged = {scale: verdicts.evaluate(table, scale, paired.images_of(runs_dir))
              for scale in dict.fromkeys(group.scale for group in found)}
    for group in found:
        yield group.name, page(table[table["run"].isin(group.runs)], runs_dir, group.title, group.note,
                               judged[group.scale])


def groups(table: pd.DataFrame, names: Sequence[str] = (), scale: str | None = None) -> Iterator[Group]:
    """The pages that `pages` makes, by their runs."""
    others = set() if names else set(finished(table)["run"])
    for name in names or experiments.names():
        wanted = experiments.experiment(name, scale or paper.fullest_scale(table, name))
        runs = set(folders(table, wanted.configs).values())
        others -= runs
        lacking = len(wanted.configs) - len(runs)
        note = f"scale {wanted.scale}, {_runs(len(runs))}" + (f", {lacking} not finished" if lacking else "")
        if runs:
            yield Group(name, f"{name}: {wanted.text}", note, runs, wanted.scale)
    if others:
        yield Group(OTHER_RUNS, "Runs that no experiment holds", _runs(len(others)), others,
                    scale or paper.fullest_scale(table, *experiments.names()))


def page(table: pd.DataFrame, runs_dir: str | os.PathLike, title: str, note: str, judged: pd.DataFrame) -> str:
    """The HTML of one page.

    Args:
        table: rows of finished runs, as `tables.collect` returned them.
        runs_dir: where their directories are.
        title: its heading.
        note: what stands below the heading.
        judged: what `verdicts.evaluate` returned.
    """
    rows = table[table["checkpoint"] == "last"]
    runs = paper.in_order(rows.drop_duplicates("run").sort_values("seed", kind="stable")).reset_index(drop=True)
    shown = [page_texts.shown(pathlib.Path(runs_dir) / run, rows[rows["run"] == run]) for run in runs["run"]]
    sources, left = _curves(rows, runs)
    histogram, parts = _histogram()
    panel = _text("", sum(_WIDTHS[1:]), "panel")
    show = models.CustomJS(code=page_scripts.SHOW, args={
        "sources": sources, "panel": panel, "texts": [one.text for one in shown],
        "histograms": [one.histogram for one in shown], **parts})
    for source in sources:
        source.selected.js_on_change("indices", show)
    sources[0].selected.indices = [_first(runs, [one.histogram is not None for one in shown])]
    document = Document(title=title)
    document.add_root(layouts.column(
        _text(page_texts.heading(title, note), sum(_WIDTHS), "heading"),
        layouts.row(left, layouts.column(panel, histogram), spacing=28),
        _text(page_texts.claims(judged), sum(_WIDTHS), "claims"), margin=(8, 16, 24, 16)))
    document.js_on_event(events.DocumentReady, show)
    return file_html(document, resources.INLINE, title)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _text(text: str, width: int, name: str) -> models.Div:
    return models.Div(text=text, width=width, name=name, disable_math=True, stylesheets=[page_texts.STYLE])


def _first(runs: pd.DataFrame, measured: list[bool]) -> int:
    """The run that is shown at first: one with a gallery, if any, and beta near 1."""
    return int(np.lexsort((np.abs(np.log(runs["beta"].clip(lower=1e-9))), ~np.array(measured)))[0])


def _curves(rows: pd.DataFrame, runs: pd.DataFrame) -> tuple[list[models.ColumnDataSource], models.Model]:
    """The points' sources by partition, a row per run, and the plot with its controls above it."""
    points = paper.in_order(curves(rows))
    names = curve_names.differing(points, ())
    looks = curve_names.looks(points, names)
    fields = [*ALWAYS, *(name for name in names if name not in ALWAYS and runs[name].nunique() > 1)]
    values = {name: sorted(runs[name].unique(), key=naming.split_order if name == "split" else None)
              for name in fields}
    betas = sorted(runs["beta"].unique())
    slider, buttons = _controls(values, betas)
    view = models.CDSView(filter=models.BooleanFilter([True] * len(runs)))
    plot = _plot(rows)
    sources, drawn, lines = [], [], []
    legend: dict[str, list] = {}
    for place, partition in enumerate(PARTITIONS):
        for key, (label, colour, _) in looks.items():
            curve = curve_names.rows(points, names, key)
            own = {name: values[name].index(curve[name].iloc[0]) for name in fields}
            curve = curve[curve["partition"] == partition].sort_values("beta")
            x, y = curve["rate_mean"].tolist(), curve["distortion_mean"].tolist()
            source = models.ColumnDataSource({"x": x, "y": y})
            line = plot.line("x", "y", source=source, color=to_hex(colour), line_width=1.6,
                             line_dash="solid" if partition == "test" else [6, 4])
            lines.append([line, source, place, list(own.values()), x, y, [betas.index(beta) for beta in curve["beta"]]])
            legend.setdefault(label or "all runs", []).append(line)
        sources.append(models.ColumnDataSource(_points(rows, runs, partition, names, looks)))
        fill = "colour" if partition == "test" else "white"
        drawn.append(plot.scatter("rate", "distortion", source=sources[-1], view=view, size=9, line_color="colour",
                                  fill_color=fill, fill_alpha=0.9, line_width=1.4, nonselection_alpha=0.9,
                                  name=partition))
        drawn[-1].selection_glyph = drawn[-1].glyph.clone(size=15, line_color="black", line_width=3)
    _tools(plot, drawn, legend)
    partitions = _buttons("partition", [naming.PARTITIONS[name] for name in PARTITIONS])
    columns = [[values[name].index(value) for value in runs[name]] for name in fields]
    change = models.CustomJS(code=page_scripts.CONTROLS, args={
        "controls": list(buttons.values()), "columns": columns, "slider": slider, "view": view.filter,
        "places": [betas.index(beta) for beta in runs["beta"]], "partitions": partitions, "points": drawn,
        "curves": lines})
    for control in (partitions, *buttons.values()):
        control.js_on_change("active", change)
    if slider:
        slider.js_on_change("value", change)
    labelled = [layouts.row(_label(name), one) for name, one in {"partition": partitions, **buttons}.items()]
    above = layouts.row(labelled, width=_WIDTHS[0], spacing=12, styles={"flex-wrap": "wrap"})
    return sources, layouts.column(above, *([slider] if slider else []), plot)


def _points(rows: pd.DataFrame, runs: pd.DataFrame, partition: str, names: list[str], looks: dict
            ) -> dict[str, list]:
    """Columns of one partition's points, in the order of the runs; NaN where a run has no such partition."""
    own = rows[rows["partition"] == partition].set_index("run").reindex(runs["run"])
    train = rows[rows["partition"] == "train"].set_index("run").reindex(runs["run"])
    look = [looks[key] for key in (runs[names].itertuples(index=False, name=None) if names else [()] * len(runs))]
    return {"rate": own["rate"].tolist(), "distortion": own["distortion"].tolist(), "run": runs["run"].tolist(),
            "beta": [f"{beta:g}" for beta in runs["beta"]], "seed": runs["seed"].tolist(),
            "partition": [naming.PARTITIONS[partition]] * len(runs), "curve": [label for label, _, _ in look],
            "colour": [to_hex(colour) for _, colour, _ in look],
            "log_px": [page_texts.log_px(row) for _, row in own.iterrows()],
            "mutual_information": [page_texts.mutual_information(row) for _, row in train.iterrows()]}


def _controls(values: dict[str, list], betas: list[float]) -> tuple[Any, dict[str, models.CheckboxButtonGroup]]:
    """A slider of the range of beta (None for a single one), and a row of buttons for each field."""
    buttons = {name: _buttons(name, [naming.describe({name: value}).removeprefix(f"{name.replace('_', ' ')} ")
                                     for value in found]) for name, found in values.items()}
    if len(betas) == 1:
        return None, buttons
    words = models.CustomJSTickFormatter(args={"betas": [f"{beta:g}" for beta in betas]},
                                         code="return betas[Math.round(tick)]")
    return models.RangeSlider(start=0, end=len(betas) - 1, step=1, value=(0, len(betas) - 1), title="\u03b2",
                              format=words, width=_WIDTHS[0] - 40, name="beta",
                              bar_color=style.COLOURS[0]), buttons


def _buttons(name: str, labels: list[str]) -> models.CheckboxButtonGroup:
    return models.CheckboxButtonGroup(labels=labels, active=list(range(len(labels))), name=name,
                                      stylesheets=[_BUTTONS])


def _label(name: str) -> models.Div:
    return models.Div(text=_TITLES.get(name, name.replace("_", " ")), styles={"padding-top": "7px"})


def _plot(rows: pd.DataFrame) -> Any:
    """The empty plane; the rate on a log axis where it spans as much as in the figures."""
    rows = rows[rows["partition"].isin(PARTITIONS)]
    wide = 0 < rows["rate"].min() * rd_curves.LOG_FROM < rows["rate"].max()
    plot = plotting.figure(width=_WIDTHS[0], height=_HEIGHTS[0], x_axis_type="log" if wide else "linear",
                           x_range=_range(rows["rate"], wide), y_range=_range(rows["distortion"]),
                           x_axis_label="rate (nats per image)", y_axis_label="distortion (nats per image)",
                           tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location="right", name="curves")
    _look(plot)
    return plot


def _range(values: pd.Series, logarithmic: bool = False) -> models.Range1d:
    """The range of an axis, which stays as it is when curves are hidden."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        margin = (high / low) ** 0.05
        return models.Range1d(low / margin, high * margin)
    margin = 0.05 * (high - low) or 1.0
    return models.Range1d(low - margin, high + margin)


def _tools(plot: Any, drawn: list, legend: dict[str, list]) -> None:
    """Hovering, tapping, and the legend below the plane."""
    tips = [("run", "@run"), ("curve", "@curve, @partition"), ("\u03b2, seed", "@beta, @seed"),
            ("rate", "@rate{0.00}"), ("distortion", "@distortion{0.00}"),
            ("mutual information", "@mutual_information"), ("log p(x)", "@log_px")]
    plot.add_tools(models.HoverTool(renderers=drawn, tooltips=tips), models.TapTool(renderers=drawn))
    items = [models.LegendItem(label=label, renderers=lines) for label, lines in legend.items()]
    plot.add_layout(models.Legend(
        items=items, ncols=3, spacing=6, border_line_color=None, label_text_font_size="12px", location="center",
        title="filled, solid: test; hollow, dashed: train; lines through the means of the restarts",
        title_text_font_size="12px", title_text_font_style="normal"), "below")


def _histogram() -> tuple[Any, dict[str, Any]]:
    """The plane of distortion against distance, still empty, and what a click changes of it."""
    cells = models.ColumnDataSource({name: [] for name in ("left", "right", "bottom", "top", "count")})
    means = models.ColumnDataSource({"x": [], "y": []})
    colours = [to_hex(colour) for colour in style.ordered_colours(64)[::-1]]
    mapper = models.LogColorMapper(palette=colours, low=1, high=2)
    plot = plotting.figure(width=_WIDTHS[1], height=_HEIGHTS[1], x_range=models.Range1d(0, 1),
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
