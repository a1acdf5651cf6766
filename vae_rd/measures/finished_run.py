"""A finished run, opened: its Config, its model with the last or the best weights, its data, its values per image."""

import dataclasses
import os
import pathlib

import numpy as np

from vae_rd import model
from vae_rd.config import Config
from vae_rd.datasets import records, splits
from vae_rd.storage import checkpoints, files, runs


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a measurement, or a notebook, needs of a run."""

    run: runs.RunDir
    config: Config
    checkpoint: str  # "last" or "best"
    vae: model.VAE
    split: splits.Split

    def per_example(self, partition: str) -> dict[str, np.ndarray]:
        """Values of each image of `train` or `test`: index, rate, distortion, ... by name, [num] each."""
        return files.read_arrays(self.run.per_example(partition, self.checkpoint))


def open_run(path: str | os.PathLike, data_dir: str | os.PathLike = "data", checkpoint: str = "last",
             split: splits.Split | None = None) -> FinishedRun:
    """Opens a finished run.

    Args:
        path: its directory.
        data_dir: the folder of the data sets.
        checkpoint: `last`, or `best`: the evaluation with the lowest objective on the selecting half of the test set.
        split: its data, if they are loaded already.

    Raises:
        runs.RunError: if the run has not finished, lacks its model, or the data are not those it was trained on.

    >>> run = open_run("runs/tetrominoes-cd_8k-mlp1-beta1-seed0-...")  # doctest: +SKIP
    >>> run.vae(run.split.test.images[:8] / 255)  # doctest: +SKIP
    """
    run = runs.RunDir(pathlib.Path(path))
    config, results = run.read_config(), run.read_results()
    if results is None or results["status"] != runs.FINISHED:
        raise runs.RunError(f"{run.path} is {run.status()}, and only finished runs can be opened: train it to its end.")
    if not run.model.is_file():
        raise runs.RunError(f"{run.path} has no final model ({run.model.name}): remove {run.results.name} and run the "
                            "same training command; it ends again from the last checkpoint.")
    if checkpoint not in runs.CHECKPOINT_NAMES:
        raise runs.RunError(f"checkpoint={checkpoint!r} is not known; choose one of "
                            f"{', '.join(runs.CHECKPOINT_NAMES)}.")
    split = split or splits.load(config.data.path(data_dir))
    if split.info.content_sha256 != results["content_sha256"]:
        raise runs.RunError(f"{run.path} was trained on other data than {data_dir} holds for {config.dataset}/"
                            f"{config.split} (content_sha256 differs): name the data directory of the run.")
    if config.binarization == "dynamic":
        split = split._replace(train=splits.binarized(split.train), test=splits.binarized(split.test))
    vae = model.load(run.model)
    if checkpoint == "best":
        vae.assign_weights(checkpoints.load_best(run, results["best"]["step"]))
    return FinishedRun(run, config, checkpoint, vae, split)
