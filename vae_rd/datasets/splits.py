"""A split in memory: its images, their identities and their factors."""

import os
from typing import NamedTuple

import numpy as np

from vae_rd.datasets import random_streams, records


class Partition(NamedTuple):
    """The training or the test set, in the order of `index`."""

    images: np.ndarray  # [num, height, width, channels] uint8
    # [num] int64, position in the full data set: the image's identity across splits
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    factors: np.ndarray  # [num, num_factors] float32, physical units


class Split(NamedTuple):
    """A named pair of training and test set."""

    info: records.Info
    train: Partition
    test: Partition


def load(split_dir: str | os.PathLike) -> Split:
    """Reads and verifies a split.

    Raises:
        records.RecordsError: if a shard or info.json is missing, damaged or disagrees, or both sets have an image.
    """
    info = records.read_info(split_dir)
    train, test = (Partition(*records.load_partition(split_dir, info, name)) for name in ("train", "test"))
    if shared := np.intersect1d(train.index, test.index).size:
        raise records.RecordsError(f"{split_dir} must hold two sets that share no image (got {shared} in both). Make "
                                   "the split again: data_gen.main --overwrite.")
    return Split(info, train, test)


def binarized(partition: Partition) -> Partition:
    """The partition with each pixel drawn once, black or white, with its grey value as probability; keyed by index."""
    images = np.empty_like(partition.images)
    for row, index in enumerate(partition.index):
        draws = random_streams.random("binarization", int(index)).random(partition.images.shape[1:], np.float32)
        images[row] = np.where(draws * 255 < partition.images[row], 255, 0)
    return partition._replace(images=images)
