"""From Configs to finished, measured runs: devices, data, training, measures. Every way to train ends up here."""

import os
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from vae_rd import measures
from vae_rd.config import Config
from vae_rd.datasets import splits
from vae_rd.measures import finished_run
from vae_rd.measures.measure import Value
from vae_rd.storage import files, runs
from vae_rd.training import devices, loop


class Wanted(NamedTuple):
    """A measure of one state of a run."""

    checkpoint: str  # last or best
    measure: str  # name in the table of measures


def train_and_measure(configs: list[Config], *, runs_dir: str | os.PathLike, data_dir: str | os.PathLike,
                      strategy: str = "auto", jit: bool | None = None,
                      wanted: Mapping[Config, Sequence[Wanted]] = MappingProxyType({}),
                      settings: Mapping[str, Mapping[str, Value]] = MappingProxyType({}), retry: bool = False,
                      skip_busy: bool = False, progress: bool = True) -> None:
    """Trains what has not ended and measures what is not measured, in one process.

    Args:
        configs: members of one column: they differ in beta and seed only.
        runs_dir: gets one directory per run.
        data_dir: folder of the data sets; the split must be there.
        strategy: one of `cluster.STRATEGIES`.
        jit: compile by XLA; None: what was measured to be faster.
        wanted: the measures of each run.
        settings: of the measures, by name; without, their defaults.
        retry: start diverged runs again.
        skip_busy: leave runs alone that another process trains or measures, instead of refusing.
        progress: show bars.

    Raises:
        signals.Interrupted, runs.RunError, RecordsError, ConfigError: as the parts do.
    """
    shared = configs[0]
    placement = devices.place(shared, strategy, jit)
    split_dir = shared.data.path(data_dir)
    split = splits.load(split_dir)
    pathlib.Path(runs_dir).mkdir(parents=True, exist_ok=True)
    loop.train(configs, split, runs_dir=runs_dir, placement=placement, retry=retry,
               skip_busy=skip_busy, progress=progress)
    for config in configs if placement.chief else ():
        run = runs.run_dir(runs_dir, config)
        try:
            for one in wanted.get(config, ()) if run.status() == runs.FINISHED else ():
                opened = finished_run.open_run(run.path, data_dir, one.checkpoint, split)
                for note in measures.measure_run(opened, [one.measure], settings=settings, progress=progress):
                    print(note, flush=True)
            if run.status() == runs.FINISHED:
                run.failure.unlink(missing_ok=True)
        except runs.InUse:
            if not skip_busy:
                raise


def record_failure(run: runs.RunDir, error: BaseException) -> None:
    """Leaves the traceback of a failed attempt in the run directory; a later one that ends well removes it."""
    files.write_text(run.failure, "".join(traceback.format_exception(error)))
