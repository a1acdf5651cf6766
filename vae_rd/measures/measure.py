"""What a measure is: a name, a function of a finished run, settings with their minimums and help texts, headlines."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vae_rd.config import ConfigError
from vae_rd.measures.finished_run import FinishedRun

STANDARD_ERROR = "_se"  # suffix of a scalar's standard error; in runs.csv, not averaged over restarts
PARTS = ("train", "test", "run")  # what a scalar can be of
Value = int | float | None  # of a setting; None: the measure's own default


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a measure that has none; others add fields made by `setting`.

    Every field decides the measure's numbers, so all of them are recorded with it.

    Raises:
        ConfigError: for a value that is not a number, or is below its setting's minimum.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if fault := _fault(field, value):
                raise ConfigError(f"{field.name} {fault}.")
            if value is not None:  # NumPy's numbers become Python's, which JSON takes
                kind = int if isinstance(value, numbers.Integral) else float
                object.__setattr__(self, field.name, kind(value))


def _fault(field: dataclasses.Field, value: Any) -> str:
    """What is wrong with a setting's value; empty if nothing is."""
    if "least" not in field.metadata:
        return "must be made by setting()"
    if value is None and field.default is None:
        return ""
    whole, least = "float" not in str(field.type), field.metadata["least"]
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        return f"must be a {'whole ' if whole else ''}number (got {value!r})"
    if not value >= least:  # nor NaN
        return f"must be {least} or more (got {value})"
    return "" if math.isfinite(value) else f"must be finite (got {value})"


def setting(default: Value, text: str, least: int = 1) -> Any:
    """A field of a measure's Settings, annotated int or float: its default, its text for --help, and its minimum.

    A default of None stands for all, or none: None is then allowed besides numbers.
    """
    return dataclasses.field(default=default, metadata={"text": text, "least": least})


def query_images(default: int | None) -> Any:
    """The setting that most measures have; None: all images."""
    return setting(default, "images per partition, a fixed seeded subset")


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Outcome(NamedTuple):
    """What a measure found; `outcome_rules` checks it."""

    # {"train" | "test" | "run": {name: value}}; not finite: not known
    scalars: Mapping[str, Mapping[str, float | None]] = _NOTHING
    # {"train" | "test": {name: [num, ...]}}; NaN: left out
    per_example: Mapping[str, Mapping[str, np.ndarray]] = _NOTHING
    pictures: Mapping[str, Any] = _NOTHING  # matplotlib figures by name
    arrays: Mapping[str, Mapping[str, np.ndarray]] = _NOTHING  # further files of plain arrays, by name


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure, as the file that makes it hands it to the registry.

    Raises:
        ConfigError: for a setting whose default is not a number, or is below its minimum, or that `setting` did not
            make.
    """

    name: str
    function: Callable[[FinishedRun, Any], Outcome]  # of a run and an instance of `settings`
    text: str  # what it measures, and how long that takes
    settings: type[Settings] = Settings
    headlines: tuple[str, ...] = ()  # scalars worth a column in TensorBoard's table of runs
    shares: tuple[str, ...] = ()  # scalars between 0 and 1, which figures draw on an axis of that length
    quick: bool = False  # whether `evaluate` computes it unless told otherwise
    version: int = 1  # raised when its numbers change their meaning: older records then count as not made

    def __post_init__(self) -> None:
        fields = dataclasses.fields(self.settings)
        undeclared = [name for name, value in vars(self.settings).items() if isinstance(value, dataclasses.Field)]
        if undeclared:  # a dataclass has their defaults in their places
            raise ConfigError(f"settings of measure {self.name} must be a dataclass (got {self.settings.__name__}, "
                              f"where {', '.join(undeclared)} is no field). Try @dataclasses.dataclass(frozen=True) "
                              "above it.")
        for field in fields:
            if fault := _fault(field, field.default):
                raise ConfigError(f"setting {field.name} of measure {self.name} {fault}. Try `{field.name}: float = "
                                  "setting(2.0, \"its text\", least=0)`: settings are int or float, and least is 1 if "
                                  "it is not given.")

    @property
    def setting_names(self) -> list[str]:
        """The names of its settings."""
        return [field.name for field in dataclasses.fields(self.settings)]

    def settings_with(self, values: Mapping[str, Value]) -> Settings:
        """Its settings, with defaults for those that are not given or None.

        Raises:
            ConfigError: for a name that the measure does not have, or a value that is not a number, or is below its
                minimum.
        """
        unknown = [name for name in values if name not in self.setting_names]
        if unknown:
            raise ConfigError(f"settings of {self.name} must be among {', '.join(self.setting_names) or 'none at all'} "
                              f"(got {', '.join(unknown)}).")
        return self.settings(**{name: value for name, value in values.items() if value is not None})

    def record(self, settings: Settings) -> dict[str, Any]:
        """What decides the measure's numbers, as measures.json holds it; no version stands for the first."""
        return dataclasses.asdict(settings) | ({"version": self.version} if self.version > 1 else {})


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error."""

    mean: float
    standard_error: float


def estimate(values: np.ndarray) -> Estimate:
    """Mean over the images; the standard error counts the spread between images too, so it is on the safe side."""
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(spread))


def means_with_errors(**values: np.ndarray) -> dict[str, float]:
    """Mean over the images of each quantity [num], and its standard error as `<name>_se`."""
    found = {}
    for name, chosen in values.items():
        found[name], found[name + STANDARD_ERROR] = estimate(chosen)
    return found
