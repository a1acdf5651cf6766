"""Worker processes: commands run side by side, each pinned to its cores and its GPU, watched until all have ended."""

import ctypes
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from vae_rd.training import gpus

POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # Linux, <sys/prctl.h>


class Task(NamedTuple):
    """A command, and the file that takes what it prints."""

    command: list[str]
    log: pathlib.Path


class Resources(NamedTuple):
    """The cores, and the GPU, that one worker keeps to."""

    cores: tuple[int, ...]
    gpu: str | None  # for CUDA_VISIBLE_DEVICES; None leaves it as it is


def share_out(num_workers: int, every_gpu: bool = False) -> list[Resources]:
    """Gives each worker a share of the cores and a GPU, in turn if there are fewer; with `every_gpu`, all of the GPUs.

    Cores that are left over are not used: with as many threads a run gives the same bits under any worker. A single
    worker has one GPU too: a batch that is split over several takes longer for models as small as these.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // num_workers)
    groups = [tuple(cores[number * share % len(cores):][:share]) for number in range(num_workers)]
    names = [] if every_gpu else gpus.visible()
    return [Resources(group, names[number % len(names)] if names else None) for number, group in enumerate(groups)]


class Pool:
    """Runs tasks side by side; a signal to this process is passed on, and no further task is begun.

    Args:
        tasks: in order of their start.
        shares: what each worker runs on.
        watch: called between polls, to show progress.
    """

    def __init__(self, tasks: list[Task], shares: list[Resources], watch: Callable[[], None]):
        self._waiting, self._free, self._watch = list(enumerate(tasks)), list(shares), watch
        self._working: dict[int, tuple[subprocess.Popen, Resources]] = {}
        self.statuses: dict[int, int] = {}  # by task number; tasks that were never begun have none
        self.received: int | None = None
        self._to_pass_on: list[int] = []

    def run(self) -> dict[int, int]:
        """Exit statuses by task number, once all have ended or a signal has stopped them."""
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, self._receive) for number in handled}
        try:
            while self._working or (self._waiting and self.received is None):
                self._begin()
                self._pass_on()
                self._collect()
                self._watch()
                time.sleep(POLL_SECONDS)
        finally:
            for process, _ in self._working.values():
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.statuses

    def _begin(self) -> None:
        while self._waiting and self._free and self.received is None:
            number, task = self._waiting.pop(0)
            try:
                self._working[number] = (_start(task, self._free[0]), self._free[0])
                del self._free[0]
            except OSError as error:  # as of a log that cannot be written: the others go on
                print(f"{task.log.stem} cannot be started: {error}", flush=True)
                self.statuses[number] = 1

    def _collect(self) -> None:
        for number, (process, resources) in list(self._working.items()):
            if process.poll() is not None:
                self.statuses[number] = process.returncode
                self._free.append(resources)
                del self._working[number]

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
        self._to_pass_on.append(number)

    def _pass_on(self) -> None:
        """Sends what was received to all workers; not in the handler, which may run before a new one is in the list."""
        while self._to_pass_on:
            number = self._to_pass_on.pop(0)
            for process, _ in self._working.values():
                process.send_signal(number)


def _start(task: Task, resources: Resources) -> subprocess.Popen:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) if resources.gpu is None else os.environ | {"CUDA_VISIBLE_DEVICES": resources.gpu}
    with task.log.open("a") as log:
        # A session of its own: Ctrl-C reaches the worker once, through the pool, and not a second time by the terminal.
        return subprocess.Popen(task.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env=environment, start_new_session=True, preexec_fn=lambda: _settle(resources))


def _settle(resources: Resources) -> None:
    """In the new worker: keeps to its cores, and is asked to stop if the pool dies without a word."""
    os.sched_setaffinity(0, resources.cores)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
