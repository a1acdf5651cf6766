"""Memorisation: reconstructions against training images and against the infinite-capacity decoder.

A decoder of unlimited capacity, trained on codes z ~ q(z|x_n), would answer a code with the weighted mean of training
images sum_n w_n x_n, w_n = q(z|x_n) / sum_m q(z|x_m). The perplexity of w is the number of images that it mixes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from vae_rd.measures import information, neighbours

PAIRS_PER_BLOCK = 2**23  # weights [queries, training images] in memory at a time: 32 MiB of float32
TIE = 1e-4  # distances closer than this are equal: the weighted mean can BE the input, up to rounding
IMAGES_PER_PRODUCT = 8192  # training images that are floats at a time: 96 MiB for 32 x 32 x 3

Progress = Callable[..., Iterable]  # called as progress(iterable, desc=text), as tqdm.tqdm is


class Average(NamedTuple):
    """What the infinite-capacity decoder does with each code."""

    images: np.ndarray  # [n, height, width, channels] float32 in [0, 1], the weighted mean of training images
    perplexity: np.ndarray  # [n], exp of the entropy of the weights: from 1 to the number of training images


class Memorisation(NamedTuple):
    """Distances of each reconstruction, L2 between pixels on the [0, 1] scale."""

    to_input: np.ndarray  # [n]
    to_training_image: np.ndarray  # [n], the nearest one; of a training image's reconstruction, the nearest other one
    to_average: np.ndarray  # [n], the infinite-capacity decoder's output
    position: np.ndarray  # [n], row of that nearest training image
    to_other_test_image: np.ndarray | None = None  # [n], the nearest of those that `compare` was given, if it was

    @property
    def memorised(self) -> np.ndarray:
        """Whether the reconstruction lies nearer to a training image than to its own input, [n] bool."""
        return self.to_training_image < self.to_input - TIE

    @property
    def memorised_control(self) -> np.ndarray:
        """Whether it lies nearer to another test image than to its own input, [n] bool: blur does that, too."""
        return self.to_other_test_image < self.to_input - TIE

    @property
    def averaged(self) -> np.ndarray:
        """Whether the reconstruction lies nearer to the weighted mean than to its own input, [n] bool."""
        return self.to_average < self.to_input - TIE


class Others(NamedTuple):
    """Test images that stand against the training images as a control."""

    images: np.ndarray  # [N + 1, height, width, channels] uint8
    own: np.ndarray  # [n], row of the one that does not count for an input, so that N do


def infinite_capacity(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray, train_images: np.ndarray,
                      progress: Progress | None = None) -> Average:
    """The infinite-capacity decoder's output and the perplexity of its weights.

    Args:
        codes: [n, d].
        means, stddevs: [N, d], posteriors of the training images.
        train_images: [N, height, width, channels] uint8.
        progress: called as `progress(blocks, desc=...)`, as `tqdm.tqdm` is.
    """
    images = np.empty((len(codes), *train_images.shape[1:]), np.float32)
    perplexity = np.empty(len(codes))
    block = max(1, PAIRS_PER_BLOCK // len(means))
    starts = range(0, len(codes), block)
    for start in progress(starts, desc="infinite-capacity decoder") if progress else starts:
        rows = slice(start, start + block)
        weights = information.responsibilities(codes[rows], means, stddevs)
        logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
        perplexity[rows] = np.exp(-np.einsum("ij,ij->i", weights, logs, dtype=np.float64))
        images[rows] = _weighted_mean(weights.astype(np.float32), train_images)
    return Average(images, perplexity)


def compare(images: np.ndarray, reconstructions: np.ndarray, averages: np.ndarray, train_images: np.ndarray,
            own: np.ndarray | None = None, others: Others | None = None, progress: Progress | None = None
            ) -> Memorisation:
    """What each reconstruction lies nearest to.

    A blurred reconstruction, such as the mean image, lies nearer to some image or other than to its own input, whether
    or not the model has seen that image. As many test images as there are training images are the control: where a
    split is random, only what the model has memorised makes a training image the nearer one more often.

    Args:
        images: [n, height, width, channels] uint8, the inputs.
        reconstructions, averages: [n, height, width, channels] float in [0, 1].
        train_images: [N, height, width, channels] uint8.
        own: [n] row of each input among the training images, where it is one of them.
        others: what `other_test_images` returned, where the inputs are test images.
        progress: called as `progress(blocks, desc=...)`, as `tqdm.tqdm` is.
    """
    nearest = neighbours.nearest_images(reconstructions, train_images, own=own, progress=progress)
    found = Memorisation(_distances(reconstructions, images / np.float64(255)), nearest.distance,
                         _distances(reconstructions, averages), nearest.position)
    if others is None:
        return found
    other = neighbours.nearest_images(reconstructions, others.images, own=others.own, progress=progress)
    return found._replace(to_other_test_image=other.distance)


def other_test_images(images: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> Others:
    """The control's images for the test images at some rows.

    Args:
        images: [M, height, width, channels] uint8, all test images.
        chosen: [N + 1] rows of a fixed random choice, rising; one more than there are to be others.
        rows: [n] rows of the inputs. One that was chosen is no other to itself; for the rest, the first does not count.
    """
    return Others(images[chosen], np.where(np.isin(rows, chosen), np.searchsorted(chosen, rows), 0))


def _weighted_mean(weights: np.ndarray, train_images: np.ndarray) -> np.ndarray:
    flat = train_images.reshape(len(train_images), -1)
    total = np.zeros((len(weights), flat.shape[1]), np.float32)
    for start in range(0, len(flat), IMAGES_PER_PRODUCT):
        rows = slice(start, start + IMAGES_PER_PRODUCT)
        total += weights[:, rows] @ flat[rows].astype(np.float32)
    return (total / 255).reshape(len(weights), *train_images.shape[1:])


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    difference = (first.astype(np.float64) - second).reshape(len(first), -1)
    return np.sqrt(np.einsum("ij,ij->i", difference, difference))
