"""Memorisation: reconstructions against training images and against the infinite-capacity decoder.

A decoder of unlimited capacity, trained on codes z ~ q(z|x_n), would answer a code with the weighted mean of training
images sum_n w_n x_n, w_n = q(z|x_n) / sum_m q(z|x_m). The perplexity of w is the number of images that it mixes.

Every number is made twice: of reconstructions decoded from the posterior MEAN (names with `_at_mean`) and from one
posterior sample. The mean's is the one to report: the paper's pictures decode the mean, and a posterior that widens
with beta moves its samples, and so their reconstructions, away from the input without any memory of training images
(1 layer, beta = 5: 66% of test images are "memorised" at the sample, 58% by the control; 15% and 11% at the mean).
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from vae_rd.measures import gallery, information, nearest
from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings, query_images
from vae_rd.measures.progress import Progress, silent

AT_MEAN, AT_SAMPLE = "_at_mean", ""  # what is decoded: suffixes of all names below
MEMORISED = "memorised"  # share of test images whose reconstruction lies nearer to a training image than to its input
MEMORISED_CONTROL = "memorised_control"  # ... nearer to one of as many OTHER TEST images: what blur alone brings about
AVERAGED = "averaged"  # ... nearer to the infinite-capacity decoder's output than to its input
PERPLEXITY = "perplexity"  # of that decoder's weights on the training images
MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL = "memorised_at_mean", "memorised_at_mean_control"
AVERAGED_AT_MEAN, PERPLEXITY_AT_MEAN = "averaged_at_mean", "perplexity_at_mean"
SHARES = (MEMORISED, MEMORISED_CONTROL, AVERAGED,  # of images: between 0 and 1
          MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL, AVERAGED_AT_MEAN)
STRIP_IMAGES = 10  # test images in the picture

PAIRS_PER_BLOCK = 2**23  # weights [queries, training images] in memory at a time: 32 MiB of float32
TIE = 1e-4  # distances closer than this are equal: the weighted mean can BE the input, up to rounding
IMAGES_PER_PRODUCT = 8192  # training images that are floats at a time: 96 MiB for 32 x 32 x 3


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
    def memorised_control(self) -> np.ndarray | None:
        """Whether it lies nearer to another test image than to its own input, [n] bool: blur does that, too."""
        return None if self.to_other_test_image is None else self.to_other_test_image < self.to_input - TIE

    @property
    def averaged(self) -> np.ndarray:
        """Whether the reconstruction lies nearer to the weighted mean than to its own input, [n] bool."""
        return self.to_average < self.to_input - TIE


class Others(NamedTuple):
    """Test images that stand against the training images as a control."""

    images: np.ndarray  # [N + 1, height, width, channels] uint8
    excluded: np.ndarray  # [n], row of the one that does not count for an input, so that N do


@dataclasses.dataclass(frozen=True)
class MemorisationSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(2000)


def measure(run: FinishedRun, settings: MemorisationSettings) -> Outcome:
    """What reconstructions lie nearest to, at the posterior mean and at one sample."""
    scalars: dict[str, dict[str, float]] = {}
    per_example: dict[str, dict[str, np.ndarray]] = {}
    pictures = {}
    for name in run.partitions:
        rows = run.rows(name, settings.query_images)
        scalars[name], per_example[name] = {}, {}
        for suffix, codes in ((AT_MEAN, run.posteriors(name, rows).means), (AT_SAMPLE, run.codes(name, rows=rows))):
            made = _reconstructed(run, name, rows, codes)
            numbers, values = _named(made, suffix)
            scalars[name] |= numbers
            per_example[name] |= run.spread(name, rows, **values)
            if name == "test" and suffix == AT_MEAN:
                images = run.partition(name).images[rows]
                pictures["memorisation"] = _strips(images, made, run.partition("train").images)
    return Outcome(scalars, per_example, pictures)


MEASURE = Measure(
    "memorisation", measure, "reconstructions at the posterior mean, and at a sample beside it, against training "
    "images and the infinite-capacity decoder (a minute for cv_16k, five for cv_82k)", MemorisationSettings,
    (f"test/{MEMORISED_AT_MEAN}", f"test/{MEMORISED_AT_MEAN_CONTROL}", f"test/{PERPLEXITY_AT_MEAN}"), quick=True,
    shares=SHARES, version=2)  # the first had sampled codes only


class _Reconstructed(NamedTuple):
    reconstructions: np.ndarray  # [n, height, width, channels]
    average: Average
    found: Memorisation


def _reconstructed(run: FinishedRun, name: str, rows: np.ndarray, codes: np.ndarray) -> _Reconstructed:
    """The reconstructions of the images at some rows from their codes [n, latent_dim], and how they compare."""
    train, images = run.partition("train").images, run.partition(name).images
    average = infinite_capacity(codes, *run.posteriors("train"), train, run.progress)
    reconstructions = run.decode(codes)
    controlled = name == "test" and len(images) >= len(train)  # of fewer test images, all would lie farther away
    others = other_test_images(images, run.rows(name, len(train) + 1), rows) if controlled else None
    found = compare(images[rows], reconstructions, average.images, train, rows if name == "train" else None, others,
                    run.progress)
    return _Reconstructed(reconstructions, average, found)


def _named(made: _Reconstructed, suffix: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Scalars, and values per image [n], by name."""
    found = made.found
    values = {PERPLEXITY: made.average.perplexity, "distance_to_input": found.to_input,
              "distance_to_training_image": found.to_training_image, "distance_to_average": found.to_average}
    shares = {MEMORISED: found.memorised, AVERAGED: found.averaged}
    if found.to_other_test_image is not None and found.memorised_control is not None:
        values["distance_to_other_test_image"] = found.to_other_test_image
        shares[MEMORISED_CONTROL] = found.memorised_control
    values = {name + suffix: value for name, value in values.items()}
    shares = {_with_suffix(name, suffix): value for name, value in shares.items()}
    return {name: float(value.mean()) for name, value in (values | shares).items()}, values


