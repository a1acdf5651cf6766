"""The tables of `results/README.md`, in Markdown: no number there is typed by hand.

The text holds a pair of comment lines for each table, between which `export` writes it:

    <!-- table: curves -->
    <!-- end -->
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from vae_rd.analysis import matched_rate, naming, tables, verdicts
from vae_rd.analysis.quantities import (
    GAP,
    GAP_DECODER,
    GAP_ENCODER,
    LOG_PX,
    LOG_PX_AIS,
    MARGINAL_KL,
    MEMORISED,
    MEMORISED_AT_MEAN,
    MEMORISED_AT_MEAN_CONTROL,
    MEMORISED_CONTROL,
    MINIBATCH,
    MUTUAL_INFORMATION,
    UNRELIABLE,
)
from vae_rd.config import Config

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ALWAYS = ("dataset", "split", "architecture", "num_layers", "train_steps")
# Of each table of measured quantities: headings, with column, partition and format.
_MEASURED: dict[str, dict[str, tuple[str, str, str]]] = {
    "curves": {"train R": ("rate", "train", ".1f"), "train D": ("distortion", "train", ".1f"),
               "test R": ("rate", "test", ".1f"), "test D": ("distortion", "test", ".1f"),
               "test ELBO": ("elbo", "test", ".1f")},
    "information": {"rate": ("rate", "train", ".2f"), "MI": (MUTUAL_INFORMATION, "train", ".3f"),
                    "MI, minibatch": (MUTUAL_INFORMATION + MINIBATCH, "train", ".2f"),
                    "marginal KL": (MARGINAL_KL, "train", ".2f"),
                    "marginal KL, minibatch": (MARGINAL_KL + MINIBATCH, "train", ".2f")},
    "memorisation": {"at the mean": (MEMORISED_AT_MEAN, "test", ".1%"),
                     "its control": (MEMORISED_AT_MEAN_CONTROL, "test", ".1%"),
                     "sampled codes": (MEMORISED, "test", ".1%"), "their control": (MEMORISED_CONTROL, "test", ".1%")},
    "refinement": {"gap in D + beta R": (GAP, "test", ".1f"), "the encoder's part": (GAP_ENCODER, "test", ".1f"),
                   "the rest": (GAP_DECODER, "test", ".1f")},
    "log_px": {"ELBO, all restarts and images": ("elbo", "test", ".1f"),
               "log p(x), importance sampling": (LOG_PX, "test", ".1f"),
               "share flagged": (UNRELIABLE, "test", ".0%"), "log p(x), AIS": (LOG_PX_AIS, "test", ".1f"),
               "the same images, AIS less importance sampling": ("ais_excess", "test", ".1f"),
               "AIS, bidirectional gap": ("bidirectional_gap", "test", ".1f")},
}

# Of the table of convergence: headings, with quantity and partition.
_MOVING = {"train R": ("rate", "train"), "train D": ("distortion", "train"), "test D": ("distortion", "test")}


def fill(text: str, table: pd.DataFrame, points: pd.DataFrame, judged: pd.DataFrame,
         runs_dir: str | os.PathLike) -> str:
    """The text with each of its tables made anew.

    Args:
        text: Markdown with the comment lines above.
        table: what `tables.collect` returned.
        points: what `tables.curves` made of it.
        judged: the claims table, from `verdicts.evaluate`.
        runs_dir: the folder it was collected from; histories are read from it where the text has their table.

    Raises:
        TableError: for an unknown table.
    """
    makers: dict[str, Callable[[], str]] = {
        "runs": functools.partial(_runs, table), "claims": functools.partial(_claims, judged),
        "convergence": functools.partial(_convergence, table, runs_dir),
        "matched_rate": functools.partial(_matched_rate, table),
        **{name: functools.partial(_measured, points, columns) for name, columns in _MEASURED.items()}}

    def made(match: re.Match) -> str:
        begin, name, end = match.groups()
        if name not in makers:
            raise tables.TableError(f"a table must be one of {', '.join(makers)} (got {name!r}).")
        return f"{begin}{makers[name]()}\n{end}"
    return _BLOCK.sub(made, text)


def _runs(table: pd.DataFrame) -> str:
    """What was trained: a line for each set of runs that differ in beta and seed only."""
    rows = tables.trainings(table)
    rows = rows[(rows["partition"] == "train") & (rows["checkpoint"] == "last")]
    others = [name for name in tables.POINT_COLUMNS[:-2] if name not in (*_ALWAYS, "beta")
              and rows[name].nunique(dropna=False) > 1]
    names = [*_ALWAYS[:-1], *others]
    lines = [(naming.describe(dict(zip(names, key))),
              f"{key[-1]:,}", ", ".join(f"{beta:g}" for beta in sorted(group["beta"].unique())),
              ", ".join(str(seed) for seed in sorted(group["seed"].unique())), str(len(group)),
              f"{(group['wall_seconds'] / group[tables.COLUMN_MEMBERS]).sum() / 3600:.1f}")
             for key, group in tables.in_order(rows).groupby([*names, "train_steps"], dropna=False, sort=False)]
    return _markdown(("setting", "steps", "beta", "seeds", "runs", "hours, all"), lines)


def _measured(points: pd.DataFrame, columns: dict[str, tuple[str, str, str]]) -> str:
    """Means over restarts, as `tables.mean_and_spread` has them: a line for each point that has one of the columns.

    The restarts counted are those that were measured: the first column, which every run has, does not count. A setting
    is named by the fields in which the lines differ.
    """
    last = tables.in_order(points[points["checkpoint"] == "last"])
    has = last.reindex(columns=[f"{column}_mean" for column, _, _ in list(columns.values())[1:]]).notna().any(axis=1)
    fields = [last[name] for name in tables.POINT_COLUMNS if name != "partition"]
    last = last[has.groupby(fields, dropna=False).transform("any")]
    names = _naming_fields(last)
    lines = []
    for setting, beta, group in _by_setting(last, names):
        parts = {part: row for part, row in group.set_index("partition").iterrows()}
        cells = [_cell(parts.get(partition), column, form) for column, partition, form in columns.values()]
        if any(cells[1:]):
            measured = {int(parts[partition][f"{column}_n"]) for (column, partition, _), cell
                        in list(zip(columns.values(), cells))[1:] if cell}
            lines.append((setting, f"{beta:g}", *cells, " to ".join(map(str, sorted({min(measured), max(measured)})))))
    if not lines:
        return "Not measured yet."
    return _markdown(("setting", "beta", *columns, "restarts"), lines)


def _cell(row: pd.Series | None, column: str, form: str) -> str:
    if row is None or pd.isna(row.get(f"{column}_mean")):
        return ""
    mean, std, restarts = (row[f"{column}_{part}"] for part in ("mean", "std", "n"))
    return tables.mean_and_spread(mean, std, restarts, form)


def _convergence(table: pd.DataFrame, runs_dir: str | os.PathLike) -> str:
    """Rate and distortion, means over restarts, at shares of the steps: a line for each point."""
    histories = tables.in_order(tables.histories(table, runs_dir))
    rows = histories[histories["partition"].isin([partition for _, partition in _MOVING.values()])]
    names = _naming_fields(histories)
    lines = []
    for setting, beta, group in _by_setting(rows, names):
        steps = sorted(set.intersection(*(set(part["step"]) for _, part in group.groupby(["partition", "run"]))))
        if not steps:
            continue
        chosen = [min(steps, key=lambda step: abs(step - share * group["train_steps"].max()))
                  for share in (0.1, 0.5, 1.0)]
        cells = []
        for quantity, partition in _MOVING.values():
            means = group[group["partition"] == partition].groupby("step")[quantity].mean()
            cells.append(" \N{RIGHTWARDS ARROW} ".join(f"{means[step]:.1f}" for step in chosen))
        lines.append((setting, f"{beta:g}", " \N{RIGHTWARDS ARROW} ".join(f"{step:,}" for step in chosen), *cells,
                      str(group["run"].nunique())))
    return _markdown(("setting", "beta", "steps", *_MOVING, "restarts"), lines)


def _matched_rate(table: pd.DataFrame) -> str:
    """Distortion less that of N(0, I) at equal rate, by prior: a line for each of three rates."""
    rows = tables.in_order(tables.trainings(table))
    rows = rows[(rows["checkpoint"] == "last") & rows["partition"].isin(["test", "train"])]
    found = matched_rate.differences(rows, "prior", Config().prior)
    names = [name for name in found.columns[:found.columns.get_loc("partition")] if found[name].nunique() > 1]
    lines = []
    for key, group in found.groupby([*names, "prior"], sort=False):
        setting = naming.describe(dict(zip([*names, "prior"], key)))
        parts = [group[group["partition"] == partition].iloc[::matched_rate.NUM_RATES // 2]
                 for partition in ("test", "train")]
        for pair in itertools.zip_longest(*(part.itertuples() for part in parts)):  # one may share no rate: no cells
            cells = [cell for row in pair for cell in (("", "", "") if row is None else (
                f"{row.rate:.0f}",
                f"{row.difference:+.1f}" + ("" if pd.isna(row.low) else f" [{row.low:+.1f}, {row.high:+.1f}]"),
                "" if pd.isna(row.without_a_beta) else f"{row.without_a_beta:.1f}"))]
            lines.append((setting, *cells, " / ".join(dict.fromkeys(str(row.restarts) for row in pair if row))))
    if not lines:
        return "Not measured yet."
    headings = ("R", "D less that of N(0, I) [95% interval]", "change if one beta is left out")
    return _markdown(("setting", *(f"{name} {heading}" for name in ("test", "train") for heading in headings),
                      "restarts"), lines)


def _by_setting(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """The rows of each point, with its setting in words and its beta; settings in the order of their first rows."""
    for key, setting in rows.groupby(names, dropna=False, sort=False):
        for beta, group in setting.groupby("beta"):
            yield naming.describe(dict(zip(names, key))), beta, group


def _naming_fields(rows: pd.DataFrame) -> list[str]:
    """The fields of Config, beta apart, that name a setting: the network, and those in which the rows differ."""
    return [name for name in tables.POINT_COLUMNS[:-2] if name != "beta"
            and (name in ("architecture", "num_layers") or rows[name].nunique(dropna=False) > 1)]


def _claims(judged: pd.DataFrame) -> str:
    """Every test with a number; those without one are counted in a last line."""
    known = judged[judged["estimate"].notna()]
    lines: list[tuple[str, ...]] = []
    for row in known.itertuples():
        counts = "" if pd.isna(row.restarts) else f"{row.restarts} / {row.betas}"
        lines.append((row.claim, f"{row.statement} ({row.statistic})", verdicts.with_interval(row), row.must_be,
                      counts, row.verdict))
    text = _markdown(("claim", "statement (number)", "number [95% interval]", "must be", "restarts / betas",
                      "verdict"), lines)
    counted = judged["verdict"].value_counts()
    order = (verdicts.SUPPORTED, verdicts.NOT_SUPPORTED, verdicts.UNDECIDED, verdicts.NOT_ENOUGH)
    return f"{text}\n\nOf {len(judged)} tests: " + ", ".join(f"{counted.get(name, 0)} {name}" for name in order) + (
        "; claims.csv has all of them.")


def _markdown(headings: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    titles = list(headings)
    return "\n".join("| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *lines))
