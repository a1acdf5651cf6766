"""Splits as pure functions of factors, cells and seed; they work for every data set.

All random choices of a data set come from ONE random order of its images, so that `cv_*` training sets are nested, and
`default` has the training set of the `cv_*` split of that size.
"""

import numpy as np

from data_gen import randomness
from vae_rd.config import ConfigError, canonical_split, split_size


def make_split(name: str, unit_factors: np.ndarray | None, cells: np.ndarray | None, num_images: int, seed: int
               ) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of a split by chance or by factors.

    Args:
        name: `default`, `checkerboard`, `cd_<size>` or `cv_<size>`.
        unit_factors: ordered factors [num_images, num_factors], scaled to [0, 1]; None without factors.
        cells: whole numbers [num_images, num_factors], the bin of each factor; None where there are no bins.
        num_images: images in the full data set.
        seed: the data seed.

    Returns:
        (train_index, test_index), each ascending.

    Raises:
        ConfigError: if the split needs factors and there are none, or if the size does not fit.
    """
    name, size = canonical_split(name), split_size(name)
    order = randomness.stream(seed, "splits").permutation(num_images)
    if name == "default":
        chosen, num_train = order, num_images // 2
    elif name == "checkerboard":
        even = even_cells(unit_factors, cells)
        chosen, num_train = np.argsort(~even, kind="stable"), int(even.sum())
    elif size is not None and name.startswith("cd_"):
        inside = centred_box(unit_factors, 2 * size, order)  # half of it trains: at every size the density is the same
        chosen, num_train = order[inside[order]], size
    elif size is not None and name.startswith("cv_"):
        chosen, num_train = order, size
    else:
        raise ConfigError(f"split must be default, checkerboard, cd_<size> or cv_<size> (got {name!r}).")
    if not 0 < num_train < len(chosen):
        raise ConfigError("split must leave images for training and for testing (got "
                          f"{name!r} of {num_images} images).")
    return np.sort(chosen[:num_train]), np.sort(chosen[num_train:])


def even_cells(unit_factors: np.ndarray | None, cells: np.ndarray | None) -> np.ndarray:
    """Checkerboard [num_images]: every factor's range is cut in two; True in the upper half of an even number of them.

    With bins the cut lies on a bin's edge (of an odd number the lower half has one more), else at the middle.
    """
    if cells is not None:
        upper = cells >= (cells.max(axis=0) + 2) // 2
    else:
        upper = _needed(unit_factors) >= 0.5
    return upper.sum(axis=1) % 2 == 0


def centred_box(unit_factors: np.ndarray | None, count: int, order: np.ndarray) -> np.ndarray:
    """Constant density [num_images]: True for the `count` images nearest to the middle of the factors' ranges.

    Images are ranked by their largest distance from the middle over all factors; ties go by `order`. Levels that mirror
    each other are as far from the middle, though not to the last bit: hence the rounding.
    """
    unit_factors = _needed(unit_factors)
    if count > len(unit_factors):
        raise ConfigError(f"count must be at most the {len(unit_factors)} images of the data set (got {count}).")
    distance = np.abs(unit_factors - 0.5).max(axis=1).round(9)
    ranked = order[np.argsort(distance[order], kind="stable")]
    inside = np.zeros(len(unit_factors), bool)
    inside[ranked[:count]] = True
    return inside


def _needed(unit_factors: np.ndarray | None) -> np.ndarray:
    if unit_factors is None:
        raise ConfigError("this split needs factors, but the data set has none.")
    return unit_factors
