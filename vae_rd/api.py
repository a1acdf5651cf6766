"""The Python interface: what `import vae_rd` offers. Heavy libraries are imported when a function first needs them.

>>> import vae_rd
>>> table = vae_rd.load_runs("results/runs")  # doctest: +SKIP
>>> vae_rd.plot_rd(table[table["split"] == "cv_16k"])  # doctest: +SKIP
"""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_rd.config import Config, ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from vae_rd.measures.finished_run import FinishedRun


def train(configs: Config | Sequence[Config], *, data_dir: str | os.PathLike = "data",
          runs_dir: str | os.PathLike = "runs", raw_dir: str | os.PathLike | None = None,
          progress: bool = True) -> list["FinishedRun"]:
    """Trains runs, several at a time where they differ in beta and seed only; finished ones are not trained again.

    Args:
        configs: one or several; missing data sets are made first.
        data_dir: folder of the data sets.
        runs_dir: gets one directory per run.
        raw_dir: folder of original data files (default: `<data_dir>/raw`).
        progress: show bars.

    Returns:
        The finished runs, opened, in the order of `configs`.

    Raises:
        ConfigError, RecordsError, RunError: in words; RunError also names runs that diverged.
    """
    from vae_rd.datasets import splits
    from vae_rd.measures.finished_run import open_run
    from vae_rd.storage import runs
    from vae_rd.sweeps.columns import columns
    from vae_rd.training import devices
    from vae_rd.training.train_and_measure import train_and_measure
    configs = [configs] if isinstance(configs, Config) else list(configs)
    folders = {config: runs.run_dir(runs_dir, config) for config in configs}
    pending = [config for config in folders if folders[config].status() not in (runs.FINISHED, runs.DIVERGED)]
    if pending:
        devices.configure(_one_precision(pending))
    for column in columns(pending):
        _make_data(column[0], data_dir, raw_dir, progress)
        train_and_measure(column, runs_dir=runs_dir, data_dir=data_dir, progress=progress)
    diverged = [config.run_name for config in folders if folders[config].status() == runs.DIVERGED]
    if diverged:
        raise runs.RunError(f"{', '.join(diverged)} diverged. Try a lower learning rate.")
    loaded = {spec: splits.load(spec.path(data_dir)) for spec in dict.fromkeys(config.data for config in configs)}
    return [open_run(folders[config].path, data_dir, split=loaded[config.data]) for config in configs]


def measure(run: "FinishedRun | str | os.PathLike", names: Sequence[str], *, data_dir: str | os.PathLike = "data",
            overwrite: bool = False, progress: bool = True, **settings: Any) -> dict[str, dict[str, Any]]:
    """Measures a finished run; what is there with the same settings is not measured again.

    Args:
        run: an opened run, or the directory of a finished one.
        names: of measures; `vae_rd.evaluate --help` lists them.
        data_dir: folder of the data sets.
        overwrite: make measures again that are there.
        progress: show bars.
        **settings: of the measures, such as `query_images=500`.

    Returns:
        For each name what was recorded: {"train" | "test" | "run": {quantity: value}, "settings": {...}, ...}.
    """
    from vae_rd import measures
    from vae_rd.measures.finished_run import FinishedRun, open_run
    opened = run if isinstance(run, FinishedRun) else open_run(run, data_dir)
    for note in measures.measure_run(opened, names, settings=settings, overwrite=overwrite, progress=progress):
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
    """
    from vae_rd.analysis import tables
    return tables.collect(pathlib.Path(runs_dir))


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
    """
    from vae_rd.figures import rd_curves
    return rd_curves.draw_rd(_axes(ax), _points(table, checkpoint), hue, partitions)


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
    """
    from vae_rd.figures import against_beta
    points = _points(table, checkpoint)
    return against_beta.draw_quantity(_axes(ax), points[points["partition"] == partition], quantity, hue)


def _points(table: "pd.DataFrame", checkpoint: str) -> "pd.DataFrame":
    from vae_rd.analysis import tables
    points = tables.curves(table)
    points = points[points["checkpoint"] == checkpoint]
    if points.empty:
        raise tables.TableError("the table must hold a finished run (got none). Try load_runs on another folder.")
    return points


def _axes(ax: "Axes | None") -> "Axes":
    from vae_rd.figures import style
    return style.figure(style.TEXT_WIDTH * 0.66, 3.2).add_subplot() if ax is None else ax


def _one_precision(configs: list[Config]) -> str:
    """The one arithmetic of a process: TensorFloat-32 is a switch of the whole process."""
    chosen = {config.precision for config in configs}
    if "tensorfloat32" in chosen and len(chosen) > 1:
        raise ConfigError("precision must be tensorfloat32 for all configs or for none. Try two calls, in two "
                          "processes.")
    return chosen.pop()


def _make_data(config: Config, data_dir: str | os.PathLike, raw_dir: str | os.PathLike | None, progress: bool) -> None:
    from data_gen import generate
    if not (config.data.path(data_dir) / "info.json").is_file():
        generate.generate(data_dir, config.data, raw_dir=raw_dir, progress=progress)
