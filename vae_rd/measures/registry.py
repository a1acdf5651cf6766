"""The list of measures. To add one, write a file with a MEASURE and put it here; flags, help and columns follow."""

from collections.abc import Iterable, Mapping
from typing import Any

from vae_rd.config import ConfigError
from vae_rd.measures import (
    annealed,
    distortion,
    gallery,
    information,
    log_marginal,
    memorisation,
    neighbours,
    pictures,
    refinement,
    refitted_prior,
)
from vae_rd.measures.measure import PARTS, Measure, Value
from vae_rd.storage.runs import RunError

MEASURES: dict[str, Measure] = {module.MEASURE.name: module.MEASURE for module in (
    information, log_marginal, annealed, neighbours, memorisation, distortion, refitted_prior, refinement, pictures,
    gallery)}


def is_current(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a record in measures.json was written by this version of its measure, or by one that is not known here.

    A record of another version counts as not made: it is measured again, and no table has its numbers.
    """
    return name not in MEASURES or entry.get("settings", {}).get("version", 1) == MEASURES[name].version


def is_made(name: str, entries: Mapping[str, Any]) -> bool:
    """Whether a measure is among one checkpoint's entries of measures.json, written by its present version."""
    return name in entries and is_current(name, entries[name])


def names_of_others(name: str, entries: Mapping[str, Any]) -> dict[str, str]:
    """The scalars and values per image of the other measures, by name, each with what it is of which measure.

    They are those that the measures declare, or have in these entries. Entries of measures that are not known here do
    not count: a measure may have been renamed.
    """
    found: dict[str, str] = {}
    for other in (other for other in MEASURES if other != name):
        made = entries[other] if is_made(other, entries) else {}
        declared = [tag.partition("/")[2] for tag in MEASURES[other].headlines]
        recorded = [scalar for part in PARTS for scalar in made.get(part, {})]
        found |= dict.fromkeys([*declared, *MEASURES[other].shares, *recorded], f"a scalar of {other}")
        found |= dict.fromkeys(made.get("values", ()), f"a value per image of {other}")
    return found


def files_of_others(name: str, entries: Mapping[str, Any]) -> dict[str, str]:
    """The files that the other measures have written, by name, each with its measure; entries as above."""
    return {file: f"a file of {other}" for other in MEASURES if other != name and is_made(other, entries)
            for file in entries[other].get("files", ())}


def check_names(names: Iterable[str]) -> None:
    """Raises RunError if one of the names is no measure's."""
    if unknown := [name for name in names if name not in MEASURES]:
        raise RunError(f"measures must be among {', '.join(MEASURES)} (got {', '.join(unknown)}).")


def settings_by_measure(values: Mapping[str, Value], names: Iterable[str] = MEASURES) -> dict[str, dict[str, Value]]:
    """For each measure, of these names or of all, the values of those settings that it has.

    Raises:
        RunError: if one of the names is no measure's.
        ConfigError: for a setting that none of them has, or a value that is not a number, or is below its minimum.
    """
    names = list(names)
    check_names(names)
    known = sorted({setting for name in names for setting in MEASURES[name].setting_names})
    if unknown := [name for name in values if name not in known]:
        raise ConfigError(f"settings must be among {', '.join(known) or 'none at all'} with the measures "
                          f"{', '.join(names) or '(none)'} (got {', '.join(unknown)}).")
    settings = {}
    for name in names:
        settings[name] = {key: value for key, value in values.items() if key in MEASURES[name].setting_names}
        MEASURES[name].settings_with(settings[name])
    return settings


def is_share(scalar: str) -> bool:
    """Whether a scalar of this name is a share, between 0 and 1."""
    return any(scalar in measure.shares for measure in MEASURES.values())
