"""The interface of a data set: what a class must give so that it can be split and written."""

import abc
import functools
import pathlib

import numpy as np

from data_gen import splits
from vae_rd.config import ConfigError, canonical_split, split_size


class Dataset(abc.ABC):
    """A full data set: images by index, with factors where it has them. One subclass per data set.

    A subclass names itself, its number of images and its factors, and implements `images`. Splits by factors
    (`checkerboard`, `cd_*`) need `unit_factors`, and set `factor_splits`; `official` needs `num_official_train`.

    Args:
        data_seed: seed of everything random in the data.
        image_size: height and width of the images that `images` returns.
        raw_dir: folder of the original files, where the data set is read and not drawn.
    """

    name: str
    num_images: int
    channels: int = 1
    native_size: int | None = None  # of the original images; None where they can be drawn at any size
    factor_names: tuple[str, ...] = ()
    factor_units: tuple[str, ...] = ()
    factor_splits: bool = False
    num_official_train: int | None = None  # images before this index are the training partition as distributed

    def __init__(self, data_seed: int = 0, image_size: int = 32, raw_dir: str | pathlib.Path | None = None):
        self.data_seed, self.image_size, self.raw_dir = data_seed, image_size, raw_dir

    def __reduce__(self):
        """Travels to worker processes as its arguments; each process opens it once."""
        return opened, (type(self), self.data_seed, self.image_size, self.raw_dir)

    @abc.abstractmethod
    def images(self, index: np.ndarray) -> np.ndarray:
        """uint8 [n, image_size, image_size, channels] of the images at a rising `index` [n]."""

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [num_images, number of factors], in `factor_units`."""
        return np.zeros((self.num_images, 0), np.float32)

    @property
    def unit_factors(self) -> np.ndarray | None:
        """[num_images, ordered factors] in [0, 1]: what `cd_*` and, without cells, `checkerboard` go by."""
        return None

    @property
    def cells(self) -> np.ndarray | None:
        """Bins [num_images, ordered factors] of the factors, where they have any: what `checkerboard` goes by."""
        return None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.image_size, self.image_size, self.channels

    def prepare(self) -> None:
        """Makes sure, before anything is written, that the original files are there; nothing to do for drawn data."""

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rising (train_index, test_index) of a split that `check` lets pass."""
        if name == "official":
            return np.split(np.arange(self.num_images), [self.num_official_train])
        return splits.make_split(name, self.unit_factors, self.cells, self.num_images, self.data_seed)

    @classmethod
    def check(cls, split: str, image_size: int) -> None:
        """Refuses a split or an image size that this data set cannot have.

        Raises:
            ConfigError: with rule, value and remedy.
        """
        name, size = canonical_split(split), split_size(split)
        if name == "official" and cls.num_official_train is None:
            raise ConfigError(f"split=official: {cls.name} is not distributed in partitions. Use default or cv_<size>.")
        if (name == "checkerboard" or name.startswith("cd_")) and not cls.factor_splits:
            raise ConfigError(f"split={name}: it is made from ordered factors, and {cls.name} has none. Use default, "
                              f"cv_<size>{' or official' if cls.num_official_train else ''}.")
        largest = cls.num_images // 2 if name.startswith("cd_") else cls.num_images - 1
        if size is not None and size > largest:
            raise ConfigError(f"split={name}: {cls.name} has {cls.num_images} images, so the largest of this kind is "
                              f"{name[:3]}{largest}.")
        native = cls.native_size
        if image_size < 8 if native is None else image_size < native and native % image_size:
            raise ConfigError(f"image_size={image_size}: must be " + ("8 or more." if native is None else
                              f"a divisor of the {native} pixels of {cls.name} (averaged), or more (padded)."))


@functools.lru_cache(maxsize=1)
def opened(kind: type[Dataset], data_seed: int, image_size: int, raw_dir: str | None) -> Dataset:
    """The data set of these arguments, opened once in each process."""
    return kind(data_seed, image_size, raw_dir)
