"""SmallNORB: 48,600 grey pictures of toys, read from the six original matrix files."""

import functools
import io
import math
import pathlib

import numpy as np

from data_gen.dataset import Dataset, resized
from data_gen.raw_files import RawFile, open_raw, read_exactly
from vae_rd.datasets.records import RecordsError

_URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}  # by magic number
_BLOCK = 200  # pairs of pictures read at once: 3.7 MB


def _file(name: str, size: int, sha256: str) -> RawFile:
    return RawFile(name, _URL + name, size, sha256)


class SmallNorb(Dataset):
    """SmallNORB, training partition first; of each pair of pictures the first camera's.

    Category, instance and lighting are classes; the ordered factors are elevation (9 levels) and azimuth (18).
    """

    name = "smallnorb"
    num_images, num_official_train, native_size = 48_600, 24_300, 96
    factor_names = ("category", "instance", "elevation", "azimuth", "lighting")
    factor_units = ("class", "class", "degrees", "degrees", "class")
    ordered_factors = ("elevation", "azimuth")
    files = (
        _file("smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz", 131896188,
              "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"),
        _file("smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat.gz", 348,
              "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
        _file("smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz", 71052,
              "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32"),
        _file("smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz", 130799817,
              "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"),
        _file("smallnorb-5x01235x9x18x6x2x96x96-testing-cat.mat.gz", 347,
              "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
        _file("smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz", 10428,
              "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"))

    @functools.cached_property
    def _small(self) -> np.ndarray:
        """uint8 [48600, image_size, image_size, 1]: 50 MB, read in blocks from 900 MB."""
        return np.concatenate([_first_camera(self.path(file), self.image_size) for file in self.files[0::3]])

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [48600, 5]; angles in degrees (the files count elevation in steps of 5 from 30, azimuth in tens)."""
        category = np.concatenate([read_matrix(self.path(file)) for file in self.files[1::3]])
        instance, elevation, azimuth, lighting = np.concatenate(
            [read_matrix(self.path(file)) for file in self.files[2::3]]).T
        return np.stack([category, instance, 30 + 5 * elevation, 10 * azimuth, lighting], axis=1).astype(np.float32)

    def images(self, index: np.ndarray) -> np.ndarray:
        """The first camera's pictures, averaged over blocks of 3 x 3 pixels at the default size."""
        return self._small[index]


def read_matrix(path: pathlib.Path) -> np.ndarray:
    """A whole little-endian matrix file, as uint8 or int32."""
    with open_raw(path) as file:
        kind, shape = _header(file, path)
        return np.frombuffer(read_exactly(file, math.prod(shape) * kind.itemsize, path), kind).reshape(shape)


def _header(file: io.BufferedIOBase, path: pathlib.Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape: magic number, number of dimensions, and at least three sizes, of which the first ones count."""
    magic, dimensions = np.frombuffer(read_exactly(file, 8, path), "<u4").tolist()
    if magic not in _TYPES or not 1 <= dimensions <= 8:
        known = " or ".join(f"{number:#x}" for number in _TYPES)
        raise RecordsError(f"{path} must begin with {known}, little-endian, and 1 to 8 dimensions (got {magic:#x} and "
                           f"{dimensions}). It is not a SmallNORB matrix file: fetch it again.")
    sizes = np.frombuffer(read_exactly(file, 4 * max(3, dimensions), path), "<i4").tolist()
    return _TYPES[magic], tuple(sizes[:dimensions])


def _first_camera(path: pathlib.Path, size: int) -> np.ndarray:
    """uint8 [n, size, size, 1] of a file of picture pairs [n, 2, height, width]."""
    with open_raw(path) as file:
        kind, (count, cameras, height, width) = _header(file, path)
        pictures = []
        for start in range(0, count, _BLOCK):
            shape = (min(_BLOCK, count - start), cameras, height, width)
            block = np.frombuffer(read_exactly(file, math.prod(shape) * kind.itemsize, path), kind).reshape(shape)
            pictures.append(resized(block[:, 0, :, :, None], size))
    return np.concatenate(pictures)
