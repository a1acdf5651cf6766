"""Run directories -> one tidy table of all runs, and the table of their curves over beta."""

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import pandas as pd
import tqdm

from vae_rd.analysis import naming
from vae_rd.analysis.statistics import gap_interval, t_half_width
from vae_rd.catalogue import LIKELIHOODS, PRIORS
from vae_rd.config import CONDITIONINGS, Config, canonical_split
from vae_rd.datasets.random_streams import select_half
from vae_rd.measures.measure import STANDARD_ERROR
from vae_rd.measures.registry import is_current
from vae_rd.storage.contents import ABOUT_THE_RUN, COLUMN_MEMBERS, CONFIG_COLUMNS, RUN_COLUMNS, VERSIONS
from vae_rd.storage.files import FileError
from vae_rd.storage.runs import FINISHED, METRICS, PARTITIONS, UNFINISHED, UNREADABLE, UNSEALED, RunDir, find_runs
from vae_rd.sweeps.experiments import OTHER_DATASETS

EVALUATIONS = ("eval_every", "eval_images")  # they change what is recorded and which weights are best, not the last
_TRAINING = tuple(name for name in CONFIG_COLUMNS if name not in EVALUATIONS)
POINT_COLUMNS = (*(name for name in _TRAINING if name != "seed"), "partition", "checkpoint")
SUMMARIES = ("mean", "std", "n", "low", "high")  # of every quantity, over the restarts of a curve point
QUERY_IMAGES = "query_images"  # the setting that says how many images a measure sees
SETTING = "."  # in the columns <measure>.<setting>: what a measure was made with
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet calculates
_CONTENT = "content"  # of a row until it is noted: the folder of the run's data, and what identifies its images
_NAMED = 5  # unsealed runs that are named in a line


class TableError(FileError):
    """A request that the table cannot serve; the message says what it holds."""


def collect(runs_dir: str | os.PathLike) -> pd.DataFrame:
    """The table `runs.csv`: a row per finished run, partition and checkpoint, and one row for every other run.

    Columns: run, status, note, the fields of Config (eval_every with its default filled in, eval_images as text, or
    `all`), partition, checkpoint, step, num_images, the metrics (nats per image; active_units a count), then one column
    per scalar that a measure wrote, and one `<measure>.<setting>` per whole number that it was made with
    (`log_marginal.query_images`: how many images the mean is of). Versions are those that the run was trained with. A
    run that has not finished has one row, with no partition and no metrics: `note` says why. Of a finished run, `note`
    says whether it is unsealed, which of its files are missing or cut, whether it saw other images than most runs of
    its data set and split, and whether it is a training that another folder has, too.

    Args:
        runs_dir: the folder that holds the run directories.
    """
    table = pd.DataFrame(_with_notes_on_contents([row for run in find_runs(runs_dir) for row in _rows(run)]))
    table = table.reindex(columns=[*RUN_COLUMNS, *(name for name in table.columns if name not in RUN_COLUMNS)])
    of_config = [field.name for field in dataclasses.fields(Config) if field.type is int]
    whole = [*of_config, "eval_every", "step", "num_images", "num_train", "num_test", COLUMN_MEMBERS]
    # The copy has one block of memory per type; pandas warns when columns are added to a table of many blocks.
    return _with_notes_on_copies(table.astype({name: "Int64" for name in whole}).copy())


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that count: those of finished runs."""
    return table[table["status"] == FINISHED]


def trainings(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of finished runs, each training once: without copies, and runs that were only evaluated differently.

    The folder with the most measured values counts; of equals, the first by name.
    """
    rows = finished(table)
    known = rows.notna().sum(axis=1).groupby(rows["run"]).transform("sum")
    return rows.loc[known.sort_values(ascending=False, kind="stable").index].drop_duplicates(
        [*_TRAINING, "partition", "checkpoint"]).sort_index()


def finished_names(table: pd.DataFrame, configs: Iterable[Config]) -> dict[Config, str]:
    """The directory's name, as in the column `run`, of each of these Configs whose run has finished."""
    known = set(finished(table)["run"])
    names = {config: name if (name := config.run_name) in known else config.earlier_run_name for config in configs}
    return {config: name for config, name in names.items() if name in known}


def left_out(table: pd.DataFrame) -> list[str]:
    """One line per run that is left out of the curves: its name and why."""
    return [f"{row.run}: {row.status}, {row.note}" for row in table[table["status"] != FINISHED].itertuples()]


