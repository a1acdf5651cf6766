"""The run directory: every file name in it, reading and writing its files, and its lock."""

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vae_rd import schema
from vae_rd.config import Config, NotImported
from vae_rd.storage import contents, files, manifest
from vae_rd.storage.contents import DIVERGED, FINISHED, METRICS, PARTITIONS  # noqa: F401  the words of a run
from vae_rd.storage.files import FileError

CHECKPOINT_NAMES = ("last", "best")  # the two states of a run that are measured
UNFINISHED, MISSING = "unfinished", "missing"
UNREADABLE = "unreadable"  # in lists of runs, where the files that would tell cannot be read
_RUN_NAME = re.compile(r".*-seed\d+-[0-9a-f]{8}")  # a folder with such a name claims to be of that run
UNSEALED = "unsealed: ended before runs had manifests, files taken as they are"
_MEASURE_AGAIN = "remove it, and measure again"


class RunError(FileError):
    """A run directory that cannot be used as asked; the message says what is wrong and what to do."""


class InUse(RunError):
    """A run on which another process works."""


class RunDir(NamedTuple):
    """One run directory: its paths, and how its files are read, checked and written."""

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """The Config, written before training starts."""
        return self.path / "config.json"

    @property
    def history(self) -> pathlib.Path:
        """One row per evaluation and partition."""
        return self.path / "history.csv"

    @property
    def results(self) -> pathlib.Path:
        """The terminal file: its presence says that training has ended."""
        return self.path / "results.json"

    @property
    def model(self) -> pathlib.Path:
        """The final model, in Keras's own format."""
        return self.path / "model.keras"

    @property
    def measures(self) -> pathlib.Path:
        """What `vae_rd.evaluate` measured: {checkpoint: {measure: {...}}}."""
        return self.path / "measures.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Folder of the state to continue from, and of the best weights so far."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> pathlib.Path:
        """Weights, optimizer slots, step and best-so-far of the last checkpoint."""
        return self.checkpoints / "last.npz"

    @property
    def previous_checkpoint(self) -> pathlib.Path:
        """The one before the last, while the checkpoints of a column are being written."""
        return self.checkpoints / "previous.npz"

    @property
    def failure(self) -> pathlib.Path:
        """The traceback of the attempt that failed last; removed when a later attempt ends well."""
        return self.path / "failure.log"

    @property
    def manifest_file(self) -> pathlib.Path:
        """Which run this is and what its files are, written when it ends."""
        return self.path / manifest.FILE

    @property
    def lock(self) -> pathlib.Path:
        """Locked, with host and process id as text, while a process works on the run."""
        return self.path / "lock"

    def best_weights(self, step: int) -> pathlib.Path:
        """Weights of the evaluation with the lowest distortion + beta * rate so far, named by its step."""
        return self.checkpoints / f"best-{step:09d}.npz"

    def per_example(self, partition: str, checkpoint: str = "last") -> pathlib.Path:
        """Values per image of `train` or `test`: index, rate, distortion and what the measures add."""
        suffix = "" if checkpoint == "last" else f"_{checkpoint}"
        return self.path / f"per_example_{partition}{suffix}.npz"

    def picture(self, name: str) -> pathlib.Path:
        """A picture that a measure drew."""
        return self.path / f"{name}.png"

    def arrays(self, name: str, checkpoint: str = "last") -> pathlib.Path:
        """Further arrays that a measure left, such as `reconstruction`: what figure 3 shows of the run."""
        suffix = "" if checkpoint == "last" else f"_{checkpoint}"
        return self.path / f"{name}{suffix}.npz"

    def event_files(self) -> list[pathlib.Path]:
        """TensorBoard's files: a view, rewritten from the history on every start."""
        return sorted(self.path.glob("events.out.tfevents.*"))

    def read_config(self) -> Config:
        """The run's Config; raises RunError if the folder holds none, a damaged one, or that of another run."""
        remedy = f"move it and {self.results.name} away, and run the same training command, which writes both anew"
        if not files.present(self.config):
            if not (self.results.exists() or self.manifest_file.exists()):
                raise RunError(f"{self.path} must be a run directory (it has no {self.config.name}). Try a folder that "
                               "vae_rd.main made, or train the run first.")
            raise RunError(f"{self.path} has no {self.config.name}, though the run has ended: put it back, or remove "
                           f"{self.results.name} and run the same training command, which writes both anew.")
        with _damage_named(self.config, remedy):
            config = Config.from_dict(schema.parse(self._checked(self.config, remedy)))
        if _RUN_NAME.fullmatch(self.path.name) and self.path.name not in (config.run_name, config.earlier_run_name):
            raise RunError(f"{self.config} must be the Config of this run (got that of {config.run_name}): it was "
                           f"changed by hand, or belongs to another run. Put the original back, or {remedy}.")
        return config

    def read_results(self) -> dict[str, Any] | None:
        """The content of results.json; None while training has not ended."""
        remedy = "remove it and run the same training command: it is written anew from the last checkpoint"
        if not files.present(self.results):
            return None
        with _damage_named(self.results, remedy):
            results = contents.parse_results(self._checked(self.results, remedy))
        if "run" in results and not files.present(self.manifest_file):
            raise RunError(f"{self.path} has no {self.manifest_file.name}, though the run ended with one: put it back, "
                           f"or {manifest.END_AGAIN}.")
        return results

    def read_measures(self) -> dict[str, Any]:
        """The content of measures.json; empty before the first measurement."""
        if not files.present(self.measures):
            return {}
        with _damage_named(self.measures, _MEASURE_AGAIN):
            return contents.parse_measures(self._checked(self.measures, _MEASURE_AGAIN))

    def read_history(self) -> list[dict[str, Any]]:
        """The rows of history.csv with numbers as numbers, whole ones as int; empty before the first evaluation."""
        if not files.present(self.history):
            return []
        with _damage_named(self.history, manifest.END_AGAIN if self.results.exists() else
                           "remove it, and run the same command: the checkpoint has a copy"):
            return contents.parse_history(self._checked(self.history).decode())

    def read_arrays(self, path: pathlib.Path) -> dict[str, np.ndarray]:
        """The arrays of one of the run's .npz files; raises FileError if it is damaged or was replaced."""
        if not files.present(path):
            raise RunError(f"{path} is missing: {manifest.END_AGAIN}.")
        return files.read_arrays(path, manifest.END_AGAIN, self._checked(path))

    def check_model(self) -> None:
        """Raises RunError if the final model is missing, FileError if it is not the one that the run ended with."""
        if not files.present(self.model):
            raise RunError(f"{self.path} has no final model ({self.model.name}): {manifest.END_AGAIN}.")
        self._checked(self.model)

    def remarks(self) -> str:
        """A note on an ended run: it is unsealed, or files are missing or have another size; empty if all is well."""
        found = manifest.read(self.path)
        return UNSEALED if found is None else "; ".join(manifest.differences(self.path, found))

    def _checked(self, path: pathlib.Path, remedy: str = manifest.END_AGAIN) -> bytes:
        return manifest.check(self.path, path, remedy)

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Replaces history.csv by these rows."""
        files.write_text(self.history, contents.history_text(rows))

    def write_arrays(self, path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
        """Writes one of an ended run's .npz files, which its manifest learns."""
        with manifest.replaced(self.path, path) as beside:
            np.savez(beside, allow_pickle=False, **arrays)

    def write_measures(self, measures: dict[str, Any]) -> None:
        """Replaces an ended run's measures.json, which its manifest learns."""
        with manifest.replaced(self.path, self.measures) as beside:
            beside.write_text(files.json_text(measures), encoding="utf-8")

    def status(self) -> str:
        """`finished`, `diverged`, `unfinished` (begun, not ended) or `missing`."""
        results = self.read_results()
        if results is not None:
            return results["status"]
        return UNFINISHED if self.config.is_file() else MISSING


