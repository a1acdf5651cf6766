"""Measures finished runs: python -m vae_rd.evaluate --run=runs/NAME[,runs/NAME...] --measures=information,log_marginal.

Writes into each run's directory: measures.json (the numbers), per_example_train.npz and per_example_test.npz (values
per image), pictures as PNG files, and the numbers for TensorBoard.
"""

import dataclasses
import os
import pathlib
import sys

from absl import flags

from vae_rd import cli
from vae_rd.config import ConfigError
from vae_rd.datasets.records import split_path
from vae_rd.measures import MEASURES, Settings, measure_run
from vae_rd.storage import runs

_QUICK = ("information", "neighbours", "memorisation", "pictures")
_TEXTS = "; ".join(f"{name}: {measure.text}" for name, measure in MEASURES.items())
_RUN = flags.DEFINE_list("run", [], "directories of finished runs, separated by commas")
_MEASURES = flags.DEFINE_list("measures", list(_QUICK), f"measures to make, or all. {_TEXTS}")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", runs.CHECKPOINT_NAMES, "weights to measure: of the last step, or "
                                "of the best evaluation (early stopping)")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the data sets")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "make measures again that are there")
_PROGRESS = flags.DEFINE_bool("progress", True, "show progress bars")
_TEXT = {"query_images": "images per partition, a fixed seeded subset (default: each measure's own number)",
         "minibatch": "images in a batch of the minibatch estimate",
         "num_samples": "importance samples per image",
         "widen": "draw half of the importance samples from a posterior so many times as wide (1: none)",
         "ais_chains": "annealed chains per image",
         "ais_steps": "HMC steps of each annealed chain"}


def _define_settings() -> None:
    for field in dataclasses.fields(Settings):
        define = flags.DEFINE_float if field.type is float else flags.DEFINE_integer
        define(field.name, field.default, _TEXT[field.name])


_define_settings()


def _measure(paths: list[str], names: list[str], settings: Settings) -> list[str]:
    """Measures run after run; returns a line for each that could not be measured."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from vae_rd.datasets import splits  # imports TensorFlow, as the next: seconds
    from vae_rd.measures import finished_run
    from vae_rd.training import devices
    devices.configure("float32")
    loaded, failures = {}, []
    for path in paths:
        try:
            config = runs.RunDir(pathlib.Path(path)).read_config()
            folder = split_path(_DATA_DIR.value, config.dataset, config.split, config.data_seed, config.image_size,
                                config.binarization)
            if folder not in loaded:
                loaded = {folder: splits.load(folder)}  # one at a time in memory
            opened = finished_run.open_run(path, _DATA_DIR.value, _CHECKPOINT.value, loaded[folder])
            for note in measure_run(opened, names, settings=settings, split_dir=folder, progress=_PROGRESS.value,
                                    overwrite=_OVERWRITE.value):
                print(note)
            print(f"{path}: measured", flush=True)
        except cli.FORESEEABLE as error:
            failures.append(f"error: {error}")
    return failures


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.opened(argv):
        names = list(MEASURES) if _MEASURES.value == ["all"] else _MEASURES.value
        unknown = [name for name in names if name not in MEASURES]
        if unknown:
            raise ConfigError(f"measures={','.join(unknown)} is not known; choose among {', '.join(MEASURES)}, or all.")
        if not _RUN.value:
            raise ConfigError("no run is named: give --run=DIR, the directory of a finished run, or several with "
                              "commas.")
        settings = Settings(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Settings)})
        failures = _measure(_RUN.value, names, settings)
        if failures:
            sys.exit("\n".join(failures))


if __name__ == "__main__":
    cli.run(main)