def remarks(table: pd.DataFrame) -> list[str]:
    """Notes on finished runs: a line for each run that has one, and a single line for all that are unsealed."""
    rows = finished(table).drop_duplicates("run")
    unsealed = rows[rows["note"] == UNSEALED]
    lines = [f"{row.run}: {row.note}" for row in rows.itertuples() if row.note not in ("", UNSEALED)]
    if len(unsealed):
        names = ", ".join(unsealed["run"].head(_NAMED)) + (", ..." if len(unsealed) > _NAMED else "")
        lines.append(f"{len(unsealed)} of {len(rows)} finished runs are {UNSEALED} ({names}; all in runs.csv)")
    version = VERSIONS["vae_rd"]
    points = trainings(table).drop_duplicates("run").groupby(list(POINT_COLUMNS[:-2]), dropna=False)[version]
    if mixed := int((points.nunique() > 1).sum()):
        lines.append(f"points that average restarts of different versions of vae_rd: {mixed} (see {version} in "
                     "runs.csv)")
    return lines


def csv_text(table: pd.DataFrame) -> str:
    """The text of a CSV file of the table.

    A text that a spreadsheet would run as a formula, or a browser as HTML, gets an apostrophe in front: anyone may have
    named the folders.
    """
    quoted = table.copy()
    for name in quoted.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in quoted.dtypes]]:
        quoted[name] = [f"'{value}" if isinstance(value, str) and _is_code(value) else value for value in quoted[name]]
    return quoted.to_csv(index=False)


