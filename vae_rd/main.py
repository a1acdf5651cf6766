"""Trains runs: python -m vae_rd.main --beta=0.01 --split=cd_25k; several betas or seeds train together as a column."""

import dataclasses
import itertools
import os
import pathlib
import time

from absl import flags

from data_gen import generate
from vae_rd import cli
from vae_rd.config import Config, ConfigError
from vae_rd.measures import MEASURES
from vae_rd.storage import runs
from vae_rd.training import cluster

_LISTS = {"beta": float, "seed": int}  # fields that take several values, separated by commas


def _define_config_flags() -> None:
    define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for field in dataclasses.fields(Config):
        text = field.metadata["help"]
        if field.name in _LISTS:
            flags.DEFINE_list(field.name, [str(field.default)], f"{text}; several, separated by commas, train together")
        else:
            define.get(field.type, flags.DEFINE_integer)(field.name, field.default, text)


_define_config_flags()
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the data sets; a missing split is generated")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs", "folder that gets one directory per run")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "folder of original data files (default: <data_dir>/raw)")
_STRATEGY = flags.DEFINE_enum("strategy", "auto", ["auto", "one_device", "mirrored", "multi_worker"],
                              "devices: one, all GPUs of this machine, or all tasks of an srun step or TF_CONFIG")
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"],
                         "compile the step by XLA (auto: where it was measured faster)")
_THREADS = flags.DEFINE_integer("num_threads", None, "threads per operation (default: the cores of this process)", 1)
_MEASURES = flags.DEFINE_list("measures", [], f"measures to make at the end, among {', '.join(MEASURES)}")
_RETRY = flags.DEFINE_bool("retry", False, "start diverged runs again")
_CONTINUE = flags.DEFINE_string("continue_from", None, "directory of a finished run to continue to more --train_steps")
_PROGRESS = flags.DEFINE_bool("progress", True, "show progress bars")


def configs_from_flags() -> list[Config]:
    """The product of the listed betas and seeds, each with the other flags' values."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Config)}
    lists = [[_parsed(name, text) for text in values[name] or [""]] for name in _LISTS]
    return [Config(**(values | dict(zip(_LISTS, combination)))) for combination in itertools.product(*lists)]


def _parsed(name: str, text: str):
    try:
        return _LISTS[name](text)
    except ValueError as error:
        kind = "a number" if _LISTS[name] is float else "a whole number"
        raise ConfigError(f"{name}={text!r}: must be {kind}, or several separated by commas.") from error


def _ensure_data(config: Config) -> None:
    """Generates a missing split; of several workers the chief does, and the others wait for its info.json."""
    path = config.data.path(_DATA_DIR.value)
    if not (path / "info.json").is_file():
        generate.check(config.data)
        if cluster.is_chief(_STRATEGY.value):
            print(f"{path} is missing: it is generated first.", flush=True)
            generate.generate(_DATA_DIR.value, config.data, raw_dir=_RAW_DIR.value, progress=_PROGRESS.value)
    _wait_for(path / "info.json")


def _wait_for(path: pathlib.Path) -> None:
    while not path.is_file():
        time.sleep(1)


def _train(configs: list[Config]) -> None:
    shared = configs[0]
    _ensure_data(shared)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from vae_rd.training import devices, preparation, train_and_measure  # imports TensorFlow: seconds
    devices.configure(shared.precision, _THREADS.value)
    if _CONTINUE.value:
        if len(configs) > 1:
            raise ConfigError("--continue_from continues one run: give one beta and one seed.")
        run = runs.run_dir(_RUNS_DIR.value, shared)
        if cluster.is_chief(_STRATEGY.value):
            preparation.continue_run(runs.RunDir(pathlib.Path(_CONTINUE.value)), shared, run)
        _wait_for(run.config)  # the last file that it writes
    wanted = [train_and_measure.Wanted("last", name) for name in _MEASURES.value]
    train_and_measure.train_and_measure(
        configs, runs_dir=_RUNS_DIR.value, data_dir=_DATA_DIR.value, strategy=_STRATEGY.value,
        jit={"auto": None, "on": True, "off": False}[_JIT.value], wanted=dict.fromkeys(configs, wanted),
        retry=_RETRY.value, progress=_PROGRESS.value)


def _report(configs: list[Config]) -> None:
    print(f"{'run':60} {'status':10} {'train rate':>10} {'distortion':>10} {'test rate':>10} {'distortion':>10}  "
          "(nats per image)")
    for config in configs:
        run = runs.run_dir(_RUNS_DIR.value, config)
        results = run.read_results() or {}
        numbers = [results.get(partition, {}).get(name)
                   for partition in ("train", "test") for name in ("rate", "distortion")]
        print(f"{config.run_name:60} {run.status():10} "
              + " ".join("-".rjust(10) if number is None else f"{number:10.2f}" for number in numbers))


def _pending(configs: list[Config]) -> list[Config]:
    """Runs with something left to do."""
    def complete(run):
        status, made = run.status(), run.read_measures().get("last", {})
        return (status == runs.FINISHED and all(name in made for name in _MEASURES.value) and not run.leftovers()
                or status == runs.DIVERGED and not _RETRY.value)
    return [config for config in configs if not complete(runs.run_dir(_RUNS_DIR.value, config))]


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.opened(argv):
        unknown = [name for name in _MEASURES.value if name not in MEASURES]
        if unknown:
            raise ConfigError(f"measures={','.join(unknown)}: must be among {', '.join(MEASURES)}.")
        configs = configs_from_flags()
        pending = _pending(configs)
        if pending:
            _train(pending)
        _report(configs)


if __name__ == "__main__":
    cli.run(main)
