"""Trains runs: python -m vae_rd.main --beta=0.01 --split=cd_25k; several betas or seeds train together as a column."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import flags

from data_gen import generate
from vae_rd import cli
from vae_rd.config import Config, ConfigError
from vae_rd.datasets import records
from vae_rd.measures import MEASURES
from vae_rd.measures.measure import Value
from vae_rd.measures.registry import is_made, settings_by_measure
from vae_rd.storage import runs
from vae_rd.training import cluster, signals

_LISTS = {"beta": float, "seed": int}  # fields that take several values, separated by commas
FIELDS = [field for field in dataclasses.fields(Config) if field.name != "imports"]  # that one is --import


def _define_config_flags() -> None:
    define: dict[Any, Callable[..., Any]] = {
        str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for field in FIELDS:
        text = field.metadata["help"]
        if field.name in _LISTS:
            flags.DEFINE_list(field.name, [str(field.default)], f"{text}; several, separated by commas, train together")
        else:
            define.get(field.type, flags.DEFINE_integer)(field.name, field.default, text)


_define_config_flags()
_STRATEGY = flags.DEFINE_enum("strategy", "auto", cluster.STRATEGIES,
                              "devices: one, all GPUs of this machine, all tasks of an srun step or TF_CONFIG, or "
                              "(auto) all that there are, which share each batch; one is faster for small models")
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"],
                         "compile the step by XLA (auto: where it was measured faster)")
_THREADS = flags.DEFINE_integer("num_threads", None, "threads per operation (default: the cores of this process)", 1)
_MEASURES = flags.DEFINE_list("measures", [], f"measures to compute at the end, among {', '.join(MEASURES)}, or all")
_SETTINGS = cli.settings(MEASURES)
_CONTINUE = flags.DEFINE_string("continue_from", None, "directory of a finished run to continue to more --train_steps")
_DATA_DIR, _RAW_DIR, _RUNS_DIR = cli.data_dir(), cli.raw_dir(), cli.runs_dir()
_RETRY, _PROGRESS, _IMPORT = cli.retry(), cli.progress(), cli.modules()


def configs(values: Mapping[str, Any]) -> list[Config]:
    """The product of the listed betas and seeds, each with the other fields' values.

    Args:
        values: by field of Config; for beta and seed a list of texts.

    Raises:
        ConfigError: for a value that is not allowed.
    """
    lists = [[_number(name, text) for text in values[name] or [""]] for name in _LISTS]
    return [Config(**(dict(values) | dict(zip(_LISTS, combination)))) for combination in itertools.product(*lists)]


def _number(name: str, text: str) -> float:
    try:
        return _LISTS[name](text)
    except ValueError as error:
        kind = "a number" if _LISTS[name] is float else "a whole number"
        raise ConfigError(f"{name} must be {kind}, or several separated by commas (got {text!r}).") from error


def pending(column: Sequence[Config], runs_dir: str | os.PathLike, measures: Sequence[str] = (), retry: bool = False
            ) -> list[Config]:
    """Runs with something left to do: training, or a measure."""
    def complete(run: runs.RunDir) -> bool:
        status, made = run.status(), run.read_measures().get("last", {})
        return (status == runs.FINISHED and all(is_made(name, made) for name in measures)
                or status == runs.DIVERGED and not retry)
    return [config for config in column if not complete(runs.run_dir(runs_dir, config))]


def train(column: Sequence[Config], *, data_dir: str | os.PathLike = "data", raw_dir: str | os.PathLike | None = None,
          runs_dir: str | os.PathLike = "runs", strategy: str = "auto", jit: bool | None = None,
          num_threads: int | None = None, measures: Sequence[str] = (),
          settings: Mapping[str, Mapping[str, Value]] = MappingProxyType({}), retry: bool = False,
          continue_from: str | os.PathLike | None = None, progress: bool = True) -> None:
    """Trains and measures the runs of one column; missing data are made first.

    Args:
        column: Configs that differ in beta and seed only.
        data_dir, raw_dir, runs_dir: folders of data sets, of original files and of runs.
        strategy: one of `cluster.STRATEGIES`.
        jit: compile by XLA; None: where it was measured faster.
        num_threads: per operation; None: the cores of this process.
        measures: to make at the end.
        settings: of the measures, by name; without, their defaults.
        retry: start diverged runs again.
        continue_from: directory of a finished run that goes on to more steps.
        progress: show bars.

    Raises:
        ConfigError, RecordsError, RunError: with a message for the user.
    """
    shared = column[0]
    _ensure_data(shared, data_dir, raw_dir, strategy, progress)
    with cli.quietly():
        from vae_rd.training import devices, preparation, train_and_measure  # imports TensorFlow: seconds
    devices.configure(shared.precision, num_threads)
    if continue_from:
        if len(column) > 1:
            raise ConfigError("--continue_from continues one run: give one beta and one seed.")
        run = runs.run_dir(runs_dir, shared)
        if cluster.is_chief(strategy):
            preparation.continue_run(runs.RunDir(pathlib.Path(continue_from)), shared, run, retry)
        _wait_for(run.config)  # the last file that it writes
    wanted = [train_and_measure.Wanted("last", name) for name in measures]
    train_and_measure.train_and_measure(
        list(column), runs_dir=runs_dir, data_dir=data_dir, strategy=strategy, jit=jit,
        wanted=dict.fromkeys(column, wanted), settings=settings, retry=retry, progress=progress)


def _ensure_data(config: Config, data_dir: str | os.PathLike, raw_dir: str | os.PathLike | None, strategy: str,
                 progress: bool) -> None:
    """Generates a missing split; of several workers the chief does, and the others wait for its info.json."""
    path = config.data.path(data_dir)
    info = path / records.INFO_FILE
    if not info.is_file():
        generate.check(config.data)
        if cluster.is_chief(strategy):
            print(f"{path} is missing: it is generated first.", flush=True)
            generate.ensure(data_dir, config.data, raw_dir=raw_dir, progress=progress)
    _wait_for(info)


def _wait_for(path: pathlib.Path) -> None:
    """Waits for a file of the chief's."""
    while not path.is_file():
        time.sleep(1)