def where(table: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    """The rows that meet all conditions `column=value`; several values of one column are alternatives.

    >>> where(table, ["split=cv_16k", "split=cv_82k", "num_layers=3"])  # doctest: +SKIP

    Raises:
        TableError: for a condition of another form, an unknown column, or a value that no row has.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals or column not in table.columns:
            raise TableError(f"conditions must be column=value (got {condition!r}); the columns are "
                             f"{', '.join(table.columns)}.")
        wanted.setdefault(column, []).append(value)
    for column, values in wanted.items():
        table = table[_matches(table[column], values)]
    return table


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """The table `rd_curves.csv`: a row per curve point, that is per beta and curve, partition and checkpoint.

    Columns: POINT_COLUMNS, num_train, the settings of the measures (the least over restarts), then for every metric and
    measure its `_mean`, `_std` (ddof=1), `_n` (restarts that have it), `_low` and `_high` (95% interval of the mean,
    Student's t; empty below three restarts). Only of finished runs.
    """
    rows = trainings(table)
    measured = [name for name in table.columns if name not in RUN_COLUMNS and not name.endswith(STANDARD_ERROR)]
    settings = [name for name in measured if SETTING in name]
    quantities = [*METRICS, *(name for name in measured if name not in settings)]
    points = rows.astype({name: float for name in quantities + settings}).groupby(list(POINT_COLUMNS), dropna=False)
    groups = points[quantities]
    mean, std, count = groups.mean(), groups.std(ddof=1), groups.count()
    half = pd.DataFrame(t_half_width(std, count), mean.index, mean.columns)
    parts = dict(zip(SUMMARIES, (mean, std, count, mean - half, mean + half)))
    frames = [parts[summary].add_suffix(f"_{summary}") for summary in SUMMARIES]
    order = [f"{quantity}_{summary}" for quantity in quantities for summary in SUMMARIES]
    about = [points["num_train"].max(), points[settings].min()]
    return pd.concat([*about, pd.concat(frames, axis=1)[order]], axis=1).copy().reset_index()


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with columns of Config, sorted as they are to be read, by the keys below.

    Tetrominoes come before other data, splits by size, MLPs before CNNs, the paper's likelihood and prior first. Rows
    that differ in other columns alone keep their order.
    """
    def place(field: str, names: Iterable[str], others: int) -> pd.Series:
        places = {name: number for number, name in enumerate(names)}
        return rows[field].map(lambda name: places.get(name, others))
    keys = pd.DataFrame({
        "dataset": place("dataset", OTHER_DATASETS, -1), "split": rows["split"].map(naming.split_order),
        "architecture": rows["architecture"] != "mlp", "likelihood": place("likelihood", LIKELIHOODS, len(LIKELIHOODS)),
        "num_layers": rows["num_layers"], "prior": place("prior", PRIORS, len(PRIORS)),
        "conditioning": place("conditioning", CONDITIONINGS, len(CONDITIONINGS)), "beta": rows["beta"]})
    return rows.loc[keys.sort_values(list(keys)).index]


def histories(table: pd.DataFrame, runs_dir: str | os.PathLike) -> pd.DataFrame:
    """The course of each finished run: a row per evaluation of its training and test images, step 0 left out.

    Columns: run, the fields of Config, partition, step, num_images, METRICS. All rows of a run and partition are of the
    same images: with eval_images, the evaluation after the last step, which sees every image, is left out.

    Args:
        table: what `collect` returned.
        runs_dir: the folder it was collected from.
    """
    rows = []
    for about in trainings(table).drop_duplicates("run")[["run", *CONFIG_COLUMNS]].to_dict("records"):
        history = RunDir(pathlib.Path(runs_dir) / about["run"]).read_history()
        counts = {row["partition"]: row["num_images"] for row in reversed(history)}
        rows += [{**about, **{name: row[name] for name in ("partition", "step", "num_images", *METRICS)}}
                 for row in history if row["step"] and row["partition"] in ("train", "test")
                 and row["num_images"] == counts[row["partition"]]]
    return pd.DataFrame(rows, columns=["run", *CONFIG_COLUMNS, "partition", "step", "num_images", *METRICS])


def gaps(table: pd.DataFrame, runs_dir: str | os.PathLike) -> pd.DataFrame:
    """Each finished run's generalisation gap in distortion, with its interval over images.

    Columns: run, checkpoint, gap (mean test distortion minus mean training distortion, nats per image), low, high.
    Of early-stopped weights the test images are the half that did not select them.
    Runs without values per image are left out.
    """
    rows = []
    wanted = finished(table)[["run", "checkpoint"]].drop_duplicates()
    for run, checkpoint in tqdm.tqdm(list(wanted.itertuples(index=False)), desc="gaps", disable=None):
        folder = RunDir(pathlib.Path(runs_dir) / run)
        paths = [folder.per_example(name, checkpoint) for name in ("train", "test")]
        if all(path.is_file() for path in paths):
            train, test = (folder.read_arrays(path) for path in paths)
            unseen = ~select_half(test["index"]) if checkpoint == "best" else slice(None)
            rows.append((run, checkpoint, *gap_interval(train["distortion"], test["distortion"][unseen])))
    return pd.DataFrame(rows, columns=["run", "checkpoint", "gap", "low", "high"])


def mean_and_spread(mean: float, std: float, restarts: int, form: str = ".2f") -> str:
    """A mean over restarts in words: with its standard deviation, or of two restarts both values, the lower first.

    >>> mean_and_spread(61.25, 1.5, 3), mean_and_spread(61.25, 0.5 ** 0.5, 2), mean_and_spread(0.5, math.nan, 1, ".0%")
    ('61.25 ± 1.50', '60.75, 61.75', '50%')
    """
    if restarts == 2:
        half = std / math.sqrt(2)
        return f"{mean - half:{form}}, {mean + half:{form}}"
    return f"{mean:{form}}" + (f" \u00b1 {std:{form}}" if restarts > 1 else "")


def as_text(curves: pd.DataFrame, partitions: tuple[str, ...] = ("train", "test")) -> str:
    """The RD table for a terminal: a line per beta and curve; mean and standard deviation, in nats per image.

    Of two restarts it gives both values.
    """
    chosen = curves[curves["partition"].isin(partitions)]
    always = ("split", "architecture", "num_layers", "beta")
    names = [name for name in POINT_COLUMNS[:-2] if name in always or chosen[name].nunique(dropna=False) > 1]
    lines = [chosen[names].drop_duplicates().set_index(names)]
    for partition in partitions:
        block = chosen[chosen["partition"] == partition].set_index(names)
        lines += [_column(block, metric).rename(f"{partition} {metric}")
                  for metric in ("rate", "distortion", "elbo")]
    restarts = chosen.set_index(names)["rate_n"].groupby(level=names, dropna=False).max().rename("restarts")
    return pd.concat([*lines, restarts], axis=1).reset_index().to_string(index=False, na_rep="-")


def _column(block: pd.DataFrame, metric: str) -> pd.Series:
    columns = (block[f"{metric}_{part}"] for part in ("mean", "std", "n"))
    return pd.Series([mean_and_spread(*values) for values in zip(*columns)], block.index, dtype=object)


def _is_code(text: str) -> bool:
    return text.startswith(_FORMULA) or "<" in text


def _rows(run: RunDir) -> list[dict[str, Any]]:
    """The table's rows of one run; a run whose files cannot be read has one row, with the reason as its note."""
    try:
        return _readable_rows(run)
    except (OSError, ValueError, FileError) as error:
        return [{"run": run.path.name, "status": UNREADABLE, "note": str(error)}]


def _readable_rows(run: RunDir) -> list[dict[str, Any]]:
    config, results, measures = run.read_config(), run.read_results(), run.read_measures()
    about = {"run": run.path.name, "status": results["status"] if results else UNFINISHED,
             **dataclasses.asdict(config), "eval_every": config.evaluation_interval,
             "eval_images": str(config.eval_images or "all")}
    if results is None or results["status"] != FINISHED:
        return [{**about, **_progress(run, config, results)}]
    about.update({name: results.get(name) for name in ABOUT_THE_RUN},
                 note="; ".join(filter(None, (run.remarks(), _outdated(measures)))))
    about[_CONTENT] = str(config.data.path("")), tuple(sorted(results.get("content_sha256", {}).items()))
    about[COLUMN_MEMBERS] = len(results.get("column") or [run.path.name])
    about.update({column: results.get("versions", {}).get(name) for name, column in VERSIONS.items()})
    rows = []
    for checkpoint, block in (("last", results), ("best", results.get("best") or {})):
        for partition in PARTITIONS:
            if partition in block:
                valid = {name: measure for name, measure in measures.get(checkpoint, {}).items()
                         if measure.get("settings", {}).get("step", block["step"]) == block["step"]
                         and is_current(name, measure)}
                own = block[partition]  # a measure's error of a mean that is here would be one over fewer images
                scalars = {name: value for name, value in _scalars(valid, partition).items()
                           if name.removesuffix(STANDARD_ERROR) not in own}
                rows.append({**scalars, **_settings(valid, partition, own.get("num_images")), **own, **about,
                             "partition": partition, "checkpoint": checkpoint, "step": block["step"]})
    return rows


def _with_notes_on_contents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without _CONTENT; the note of a run says if it saw other images than most runs of its data and split."""
    seen: dict[str, dict[str, tuple]] = {}  # by folder of the data, the content that each run saw
    for row in rows:
        folder, content = row.get(_CONTENT, ("", ()))
        if content:
            seen.setdefault(folder, {})[row["run"]] = content
    most = {folder: collections.Counter(contents.values()).most_common(1)[0] for folder, contents in seen.items()}
    for row in rows:
        folder, content = row.pop(_CONTENT, ("", ()))
        if content and content != most[folder][0]:
            text = f"trained on other images than {most[folder][1]} of the {len(seen[folder])} runs of {folder}"
            row["note"] = "; ".join(filter(None, (row["note"], text)))
    return rows


def _with_notes_on_copies(table: pd.DataFrame) -> pd.DataFrame:
    """The table, where a note says of a run that another folder, the first by name, holds the same training."""
    once = finished(table).drop_duplicates("run")
    first = once.groupby(list(_TRAINING), dropna=False)["run"].transform("first")
    original = table["run"].map(dict(zip(once["run"], first)))
    copies = original.notna() & (original != table["run"])
    table.loc[copies, "note"] = ["; ".join(filter(None, (note, f"the same training as {name}, and counted once")))
                                 for note, name in zip(table.loc[copies, "note"], original[copies])]
    return table


def _progress(run: RunDir, config: Config, results: dict[str, Any] | None) -> dict[str, Any]:
    """How far a run without final results has come, and what stopped it if that is known."""
    if results is not None:
        diverged = results.get("diverged") or {}
        step = diverged.get("step", results.get("step"))
        return {"step": step, "note": f"{diverged.get('quantity', 'a value')} not finite at step {step}"}
    history = run.read_history()
    step = history[-1]["step"] if history else 0
    failed = f"; the last attempt failed, see {run.failure.name}" if run.failure.is_file() else ""
    return {"step": step, "note": f"evaluated up to step {step} of {config.train_steps}{failed}"}


def _scalars(measures: dict[str, Any], partition: str) -> dict[str, float | None]:
    """The numbers that measures wrote for this partition and for the run as a whole."""
    blocks = [measure.get(part) or {} for measure in measures.values() for part in ("run", partition)]
    return {name: value for block in blocks for name, value in block.items()
            if value is None or isinstance(value, (int, float))}


def _outdated(measures: dict[str, Any]) -> str:
    """A note on measures whose numbers are left out, as another version of them wrote them."""
    names = dict.fromkeys(name for block in measures.values() for name, entry in block.items()
                          if not is_current(name, entry))
    return f"{', '.join(names)}: of another version, left out; measure the run again" if names else ""


def _settings(measures: dict[str, Any], partition: str, num_images: int | None) -> dict[str, int]:
    """The whole numbers that the partition's measures were made with; of images, how many there were at most."""
    found = {}
    for name, measure in measures.items():
        for setting, value in measure.get("settings", {}).items() if partition in measure else ():
            if setting == QUERY_IMAGES:
                value = min((count for count in (value, num_images) if count is not None), default=None)
            if isinstance(value, int) and setting not in ("step", "version"):
                found[f"{name}{SETTING}{setting}"] = value
    return found


def _matches(column: pd.Series, values: list[str]) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        try:
            kept = column.isin([float(value) for value in values]).fillna(False)
        except ValueError as error:
            raise TableError(f"{column.name} must be a number (got {','.join(values)}).") from error
    else:
        kept = column.isin([canonical_split(value) if column.name == "split" else value for value in values])
    if not kept.any():
        present = ", ".join(str(value) for value in sorted(column.dropna().unique()))
        known = f"Try one of {present}." if present else f"No run has any {column.name}."
        raise TableError(f"no run has {column.name}={','.join(values)}. {known}")
    return kept
