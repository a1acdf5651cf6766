"""What the files of a run hold: columns and arrays by name, and the rules of results.json and measures.json."""

import csv
import dataclasses
import io
import math
from typing import Any

from vae_rd import schema
from vae_rd.config import Config

PARTITIONS = ("train", "test", "test_select", "test_compare")  # the last two: halves of test, for early stopping
METRICS = ("rate", "distortion", "elbo", "objective", "active_units", "entropy_floor")  # per partition, in this order
# The floor is NaN where distortion is unbounded below
KNOWN_METRICS = tuple(name for name in METRICS if name != "entropy_floor")
HISTORY_COLUMNS = ("step", "partition", "num_images", *METRICS, "wall_seconds")
VALUES = ("index", "rate", "distortion", "entropy_floor")  # per image; measures add theirs
CONFIG_COLUMNS = tuple(field.name for field in dataclasses.fields(Config))
ABOUT_THE_RUN = ("num_train", "num_test", "wall_seconds", "steps_per_second")
COLUMN_MEMBERS = "column_members"  # runs that were trained together: wall_seconds are those of all of them
VERSIONS = {name: f"{name}_version" for name in ("vae_rd", "tensorflow", "keras", "tensorflow_probability", "numpy")}
RUN_COLUMNS = ("run", "status", "note", *CONFIG_COLUMNS, "partition", "checkpoint", "step", "num_images", *METRICS,
               *ABOUT_THE_RUN, COLUMN_MEMBERS, *VERSIONS.values())  # of the table of runs; measures add theirs
FINISHED, DIVERGED = "finished", "diverged"

_BLOCK = schema.mapping({name: schema.number for name in ("rate", "distortion", "elbo", "objective")},
                        {"num_images": schema.count}, others=schema.number_or_null)
_BLOCKS = {"step": schema.count, "train": _BLOCK, "test": _BLOCK}
_HALVES = {"test_select": _BLOCK, "test_compare": _BLOCK}
_STATUS = schema.mapping({"status": schema.one_of(FINISHED, DIVERGED)})
_RESULTS = {
    FINISHED: schema.mapping(_BLOCKS, {
        **_HALVES, "best": schema.mapping(_BLOCKS, _HALVES), "run": schema.text, "wall_seconds": schema.number,
        "steps_per_second": schema.number_or_null, "num_train": schema.count, "num_test": schema.count,
        "content_sha256": schema.mapping({"train": schema.text, "test": schema.text}),
        "column": schema.list_of(schema.text), "versions": schema.mapping(others=schema.text)}),
    DIVERGED: schema.mapping({"step": schema.count, "diverged": schema.mapping({"step": schema.count,
                                                                                "quantity": schema.text})},
                             {"run": schema.text})}
_SCALARS = schema.mapping(others=schema.number_or_null)
_MEASURES = schema.mapping(others=schema.mapping(others=schema.mapping(
    {}, {"train": _SCALARS, "test": _SCALARS, "run": _SCALARS, "seconds": schema.number,
         "values": schema.list_of(schema.text), "files": schema.list_of(schema.text),
         "settings": schema.mapping({}, {"step": schema.count})})))


def parse_results(content: bytes) -> dict[str, Any]:
    """The content of results.json; raises ValueError for anything else."""
    results = schema.parse(content)
    _STATUS(results, "")
    _RESULTS[results["status"]](results, "")
    return results


def parse_measures(content: bytes) -> dict[str, Any]:
    """The content of measures.json, every entry with its settings; raises ValueError for anything else."""
    measures = schema.parse(content)
    _MEASURES(measures, "")
    for entry in (entry for block in measures.values() for entry in block.values()):
        entry.setdefault("settings", {})
    return measures


def history_text(rows: list[dict[str, Any]]) -> str:
    """The text of history.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parse_history(text: str) -> list[dict[str, Any]]:
    """The rows of history.csv with numbers as numbers, whole ones as int; raises ValueError for any other text."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    schema.require(tuple(reader.fieldnames or ()) == HISTORY_COLUMNS,
                   f"its columns are not {', '.join(HISTORY_COLUMNS)}")
    rows = []
    for line in reader:
        schema.require(None not in line and None not in line.values(), f"line {reader.line_num} has another length")
        row: dict[str, Any] = {
            name: value if name == "partition" else int(value) if value.isdigit() else float(value)
            for name, value in line.items()}
        schema.require(row["partition"] in PARTITIONS and isinstance(row["step"], int)
                       and all(math.isfinite(row[name]) for name in KNOWN_METRICS),
                       f"line {reader.line_num} has an unknown partition, or something that is not a number")
        rows.append(row)
    return rows
