"""What an Outcome must be for every number of it to reach files and tables; asked before any of it is written."""

import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_rd.measures import distortion
from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import PARTS, STANDARD_ERROR, Outcome
from vae_rd.measures.registry import files_of_others, names_of_others
from vae_rd.schema import require
from vae_rd.storage.contents import RUN_COLUMNS, VALUES

# Results have these of measure distortion too, of all images; those of early runs do not.
_TWICE = (distortion.MEAN_SQUARED_ERROR, distortion.MEAN_SQUARED_ERROR + STANDARD_ERROR)


def check(outcome: Any, measure: str, finished: FinishedRun) -> None:
    """Raises ValueError, with words for the author of the measure, unless all of its Outcome can be recorded.

    Args:
        outcome: what the measure's function returned.
        measure: its name.
        finished: the run that it measured.
    """
    require(isinstance(outcome, Outcome), f"its function must return an Outcome (got {reprlib.repr(outcome)}). Try "
                                          'Outcome({"test": {name: value}}).')
    made = finished.run.read_measures().get(finished.checkpoint, {})
    others, files = names_of_others(measure, made), files_of_others(measure, made)
    results = finished.run.read_results() or {}
    columns = dict.fromkeys([*RUN_COLUMNS, *results.get("train", {}), *results.get("test", {})],
                            "a column of every run")
    values = dict.fromkeys(VALUES, "a value of every run")
    for part, name, value in _entries("scalars", outcome.scalars, PARTS):
        require(value is None or _is_number(value), f"scalar {name} of {part} must be a number (got "
                f"{reprlib.repr(value)}). Try a mean here, and values of single images in per_example.")
        if not (measure == distortion.MEASURE.name and name in _TWICE):
            _check_name(f"scalar {name} of {part}", name, columns | others)
    for part, name, value in _entries("per_example", outcome.per_example, ("train", "test")):
        count, array = len(finished.partition(part).index), np.asarray(value)
        require(array.dtype.kind in "biuf" and array.shape[:1] == (count,),
                f"per_example {name} of {part} must be numbers for each of its {count} images (got {array.dtype} of "
                f"shape {array.shape}). Try run.spread, which fills in NaN for images that are left out.")
        _check_name(f"per_example {name} of {part}", name, values | others)
    arrays = _entries("arrays", outcome.arrays)
    for file in outcome.arrays:  # also of one without arrays, which is written too
        _check_file("arrays", file, files)
    for file, name, value in arrays:
        require(not np.asarray(value).dtype.hasobject, f"array {name} of {file} must be of numbers or text (got "
                f"{reprlib.repr(value)}). Try np.asarray with a dtype.")
    for name, picture in outcome.pictures.items():
        _check_file("picture", name, files)
        require(hasattr(picture, "savefig"), f"picture {name} must be a Matplotlib figure (got "
                f"{reprlib.repr(picture)}). Try its .figure.")


def _entries(field: str, blocks: Any, known: tuple[str, ...] = ()) -> list[tuple[str, str, Any]]:
    """What a field of an Outcome holds, as (block, name, value)."""
    remedy = f'Try {field}={{"{known[0] if known else "name_of_a_file"}": {{name: value}}}}.'
    require(isinstance(blocks, Mapping), f"{field} must be a dict (got {reprlib.repr(blocks)}). {remedy}")
    for block, values in blocks.items():
        require(not known or block in known, f"{field} must be of {' or '.join(known)} (got {block!r}). {remedy}")
        require(isinstance(values, Mapping), f"{field} of {block} must be a dict (got {reprlib.repr(values)}). "
                                             f"{remedy}")
    return [(block, name, value) for block, values in blocks.items() for name, value in values.items()]


def _check_file(what: str, name: Any, taken: Mapping[str, str]) -> None:
    require(isinstance(name, str) and bool(re.fullmatch(r"[\w-]+", name)) and not name.startswith("per_example"),
            f"{what} {name} must be named by letters, digits, - and _, and not per_example... (the files of every "
            "run). Rename it.")
    _check_name(f"{what} {name}", name, taken)


def _check_name(what: str, name: Any, taken: Mapping[str, str]) -> None:
    require(isinstance(name, str) and "." not in name, f"{what} must have as its name a text without a point (tables "
                                                       "keep those like annealed.num_chains for settings). Rename it.")
    require(name not in taken, f"{what} must have a name of its own (got the name of {taken.get(name)}). Rename it in "
                               "the measure that you added.")


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float, np.number, np.ndarray))
    return plain and np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
