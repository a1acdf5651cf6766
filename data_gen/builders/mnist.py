"""MNIST: 70,000 handwritten digits, read from the four original IDX files."""

import functools
import math
import pathlib

import numpy as np

from data_gen.dataset import Dataset, resized
from data_gen.raw_files import RawFile, open_raw, read_exactly
from vae_rd.datasets.records import RecordsError

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"


def idx_files(url: str, table: dict[str, tuple[int, str, str]]) -> tuple[RawFile, ...]:
    """The four files of an MNIST-like set; the table gives size, sha256 and sha256 of the content by name."""
    return tuple(RawFile(f"{name}.gz", f"{url}{name}.gz", *numbers) for name, numbers in table.items())


class Mnist(Dataset):
    """MNIST, training partition first. Padded with black to 32 x 32 by default; at 28 the original images."""

    name = "mnist"
    num_images, num_official_train, native_size = 70_000, 60_000, 28
    factor_names, factor_units = ("label",), ("class",)
    files = idx_files(_URL, {
        "train-images-idx3-ubyte": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        "train-labels-idx1-ubyte": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        "t10k-images-idx3-ubyte": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                                   "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        "t10k-labels-idx1-ubyte": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                                   "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")})

    def _read(self, kind: int) -> np.ndarray:
        """The images (0) or the labels (1) of both partitions."""
        arrays = [read_idx(self.path(file)) for file in self.files[kind::2]]
        expected, found = [self.num_official_train, self.num_images - self.num_official_train], list(map(len, arrays))
        if found != expected:
            raise RecordsError(f"{self.path(self.files[kind])} and its test file must hold {expected} items (got "
                               f"{found}). They are not the originals of {self.name}: fetch them again.")
        return np.concatenate(arrays)

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        return self._read(0)

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [70000, 1]: the label."""
        return self._read(1)[:, None].astype(np.float32)

    def images(self, index: np.ndarray) -> np.ndarray:
        """The images, padded or averaged to the size asked for."""
        return resized(self._pixels[index][..., None], self.image_size)


def read_idx(path: pathlib.Path) -> np.ndarray:
    """uint8 array of an IDX file: two zero bytes, type 8, number of dimensions, big-endian sizes, the bytes.

    Raises:
        RecordsError: if it is not such a file, or ends too early.
    """
    with open_raw(path) as file:
        head = read_exactly(file, 4, path)
        if head[:3] != b"\0\0\x08" or head[3] == 0:
            raise RecordsError(f"{path} must begin with 00 00 08 and the number of dimensions (got {head.hex(' ')}). "
                               "It is not an IDX file of bytes: fetch it again.")
        shape = tuple(np.frombuffer(read_exactly(file, 4 * head[3], path), ">u4").tolist())
        return np.frombuffer(read_exactly(file, math.prod(shape), path), np.uint8).reshape(shape)
