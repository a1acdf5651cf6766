"""Runs experiments: python -m vae_rd.sweep --experiment=figure3 --scale=laptop; all of it, a piece, or its status."""

import collections
import itertools
import os
import pathlib
import sys
import traceback

from absl import flags

from data_gen import generate
from vae_rd import cli
from vae_rd.config import Config, ConfigError, DataSpec
from vae_rd.datasets.records import RecordsError
from vae_rd.storage import runs
from vae_rd.sweeps import columns, cost as costs, experiments, workers

_EXPERIMENT = flags.DEFINE_list("experiment", None, f"one or several of {', '.join(experiments.names())}")
_SCALE = flags.DEFINE_enum("scale", "laptop", list(experiments.SCALES),
                           "smoke (minutes), laptop (hours), tenth (days: the paper's sizes, a tenth of its "
                           "steps), paper (the full protocol)")
_LIST = flags.DEFINE_bool("list", False, "print the runs and what they cost, and stop")
_STATUS = flags.DEFINE_bool("status", False, "print how far the runs are, wherever they are trained, and stop")
_TASK = flags.DEFINE_integer("task", 0, "number of the piece to run, from 0", 0)
_NUM_TASKS = flags.DEFINE_integer("num_tasks", 1, "pieces that the experiment is cut into; may change between calls", 1)
_WORKERS = flags.DEFINE_integer("workers", 1, "processes on this machine, each on its GPU or its share of the cores", 1)
_COLUMN_SIZE = flags.DEFINE_string("column_size", "auto", "runs trained together by one process: a number, or auto: as "
                                                          "memory allows")
_RETRY = flags.DEFINE_bool("retry", False, "run diverged and failed runs again")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the data sets; missing splits are generated")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs", "folder that gets one directory per run")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "folder of original data files (default: <data_dir>/raw)")
_MEASURE = flags.DEFINE_bool("measure", True, "make the measures that the experiment needs")
_COLUMN = flags.DEFINE_integer("column", None, "for the workers: train this one column in this process", 0)

FAILED = "failed"


class _Sweep:
    """The runs of some experiments, and how far each is."""

    def __init__(self):
        wanted = [experiments.experiment(name, _SCALE.value) for name in _EXPERIMENT.value]
        self.configs = list(dict.fromkeys(config for one in wanted for config in one.configs))
        self.wanted: dict[Config, list[tuple[str, str]]] = {config: [] for config in self.configs}
        for one in wanted if _MEASURE.value else ():
            needed = list(itertools.product(one.checkpoints, one.measures))
            for config in one.configs:
                self.wanted[config] += [pair for pair in needed if pair not in self.wanted[config]]
        self.settings = experiments.SCALES[_SCALE.value].settings
        self.piece = columns.piece(self.configs, _TASK.value, _NUM_TASKS.value)
        self.columns = columns.columns(self.piece, _column_size(), at_least=_WORKERS.value)

    def run(self, config: Config) -> runs.RunDir:
        return runs.run_dir(_RUNS_DIR.value, config)

    def state(self, config: Config) -> str:
        run = self.run(config)
        status = run.status()
        if not run.failure.is_file():
            return status
        return FAILED if status == runs.UNFINISHED or status == runs.FINISHED and not self.measured(config) else status

    def counts(self) -> collections.Counter:
        return collections.Counter(self.state(config) for config in self.configs)

    def pending(self, column: list[Config]) -> list[Config]:
        """Members with something left to do: training, or a measure."""
        left_alone = () if _RETRY.value else (runs.DIVERGED, FAILED)
        return [config for config in column if self.state(config) not in left_alone and not self._complete(config)]

    def seconds_done(self, config: Config) -> float:
        """Expected seconds of the part of a run that is done."""
        status = self.state(config)
        share = 1.0 if status in (runs.FINISHED, runs.DIVERGED) else 0.0
        if status == runs.UNFINISHED:
            share = max((row["step"] for row in self.run(config).read_history()), default=0) / config.train_steps
        return share * 3600 * costs.cost([config]).hours

    def measured(self, config: Config) -> bool:
        """Whether the run has all the measures that its experiments need."""
        made = self.run(config).read_measures() if self.wanted[config] else {}
        return all(name in made.get(checkpoint, {}) for checkpoint, name in self.wanted[config])

    def _complete(self, config: Config) -> bool:
        run = self.run(config)
        if run.status() == runs.DIVERGED:
            return not _RETRY.value
        return run.status() == runs.FINISHED and self.measured(config) and not run.leftovers()


