"""Checkpoints: one .npz per run with weights, optimizer slots and all that continuing needs; whole or absent.

A checkpoint binds a run that has not ended: it holds the run's name, the history so far, the sha256 of the best
weights and of the data, and the names of its own arrays. So another run's checkpoint, best weights or data are refused,
and history.csv is a copy that is written anew. Checkpoints of earlier versions lack some of these; where they lack the
history, it is read from history.csv.
"""

import json
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from vae_rd.storage import contents, files, manifest, runs

FROM_NOTHING = ("remove the folder checkpoints, and results.json if it is there, and run the same training command: "
                "training starts again from step 0")
_RUN, _HISTORY, _BEST, _DATA, _ARRAYS = (
    f"bound.{name}" for name in ("run", "history", "best_sha256", "content_sha256", "arrays"))


class Progress(NamedTuple):
    """How far a run has come, besides its weights."""

    step: int
    best_step: int  # evaluation with the lowest score (`Evaluator.score`) so far; -1: none yet
    best_objective: float  # its score: distortion + beta * rate on the selecting half of the test set, nats per image
    train_seconds: float  # in training steps, over all interruptions
    wall_seconds: float  # altogether, over all interruptions
    column: tuple[str, ...]  # names of the runs trained together: the same composition gives the same bits

    @property
    def place(self) -> tuple[int, tuple[str, ...]]:
        """What runs have in common that go on together: the step, and the column unless nothing is trained yet."""
        return self.step, self.column if self.step else ()


class Resumed(NamedTuple):
    """Where a run continues."""

    progress: Progress
    state: dict[str, np.ndarray] | None  # weights and optimizer slots; None: from scratch
    history: list[dict[str, Any]]  # rows of the evaluations that are not made again
    content_sha256: dict[str, str] | None = None  # of the data, by partition; None: not known


START = Progress(0, -1, np.inf, 0.0, 0.0, ())
NOTHING = Resumed(START, None, [])


def save(run: runs.RunDir, progress: Progress, state: dict[str, np.ndarray], history: list[dict[str, Any]],
         content_sha256: dict[str, str] | None = None) -> None:
    """Replaces the run's checkpoint; weights of earlier evaluations stay until `clean`."""
    best = run.best_weights(progress.best_step)
    fields = {f"progress.{name}": np.asarray(value) for name, value in progress._asdict().items()}
    fields |= {_RUN: np.asarray(run.path.name), _HISTORY: np.asarray(contents.history_text(history)),
               _BEST: np.asarray(files.sha256(best) if best.is_file() else ""),
               _DATA: np.asarray(json.dumps(content_sha256))}
    arrays = fields | state
    files.write_arrays(run.last_checkpoint, arrays | {_ARRAYS: np.asarray(sorted(arrays))})


def keep_previous(run: runs.RunDir) -> None:
    """Keeps a copy of the checkpoint while a column saves: a kill may come when only some members are saved."""
    if run.last_checkpoint.is_file():
        with files.whole_file(run.previous_checkpoint) as beside:
            shutil.copyfile(run.last_checkpoint, beside)


def restore_previous(run: runs.RunDir, others: list[Progress]) -> None:
    """Puts the kept checkpoint, if there is one, back if another run is in the same place; else removes it."""
    if run.previous_checkpoint.is_file():
        try:
            kept = _load(run, run.previous_checkpoint)[0]
        except files.FileError as error:
            raise runs.RunError(f"{run.previous_checkpoint} cannot be read, though a column was killed while it saved: "
                                "remove it, and run the same command; the runs go on, but no longer as one column."
                                ) from error
        if kept.place in [other.place for other in others]:
            run.previous_checkpoint.replace(run.last_checkpoint)
        run.previous_checkpoint.unlink(missing_ok=True)


def clean(run: runs.RunDir, progress: Progress) -> None:
    """After a save of the whole column: removes the kept checkpoint, and weights that are no longer the best."""
    run.previous_checkpoint.unlink(missing_ok=True)
    best = run.best_weights(progress.best_step)
    for old in run.checkpoints.glob("best-*.npz"):
        if old != best:
            old.unlink()


