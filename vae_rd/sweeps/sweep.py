"""A sweep: the runs of some experiments, the part of them that one call works on, and what is left of it."""

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from vae_rd.config import Config, ConfigError
from vae_rd.measures.measure import Value
from vae_rd.measures.registry import settings_by_measure
from vae_rd.storage import runs
from vae_rd.sweeps import columns, experiments
from vae_rd.sweeps.states import FAILED, State, read_state


class Sweep:
    """The runs of some experiments at one scale, and the part of them that is worked on here.

    Args:
        names: of the experiments; runs that several of them share are there once.
        scale: smoke, laptop, tenth or paper.
        task: number of the part to work on, from 0.
        num_tasks: parts that the runs are cut into.
        workers: processes on this machine.
        column_size: runs trained together by one process; None: as many as memory allows.
        runs_dir: gets one directory per run.
        data_dir: folder of the data sets; missing splits are generated.
        raw_dir: folder of original data files; None: `<data_dir>/raw`.
        measure: compute the measures that the experiments need.
        retry: run diverged and failed runs again.
        progress: show bars.
        strategy: auto or one_device: each worker on one device; mirrored: one worker on all GPUs of this machine.
        sharing: workers that share a GPU's memory; None: as many as there are for each GPU that this process sees.
        modules: of the user's, imported already, for the workers to import too.
        settings: of the measures, each for all that have it, in place of those of the scale.

    Raises:
        ConfigError: for an unknown experiment or scale, a task outside 0 to num_tasks - 1, a setting that no measure
            made here has, that is not a number, or is below its minimum, or several workers with strategy=mirrored,
            each of which would take all GPUs.
    """

    def __init__(self, names: Sequence[str], *, scale: str = experiments.DEFAULT_SCALE, task: int = 0,
                 num_tasks: int = 1, workers: int = 1, column_size: int | None = None,
                 runs_dir: str | os.PathLike = "runs", data_dir: str | os.PathLike = "data",
                 raw_dir: str | os.PathLike | None = None, measure: bool = True, retry: bool = False,
                 progress: bool = True, strategy: str = "auto", sharing: int | None = None,
                 modules: Sequence[str] = (), settings: Mapping[str, Value] = MappingProxyType({})):
        if not names:
            raise ConfigError(f"experiment must be one or several of {', '.join(experiments.names())} (got none).")
        if not 0 <= task < num_tasks:
            raise ConfigError(f"task must be from 0 to num_tasks - 1 = {num_tasks - 1} (got {task}).")
        if strategy == "mirrored" and workers > 1:
            raise ConfigError(f"workers must be 1 with strategy=mirrored, which takes all GPUs (got {workers}).")
        self.names, self.scale, self.task, self.num_tasks = tuple(names), scale, task, num_tasks
        self.workers, self.column_size, self.measure, self.retry = workers, column_size, measure, retry
        self.runs_dir, self.data_dir, self.raw_dir = pathlib.Path(runs_dir), pathlib.Path(data_dir), raw_dir
        self.sharing = sharing or columns.workers_sharing(workers)  # a worker sees its own GPU only
        self.progress, self.strategy, self.modules = progress, strategy, tuple(modules)
        chosen = [experiments.experiment(name, scale) for name in names]
        self._given = dict(settings)
        used = [name for one in chosen if measure for name in one.measures]
        given, of_scale = settings_by_measure(settings, used), experiments.SCALES[scale].settings
        self.settings = {name: {**of_scale.get(name, {}), **given[name]} for name in given}
        self.configs = list(dict.fromkeys(config for one in chosen for config in one.configs))
        self.wanted: dict[Config, list[tuple[str, str]]] = {config: [] for config in self.configs}
        for one in chosen if measure else ():
            needed = list(itertools.product(one.checkpoints, one.measures))
            for config in one.configs:
                self.wanted[config] += [pair for pair in needed if pair not in self.wanted[config]]

    @functools.cached_property
    def part(self) -> list[Config]:
        """The runs that this call works on."""
        return columns.part(self.configs, self.task, self.num_tasks)

    @functools.cached_property
    def columns(self) -> list[list[Config]]:
        """The part, cut into the columns that train together."""
        return columns.into_columns(self.part, self.column_size, min_columns=self.workers, sharing=self.sharing)

    @functools.cached_property
    def _members(self) -> dict[Config, int]:
        return {config: len(column) for column in self.columns for config in column}

    def run(self, config: Config) -> runs.RunDir:
        """The directory of a run."""
        return runs.run_dir(self.runs_dir, config)

    def state(self, config: Config) -> State:
        """How far a run is, read from its directory now; one that cannot be read does not hide the others."""
        try:
            return read_state(self.run(config), config, self.wanted[config], self._members.get(config, 1))
        except OSError as error:
            return State(runs.UNREADABLE, trouble=str(error))

    def states(self, configs: Iterable[Config]) -> dict[Config, State]:
        """How far some runs are."""
        return {config: self.state(config) for config in configs}

    def pending(self, found: dict[Config, State]) -> list[Config]:
        """Runs, by their states, with something left to do, as far as that can be told: training, or a measure."""
        left_alone = () if self.retry else (runs.DIVERGED, FAILED)
        return [config for config, state in found.items() if state.status not in left_alone
                and not (state.status == runs.FINISHED and state.measured)]

    def command(self, number: int) -> list[str]:
        """The command of a worker that trains column `number` of the part."""
        flags = {"experiment": ",".join(self.names), "scale": self.scale, "column_size": self.column_size or "auto",
                 "data_dir": self.data_dir, "runs_dir": self.runs_dir, "task": self.task, "num_tasks": self.num_tasks,
                 "workers": self.workers, "retry": self.retry, "measure": self.measure, "progress": self.progress,
                 "strategy": self.strategy, "sharing": self.sharing, "column": number, "import": ",".join(self.modules),
                 **self._given}
        return [sys.executable, "-m", "vae_rd.sweep", *(f"--{name}={value}" for name, value in flags.items())]

    def log(self, number: int) -> pathlib.Path:
        """What the worker of column `number` prints."""
        return self.runs_dir / "logs" / f"{self.columns[number][0].run_name}.log"