def _column_size() -> int | None:
    if _COLUMN_SIZE.value == "auto":
        return None
    if not _COLUMN_SIZE.value.isdigit() or int(_COLUMN_SIZE.value) < 1:
        raise ConfigError(f"column_size={_COLUMN_SIZE.value!r}: must be a whole number, 1 or more, or auto.")
    return int(_COLUMN_SIZE.value)


def _list(sweep: _Sweep) -> None:
    for number, column in enumerate(sweep.columns):
        for config in column:
            print(f"{number:4}  {config.run_name}")
    print(_plan(sweep.piece, len(sweep.columns)))


def _plan(configs: list[Config], num_columns: int) -> str:
    cost = costs.cost(configs)
    return (f"{cost.runs} runs in {num_columns} columns: about {cost.hours:,.1f} hours on 2 cores and "
            f"{cost.gigabytes:,.1f} GB on disk")


def _status(sweep: _Sweep) -> None:
    counts = sweep.counts()
    print(f"{len(sweep.configs)} runs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    done, total = sum(map(sweep.seconds_done, sweep.configs)), 3600 * costs.cost(sweep.configs).hours
    print(f"{100 * done / total if total else 100:.1f}% of the training is done, about {(total - done) / 3600:,.2f} "
          "hours on 2 cores are left")
    unmeasured = sum(sweep.state(config) == runs.FINISHED and not sweep.measured(config) for config in sweep.configs)
    if unmeasured:
        print(f"{unmeasured} finished runs are still to be measured")
    for config in sweep.configs:
        if sweep.state(config) in (FAILED, runs.DIVERGED):
            print(f"  {_trouble(sweep, config)}")


def _trouble(sweep: _Sweep, config: Config) -> str:
    run = sweep.run(config)
    if run.status() == runs.DIVERGED:
        what = run.read_results()["diverged"]
        return f"{config.run_name}: diverged, {what['quantity']} not finite at step {what['step']}"
    if run.failure.is_file():
        lines = run.failure.read_text().strip().splitlines() or [""]
        return f"{config.run_name}: failed, {lines[-1]} (see {run.failure})"
    return f"{config.run_name}: {run.status()}"


def _run_piece(sweep: _Sweep) -> int:
    """Runs what is left of the piece in worker processes; returns the exit status."""
    from tqdm import tqdm
    without_data = _make_data([config for column in sweep.columns for config in sweep.pending(column)])
    work = {number: [config for config in pending if config not in without_data]
            for number, column in enumerate(sweep.columns) if (pending := sweep.pending(column))}
    numbers = [number for number, pending in work.items() if pending]
    todo = [config for number in numbers for config in work[number]]
    if not todo:
        print("nothing is left to do in this piece." if not without_data else "nothing can be done in this piece.")
        return _end_report(sweep, {}, None) or bool(without_data)
    print(_plan(todo, len(numbers)), flush=True)
    names = dict.fromkeys(name for config in todo for _, name in sweep.wanted[config])
    if names:
        print(f"afterwards the measures {', '.join(names)}", flush=True)
    tasks = [workers.Task(_command(number), _log(sweep, number)) for number in numbers]
    before = sum(map(sweep.seconds_done, todo))
    total = 3600 * costs.cost(todo).hours
    with tqdm(total=round(total), initial=round(before), desc=f"{len(todo)} runs", unit="s", leave=True,
              dynamic_ncols=True, mininterval=2 if os.isatty(2) else 60,
              bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}") as bar:
        def watch():
            ended = sum(sweep.state(config) in (runs.FINISHED, runs.DIVERGED) for config in todo)
            bar.set_postfix_str(f"{ended} of {len(todo)} ended", refresh=False)
            bar.update(round(sum(map(sweep.seconds_done, todo))) - bar.n)
        crew = workers.Pool(tasks, workers.seats(_WORKERS.value), _seldom(watch))
        statuses = crew.run()
        watch()
    ended = {numbers[task]: status for task, status in statuses.items()}
    return _end_report(sweep, ended, crew.received) or bool(without_data)


def _seldom(watch, seconds: float = 2.0):
    """The function, called at most every so many seconds: reading thousands of histories takes a while."""
    import time
    last = [0.0]

    def call():
        if time.monotonic() - last[0] >= seconds:
            watch()
            last[0] = time.monotonic()
    return call


def _command(number: int) -> list[str]:
    return [sys.executable, "-m", "vae_rd.sweep",
            f"--experiment={','.join(_EXPERIMENT.value)}", f"--scale={_SCALE.value}",
            f"--column_size={_COLUMN_SIZE.value}", f"--data_dir={_DATA_DIR.value}", f"--runs_dir={_RUNS_DIR.value}",
            f"--task={_TASK.value}", f"--num_tasks={_NUM_TASKS.value}", f"--workers={_WORKERS.value}",
            f"--retry={_RETRY.value}", f"--measure={_MEASURE.value}", f"--column={number}"]


def _log(sweep: _Sweep, number: int) -> pathlib.Path:
    return pathlib.Path(_RUNS_DIR.value) / "logs" / f"{sweep.columns[number][0].run_name}.log"


def _make_data(configs: list[Config]) -> list[Config]:
    """Generates the splits that are missing; returns the runs whose data cannot be had, after saying why."""
    groups: dict[DataSpec, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.data, []).append(config)
    missing = []
    for spec, group in groups.items():
        if (spec.path(_DATA_DIR.value) / "info.json").is_file():
            continue
        try:
            generate.generate(_DATA_DIR.value, spec, raw_dir=_RAW_DIR.value)
        except (ConfigError, RecordsError) as error:
            print(f"{len(group)} runs on {spec.dataset}/{spec.split} are left out: {error}", flush=True)
            missing += group
    return missing


def _end_report(sweep: _Sweep, statuses: dict[int, int], received: int | None) -> int:
    mine = sweep.piece
    states = collections.Counter(sweep.state(config) for config in mine)
    remaining = [config for config in mine if config in sweep.pending([config])]
    print(f"{len(mine)} runs in this piece: {states[runs.FINISHED]} finished, {states[runs.DIVERGED]} diverged, "
          f"{states[FAILED]} failed, {len(remaining)} remaining")
    for config in mine:
        if sweep.state(config) in (FAILED, runs.DIVERGED):
            print(f"  {_trouble(sweep, config)}")
    broken = {number: status for number, status in statuses.items() if status not in (0, 85, 130)}
    for number, status in broken.items():
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        print(f"  column {number} {cause}: {_last_line(_log(sweep, number))} (see {_log(sweep, number)})")
    if received is not None:
        print("stopped by a signal; the same command continues")
        return 130 if received == 2 else 85
    if broken and max(broken.values()) < 0:  # killed, as by lack of memory: a scheduler may try again as after any kill
        return 128 - max(broken.values())
    return 1 if broken or states[FAILED] else 0


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1][:200] if lines else "nothing was printed"


