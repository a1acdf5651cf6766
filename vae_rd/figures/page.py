"""A page to explore per experiment: curves with controls, a run's pictures behind every point, the claims' verdicts.

Each is one HTML file that needs no network. Bokeh draws it: 1.7 MB of JavaScript go into the file (of Plotly 4.7), and
what a click does is a few lines that run in the browser (`page_scripts.py`). An experiment with several likelihoods has
a page for each, as their distortions are not comparable.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bokeh import events, layouts, models, resources
from bokeh.document import Document
from bokeh.embed import file_html
from matplotlib.colors import to_hex

from vae_rd.analysis import naming, paired, tables, verdicts
from vae_rd.analysis.tables import TableError, curves, finished, finished_names
from vae_rd.figures import curve_names, drawings, page_plots, page_scripts, page_texts, style
from vae_rd.sweeps import experiments

ALWAYS = ("split", "num_layers", "prior")  # fields that have buttons, whether or not they differ
OTHER_RUNS = "other_runs"  # the page of those that no experiment holds
_BUTTONS = ".bk-btn.bk-active { background: %s; border-color: %s; color: white }" % (("#5B7C99",) * 2)
_RANDOM_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
_TITLES = {"num_layers": "layers"}  # of buttons, where they are not the field's name


class Group(NamedTuple):
    """The finished runs of one page."""

    name: str  # of the file, without suffix
    title: str
    note: str
    runs: set[str]
    scale: str  # whose claims are judged


def pages(table: pd.DataFrame, runs_dir: str | os.PathLike, names: Sequence[str] = (), scale: str | None = None,
          checkpoint: str = "last", all_runs: pd.DataFrame | None = None) -> Iterator[tuple[str, str]]:
    """Name and HTML of the page of each experiment that has finished runs, and of the runs that none holds.

    Args:
        table: what `tables.collect` returned.
        runs_dir: where the run directories are: galleries and values per image are read from them.
        names: of experiments; empty: all, and the runs of none.
        scale: of the experiments; None: for each, that with the most finished runs.
        checkpoint: `last`, or `best`: early-stopped, with the half of the test images that did not select.
        all_runs: the whole table, if `table` is only what is to be shown: claims are about all runs.

    Raises:
        TableError: if there is no finished run to show.
    """
    found = list(groups(table, names, scale))
    if not found:
        raise TableError(f"{runs_dir} holds no finished run{' of ' + ', '.join(names) if names else ''}, so there is "
                         "nothing to explore. Train some with vae_rd.main or vae_rd.sweep, or name another folder with "
                         "--runs_dir.")
    judged = {scale: verdicts.evaluate(table if all_runs is None else all_runs, scale, paired.images_of(runs_dir))
              for scale in dict.fromkeys(group.scale for group in found)}
    for group in found:
        yield group.name, page(table[table["run"].isin(group.runs)], runs_dir, group.title, group.note,
                               judged[group.scale], checkpoint)


def groups(table: pd.DataFrame, names: Sequence[str] = (), scale: str | None = None) -> Iterator[Group]:
    """The pages that `pages` makes, by their runs."""
    others = set() if names else set(finished(table)["run"])
    for name in names or experiments.names():
        wanted = experiments.experiment(name, scale or drawings.fullest_scale(table, name))
        runs = set(finished_names(table, wanted.configs).values())
        others -= runs
        lacking = len(wanted.configs) - len(runs)
        note = f"scale {wanted.scale}, {_runs(len(runs))}" + (f", {lacking} not finished" if lacking else "")
        if runs:
            yield from _by_likelihood(table, Group(name, f"{name}: {wanted.text}", note, runs, wanted.scale))
    if others:
        yield from _by_likelihood(table, Group(OTHER_RUNS, "Runs that no experiment holds", _runs(len(others)), others,
                                               scale or drawings.fullest_scale(table, *experiments.names())))


def _by_likelihood(table: pd.DataFrame, group: Group) -> Iterator[Group]:
    """The pages of these runs: one, or where they are of several likelihoods, one for each, named after it."""
    rows = table[table["run"].isin(group.runs)]
    if rows["likelihood"].nunique() == 1:
        yield group
        return
    for likelihood, own in rows.groupby("likelihood", sort=False):
        runs = set(own["run"])
        title = f"{group.title}, {naming.describe({'likelihood': likelihood})}"
        yield Group(f"{group.name}_{likelihood}", title, f"{group.note}; {len(runs)} of them here", runs, group.scale)


def page(table: pd.DataFrame, runs_dir: str | os.PathLike, title: str, note: str, judged: pd.DataFrame,
         checkpoint: str = "last") -> str:
    """The HTML of one page.

    Args:
        table: rows of finished runs, as `tables.collect` returned them.
        runs_dir: where their directories are.
        title: its heading.
        note: what stands below the heading.
        judged: what `verdicts.evaluate` returned.
        checkpoint: as in `pages`.

    Raises:
        TableError: if none of the rows is of that checkpoint.
    """
    rows = table[table["checkpoint"] == checkpoint]
    if rows.empty:
        raise TableError(f"runs to show must have the checkpoint {checkpoint} (got none of {title}). Leave out a "
                         "condition.")
    runs = tables.in_order(rows.drop_duplicates("run").sort_values("seed", kind="stable")).reset_index(drop=True)
    shown = [page_texts.shown(pathlib.Path(runs_dir) / run, rows[rows["run"] == run]) for run in runs["run"]]
    sources, left = _curves(rows, runs)
    histogram, parts = page_plots.histogram()
    panel = _text("", page_plots.WIDTHS[1], "panel")
    show = models.CustomJS(code=page_scripts.SHOW, args={
        "sources": sources, "panel": panel, "texts": [one.text for one in shown],
        "histograms": [one.histogram for one in shown], **parts})
    for source in sources:
        source.selected.js_on_change("indices", show)
    sources[0].selected.indices = [_first(runs, [one.histogram is not None for one in shown])]
    document = Document(title=title)
    document.add_root(layouts.column(
        _text(page_texts.heading(title, note, checkpoint), sum(page_plots.WIDTHS), "heading"),
        layouts.row(left, layouts.column(panel, histogram), spacing=28),
        _text(page_texts.claims(judged), sum(page_plots.WIDTHS), "claims"), margin=(8, 16, 24, 16)))
    document.js_on_event(events.DocumentReady, show)
    return _numbered(file_html(document, resources.INLINE, title), " ".join([title, note, *runs["run"]]))


def _numbered(html: str, kept: str) -> str:
    """The page with numbers for Bokeh's random ids, so that the same runs give the same file.

    Ids in `kept`, as a run's name may be one, stay.
    """
    numbers = {found: f"00000000-0000-4000-8000-{index:012}"
               for index, found in enumerate(dict.fromkeys(_RANDOM_ID.findall(html))) if found not in kept}
    return _RANDOM_ID.sub(lambda match: numbers.get(match[0], match[0]), html)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _text(text: str, width: int, name: str) -> models.Div:
    return models.Div(text=text, width=width, name=name, disable_math=True, stylesheets=[page_texts.STYLE])


def _first(runs: pd.DataFrame, measured: list[bool]) -> int:
    """The run that is shown at first: one with a gallery, if any, and beta near 1."""
    return int(np.lexsort((np.abs(np.log(runs["beta"].clip(lower=1e-9))), ~np.array(measured)))[0])


def _curves(rows: pd.DataFrame, runs: pd.DataFrame) -> tuple[list[models.ColumnDataSource], models.Model]:
    """The points' sources by partition, a row per run, and the plot with its controls above it."""
    points = tables.in_order(curves(rows))
    names = curve_names.differing(points, ())
    looks = curve_names.looks(points, names)
    fields = [*ALWAYS, *(name for name in names if name not in ALWAYS and runs[name].nunique() > 1)]
    values = {name: sorted(runs[name].unique(), key=naming.split_order if name == "split" else None)
              for name in fields}
    betas = sorted(runs["beta"].unique())
    slider, buttons = _controls(values, betas)
    view = models.CDSView(filter=models.BooleanFilter([True] * len(runs)))
    partitions = page_texts.PARTITIONS[rows["checkpoint"].iloc[0]]
    plot = page_plots.plane(*(table[table["partition"].isin(partitions)] for table in (points, rows)))
    sources, drawn, lines = [], [], []
    legend: dict[str, list] = {}
    for position, partition in enumerate(partitions):
        for key, (label, colour, _) in looks.items():
            curve = curve_names.rows(points, names, key)
            choices = {name: values[name].index(curve[name].iloc[0]) for name in fields}
            curve = curve[curve["partition"] == partition].sort_values("beta")
            x, y = curve["rate_mean"].tolist(), curve["distortion_mean"].tolist()
            source = models.ColumnDataSource({"x": x, "y": y})
            line = plot.line("x", "y", source=source, color=to_hex(colour), line_width=1.6, name="curve",
                             line_dash=[6, 4] if partition == "train" else "solid")
            places = [betas.index(beta) for beta in curve["beta"]]
            lines.append([line, source, position, list(choices.values()), x, y, places])
            legend.setdefault(label or "all runs", []).append(line)
        sources.append(models.ColumnDataSource(_points(rows, runs, partition, names, looks)))
        fill = "white" if partition == "train" else "colour"
        drawn.append(plot.scatter("rate", "distortion", source=sources[-1], view=view, size=9, line_color="colour",
                                  fill_color=fill, fill_alpha=0.9, line_width=1.4, nonselection_alpha=0.9,
                                  name=partition))
        drawn[-1].selection_glyph = drawn[-1].glyph.clone(size=15, line_color="black", line_width=3)
    page_plots.add_tools(plot, drawn, legend)
    shown = _buttons("partition", [naming.PARTITIONS[name] for name in partitions])
    columns = [[values[name].index(value) for value in runs[name]] for name in fields]
    change = models.CustomJS(code=page_scripts.CONTROLS, args={
        "controls": list(buttons.values()), "columns": columns, "slider": slider, "view": view.filter,
        "places": [betas.index(beta) for beta in runs["beta"]], "partitions": shown, "points": drawn,
        "curves": lines})
    for control in (shown, *buttons.values()):
        control.js_on_change("active", change)
    if slider:
        slider.js_on_change("value", change)
    labelled = [layouts.row(_label(name), one) for name, one in {"partition": shown, **buttons}.items()]
    above = layouts.row(labelled, width=page_plots.WIDTHS[0], spacing=12, styles={"flex-wrap": "wrap"})
    return sources, layouts.column(above, *([slider] if slider else []), plot)