def report(column: Sequence[Config], runs_dir: str | os.PathLike) -> Iterator[str]:
    """A table of what the runs ended with, line by line."""
    width = max(len(config.run_name) for config in column)
    yield (f"{'run':{width}} {'status':10} {'train rate':>10} {'distortion':>10} {'test rate':>10} {'distortion':>10}  "
           "(nats per image)")
    for config in column:
        run = runs.run_dir(runs_dir, config)
        results = run.read_results() or {}
        numbers = [results.get(partition, {}).get(name)
                   for partition in ("train", "test") for name in ("rate", "distortion")]
        yield (f"{config.run_name:{width}} {run.status():10} "
               + " ".join("-".rjust(10) if number is None else f"{number:10.2f}" for number in numbers))


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.failures_in_words(argv):
        imports = cli.import_modules(_IMPORT.value)
        measures = cli.measures(_MEASURES.value, MEASURES)
        settings = settings_by_measure(cli.given(_SETTINGS), measures)
        column = configs({field.name: flags.FLAGS[field.name].value for field in FIELDS} | {"imports": imports})
        left = pending(column, _RUNS_DIR.value, measures, _RETRY.value)
        if left:
            with contextlib.nullcontext() if cluster.is_chief(_STRATEGY.value) else signals.led_by_a_chief():
                train(left, data_dir=_DATA_DIR.value, raw_dir=_RAW_DIR.value, runs_dir=_RUNS_DIR.value,
                      strategy=_STRATEGY.value, jit={"auto": None, "on": True, "off": False}[_JIT.value],
                      num_threads=_THREADS.value, measures=measures, settings=settings, retry=_RETRY.value,
                      continue_from=_CONTINUE.value, progress=_PROGRESS.value)
        for line in report(column, _RUNS_DIR.value):
            print(line)


if __name__ == "__main__":
    cli.run(main)