def _run_column(sweep: _Sweep) -> int:
    """One column in this process, and its exit status; runs that another process works on are left to it."""
    if _COLUMN.value >= len(sweep.columns):
        raise ConfigError(f"column={_COLUMN.value}: must be below {len(sweep.columns)}, the number of columns.")
    configs = sweep.pending(sweep.columns[_COLUMN.value])
    if not configs:
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from vae_rd.training import devices  # imports TensorFlow: seconds
    devices.configure(configs[0].precision)
    return 0 if _finish(sweep, configs) else 1


def _finish(sweep: _Sweep, configs: list[Config]) -> bool:
    """Trains and measures runs together; if that fails, one by one, so that only the run at fault fails."""
    from vae_rd.training import signals, train_and_measure
    try:
        wanted = {config: [train_and_measure.Wanted(*pair) for pair in sweep.wanted[config]] for config in configs}
        train_and_measure.train_and_measure(
            configs, runs_dir=_RUNS_DIR.value, data_dir=_DATA_DIR.value, wanted=wanted, settings=sweep.settings,
            retry=_RETRY.value, skip_busy=True)
    except signals.Interrupted:
        raise
    except Exception as error:
        if len(configs) > 1:
            return all([_finish(sweep, [config]) for config in configs])
        traceback.print_exc()
        train_and_measure.record_failure(sweep.run(configs[0]), error)
        return False
    return True


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.opened(argv):
        if not _EXPERIMENT.value:
            raise ConfigError(f"--experiment is missing; the experiments are {', '.join(experiments.names())}.")
        if _TASK.value >= _NUM_TASKS.value:
            raise ConfigError(f"task={_TASK.value}: must be below num_tasks={_NUM_TASKS.value}; the first is 0.")
        sweep = _Sweep()
        if _LIST.value:
            _list(sweep)
        elif _STATUS.value:
            _status(sweep)
        elif _COLUMN.value is not None:
            sys.exit(_run_column(sweep))
        else:
            sys.exit(_run_piece(sweep))


if __name__ == "__main__":
    cli.run(main)