def _with_suffix(name: str, suffix: str) -> str:
    return MEMORISED + suffix + "_control" if name == MEMORISED_CONTROL else name + suffix


def _strips(images: np.ndarray, made: _Reconstructed, train: np.ndarray) -> Any:
    """Test images from the nearest to the training set to the farthest, and what the model makes of them."""
    from vae_rd.measures import pictures
    closest = nearest.nearest_images(images, train)
    chosen = gallery.near_to_far(closest.distance, STRIP_IMAGES)
    rows = [images[chosen] / 255, made.reconstructions[chosen], train[closest.position[chosen]] / 255,
            train[made.found.position[chosen]] / 255, made.average.images[chosen]]
    labels = ["input", "reconstruction", "training image\nnearest to input", "training image\nnearest to reconstr.",
              "weighted mean of\ntraining images"]
    return pictures.grid(np.stack(rows), labels, [f"{distance:.1f}" for distance in closest.distance[chosen]],
                         "test images by L2 distance to the training set")


def infinite_capacity(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray, train_images: np.ndarray,
                      progress: Progress = silent) -> Average:
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
    for start in progress(range(0, len(codes), block), desc="infinite-capacity decoder"):
        rows = slice(start, start + block)
        weights = information.responsibilities(codes[rows], means, stddevs)
        logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
        perplexity[rows] = np.exp(-np.einsum("ij,ij->i", weights, logs, dtype=np.float64))
        images[rows] = _weighted_mean(weights.astype(np.float32), train_images)
    return Average(images, perplexity)


def compare(images: np.ndarray, reconstructions: np.ndarray, averages: np.ndarray, train_images: np.ndarray,
            excluded: np.ndarray | None = None, others: Others | None = None, progress: Progress = silent
            ) -> Memorisation:
    """What each reconstruction lies nearest to.

    A blurred reconstruction, such as the mean image, lies nearer to some image or other than to its own input, whether
    or not the model has seen that image. As many test images as there are training images are the control: where a
    split is random, only what the model has memorised makes a training image the nearer one more often. A smaller test
    set is none: the nearest of fewer images lies farther away.

    Args:
        images: [n, height, width, channels] uint8, the inputs.
        reconstructions, averages: [n, height, width, channels] float in [0, 1].
        train_images: [N, height, width, channels] uint8.
        excluded: [n] row of each input among the training images, where it is one of them.
        others: what `other_test_images` returned, where the inputs are test images.
        progress: called as `progress(blocks, desc=...)`, as `tqdm.tqdm` is.
    """
    training = nearest.nearest_images(reconstructions, train_images, excluded=excluded, progress=progress)
    found = Memorisation(_distances(reconstructions, images / np.float64(255)), training.distance,
                         _distances(reconstructions, averages), training.position)
    if others is None:
        return found
    other = nearest.nearest_images(reconstructions, others.images, excluded=others.excluded, progress=progress)
    return found._replace(to_other_test_image=other.distance)


def other_test_images(images: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> Others:
    """The control's images for the test images at some rows.

    Args:
        images: [M, height, width, channels] uint8, all test images.
        chosen: [N + 1] rows of a fixed random choice, ascending; one more than there are to be others.
            Where the test set has N images only, all of them: then N - 1 stand against N training images.
        rows: [n] rows of the inputs. An input that was itself chosen is excluded for itself; for every other input the
            first chosen image is, so that N count.
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
