"""The run directory: every file name in it, what its files hold, and its lock."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from vae_rd.config import Config
from vae_rd.storage.files import FileError, write_text

CHECKPOINT_NAMES = ("last", "best")  # the two states of a run that are measured
PARTITIONS = ("train", "test", "test_select", "test_compare")  # the last two: halves of test, for early stopping
METRICS = ("rate", "distortion", "elbo", "objective", "active_units", "entropy_floor")  # per partition, in this order
HISTORY_COLUMNS = ("step", "partition", "num_images", *METRICS, "wall_seconds")
_HALF_WRITTEN = ".*.????????.*"  # files of `whole_file`, and folders of event files, before they get their names
FINISHED, DIVERGED, UNFINISHED, MISSING = "finished", "diverged", "unfinished", "missing"


class RunError(FileError):
    """A run directory that cannot be used as asked; the message says what is wrong and what to do."""


class InUse(RunError):
    """A run on which another process works."""


class RunDir(NamedTuple):
    """The paths in one run directory; nothing else in the project knows them."""

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
    def failure(self) -> pathlib.Path:
        """The traceback of the attempt that failed last; removed when a later attempt ends well."""
        return self.path / "failure.log"

    @property
    def lock(self) -> pathlib.Path:
        """Locked, with host and process id as text, while a process works on the run."""
        return self.path / "lock"

    def best_weights(self, step: int) -> pathlib.Path:
        """Weights of the evaluation with the lowest objective so far, named by its step."""
        return self.checkpoints / f"best-{step:09d}.npz"

    def per_example(self, partition: str, checkpoint: str = "last") -> pathlib.Path:
        """Values per image of `train` or `test`: index, rate, distortion and what the measures add."""
        suffix = "" if checkpoint == "last" else f"_{checkpoint}"
        return self.path / f"per_example_{partition}{suffix}.npz"

    def picture(self, name: str) -> pathlib.Path:
        """A picture that a measure drew."""
        return self.path / f"{name}.png"

    def arrays(self, name: str) -> pathlib.Path:
        """Further arrays that a measure left, such as `reconstruction`: what figure 3 shows of the run."""
        return self.path / f"{name}.npz"

    def event_files(self) -> list[pathlib.Path]:
        """TensorBoard's files: a view, rewritten from the history on every start."""
        return sorted(self.path.glob("events.out.tfevents.*"))

    def read_config(self) -> Config:
        """The run's Config; raises RunError if the folder holds none, or a damaged one."""
        if not self.config.is_file():
            raise RunError(f"{self.path} is not a run directory: it has no {self.config.name}. Name a folder that "
                           "vae_rd.main made, or train it first.")
        with _damage_named(self.config, "move the folder away, and the same command trains the run again"):
            return Config.from_json(self.config.read_text())

    def read_results(self) -> dict[str, Any] | None:
        """The content of results.json; None while training has not ended."""
        with _damage_named(self.results, "remove it, and training ends again from the last checkpoint"):
            return _read_json(self.results) if self.results.is_file() else None

    def read_measures(self) -> dict[str, Any]:
        """The content of measures.json; empty before the first measurement."""
        with _damage_named(self.measures, "remove it, and measure again"):
            return _read_json(self.measures) if self.measures.is_file() else {}

    def read_history(self) -> list[dict[str, Any]]:
        """The rows of history.csv with numbers as numbers, whole ones as int; empty before the first evaluation."""
        if not self.history.is_file():
            return []
        with _damage_named(self.history, "move it away; the run continues, without the rows so far"), \
                self.history.open(newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != HISTORY_COLUMNS:
                raise ValueError(f"its columns are not {', '.join(HISTORY_COLUMNS)}")
            return [{name: value if name == "partition" else int(value) if value.isdigit() else float(value)
                     for name, value in row.items()} for row in reader]

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Replaces history.csv by these rows."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.history, text.getvalue())

    def status(self) -> str:
        """`finished`, `diverged`, `unfinished` (begun, not ended) or `missing`."""
        results = self.read_results()
        if results is not None:
            return results["status"]
        return UNFINISHED if self.config.is_file() else MISSING


def find_runs(runs_dir: str | os.PathLike) -> list[RunDir]:
    """Every run directory directly inside `runs_dir`, by name."""
    root = pathlib.Path(runs_dir)
    if not root.is_dir():
        return []
    return [RunDir(path) for path in sorted(root.iterdir()) if (path / "config.json").is_file()]


def run_dir(runs_dir: str | os.PathLike, config: Config) -> RunDir:
    """The directory of the run that this Config identifies; it need not exist."""
    return RunDir(pathlib.Path(runs_dir) / config.run_name)


@contextlib.contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Holds the run's lock, without waiting, and removes what a killed holder left half-written.

    Raises:
        InUse: naming the holder, if another process has the lock.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    with run.lock.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(f"{run.path} is in use by {file.read().strip() or 'another process'}. Two processes cannot "
                        "work on one run: wait for it, or stop it.") from error
        file.seek(0)
        file.truncate()
        file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        for leftover in list(run.path.rglob(_HALF_WRITTEN)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _damage_named(path: pathlib.Path, remedy: str) -> Iterator[None]:
    """Turns what reading a damaged file raises into a RunError that names the file."""
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged or not ours ({error}): {remedy}.") from error


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise TypeError("not a JSON object")
    return content