def resume(run: runs.RunDir, train_steps: int) -> Resumed:
    """Where the run continues: from its checkpoint, or from the start if it has none.

    Args:
        run: its directory.
        train_steps: of its Config; the final evaluation is made again, for its values per image.

    Raises:
        files.FileError: if the checkpoint, or what it binds, is damaged or of another run.
    """
    files.present(run.history)
    if not files.present(run.last_checkpoint):
        return NOTHING
    progress, state, bound = _load(run)
    history = contents.parse_history(bound[_HISTORY].item()) if _HISTORY in bound else _old_history(run, progress)
    if _BEST in bound and progress.best_step >= 0:
        _check_best(run, progress.best_step, bound[_BEST].item())
    last = min(progress.step, train_steps - 1)
    data = json.loads(bound[_DATA].item()) if _DATA in bound else None
    return Resumed(progress, state, [row for row in history if row["step"] <= last], data)


def copy(source: runs.RunDir, run: runs.RunDir) -> None:
    """Copies checkpoint, best weights and history of a finished run to a new one, which goes on from there."""
    if not files.present(source.last_checkpoint):
        raise runs.RunError(f"{source.path} has no {source.last_checkpoint.name} to continue from: {FROM_NOTHING}.")
    progress, state, bound = _load(source)
    if _BEST in bound:
        _check_best(source, progress.best_step, bound[_BEST].item())
    files.write_arrays(run.best_weights(progress.best_step), load_best(source, progress.best_step))
    history = source.read_history()
    run.write_history(history)
    save(run, progress, state, history, (source.read_results() or {}).get("content_sha256"))


def save_best(run: runs.RunDir, step: int, weights: dict[str, np.ndarray]) -> None:
    """Writes the weights of the best evaluation so far beside the older ones, which the next `clean` removes."""
    files.write_arrays(run.best_weights(step), weights)


def load_best(run: runs.RunDir, step: int) -> dict[str, np.ndarray]:
    """The weights of the best evaluation."""
    path = run.best_weights(step)
    if not files.present(path):
        raise runs.RunError(f"{path} is missing: {FROM_NOTHING}.")
    return files.read_arrays(path, FROM_NOTHING, manifest.check(run.path, path, FROM_NOTHING))


def _load(run: runs.RunDir, path: pathlib.Path | None = None
          ) -> tuple[Progress, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Progress, state, and what a checkpoint (the last by default) is bound to: run, history, best weights, data."""
    path = path or run.last_checkpoint
    arrays = files.read_arrays(path, FROM_NOTHING, manifest.check(run.path, path, FROM_NOTHING))
    names = set(arrays.pop(_ARRAYS).tolist()) if _ARRAYS in arrays else set(arrays)
    missing = sorted((names | {f"progress.{name}" for name in Progress._fields}) - set(arrays))
    if missing:
        raise runs.RunError(f"{path} lacks {', '.join(missing)}. It is damaged, or was not written by "
                            f"vae_rd: {FROM_NOTHING}.")
    bound = {name: arrays.pop(name) for name in (_RUN, _HISTORY, _BEST, _DATA) if name in arrays}
    if _RUN in bound and bound[_RUN].item() != run.path.name:
        raise runs.RunError(f"{path} belongs to another run, {bound[_RUN].item()}: put this "
                            f"run's own back, or {FROM_NOTHING}.")
    fields: dict[str, Any] = {name: arrays.pop(f"progress.{name}") for name in Progress._fields}
    column = tuple(str(name) for name in fields.pop("column"))
    return Progress(column=column, **{name: value.item() for name, value in fields.items()}), arrays, bound


def _check_best(run: runs.RunDir, step: int, expected: str) -> None:
    path = run.best_weights(step)
    if not files.present(path):
        raise runs.RunError(f"{path} is missing, though {run.last_checkpoint.name} needs it: put it back, or "
                            f"{FROM_NOTHING}.")
    if files.sha256(path) != expected:
        raise runs.RunError(f"{path} cannot be read: it is damaged, or not the file that belongs to "
                            f"{run.last_checkpoint.name}. Put it back, or {FROM_NOTHING}.")


def _old_history(run: runs.RunDir, progress: Progress) -> list[dict[str, Any]]:
    """history.csv, which a checkpoint of an earlier version does not bind: it has the rows of the best evaluation."""
    history = run.read_history()
    if progress.best_step >= 0 and progress.best_step not in {row["step"] for row in history}:
        raise runs.RunError(f"{run.history} is missing, or not that of {run.last_checkpoint.name}: it has no "
                            f"evaluation of step {progress.best_step}. Put it back, or {FROM_NOTHING}.")
    return history
