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
from vae_rd.storage.runs import DIVERGED, FINISHED, UNREADABLE
from vae_rd.sweeps import reports, states, workers
from vae_rd.sweeps.cost import expected_seconds
from vae_rd.sweeps.sweep import Sweep
from vae_rd.training.signals import TO_BE_CONTINUED

_WATCH_SECONDS = 2.0  # between two looks at the runs: reading thousands of histories takes a while


def run(sweep: Sweep) -> int:
    """Runs what is left of the part in worker processes.

    Returns:
        The exit status: 0; 1 if something failed; 130 or 85 after a signal, also one to a worker alone, when the same
        command continues; 128 plus the signal's number if a worker was killed, as by lack of memory.
    """
    found = sweep.states(sweep.part)
    pending = sweep.pending(found)
    without_data = _make_data(sweep, pending)
    todo = [config for config in pending if config not in without_data]
    numbers = [number for number, column in enumerate(sweep.columns) if set(column) & set(todo)]
    if not todo:
        print("nothing is left to do in this part." if not without_data else "nothing can be done in this part.")
        return _end(sweep, {}, None, without_data)
    shares = {config: 1.0 if found[config].status == DIVERGED else found[config].to_train for config in todo}
    print(reports.plan(shares, len(numbers)), flush=True)
    names = dict.fromkeys(name for config in todo for _, name in sweep.wanted[config])
    if names:
        print(f"afterwards the measures {', '.join(names)}", flush=True)
    tasks = [workers.Task(sweep.command(number), sweep.log(number)) for number in numbers]
    with _Bar(sweep, {config: found[config] for config in todo}) as bar:
        resources = workers.share_out(sweep.workers, every_gpu=sweep.strategy == "mirrored")
        crew = workers.Pool(tasks, resources, _seldom(bar.update))
        statuses = crew.run()
        bar.update()
    ended = {numbers[task]: status for task, status in statuses.items()}
    return _end(sweep, ended, crew.received, without_data)


def run_column(sweep: Sweep, number: int) -> int:
    """Trains and measures one column in this process; runs that another process works on are left to it.

    Returns:
        The exit status: 1 if a run failed, or cannot be read, which leaves it out.

    Raises:
        ConfigError: if the part has no such column.
    """
    if number >= len(sweep.columns):
        raise ConfigError(f"column must be below {len(sweep.columns)}, the number of columns (got {number}).")
    found = sweep.states(sweep.columns[number])
    unreadable = {config: state for config, state in found.items() if state.status == UNREADABLE}
    configs = [config for config in sweep.pending(found) if config not in unreadable]
    good = True
    if configs:
        with cli.quietly():
            from vae_rd.training import devices  # imports TensorFlow: seconds
        devices.configure(configs[0].precision)
        good = _finish(sweep, configs, sweep.retry)
    for line in reports.troubles(unreadable):
        print(line, flush=True)
    return 0 if good and not unreadable else 1


def _finish(sweep: Sweep, configs: list[Config], retry: bool) -> bool:
    """Trains and measures runs together; if that fails, one by one, so that only the run at fault fails.

    A full disk is the fault of none: training them one by one would only fill it further.
    """
    from vae_rd.training import signals, train_and_measure
    before = {config: _ending(sweep, config) for config in configs}
    try:
        wanted = {config: [train_and_measure.Wanted(*pair) for pair in sweep.wanted[config]] for config in configs}
        train_and_measure.train_and_measure(
            configs, runs_dir=sweep.runs_dir, data_dir=sweep.data_dir, strategy=sweep.strategy, wanted=wanted,
            settings=sweep.settings, retry=retry, skip_busy=True, progress=sweep.progress)
    except signals.Interrupted:
        raise
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if len(configs) == 1:
            if not isinstance(error, OSError):  # an error of the file system may pass; it is in the worker's log
                with contextlib.suppress(OSError):  # of a folder that cannot be written
                    train_and_measure.record_failure(sweep.run(configs[0]), error)
            return False
    else:
        return True
    print(f"the {len(configs)} runs go on one by one", flush=True)
    # Here, where the column's memory is free again. What has diverged in this call is not retried in it.
    return all([_finish(sweep, [config], retry and _ending(sweep, config) == before[config]) for config in configs])


def _ending(sweep: Sweep, config: Config) -> tuple[int, int] | None:
    """What tells one results.json of a run from the next; None while there is none, or where it cannot be read."""
    try:
        found = sweep.run(config).results.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


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
                now = self._sweep.state(config)
                self._states[config] = state if now.status == UNREADABLE else now
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


def _end(sweep: Sweep, statuses: dict[int, int], received: int | None, without_data: set[Config]) -> int:
    """Prints how the part ended; returns the exit status."""
    found = sweep.states(sweep.part)
    stopped = [status for status in statuses.values() if status in (TO_BE_CONTINUED, cli.INTERRUPTED)]
    broken = {number: status for number, status in statuses.items() if status and status not in stopped}
    killed = [-status for status in broken.values() if status < 0]
    print(*reports.end(sweep, found, broken), sep="\n")
    if received is not None:
        print("stopped by a signal; the same command continues")
        return cli.INTERRUPTED if received == signal.SIGINT else TO_BE_CONTINUED
    if stopped:
        print("a worker was stopped by a signal; the same command continues")
        return TO_BE_CONTINUED
    if killed:  # as by lack of memory: a scheduler may try again as after any kill
        return 128 + max(killed)
    if broken or without_data or any(state.status in (states.FAILED, UNREADABLE) for state in found.values()):
        return 1
    if reports.remaining(found):
        print("other processes work on the runs that remain; once they have ended, give the same command again")
    return 0