def _points(rows: pd.DataFrame, runs: pd.DataFrame, partition: str, names: list[str], looks: dict
            ) -> dict[str, list]:
    """Columns of one partition's points, in the order of the runs; NaN where a run has no such partition."""
    points = rows[rows["partition"] == partition].set_index("run").reindex(runs["run"])
    train, measured = (rows[rows["partition"] == name].set_index("run").reindex(runs["run"])
                       for name in ("train", page_texts.MEASURED[partition]))
    look = [looks[key] for key in (runs[names].itertuples(index=False, name=None) if names else [()] * len(runs))]
    return {"rate": points["rate"].tolist(), "distortion": points["distortion"].tolist(), "run": runs["run"].tolist(),
            "beta": [f"{beta:g}" for beta in runs["beta"]], "seed": runs["seed"].tolist(),
            "partition": [naming.PARTITIONS[partition]] * len(runs), "curve": [label for label, _, _ in look],
            "colour": [to_hex(colour) for _, colour, _ in look],
            "log_px": [page_texts.log_px(row) for _, row in measured.iterrows()],
            "log_px_ais": [page_texts.log_px_ais(row) for _, row in measured.iterrows()],
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
                              format=words, width=page_plots.WIDTHS[0] - 40, name="beta",
                              bar_color=style.COLOURS[0]), buttons


def _buttons(name: str, labels: list[str]) -> models.CheckboxButtonGroup:
    return models.CheckboxButtonGroup(labels=labels, active=list(range(len(labels))), name=name,
                                      stylesheets=[_BUTTONS])


def _label(name: str) -> models.Div:
    return models.Div(text=_TITLES.get(name, name.replace("_", " ")), styles={"padding-top": "7px"})
