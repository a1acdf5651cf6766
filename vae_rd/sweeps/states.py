"""The progress of runs, read once from the files in their directories, and the pace at which they were trained."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vae_rd.config import Config
from vae_rd.measures.registry import is_made
from vae_rd.storage.files import FileError
from vae_rd.storage.runs import DIVERGED, FINISHED, MISSING, UNFINISHED, RunDir
from vae_rd.sweeps.cost import expected_seconds

FAILED = "failed"
ENDED = (FINISHED, DIVERGED)


class State(NamedTuple):
    """The progress of one run."""

    status: str  # finished, diverged, unfinished, missing, failed or unreadable
    share: float = 0.0  # of its training steps
    seconds: float | None = None  # spent on its training so far, its share of the column's; None if unknown
    measured: bool = False  # whether all its measures are made
    trouble: str = ""  # what happened to a run that failed or diverged, or why it cannot be read

    @property
    def to_train(self) -> float:
        """The share of the training that is left: nothing of a run that diverged."""
        return 0.0 if self.status in ENDED else 1.0 - self.share


def read_state(run: RunDir, config: Config, wanted: Iterable[tuple[str, str]] = (), members: int = 1) -> State:
    """Reads the state of a run.

    Args:
        run: its directory; it need not exist.
        config: the run's.
        wanted: the measures it needs, as (checkpoint, measure).
        members: number of runs in the column that trains it; used until its results record the column.

    Raises:
        OSError: if the file system does not answer.
    """
    try:
        results = run.read_results()
        if results is None:
            state = _in_training(run, config, members)
        else:
            state = _ended(run, config, results, wanted)
    except FileError as error:
        return State(FAILED, trouble=str(error))
    failed = state.status in (MISSING, UNFINISHED) or state.status == FINISHED and not state.measured
    if failed:
        with contextlib.suppress(FileNotFoundError):
            lines = run.failure.read_text(errors="replace").strip().splitlines() or [""]
            return state._replace(status=FAILED, trouble=f"{lines[-1]} (see {run.failure})")
    return state


def pace(states: Mapping[Config, State]) -> tuple[float, int]:
    """Measured over expected seconds of training, and the number of runs that this is known from; (1, 0) for none.

    It is known from runs that have ended, whose results say how many shared a process; from those in training only if
    none has ended.
    """
    known = {config: state for config, state in states.items() if state.seconds and state.share}
    known = {config: state for config, state in known.items() if state.status in ENDED} or known
    expected = sum(state.share * whole for state, whole in zip(known.values(), expected_seconds(list(known))))
    return (sum(state.seconds or 0 for state in known.values()) / expected, len(known)) if known else (1.0, 0)


def _in_training(run: RunDir, config: Config, members: int) -> State:
    if not run.config.is_file():
        return State(MISSING)
    rows = run.read_history()
    if not rows:
        return State(UNFINISHED)
    return State(UNFINISHED, rows[-1]["step"] / config.train_steps, rows[-1]["wall_seconds"] / members)


def _ended(run: RunDir, config: Config, results: dict[str, Any], wanted: Iterable[tuple[str, str]]) -> State:
    members: Sequence[str] = results.get("column") or [config.run_name]
    seconds = results["wall_seconds"] / len(members) if "wall_seconds" in results else None
    state = State(results["status"], results["step"] / config.train_steps, seconds)
    if state.status == DIVERGED:
        what = results["diverged"]
        return state._replace(trouble=f"{what['quantity']} not finite at step {what['step']}")
    made = run.read_measures() if wanted else {}
    return state._replace(measured=all(is_made(name, made.get(checkpoint, {})) for checkpoint, name in wanted))
