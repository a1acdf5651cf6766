"""The Python interface: what `import vae_rd` offers. Heavy libraries are imported when a function first needs them.

>>> import vae_rd
>>> table = vae_rd.load_runs("results/runs")  # doctest: +SKIP
>>> vae_rd.plot_rd(table[table["split"] == "cv_16k"])  # doctest: +SKIP
"""

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_rd import cli
from vae_rd.config import Config, ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from vae_rd.measures.finished_run import FinishedRun


def train(configs: Config | Sequence[Config], *, data_dir: str | os.PathLike = "data",
          runs_dir: str | os.PathLike = "runs", raw_dir: str | os.PathLike | None = None,
          retry: bool = False, progress: bool = True) -> list["FinishedRun"]:
    """Trains runs, several at a time where they differ in beta and seed only; finished ones are not trained again.

    A script calls it under `if __name__ == "__main__":`, as a missing data set is made by processes of their own, which
    import the script.

    Args:
        configs: one or several; missing data sets are made first.
        data_dir: folder of the data sets.
        runs_dir: gets one directory per run.
        raw_dir: folder of original data files (default: `<data_dir>/raw`).
        retry: start diverged runs again.
        progress: show bars.

    Returns:
        The finished runs, opened, in the order of `configs`.

    Raises:
        ConfigError, RecordsError, RunError: with a message for the user; RunError also names runs that diverged.
    """
    from data_gen import generate
    from vae_rd.datasets import splits
    from vae_rd.storage import runs
    from vae_rd.sweeps.columns import into_columns
    configs = _configs(configs)
    folders = {config: runs.run_dir(runs_dir, config) for config in configs}
    ended = (runs.FINISHED,) if retry else (runs.FINISHED, runs.DIVERGED)
    pending = [config for config in folders if folders[config].status() not in ended]
    _set_up(_one_precision(pending) if pending else "float32")
    from vae_rd.measures import finished_run
    from vae_rd.training.train_and_measure import train_and_measure
    for whole in into_columns(list(folders)):  # with those that have finished: a column is the same in every call
        column = [config for config in whole if config in pending]
        if not column:
            continue
        generate.ensure(data_dir, column[0].data, raw_dir=raw_dir, progress=progress)
        train_and_measure(column, runs_dir=runs_dir, data_dir=data_dir, retry=retry, progress=progress)
    diverged = [config.run_name for config in folders if folders[config].status() == runs.DIVERGED]
    if diverged:
        raise runs.RunError(f"{', '.join(diverged)} diverged. Try a lower learning rate; "
                            "retry=True repeats them.")
    loaded = {spec: splits.load(spec.path(data_dir)) for spec in dict.fromkeys(config.data for config in configs)}
    return [finished_run.open_run(folders[config].path, data_dir, split=loaded[config.data]) for config in configs]


def open_run(path: str | os.PathLike, data_dir: str | os.PathLike = "data", checkpoint: str = "last") -> "FinishedRun":
    """Opens a finished run: its Config, model, data, codes and values per image.

    Args:
        path: its directory.
        data_dir: folder of the data sets.
        checkpoint: `last`, or `best`: the weights of early stopping.

    Raises:
        RunError, RecordsError: if the run has not finished, lacks its model, or the data are not its own.
    """
    _set_up("float32")
    from vae_rd.measures import finished_run
    return finished_run.open_run(path, data_dir, checkpoint)


def measure(run: "FinishedRun | str | os.PathLike", names: Sequence[str], *, data_dir: str | os.PathLike = "data",
            overwrite: bool = False, progress: bool = True, **settings: Any) -> dict[str, dict[str, Any]]:
    """Measures a finished run; a measure that was made already is not repeated, and its record is returned.

    If it was made with other settings than these, a line says so: `overwrite` makes it again with these.

    Args:
        run: an opened run, or the directory of a finished one.
        names: of measures; `vae_rd.evaluate --help` lists them.
        data_dir: folder of the data sets.
        overwrite: compute measures again that are there.
        progress: show bars.
        **settings: of the measures, such as `query_images=500`.

    Returns:
        For each name what was recorded: {"train" | "test" | "run": {quantity: value}, "settings": {...}, ...}.

    Raises:
        ConfigError: for a setting that none of the measures has, or a value that is not a number, or is below its
            minimum.
        RunError: for an unknown measure, or a run that cannot be measured.
    """
    from vae_rd import measures
    from vae_rd.measures.finished_run import FinishedRun
    from vae_rd.measures.registry import settings_by_measure
    names = [names] if isinstance(names, str) else list(names)
    opened = run if isinstance(run, FinishedRun) else open_run(run, data_dir)
    for note in measures.measure_run(opened, names, settings=settings_by_measure(settings, names), overwrite=overwrite,
                                     progress=progress):
        print(note)
    made = opened.run.read_measures()[opened.checkpoint]
    return {name: made[name] for name in names}


