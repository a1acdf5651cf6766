"""Checkpoints: one .npz per run with weights, optimizer slots and all that continuing needs; whole or absent."""

from typing import Any, NamedTuple

import numpy as np

from vae_rd.storage import files, runs

_REMEDY = "remove it, and the run starts again unless it has ended"


class Progress(NamedTuple):
    """How far a run has come, besides its weights."""

    step: int
    best_step: int  # evaluation with the lowest score (`Evaluator.score`) so far; -1: none yet
    best_objective: float  # its score: distortion + beta * rate on the selecting half of the test set, nats per image
    train_seconds: float  # in training steps, over all interruptions
    wall_seconds: float  # altogether, over all interruptions
    column: tuple[str, ...]  # names of the runs trained together: the same composition gives the same bits


START = Progress(0, -1, np.inf, 0.0, 0.0, ())


def save(run: runs.RunDir, progress: Progress, state: dict[str, np.ndarray]) -> None:
    """Replaces the run's checkpoint; the weights of evaluations that are best no longer go after it."""
    fields = {f"progress.{name}": np.asarray(value) for name, value in progress._asdict().items()}
    files.write_arrays(run.last_checkpoint, fields | state)
    for old in run.checkpoints.glob("best-*.npz"):
        if old != run.best_weights(progress.best_step):
            old.unlink()


def load(run: runs.RunDir) -> tuple[Progress, dict[str, np.ndarray]] | None:
    """Progress and state to continue from; None if the run has no checkpoint.

    Raises:
        runs.RunError: if the file is damaged.
    """
    if not run.last_checkpoint.is_file():
        return None
    arrays = files.read_arrays(run.last_checkpoint, _REMEDY)
    missing = [name for name in Progress._fields if f"progress.{name}" not in arrays]
    if missing:
        raise runs.RunError(f"{run.last_checkpoint} holds no {', '.join(missing)}. It is damaged or not ours: "
                            f"{_REMEDY}.")
    fields: dict[str, Any] = {name: arrays.pop(f"progress.{name}") for name in Progress._fields}
    column = tuple(str(name) for name in fields.pop("column"))
    return Progress(column=column, **{name: value.item() for name, value in fields.items()}), arrays


def save_best(run: runs.RunDir, step: int, weights: dict[str, np.ndarray]) -> None:
    """Writes the weights of the best evaluation so far beside the older ones, which the next `save` removes."""
    files.write_arrays(run.best_weights(step), weights)


def load_best(run: runs.RunDir, step: int) -> dict[str, np.ndarray]:
    """The weights of the best evaluation."""
    return files.read_arrays(run.best_weights(step), f"remove the folder {run.checkpoints.name}, and {run.results.name} "
                            "if it is there, and train again: the run starts from nothing")
