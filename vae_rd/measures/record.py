"""Makes measures of a finished run and records them: measures.json, values per image, pictures, TensorBoard."""

import dataclasses
import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from vae_rd.measures import outcome_rules
from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import PARTS, Outcome, Settings, Value
from vae_rd.measures.registry import MEASURES, check_names, is_current, names_of_others
from vae_rd.storage import files, runs

EVENT_SUFFIX = ".measures"


def measure_run(finished_run: FinishedRun, names: Iterable[str], *,
                settings: Mapping[str, Mapping[str, Value]] = MappingProxyType({}), progress: bool = True,
                overwrite: bool = False) -> list[str]:
    """Makes the measures that a finished run lacks, or has from another version; records each as soon as it is made.

    Args:
        finished_run: what `vae_rd.measures.finished_run.open_run` returned.
        names: in the table of measures.
        settings: those that are not to have their defaults, by measure: {"log_marginal": {"num_samples": 100}}.
        progress: show bars.
        overwrite: compute measures again that are there.

    Returns:
        A line for each measure that was made before with other settings, and was left as it is.

    Raises:
        runs.RunError: if there is no such measure, it cannot be made of this run, its Outcome cannot be recorded, or
            another process works on the run. What had been recorded before stays as it was; only a repetition that is
            killed while it writes leaves no record.
        ConfigError: for a setting that a measure does not have, or a value that is not a number, or is below its
            minimum.
    """
    names = list(dict.fromkeys(names))
    check_names(names)
    chosen = {name: MEASURES[name].settings_with(settings.get(name, {})) for name in names}
    run, checkpoint = finished_run.run, finished_run.checkpoint
    shown = dataclasses.replace(finished_run, progress=functools.partial(_bar, run.path.name, progress))
    notes = []
    with runs.locked(run):
        for name in names:
            made = recorded(run, checkpoint, name)
            wanted = {"step": measured_step(run, checkpoint), **MEASURES[name].record(chosen[name])}
            if made and not overwrite and made != wanted:
                notes.append(f"{run.path.name}: {name} was measured with {_differing(made, wanted)}, not "
                             f"{_differing(wanted, made)}; --overwrite (in Python, overwrite=True) measures it again.")
            elif overwrite or not made:
                _make(shown, name, chosen[name], wanted)
        if run.read_measures() and not _event_files(run):
            log_measures(run)
    return notes


def recorded(run: runs.RunDir, checkpoint: str, name: str) -> dict[str, Any] | None:
    """The settings with which a measure was made.

    None if it was not, was by another version of the measure, or if the run has been trained on since.
    """
    entry = run.read_measures().get(checkpoint, {}).get(name)
    stands = entry and is_current(name, entry) and entry["settings"].get("step") == measured_step(run, checkpoint)
    return entry["settings"] if entry and stands else None


def measured_step(run: runs.RunDir, checkpoint: str) -> int | None:
    """The step of a checkpoint's weights."""
    results = run.read_results() or {}
    return (results if checkpoint == "last" else results.get("best") or {}).get("step")


def log_measures(run: runs.RunDir) -> None:
    """Writes the last checkpoint's scalars for TensorBoard, as `train/<name>` and `test/<name>`, in one small file.

    The file replaces the one before; together with the run's HParams entry it puts the measures in the table of runs.
    """
    import tensorflow as tf
    with tempfile.TemporaryDirectory(dir=run.path, prefix=files.UNFINISHED) as folder:
        writer = tf.summary.create_file_writer(os.fsencode(folder), filename_suffix=EVENT_SUFFIX)
        with writer.as_default():
            made = run.read_measures().get("last", {})
            for entry in (entry for name, entry in made.items() if is_current(name, entry)):
                for part in PARTS:
                    for scalar, value in entry.get(part, {}).items():
                        if value is not None:
                            tf.summary.scalar(f"{part}/{scalar}", value, step=entry["settings"]["step"])
        writer.close()
        old = _event_files(run)
        for path in pathlib.Path(folder).iterdir():
            path.replace(run.path / path.name)
        for path in old:
            path.unlink()


def _make(finished: FinishedRun, name: str, settings: Settings, wanted: dict[str, Any]) -> None:
    started = time.monotonic()
    try:
        outcome = MEASURES[name].function(finished, settings)
        outcome_rules.check(outcome, name, finished)
    except ValueError as error:
        raise runs.RunError(f"{name} cannot be measured of {finished.run.path}: {error}") from error
    measures = finished.run.read_measures()
    block = measures.get(finished.checkpoint, {})
    others = names_of_others(name, block)
    values = _with_others(finished, outcome, [value for value in block.get(name, {}).get("values", ())
                                              if value not in others])
    if block.pop(name, None) is not None:
        finished.run.write_measures(measures)  # or a kill would leave the old record beside new values
    _write(finished, values, outcome)
    written = {"values": sorted({value for values in outcome.per_example.values() for value in values}),
               "files": sorted([*outcome.arrays, *outcome.pictures])}
    entry = {**outcome.scalars, **{kind: names for kind, names in written.items() if names}, "settings": wanted,
             "seconds": round(time.monotonic() - started, 2)}
    measures.setdefault(finished.checkpoint, {})[name] = entry
    finished.run.write_measures(measures)  # the record comes last: without it, nothing counts as made
    log_measures(finished.run)


def _with_others(finished: FinishedRun, outcome: Outcome, earlier: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """The outcome's values per image, by partition, with those that are there already, but for its own earlier ones."""
    found = {}
    for partition, values in outcome.per_example.items():
        there = finished.per_example(partition)
        if not np.array_equal(there["index"], getattr(finished.split, partition).index):
            raise runs.RunError(f"{finished.run.per_example(partition, finished.checkpoint)} must have the index of "
                                "these images (got another). Remove the run, and train it again.")
        found[partition] = {**{name: value for name, value in there.items() if name not in earlier}, **values}
    return found


def _write(finished: FinishedRun, values: dict[str, dict[str, np.ndarray]], outcome: Outcome) -> None:
    """Values per image, pictures and other arrays, each file whole or not at all."""
    run, suffix = finished.run, "" if finished.checkpoint == "last" else f"_{finished.checkpoint}"
    for partition, arrays in values.items():
        run.write_arrays(run.per_example(partition, finished.checkpoint), arrays)
    for name, figure in outcome.pictures.items():
        with files.whole_file(run.picture(name + suffix)) as beside:
            figure.savefig(beside)
    for name, others in outcome.arrays.items():
        run.write_arrays(run.arrays(name, finished.checkpoint), dict(others))


def _differing(record: dict[str, Any], other: dict[str, Any]) -> str:
    """The settings in which one record differs from another, as text."""
    return " ".join(f"{name}={'all' if value is None else value}" for name, value in record.items()
                    if name not in other or other[name] != value)


def _event_files(run: runs.RunDir) -> list[pathlib.Path]:
    return [path for path in run.event_files() if path.name.endswith(EVENT_SUFFIX)]


def _bar(run_name: str, shown: bool, iterable: Iterable, desc: str = "") -> Iterable:
    from tqdm import tqdm
    return tqdm(iterable, desc=f"{run_name[:40]}: {desc}", disable=not shown, leave=False, mininterval=0.5)
