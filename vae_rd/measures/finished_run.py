"""A finished run, opened: its Config, its model with the last or the best weights, its data and its codes."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vae_rd.catalogue import PRIORS
from vae_rd.config import Config
from vae_rd.datasets import random_streams, splits
from vae_rd.measures import split_neighbours
from vae_rd.measures.progress import Progress, silent
from vae_rd.storage import checkpoints, runs

IMAGES_PER_BLOCK = 1024


class Posteriors(NamedTuple):
    """q(z|x) of some images: diagonal Gaussians."""

    means: np.ndarray  # [num, latent_dim]
    stddevs: np.ndarray  # [num, latent_dim]


@dataclasses.dataclass(frozen=True, repr=False)
class FinishedRun:
    """What a measure, or a notebook, needs of a run; arrays come in the order of its data.

    Posteriors and neighbours are computed when they are first asked for, and kept; posteriors image by image.
    """

    run: runs.RunDir
    config: Config
    checkpoint: str  # "last" or "best"
    vae: Any  # a `vae_rd.model.VAE`
    split: splits.Split
    split_dir: pathlib.Path | None = None  # folder of the split, where its neighbours are kept; None: nowhere
    progress: Progress = silent  # shows how far a loop has come
    _kept: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        """Name, status and checkpoint of the run; then num_images, rate and distortion of each partition."""
        results = self.run.read_results() or {}
        block = results if self.checkpoint == "last" else results.get("best") or {}
        lines = [f"FinishedRun {self.run.path.name}",
                 f"{results.get('status', runs.UNFINISHED)}, checkpoint {self.checkpoint}, step {block.get('step')}"]
        lines += [f"{name}: {block[name]['num_images']} images, rate {block[name]['rate']:.2f}, distortion "
                  f"{block[name]['distortion']:.2f} nats per image" for name in self.partitions if name in block]
        return "\n    ".join(lines)

    def per_example(self, partition: str) -> dict[str, np.ndarray]:
        """Values of each image of `train` or `test`: index, rate, distortion, ... by name, [num] each."""
        return self.run.read_arrays(self.run.per_example(partition, self.checkpoint))

    @property
    def partitions(self) -> list[str]:
        """Those of `train` and `test` that hold images."""
        return [name for name in ("train", "test") if len(self.partition(name).index)]

    @property
    def dtype(self) -> np.dtype:
        """The model's own number format."""
        return np.dtype(self.vae.variable_dtype)

    def partition(self, name: str) -> splits.Partition:
        """Images, index and factors of `train` or `test`."""
        return getattr(self.split, name)

    def rows(self, partition: str, count: int | None) -> np.ndarray:
        """Rows of the fixed seeded subset of at most `count` images; all of them for None."""
        return random_streams.evaluation_subset(self.partition(partition).index, count)

    def spread(self, partition: str, rows: np.ndarray, **values: np.ndarray) -> dict[str, np.ndarray]:
        """Values [n, ...] of some rows as arrays over the whole partition, NaN elsewhere."""
        spread = {}
        for name, chosen in values.items():
            spread[name] = np.full((len(self.partition(partition).index), *np.shape(chosen)[1:]), np.nan)
            spread[name][rows] = chosen
        return spread

    def images(self, partition: str, rows: np.ndarray) -> np.ndarray:
        """Images [n, height, width, channels] in [0, 1], in the model's own number format."""
        return self.partition(partition).images[rows].astype(self.dtype) / self.dtype.type(255)

    def posteriors(self, partition: str, rows: np.ndarray | None = None) -> Posteriors:
        """The posteriors of the images at some rows of a partition, or at all."""
        images = self.partition(partition).images
        if partition not in self._kept:
            empty = np.zeros((2, len(images), self.config.latent_dim), self.dtype)
            self._kept[partition] = np.zeros(len(images), bool), Posteriors(*empty)
        known, kept = self._kept[partition]
        missing = np.flatnonzero(~known) if rows is None else rows[~known[rows]]
        if len(missing):
            for chosen in _blocks(missing, self.progress, "encoding"):
                kept.means[chosen], kept.stddevs[chosen] = self._encoded(images[chosen])
                known[chosen] = True
        return kept if rows is None else Posteriors(*(values[rows] for values in kept))

    def encode(self, images: np.ndarray) -> Posteriors:
        """The posteriors of uint8 or float images [n, height, width, channels]."""
        found = [self._encoded(block) for block in _blocks(images, self.progress, "encoding")]
        return Posteriors(*(np.concatenate(parts) for parts in zip(*found)))

    def _encoded(self, images: np.ndarray) -> Posteriors:
        scale = self.dtype.type(255 if images.dtype == np.uint8 else 1)
        found = self.vae.posterior(images.astype(self.dtype) / scale)
        return Posteriors(np.asarray(found.mean()), np.asarray(found.stddev()))

    def codes(self, partition: str, sample: int = 0, rows: np.ndarray | None = None) -> np.ndarray:
        """A posterior sample of the images at some rows, or at all: [n, latent_dim]; sample 0 is every evaluation's."""
        means, stddevs = self.posteriors(partition, rows)
        return means + stddevs * self._noise(partition, sample, rows).astype(self.dtype)

    def log_posterior(self, partition: str, sample: int = 0, rows: np.ndarray | None = None) -> np.ndarray:
        """log q(z|x) at `codes` of the same arguments: [n] float64, nats.

        From the noise, as in training (`vae.log_posterior`): where a posterior is narrow, the codes have lost it.
        """
        noise, stddevs = self._noise(partition, sample, rows), self.posteriors(partition, rows).stddevs
        return -(0.5 * np.square(noise, dtype=np.float64) + 0.5 * np.log(2 * np.pi)
                 + np.log(stddevs, dtype=np.float64)).sum(-1)

    def _noise(self, partition: str, sample: int, rows: np.ndarray | None) -> np.ndarray:
        index = self.partition(partition).index
        return random_streams.evaluation_noise(index if rows is None else index[rows], self.config.latent_dim, sample)

    def prior_of(self) -> Callable[[Any], Any]:
        """Images [n, height, width, channels] -> the prior of their codes, which leaves out what is their own."""
        if PRIORS[self.config.prior].keeps_images:
            return self.vae.prior
        prior = self.vae.prior()
        return lambda images: prior

    def log_prior(self, partition: str, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """log p(z) at codes [n, latent_dim] of the images at some rows: [n] float64."""
        prior_of = self.prior_of()
        return np.concatenate([
            np.asarray(prior_of(self.images(partition, chosen)).log_prob(block), np.float64)
            for block, chosen in zip(_blocks(codes), _blocks(rows))])

    def log_likelihood(self, partition: str, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """log p(x|z) of the images at some rows, each at its own one of codes [n, latent_dim]: [n] float64."""
        return np.concatenate([
            np.asarray(self.vae.likelihood(block).log_prob(_tensor(self.images(partition, chosen))), np.float64)
            for block, chosen in zip(_blocks(codes), _blocks(rows))])

    def squared_errors(self, partition: str, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Squared error of the mean picture at codes [n, latent_dim], mean over pixels and channels: [n] float64."""
        return np.concatenate([
            np.square(self.images(partition, chosen) - np.asarray(self.vae.picture(block), np.float64)).mean((1, 2, 3))
            for block, chosen in zip(_blocks(codes), _blocks(rows))])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The mean pictures at codes [..., latent_dim]: images [..., height, width, channels] in [0, 1]."""
        flat = codes.reshape(-1, codes.shape[-1])
        images = np.concatenate([np.asarray(self.vae.picture(block)) for block in _blocks(flat)])
        return images.reshape(*codes.shape[:-1], *images.shape[1:])

    @property
    def neighbours(self) -> split_neighbours.SplitNeighbours:
        """The nearest training image of every test image."""
        if "neighbours" not in self._kept:
            self._kept["neighbours"] = split_neighbours.of_split(
                self.split, self.split_dir, self.config.binarization == "dynamic", self.progress)
        return self._kept["neighbours"]


def open_run(path: str | os.PathLike, data_dir: str | os.PathLike = "data", checkpoint: str = "last",
             split: splits.Split | None = None) -> FinishedRun:
    """Opens a finished run.

    Args:
        path: its directory.
        data_dir: the folder of the data sets.
        checkpoint: `last`, or `best`: the evaluation with the lowest distortion + beta * rate on the selecting half of
            the test set.
        split: its data, if they are loaded already.

    Raises:
        runs.RunError: if the run has not finished, lacks its model, or the data are not those it was trained on.

    >>> run = open_run("runs/tetrominoes-cd_8k-mlp1-beta1-seed0-...")  # doctest: +SKIP
    >>> run.vae(run.split.test.images[:8] / 255)  # doctest: +SKIP
    """
    from vae_rd import model  # imports Keras: not before it is needed
    run = runs.RunDir(pathlib.Path(path))
    config, results = run.read_config(), run.read_results()
    if results is None or results["status"] != runs.FINISHED:
        raise runs.RunError(f"{run.path} must be a finished run (it is {run.status()}). Finish its training first.")
    run.check_model()
    if checkpoint not in runs.CHECKPOINT_NAMES:
        raise runs.RunError(f"checkpoint must be one of {', '.join(runs.CHECKPOINT_NAMES)} (got {checkpoint!r}).")
    split_dir = config.data.path(data_dir)
    split = split or splits.load(split_dir)
    if split.info.content_sha256 != results.get("content_sha256"):
        raise runs.RunError(f"{data_dir} must hold the data that {run.path} was trained on (its {config.dataset}/"
                            f"{config.split} has another content_sha256). Give the data directory of the run.")
    if config.binarization == "dynamic":
        split = split._replace(train=splits.binarized(split.train), test=splits.binarized(split.test))
    vae = model.load(run.model, config)
    if checkpoint == "best":
        if "best" not in results:
            raise runs.RunError(f"{run.results} must have the results of the best weights (it has none). Train the run "
                                "again, or take the last weights.")
        vae.assign_weights(checkpoints.load_best(run, results["best"]["step"]))
    return FinishedRun(run, config, checkpoint, vae, split, split_dir)


def _tensor(images: np.ndarray) -> Any:
    """The images as a tensor: a distribution of whole numbers would round an array's grey values to 0."""
    import tensorflow as tf
    return tf.constant(images)


def _blocks(values: np.ndarray, progress: Progress = silent, text: str = "") -> Iterator[np.ndarray]:
    for start in progress(range(0, len(values), IMAGES_PER_BLOCK), desc=text):
        yield values[start:start + IMAGES_PER_BLOCK]
