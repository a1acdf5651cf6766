"""What a sweep prints: its runs and their cost, their progress, and how a call ended."""

import collections
import pathlib
from collections.abc import Iterator

from vae_rd.config import Config
from vae_rd.storage import runs
from vae_rd.sweeps.cost import cost, duration, expected_seconds
from vae_rd.sweeps.states import FAILED, State, pace
from vae_rd.sweeps.sweep import Sweep


def listing(sweep: Sweep) -> Iterator[str]:
    """A line for each run of the part, with the number of its column, and what they cost."""
    for number, column in enumerate(sweep.columns):
        for config in column:
            yield f"{number:4}  {config.run_name}"
    yield plan(dict.fromkeys(sweep.part, 1.0), len(sweep.columns))


def plan(shares: dict[Config, float], num_columns: int) -> str:
    """What some runs are expected to cost, of whose training these shares are to come."""
    expected = cost(shares)
    hours = sum(share * whole for share, whole in zip(shares.values(), expected_seconds(list(shares)))) / 3600
    return (f"{expected.runs} runs in {num_columns} columns: {duration(hours)} on 2 cores and "
            f"{expected.gigabytes:,.1f} GB on disk")


def status(sweep: Sweep) -> Iterator[str]:
    """The progress of all runs of the experiments, wherever they are trained."""
    found = sweep.states(sweep.configs)
    counts = collections.Counter(state.status for state in found.values())
    yield f"{len(found)} runs: " + (", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none")
    yield time_left(found)
    unmeasured = sum(state.status == runs.FINISHED and not state.measured for state in found.values())
    if unmeasured:
        yield f"{unmeasured} finished runs are still to be measured"
    yield from troubles(found)


def time_left(found: dict[Config, State]) -> str:
    """The share of the training that is done, and the time that is left: by the pace of the runs so far, if any."""
    hours = {config: whole / 3600 for config, whole in zip(found, expected_seconds(list(found)))}
    total, left = sum(hours.values()), sum(state.to_train * hours[config] for config, state in found.items())
    done = f"{100 * (1 - left / total) if total else 100:.1f}% of the training is done"
    if not left:
        return done
    ratio, told = pace(found)
    if told:
        return (f"{done}, {duration(ratio * left)} are left for one worker, at the pace of the {told} runs so "
                "far")
    return f"{done}, {duration(left)} on 2 cores are left"


def remaining(found: dict[Config, State]) -> int:
    """The number of runs that are still to be trained or measured: none that diverged, failed or cannot be read."""
    return sum(state.status in (runs.MISSING, runs.UNFINISHED) or state.status == runs.FINISHED and not state.measured
               for state in found.values())


def troubles(found: dict[Config, State]) -> Iterator[str]:
    """A line for each run that failed, diverged or cannot be read."""
    for config, state in found.items():
        if state.status in (FAILED, runs.UNREADABLE, runs.DIVERGED):
            again = "; the same command tries it again" if state.status == runs.UNREADABLE else ""
            yield f"  {config.run_name}: {state.status}, {state.trouble}{again}"


def end(sweep: Sweep, found: dict[Config, State], broken: dict[int, int]) -> Iterator[str]:
    """How the part ended.

    Args:
        sweep: the sweep.
        found: the states of the part's runs.
        broken: exit statuses of the columns whose workers failed, by number.
    """
    counts = collections.Counter(state.status for state in found.values())
    yield (f"{len(found)} runs in this part: {counts[runs.FINISHED]} finished, {counts[runs.DIVERGED]} diverged, "
           f"{counts[FAILED] + counts[runs.UNREADABLE]} failed or unreadable, {remaining(found)} remaining")
    yield from troubles(found)
    for number, status in broken.items():
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        yield f"  column {number} {cause}: {_last_line(sweep.log(number))} (see {sweep.log(number)})"


def _last_line(log: pathlib.Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        return str(error)
    return lines[-1][:200] if lines else "nothing was printed"
