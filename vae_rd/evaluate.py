"""Measures finished runs: python -m vae_rd.evaluate --run=runs/NAME[,runs/NAME...] --measures=information,log_marginal.

Writes into each run's directory: measures.json (the numbers), per_example_train.npz and per_example_test.npz (values
per image), pictures as PNG files, and the numbers for TensorBoard.
"""

import os
import pathlib
import sys
from collections.abc import Iterable, Mapping

from absl import flags

from vae_rd import cli
from vae_rd.config import ConfigError
from vae_rd.measures import MEASURES, measure_run
from vae_rd.measures.measure import Value
from vae_rd.measures.registry import settings_by_measure
from vae_rd.storage import runs


def quick_measures() -> list[str]:
    """The measures that are made unless others are asked for; those of imported modules among them."""
    return [name for name, measure in MEASURES.items() if measure.quick]


_TEXTS = "\n".join(f"{name}: {measure.text}" for name, measure in MEASURES.items())
_RUN = flags.DEFINE_multi_string("run", [], "directory of a finished run; several with commas, or by giving the flag "
                                 "again")
_MEASURES = flags.DEFINE_list("measures", None, f"measures to compute, or all:\n{_TEXTS}\n(default: the quick ones, "
                              f"{', '.join(quick_measures())})")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", runs.CHECKPOINT_NAMES, "weights to measure: of the last step, or "
                                "of the best evaluation (early stopping)")
_DATA_DIR, _PROGRESS, _IMPORT = cli.data_dir(), cli.progress(), cli.modules()
_SETTINGS = cli.settings(MEASURES)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "compute measures again that have been computed before")


def separate(paths: Iterable[str]) -> list[str]:
    """The directories that are named, each once: split at commas, except where a path that contains commas exists."""
    parts = [part for path in paths for part in ([path] if os.path.exists(path) else path.split(","))]
    return list(dict.fromkeys(part for part in parts if part))


def measure_runs(paths: Iterable[str], names: Iterable[str], settings: Mapping[str, Mapping[str, Value]], *,
                 checkpoint: str = "last", data_dir: str | os.PathLike = "data", progress: bool = True,
                 overwrite: bool = False) -> list[str]:
    """Measures run after run.

    Args:
        paths: directories of finished runs.
        names, settings, progress, overwrite: as `vae_rd.measures.measure_run` takes them.
        checkpoint: which weights.
        data_dir: the folder of the data sets.

    Returns:
        A line for each run that could not be measured.
    """
    from vae_rd.datasets import splits
    from vae_rd.measures import finished_run
    loaded: dict[pathlib.Path, splits.Split] = {}
    opened, failures = None, []
    for path in paths:
        try:
            config = runs.RunDir(pathlib.Path(path)).read_config()
            folder = config.data.path(data_dir)
            if folder not in loaded:
                loaded, opened = {}, None  # before the next is loaded: one at a time in memory
                loaded[folder] = splits.load(folder)
            opened = finished_run.open_run(path, data_dir, checkpoint, loaded[folder])
            for note in measure_run(opened, names, settings=settings, progress=progress, overwrite=overwrite):
                print(note)
            print(f"{path}: measured", flush=True)
        except BrokenPipeError:
            raise
        except (*cli.FORESEEABLE, OSError) as error:
            failures.append(f"error: {error}" if str(path) in str(error) else f"error: {path}: {error}")
    return failures


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.failures_in_words(argv):
        cli.import_modules(_IMPORT.value)
        names = cli.measures(quick_measures() if _MEASURES.value is None else _MEASURES.value, MEASURES)
        paths = separate(_RUN.value)
        if not paths:
            raise ConfigError("no run is named: give --run=DIR, the directory of a finished run; for several, separate "
                              "them by commas or give --run again.")
        settings = settings_by_measure(cli.given(_SETTINGS), names)
        with cli.quietly():
            from vae_rd.training import devices  # imports TensorFlow: seconds
        devices.configure("float32")
        failures = measure_runs(paths, names, settings, checkpoint=_CHECKPOINT.value, data_dir=_DATA_DIR.value,
                                progress=_PROGRESS.value, overwrite=_OVERWRITE.value)
        if failures:
            sys.exit("\n".join(failures))


if __name__ == "__main__":
    cli.run(main)