def load_runs(runs_dir: str | os.PathLike = "runs") -> "pd.DataFrame":
    """The table of all runs in a folder: a row per finished run, partition and checkpoint, one for every other run.

    Columns: `run`, `status`, `note`, the fields of Config, `partition` (train, test, test_select, test_compare),
    `checkpoint` (last, best), `step`, `num_images`; `rate`, `distortion`, `elbo`, `objective` and `entropy_floor` in
    nats per image, `active_units` (a count); then what the measures found.

    Args:
        runs_dir: folder of run directories, such as `runs` or `results/runs`.

    Raises:
        TableError: if the folder holds no run.
    """
    from vae_rd.analysis import tables
    table = tables.collect(pathlib.Path(runs_dir))
    if table.empty:
        raise tables.TableError(f"runs_dir must be a folder of runs (got {runs_dir}, which holds none). Try the folder "
                                "that train or vae_rd.main wrote them to.")
    return table


def plot_rd(table: "pd.DataFrame", ax: "Axes | None" = None, *, hue: Sequence[str] | None = None,
            partitions: Sequence[str] = ("train", "test"), checkpoint: str = "last") -> "Axes":
    """Rate-distortion curves: test solid, train dashed, a star at beta = 1, iso-ELBO lines and the entropy floor.

    Args:
        table: rows of `load_runs`.
        ax: Matplotlib Axes to draw on; None: those of a new figure.
        hue: columns that name a curve; by default every field of Config in which the curves differ.
        partitions: which partitions to draw.
        checkpoint: `last`, or `best`: early-stopped.

    Returns:
        The Axes.

    Raises:
        TableError: if there is nothing to draw, `hue` leaves out a column in which the curves differ, or they are of
            several likelihoods, whose distortions are not comparable.
    """
    from vae_rd.figures import rd_curves
    return rd_curves.draw_rd(_axes(ax), _points(table, checkpoint, partitions, hue), hue, partitions)


def plot_against_beta(table: "pd.DataFrame", quantity: str, ax: "Axes | None" = None, *, partition: str = "test",
                      hue: Sequence[str] | None = None, checkpoint: str = "last") -> "Axes":
    """A metric or a measured quantity against beta: mean and standard deviation over restarts.

    Args:
        table: rows of `load_runs`.
        quantity: a column of numbers, such as `distortion`, `mutual_information` or `log_px`.
        ax: Matplotlib Axes to draw on; None: those of a new figure.
        partition: of which images.
        hue: columns that name a curve; by default every field of Config in which the curves differ.
        checkpoint: `last`, or `best`: early-stopped.

    Returns:
        The Axes.

    Raises:
        TableError: if there is nothing to draw, or `hue` leaves out a column in which the curves differ.
    """
    from vae_rd.figures import against_beta
    return against_beta.draw_quantity(_axes(ax), _points(table, checkpoint, [partition], hue), quantity, hue)


def _points(table: "pd.DataFrame", checkpoint: str, partitions: Sequence[str], hue: Sequence[str] | None
            ) -> "pd.DataFrame":
    """The curves' points to draw: rows of `tables.curves`."""
    from vae_rd.analysis import tables
    points = tables.curves(table)
    known = ("num_train", *tables.POINT_COLUMNS)
    if unknown := [name for name in hue or () if name not in known]:
        raise tables.TableError(f"hue must be columns among {', '.join(known)} (got {', '.join(unknown)}).")
    chosen = points[(points["checkpoint"] == checkpoint) & points["partition"].isin(partitions)]
    if chosen.empty:
        there = points[["partition", "checkpoint"]].drop_duplicates().itertuples(index=False, name=None)
        raise tables.TableError(
            f"the table must hold finished runs with partition {' or '.join(partitions)} and checkpoint {checkpoint} "
            f"(got {', '.join(map(' of '.join, there)) or 'no finished run'}). Try other rows of load_runs.")
    if hue is not None and chosen.duplicated([*hue, "beta", "partition"]).any():
        from vae_rd.figures import curve_names
        others = [name for name in curve_names.differing(chosen, ())
                  if name not in hue and chosen[name].nunique(dropna=False) > 1]
        raise tables.TableError("hue must name every column in which the curves differ (got "
                                f"{', '.join(hue) or 'none'}, and they differ in {', '.join(others)} too). Add it, or "
                                "try rows of one value.")
    return chosen


def _axes(ax: "Axes | None") -> "Axes":
    from vae_rd.figures import style
    return style.figure(style.TEXT_WIDTH * 0.66, 3.2).add_subplot() if ax is None else ax


def _configs(configs: Any) -> list[Config]:
    configs = [configs] if isinstance(configs, Config) else list(configs)
    for config in configs:
        if not isinstance(config, Config):
            raise ConfigError(f"configs must be a Config or several (got {config!r}). Try vae_rd.Config(beta=0.1).")
    return configs


def _set_up(precision: str) -> None:
    """Arithmetic and determinism as in the commands; threads and memory stay where TensorFlow runs already."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", cli.QUIET)  # as the commands do
    with cli.quietly():
        from vae_rd.training import devices  # imports TensorFlow: seconds
    with contextlib.suppress(RuntimeError):  # for threads and memory, which come last: too late to change them
        devices.configure(precision)


def _one_precision(configs: list[Config]) -> str:
    """The one arithmetic of a process: TensorFloat-32 is a switch of the whole process."""
    chosen = {config.precision for config in configs}
    if "tensorfloat32" in chosen and len(chosen) > 1:
        raise ConfigError("precision must be tensorfloat32 for all configs or for none (got both). Try two calls, in "
                          "two processes.")
    return chosen.pop()
