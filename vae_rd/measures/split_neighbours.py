"""The nearest training image of every test image of a split: computed once, and kept beside the data."""

import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from vae_rd.datasets import records, splits
from vae_rd.measures import nearest
from vae_rd.measures.progress import Progress, silent
from vae_rd.storage import files

FILE = "neighbours.npz"
DYNAMIC_FILE = "neighbours-dynamic.npz"  # of images that dynamic binarization has drawn
VERSION = "2"  # of how neighbours are found: what another version has kept is computed again
FULL_TURN = {"degrees": 360.0, "radians": 2 * np.pi}  # units in which a factor comes back to where it began


class SplitNeighbours(NamedTuple):
    """For every test image, in index order, the nearest training image; arrays [num_test]."""

    nearest_index: np.ndarray  # int64, its index in the full data set; by L2 distance between pixels
    nearest_distance: np.ndarray  # L2 distance to it, pixels on the [0, 1] scale
    nearest_factor_index: np.ndarray  # int64, likewise by ordered factors on the unit scale; -1 where there are none
    nearest_factor_distance: np.ndarray  # NaN where there are no ordered factors


def of_split(split: splits.Split, folder: str | os.PathLike | None, dynamic: bool = False,
             progress: Progress = silent) -> SplitNeighbours:
    """The neighbours of a split, read from its folder if they are there, else computed and written there.

    Args:
        split: the data.
        folder: the split's folder; None: nothing is read or kept.
        dynamic: whether the images are those that dynamic binarization has drawn, and not those on disk.
        progress: called as `progress(blocks, desc=...)`, as `tqdm.tqdm` is.
    """
    path = pathlib.Path(folder) / (DYNAMIC_FILE if dynamic else FILE) if folder else None
    key = np.array([VERSION, *(split.info.content_sha256[name] for name in ("train", "test")),
                    str((split.info.factor_units, split.info.factor_ranges))])
    kept = _read(path, key) if path else None
    if kept:
        return kept
    found = compute(split, progress)
    if path:
        try:
            files.write_arrays(path, {"key": key, **found._asdict()})
        except OSError as error:
            print(f"{path} could not be written ({error.strerror}): the neighbours are computed again next time.",
                  file=sys.stderr)
    return found


def compute(split: splits.Split, progress: Progress = silent) -> SplitNeighbours:
    """The neighbours of a split, in pixels and in the factors that have an order."""
    train, test = split.train, split.test
    pixels = nearest.nearest_images(test.images, train.images, progress=progress)
    in_pixels = train.index[pixels.position], pixels.distance
    ordered = [column for column, unit in enumerate(split.info.factor_units) if unit != records.CLASS]
    if not ordered:
        return SplitNeighbours(*in_pixels, np.full(len(test.index), -1), np.full(len(test.index), np.nan))
    low, high = np.array(split.info.factor_ranges, np.float64)[ordered].T
    turns = np.array([FULL_TURN.get(split.info.factor_units[column], 0) for column in ordered])
    factors = nearest.nearest_factors(nearest.unit_factors(test.factors[:, ordered], low, high),
                                      nearest.unit_factors(train.factors[:, ordered], low, high),
                                      turns / np.where(high > low, high - low, 1))
    return SplitNeighbours(*in_pixels, train.index[factors.position], factors.distance)


def _read(path: pathlib.Path, key: np.ndarray) -> SplitNeighbours | None:
    """What is kept; None if there is nothing, or it is damaged or of other data: it is then computed again."""
    try:
        arrays = files.read_arrays(path) if path.is_file() else {}
    except files.FileError:
        return None
    if set(arrays) != {"key", *SplitNeighbours._fields}:
        return None
    return SplitNeighbours(**arrays) if np.array_equal(arrays.pop("key"), key) else None
