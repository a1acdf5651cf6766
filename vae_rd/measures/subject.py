"""A finished run as the measures see it: arrays in the order of its data, each computed when it is first asked for."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vae_rd.datasets import random_streams, splits
from vae_rd.measures import split_neighbours

IMAGES_PER_BLOCK = 1024

Progress = Callable[..., Iterable]  # called as progress(iterable, desc=text), as tqdm.tqdm is


class Posterior(NamedTuple):
    """q(z|x) of the images of a partition."""

    means: np.ndarray  # [num, latent_dim]
    stddevs: np.ndarray  # [num, latent_dim]


class Subject:
    """What the measures take from a finished run.

    Args:
        finished_run: a `vae_rd.measures.finished_run.FinishedRun`, or what has its fields: run, config, checkpoint, vae,
            split, per_example(partition).
        split_dir: folder of the split, where what belongs to the data is kept; None: nowhere.
        progress: shows how far a loop has come.
    """

    def __init__(self, finished_run: Any, split_dir: str | os.PathLike | None, progress: Progress):
        self.finished, self.vae, self.progress = finished_run, finished_run.vae, progress
        self.split_dir = split_dir
        self.dtype = np.dtype(self.vae.variable_dtype)
        self.num_train = len(finished_run.split.train.index)
        self.partitions = [name for name in ("train", "test") if len(self.partition(name).index)]

    def partition(self, name: str) -> splits.Partition:
        """Images, index and factors of `train` or `test`."""
        return getattr(self.finished.split, name)

    def rows(self, name: str, count: int | None) -> np.ndarray:
        """Rows of the fixed seeded subset of at most `count` images; all of them for None."""
        return random_streams.evaluation_subset(self.partition(name).index, count)

    def spread(self, name: str, rows: np.ndarray, **values: np.ndarray) -> dict[str, np.ndarray]:
        """Values of some rows as arrays over the whole partition, NaN elsewhere."""
        spread = {}
        for key, chosen in values.items():
            spread[key] = np.full(len(self.partition(name).index), np.nan)
            spread[key][rows] = chosen
        return spread

    def images(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Images [n, height, width, channels] in [0, 1], in the model's own number format."""
        return self.partition(name).images[rows].astype(self.dtype) / self.dtype.type(255)

    @functools.cached_property
    def posteriors(self) -> dict[str, Posterior]:
        """The posterior of every image, by partition."""
        return {name: self.encode(self.partition(name).images) for name in self.partitions}

    def encode(self, images: np.ndarray) -> Posterior:
        """The posteriors of uint8 or float images [n, height, width, channels]."""
        scale = self.dtype.type(255 if images.dtype == np.uint8 else 1)
        blocks = _blocks(images, self.progress, "encoding")
        found = [self.vae.posterior(block.astype(self.dtype) / scale) for block in blocks]
        return Posterior(*(np.concatenate([np.asarray(part) for part in parts])
                           for parts in zip(*((one.mean(), one.stddev()) for one in found))))

    def codes(self, name: str) -> np.ndarray:
        """The one posterior sample of every image of a partition, [num, latent_dim], as in every evaluation."""
        posterior = self.posteriors[name]
        noise = random_streams.evaluation_noise(self.partition(name).index, posterior.means.shape[1])
        return posterior.means + posterior.stddevs * noise.astype(self.dtype)

    def log_prior(self, codes: np.ndarray) -> np.ndarray:
        """log p(z) at codes [n, latent_dim]: [n] float64."""
        prior = self.vae.prior()
        return np.concatenate([np.asarray(prior.log_prob(block), np.float64) for block in _blocks(codes)])

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The likelihood's mean at codes [..., latent_dim]: images [..., height, width, channels] in [0, 1]."""
        flat = codes.reshape(-1, codes.shape[-1])
        images = np.concatenate([np.asarray(self.vae.likelihood(block).mean()) for block in _blocks(flat)])
        return images.reshape(*codes.shape[:-1], *images.shape[1:])

    @functools.cached_property
    def neighbours(self) -> split_neighbours.SplitNeighbours:
        """The nearest training image of every test image."""
        dynamic = self.finished.config.binarization == "dynamic"
        return split_neighbours.of_split(self.finished.split, self.split_dir, dynamic, self.progress)


def _blocks(values: np.ndarray, progress: Progress | None = None, text: str = "") -> Iterator[np.ndarray]:
    starts = range(0, len(values), IMAGES_PER_BLOCK)
    for start in progress(starts, desc=text) if progress else starts:
        yield values[start:start + IMAGES_PER_BLOCK]
