"""Runs a part of a sweep: makes the data, starts a worker per column, watches them, and says how it ended."""

import contextlib
import errno
import os
import signal
import time
import traceback
from collections.abc import Callable

from data_gen import generate
from vae_rd import cli
from vae_rd.config import Config, ConfigError, DataSpec
from vae_rd.datasets.records import RecordsError
from vae_rd.storage.runs import FINISHED
from vae_rd.sweeps import reports, states, workers
from vae_rd.sweeps.cost import expected_seconds
from vae_rd.sweeps.sweep import Sweep
from vae_rd.training.signals import TO_BE_CONTINUED

_WATCH_SECONDS = 2.0  # between two looks at the runs: reading thousands of histories takes a while


def run(sweep: Sweep) -> int:
    """Runs what is left of the part in worker processes.

    Returns:
        The exit status: 0; 1 if something failed; 130 or 85 after a signal, when the same command continues; 128 plus
        the signal's number if workers were only killed, as by lack of memory.
    """
    found = sweep.states(sweep.part)
    pending = sweep.pending(found)
    without_data = _make_data(sweep, pending)
    todo = [config for config in pending if config not in without_data]
    numbers = [number for number, column in enumerate(sweep.columns) if set(column) & set(todo)]
    if not todo:
        print("nothing is left to do in this part." if not without_data else "nothing can be done in this part.")
        return _end(sweep, {}, None) or bool(without_data)
    print(reports.plan(todo, len(numbers)), flush=True)
    names = dict.fromkeys(name for config in todo for _, name in sweep.wanted[config])
    if names:
        print(f"afterwards the measures {', '.join(names)}", flush=True)
    tasks = [workers.Task(sweep.command(number), sweep.log(number)) for number in numbers]
    with _Bar(sweep, {config: found[config] for config in todo}) as bar:
        shares = workers.share_out(sweep.workers, every_gpu=sweep.strategy == "mirrored")
        crew = workers.Pool(tasks, shares, _seldom(bar.update))
        statuses = crew.run()
        bar.update()
    ended = {numbers[task]: status for task, status in statuses.items()}
    return _end(sweep, ended, crew.received) or bool(without_data)


def run_column(sweep: Sweep, number: int) -> int:
    """Trains and measures one column in this process; runs that another process works on are left to it.

    Returns:
        The exit status: 1 if a run failed.

    Raises:
        ConfigError: if the part has no such column.
    """
    if number >= len(sweep.columns):
        raise ConfigError(f"column must be below {len(sweep.columns)}, the number of columns (got {number}).")
    configs = sweep.pending(sweep.states(sweep.columns[number]))
    if not configs:
        return 0
    with cli.quietly():
        from vae_rd.training import devices  # imports TensorFlow: seconds
    devices.configure(configs[0].precision)
    return 0 if _finish(sweep, configs) else 1


def _finish(sweep: Sweep, configs: list[Config]) -> bool:
    """Trains and measures runs together; if that fails, one by one, so that only the run at fault fails.

    A full disk is the fault of none: training them one by one would only fill it further.
    """
    from vae_rd.training import signals, train_and_measure
    try:
        wanted = {config: [train_and_measure.Wanted(*pair) for pair in sweep.wanted[config]] for config in configs}
        train_and_measure.train_and_measure(
            configs, runs_dir=sweep.runs_dir, data_dir=sweep.data_dir, strategy=sweep.strategy, wanted=wanted,
            settings=sweep.settings, retry=sweep.retry, skip_busy=True, progress=sweep.progress)
    except signals.Interrupted:
        raise
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if len(configs) == 1:
            train_and_measure.record_failure(sweep.run(configs[0]), error)
            return False
    else:
        return True
    print(f"the {len(configs)} runs go on one by one", flush=True)
    return all([_finish(sweep, [config]) for config in configs])  # here, where the column's memory is free again


class _Bar:
    """The bar of a running part, in expected seconds of training; its time left follows from what was done so far."""

    def __init__(self, sweep: Sweep, found: dict[Config, states.State]):
        from tqdm import tqdm
        self._sweep, self._states = sweep, found
        self._seconds = dict(zip(found, expected_seconds(list(found))))
        self._bar = tqdm(total=round(sum(self._seconds.values())), initial=self._done(), desc=f"{len(found)} runs",
                         unit="s", leave=True, dynamic_ncols=True, mininterval=2 if os.isatty(2) else 60, smoothing=0,
                         disable=not sweep.progress,
                         bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Reads the runs that have not finished again: one that diverged may be on its second attempt."""
        for config, state in self._states.items():
            if state.status != FINISHED:
                # such as a network file system's: a progress bar must not stop workers
                with contextlib.suppress(OSError):
                    self._states[config] = self._sweep.state(config)
        ended = sum(state.status in states.ENDED for state in self._states.values())
        self._bar.set_postfix_str(f"{ended} of {len(self._states)} ended", refresh=False)
        self._bar.update(self._done() - self._bar.n)

    def _done(self) -> int:
        return round(sum((1 - state.to_train) * self._seconds[config] for config, state in self._states.items()))


def _seldom(watch: Callable[[], None]) -> Callable[[], None]:
    """The function, called at most once in this many seconds."""
    last = [0.0]

    def call() -> None:
        if time.monotonic() - last[0] >= _WATCH_SECONDS:
            watch()
            last[0] = time.monotonic()
    return call


def _make_data(sweep: Sweep, configs: list[Config]) -> set[Config]:
    """Generates the splits that are missing; returns the runs whose data cannot be had, after saying why."""
    groups: dict[DataSpec, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.data, []).append(config)
    missing: set[Config] = set()
    for spec, group in groups.items():
        try:
            generate.ensure(sweep.data_dir, spec, raw_dir=sweep.raw_dir, progress=sweep.progress)
        except (ConfigError, RecordsError, OSError) as error:
            print(f"{len(group)} runs on {spec.dataset}/{spec.split} are left out: {error}", flush=True)
            missing |= set(group)
    return missing


def _end(sweep: Sweep, statuses: dict[int, int], received: int | None) -> int:
    """Prints how the part ended; returns the exit status."""
    found = sweep.states(sweep.part)
    broken = {number: status for number, status in statuses.items()
              if status not in (0, TO_BE_CONTINUED, cli.INTERRUPTED)}
    print(*reports.end(sweep, found, broken), sep="\n")
    if received is not None:
        print("stopped by a signal; the same command continues")
        return cli.INTERRUPTED if received == signal.SIGINT else TO_BE_CONTINUED
    if broken and max(broken.values()) < 0:  # killed, as by lack of memory: a scheduler may try again as after any kill
        return 128 - max(broken.values())
    return 1 if broken or any(state.status == states.FAILED for state in found.values()) else 0
