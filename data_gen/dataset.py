"""The interface of a data set: what a class must give so that it can be split and written."""

import abc
import functools
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from data_gen import splits
from data_gen.raw_files import RawFile, provide
from vae_rd.config import DATASET_NAME, ConfigError, canonical_split, split_size
from vae_rd.datasets.records import CLASS, RecordsError


class Dataset(abc.ABC):
    """A full data set: images by index, with factors where it has them. One subclass and one file per data set.

    A subclass names itself and its number of images and implements `images`. Everything else has a default: no factors,
    no original files, no partitions. `ordered_factors` are those of the factors that have an order, so that splits by
    factors (`checkerboard`, `cd_*`) make sense; the others, of the unit `class`, have no middle and no neighbours and
    take no part in them.

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
    ordered_factors: tuple[str, ...] = ()
    num_official_train: int | None = None  # images before this index are the training partition as distributed
    files: tuple[RawFile, ...] = ()  # original files, all needed

    def __init__(self, data_seed: int = 0, image_size: int = 32, raw_dir: str | pathlib.Path = "raw"):
        self.data_seed, self.image_size, self.raw_dir = data_seed, image_size, raw_dir

    def __reduce__(self) -> tuple[Callable, tuple]:
        """Sent to worker processes as its arguments; each process opens it once."""
        return opened, (type(self), self.data_seed, self.image_size, self.raw_dir)

    @abc.abstractmethod
    def images(self, index: np.ndarray) -> np.ndarray:
        """uint8 [n, image_size, image_size, channels] of the images at an ascending `index` [n]."""

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [num_images, number of factors], in `factor_units`."""
        return np.zeros((self.num_images, 0), np.float32)

    @property
    def factor_ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each factor. Default: the least and the largest value of the full data set."""
        return tuple((float(column.min()), float(column.max())) for column in self.factors.T)

    @functools.cached_property
    def cells(self) -> np.ndarray | None:
        """Bins [num_images, ordered factors]: what `checkerboard` goes by. Default: the levels of discrete factors."""
        if not self.ordered_factors:
            return None
        columns = [self.factors[:, self.factor_names.index(name)] for name in self.ordered_factors]
        return np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=1)

    @property
    def unit_factors(self) -> np.ndarray | None:
        """[num_images, ordered factors] in [0, 1]: what `cd_*` goes by. Default: level k of n lies at (k + 1/2) / n."""
        return None if self.cells is None else (self.cells + 0.5) / (self.cells.max(axis=0) + 1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.image_size, self.image_size, self.channels

    def prepare(self) -> None:
        """Makes sure, before anything is written, that the original files are there and are the original ones.

        Raises:
            RecordsError: if one is another file, or is missing and cannot be downloaded.
        """
        provide(self.files, self.raw_dir, self.name)

    def path(self, file: RawFile) -> pathlib.Path:
        """Where an original file lies, once `prepare` has found it.

        Raises:
            RecordsError: if the file is missing.
        """
        located = file.locate(self.raw_dir, self.name)
        if located is None:
            raise RecordsError(f"{file.name} must be in {self.raw_dir} (got no such file). Put it back, or run the "
                               "same command again.")
        return located

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Ascending (train_index, test_index) of a split that `check` accepts; `cv_*` pools the official partitions."""
        if name == "official":
            index, size = np.arange(self.num_images), self.num_official_train
            return index[:size], index[size:]
        return splits.make_split(name, self.unit_factors, self.cells, self.num_images, self.data_seed)

    @classmethod
    def check(cls, split: str, image_size: int) -> None:
        """Refuses a split or an image size that this data set cannot have.

        Raises:
            ConfigError: saying what is allowed.
        """
        name, size = canonical_split(split), split_size(split)
        if name == "official" and cls.num_official_train is None:
            raise ConfigError(f"split must be default or cv_<size> with dataset={cls.name}, which is not distributed "
                              "in partitions (got 'official').")
        if (name == "checkerboard" or name.startswith("cd_")) and not cls.ordered_factors:
            raise ConfigError(f"split must be default{', official' if cls.num_official_train else ''} or cv_<size> "
                              f"with dataset={cls.name}, which has no ordered factors (got {name!r}).")
        largest = cls.num_images // 2 if name.startswith("cd_") else cls.num_images - 1
        if size is not None and size > largest:
            raise ConfigError(f"split must be at most {name[:3]}{largest} with dataset={cls.name}, which has "
                              f"{cls.num_images} images (got {name!r}).")
        native = cls.native_size
        if image_size < 8 if native is None else image_size < native and native % image_size:
            rule = "8 or more" if native is None else (f"a divisor of the {native} pixels of {cls.name} (averaged), or "
                                                       "more (padded)")
            raise ConfigError(f"image_size must be {rule} (got {image_size}).")


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, size, size, channels]: means over whole blocks of pixels where smaller, a black frame where larger.

    Raises:
        ConfigError: unless the images are uint8 [n, height, width, channels], square, and can be cut into such blocks.
    """
    _check_array("images to resize", images)
    count, native, width, channels = images.shape
    if width != native or size < native and native % size:
        raise ConfigError(f"images to resize must be square, of a multiple of the size asked for, or smaller (got "
                          f"{native} x {width} for {size}). Try another image_size, or crop them first.")
    if size >= native:
        before, after = (size - native) // 2, (size - native + 1) // 2
        return np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)))
    block = native // size
    blocks = images.reshape(count, size, block, size, block, channels)
    total = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((total + block * block // 2) // (block * block)).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def opened(kind: type[Dataset], data_seed: int, image_size: int, raw_dir: str) -> Dataset:
    """The data set of these arguments, opened once in each process."""
    return kind(data_seed, image_size, raw_dir)


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least  # NumPy's integers cannot be written into info.json


def _are_different_texts(value: Any) -> bool:
    return (isinstance(value, (tuple, list)) and all(isinstance(text, str) for text in value)
            and len(set(value)) == len(value))


# The rule of each class attribute, and whether a value meets it.
_RULES: dict[str, tuple[str, Callable[[Any, type[Dataset]], bool]]] = {
    "num_images": ("a whole number (int), 2 or more", lambda value, kind: _is_whole(value, 2)),
    "channels": ("1 (grey) or 3 (colour)", lambda value, kind: _is_whole(value, 1) and value in (1, 3)),
    "native_size": ("None, or a whole number (int), 1 or more",
                    lambda value, kind: value is None or _is_whole(value, 1)),
    "factor_names": ("a tuple of different texts", lambda value, kind: _are_different_texts(value)),
    "factor_units": ("a tuple with a text for each of factor_names",
                     lambda value, kind: isinstance(value, (tuple, list)) and len(value) == len(kind.factor_names)
                     and all(isinstance(text, str) for text in value)),
    "ordered_factors": (f"a tuple of those of factor_names whose unit is not {CLASS!r}",
                        lambda value, kind: _are_different_texts(value) and set(value) == {
                            name for name, unit in zip(kind.factor_names, kind.factor_units) if unit != CLASS}),
    "num_official_train": ("None, or a whole number (int), 1 or more and below num_images",
                           lambda value, kind: value is None or _is_whole(value, 1) and value < kind.num_images)}


def check_class(name: str, kind: type[Dataset]) -> None:
    """Checks the attributes of a data set's class before any work starts; `name` is its key in DATASETS.

    Raises:
        ConfigError: naming the attribute, its rule and its value.
    """
    if not (isinstance(kind, type) and issubclass(kind, Dataset)) or inspect.isabstract(kind):
        raise ConfigError(f"dataset={name} must be a subclass of Dataset that has a method images (got {kind!r}).")
    rules = {"name": ("its key in DATASETS, of small letters, digits and underscores",
                      lambda value, kind: value == name and re.fullmatch(DATASET_NAME, name)), **_RULES}
    for attribute, (rule, meets) in rules.items():
        value = getattr(kind, attribute, None)
        if not meets(value, kind):
            raise ConfigError(f"{attribute} of dataset={name} must be {rule} (got {value!r}). Set it in class "
                              f"{kind.__name__}.")


def check_factors(data: Dataset) -> None:
    """Refuses factors that are not a finite number for each image and name, and ranges that are not a pair for each.

    Raises:
        ConfigError: saying what they must be.
    """
    factors, expected = np.asarray(data.factors), (data.num_images, len(data.factor_names))
    numbers = factors.dtype.kind in "biuf"
    finite = numbers and bool(np.isfinite(factors).all())
    if factors.shape != expected or not finite:
        found = f"{factors.dtype} {list(factors.shape)}{' with NaN or infinity' if numbers and not finite else ''}"
        raise ConfigError(f"factors of dataset={data.name} must be finite numbers {list(expected)}, a row for each "
                          f"image and a column for each of factor_names (got {found}).")
    ranges = data.factor_ranges
    try:
        pairs = np.array([(low, high) for low, high in ranges]).reshape(-1, 2)
    except (TypeError, ValueError):  # no pairs
        pairs = np.array("")
    if len(ranges) != len(data.factor_names) or pairs.dtype.kind not in "biuf" or not np.isfinite(pairs).all():
        raise ConfigError(f"factor_ranges of dataset={data.name} must be a pair of finite numbers (low, high) for each "
                          f"of factor_names (got {ranges!r}).")


def checked_images(data: Dataset, index: np.ndarray) -> np.ndarray:
    """The images at an ascending index, which are what `Dataset.images` must return.

    Raises:
        ConfigError: saying what they must be, and the likely remedy.
    """
    images, expected = data.images(index), (len(index), *data.image_shape)
    _check_array(f"images of dataset={data.name}", images)
    if images.shape != expected:
        if images.shape[1:3] != expected[1:3]:
            remedy = "Try resized(images, self.image_size), of data_gen.dataset."
        elif images.shape[3] != data.channels:
            remedy = f"Try channels = {images.shape[3]} in class {type(data).__name__}."
        else:
            remedy = "Return one for each number of the index."
        raise ConfigError(f"images of dataset={data.name} must have the shape [n, image_size, image_size, channels] = "
                          f"{list(expected)} (got {list(images.shape)}). {remedy}")
    return images


def _check_array(what: str, images: Any) -> None:
    array = isinstance(images, np.ndarray)
    if array and images.dtype == np.uint8 and images.ndim == 4:
        return
    found = f"{images.dtype} {list(images.shape)}" if array else type(images).__name__
    remedy = ("images[..., None] if they are grey and lack the last axis" if array and images.dtype == np.uint8 else
              "np.round(255 * images).astype(np.uint8) if they are an array of numbers from 0 to 1")
    raise ConfigError(f"{what} must be uint8 [n, height, width, channels] (got {found}). Try {remedy}.")
