"""Runs `python -m vae_rd.main ...` in processes forked from one that has TensorFlow loaded: a start costs no import."""

import contextlib
import importlib
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from absl import flags

PRELOADED = ["tensorflow", "tensorflow_probability", "keras", "vae_rd.training.train_and_measure", "data_gen.generate",
             "vae_rd.figures.drawings", "vae_rd.analysis.verdicts", "scipy.stats"]


class Command:
    """One process that runs a function, or an entry point, printing into one file, or its errors into another."""

    def __init__(self, target: Callable, *arguments, output: pathlib.Path, errors: pathlib.Path | None = None,
                 environment: dict[str, str] | None = None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.output = output
        files = output, errors or output
        self.process = context.Process(target=_redirected, args=(files, environment or {}, target, arguments))
        self.process.start()

    def wait(self, seconds: float = 600) -> "Command":
        """Waits for the end; a process that has not ended by then is killed and fails the test."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {seconds} s:\n{self.text}")
        return self

    def until(self, holds: Callable[[], object], seconds: float = 300) -> "Command":
        """Waits until something holds while the process runs; fails if it ends first."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.is_alive() and time.monotonic() < deadline, self.text
            time.sleep(0.005)
        return self

    def signal(self, number: int) -> "Command":
        """Sends a signal."""
        os.kill(self.process.pid, number)
        return self

    @property
    def status(self) -> int:
        """Exit status; minus the signal's number for a process that died of one."""
        return self.process.exitcode

    @property
    def text(self) -> str:
        """Everything that was printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def start(module: str, flags: list[str], output: pathlib.Path, before: Callable | None = None, **environment: str
          ) -> Command:
    """Starts an entry point; `before`, a function of a module, is called first in the new process."""
    return Command(_run_module, module, flags, before, output=output, environment=environment)


def run(module: str, *flags: str, before: Callable | None = None) -> subprocess.CompletedProcess:
    """What `subprocess.run` returns of `python -m module ...`; `before` as in `start`."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = (pathlib.Path(folder) / name for name in ("output", "errors"))
        command = Command(_run_module, module, flags, before, output=output, errors=errors).wait()
        return subprocess.CompletedProcess([module, *flags], command.status, output.read_text(), errors.read_text())


def _run_module(module: str, flags: list[str], before: Callable | None) -> None:
    if before:
        before()
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _redirected(files: tuple[pathlib.Path, pathlib.Path], environment: dict[str, str], target: Callable,
                arguments: tuple) -> None:
    for stream, path in enumerate(files, 1):
        with path.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), stream)
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3"} | environment)
    target(*arguments)


@contextlib.contextmanager
def imported(entry_point):
    """An entry point as a module: its flags are gone after the block, so that another one can be imported."""
    before = set(flags.FLAGS)
    try:
        yield importlib.import_module(entry_point)
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        sys.modules.pop(entry_point, None)