def find_runs(runs_dir: str | os.PathLike) -> list[RunDir]:
    """Every run directory directly inside `runs_dir`, by name: a folder with a Config, or that had one."""
    root = pathlib.Path(runs_dir)
    if not root.is_dir():
        return []
    found = [RunDir(path) for path in sorted(root.iterdir())]
    return [run for run in found if any(_may_exist(path) for path in (run.config, run.results, run.manifest_file))]


def _may_exist(path: pathlib.Path) -> bool:
    """Whether something has this name, or it cannot be told: such a run should be named, not passed over."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def run_dir(runs_dir: str | os.PathLike, config: Config) -> RunDir:
    """The directory of the run that this Config identifies; it need not exist.

    A run that an earlier version began stays in the folder that it has, under its earlier name.
    """
    today, earlier = (pathlib.Path(runs_dir) / name for name in (config.run_name, config.earlier_run_name))
    return RunDir(earlier if earlier.is_dir() and not today.is_dir() else today)


@contextlib.contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Holds the run's lock, without waiting, and removes what a killed holder left half-written.

    Raises:
        InUse: naming the holder, if another process has the lock.
        RunError: if the lock cannot be written, or the file system has no locks.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    with _open_lock(run) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(f"{run.path} is in use by {file.read().strip() or 'another process'}. Only one process can "
                        "work on a run: wait for that one, or stop it.") from error
        except OSError as error:
            raise RunError(f"{run.lock} cannot be locked ({error.strerror}): the file system of {run.path.parent} has "
                           "no locks, without which two processes could damage a run. Keep runs on another file "
                           "system, or mount this one with locks (NFS: version 4, or the option local_lock=posix where "
                           "one machine alone writes to it).") from error
        file.seek(0)
        file.truncate()
        file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        files.remove_unfinished(run.path)
        yield


def _open_lock(run: RunDir) -> io.TextIOWrapper:
    """The run's lock file; raises RunError where it cannot be one."""
    try:
        return files.open_lock(run.lock)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RunError(f"{run.lock} must be a file (it is a symbolic link). Remove it.") from error
        if error.errno == errno.EISDIR:
            raise RunError(f"{run.lock} must be a file (it is a folder). Remove it.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(f"{run.lock} cannot be written ({error.strerror}): training and measuring both write into "
                           "the run's folder. Copy it to a place of your own, or ask for write permission."
                           ) from error
        raise


@contextlib.contextmanager
def _damage_named(path: pathlib.Path, remedy: str) -> Iterator[None]:
    """Turns what reading a damaged file raises into a RunError that names the file."""
    try:
        yield
    except NotImported as error:
        raise RunError(f"{path}: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged, or was not written by vae_rd ({error}): {remedy}.") from error
