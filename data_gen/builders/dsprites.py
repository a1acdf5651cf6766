"""dSprites: 737,280 binary pictures of sprites, read from the original HDF5 or NPZ file."""

import functools
import pathlib
import zipfile
from typing import Any

import numpy as np

from data_gen.builders.hdf5 import open_hdf5, read_blocks
from data_gen.dataset import Dataset, resized
from data_gen.raw_files import RawFile, read_exactly
from vae_rd.datasets.records import RecordsError

_STEM = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
_URL = f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{_STEM}"
_BLOCK = 4096  # images decompressed at once: 17 MB of the 3 GB


class DSprites(Dataset):
    """dSprites: the full grid of its factors, without the constant colour. The shape is a class.

    The HDF5 file is read in blocks. The NPZ file can only be read from its beginning: every worker process then keeps
    the pictures as bits, 377 MB.
    """

    name = "dsprites"
    num_images, native_size = 737_280, 64
    factor_names = ("shape", "scale", "orientation", "x", "y")
    factor_units = ("class", "relative", "radians", "relative", "relative")
    ordered_factors = ("scale", "orientation", "x", "y")
    hdf5 = RawFile(f"{_STEM}.hdf5", f"{_URL}.hdf5", 28024106,
                   "729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb")
    npz = RawFile(f"{_STEM}.npz", f"{_URL}.npz", None, "7da33b31b13a06f4b04a70402ce90c2e")

    @property
    def files(self) -> tuple[RawFile, ...]:  # type: ignore[override]  # not a constant as elsewhere
        """The HDF5 file, unless only the NPZ file is there."""
        only_npz = self.npz.locate(self.raw_dir, self.name) and not self.hdf5.locate(self.raw_dir, self.name)
        return (self.npz if only_npz else self.hdf5,)

    @property
    def _path(self) -> pathlib.Path:
        return self.path(self.files[0])

    @functools.cached_property
    def _hdf5(self) -> Any:
        return open_hdf5(self._path, {"imgs": (self.num_images, 64, 64), "latents/values": (self.num_images, 6)})

    @functools.cached_property
    def _bits(self) -> np.ndarray:
        """uint8 [737280, 512]: the pictures of the NPZ file, 8 pixels a byte."""
        return _packed_pictures(self._path, self.num_images)

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [737280, 5]: the file's latent values without the colour, which is always white."""
        if self._path.suffix == ".npz":
            values = _npz_array(self._path, "latents_values", (self.num_images, 6))
        else:
            values = self._hdf5["latents/values"][:]
        return values[:, 1:].astype(np.float32)

    def images(self, index: np.ndarray) -> np.ndarray:
        """The pictures, 255 where the sprite is, averaged over blocks of 2 x 2 pixels at the default size."""
        if self._path.suffix == ".npz":
            pictures = np.unpackbits(self._bits[index], axis=1).reshape(-1, 64, 64, 1)
            return resized(255 * pictures, self.image_size)
        return read_blocks(self._hdf5["imgs"], index, lambda block: resized(255 * block[..., None], self.image_size))


def _npz_array(path: pathlib.Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if (found := archive[name]).shape != shape:
                raise RecordsError(f"{path} must hold {name} of shape {shape} (got {found.shape}). It is not the "
                                   "original: fetch it again.")
            return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordsError(f"{path} cannot be read as NPZ with {name!r}: {error}. It is damaged, or not the original: "
                           "fetch it again.") from error


def _packed_pictures(path: pathlib.Path, count: int) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            if shape != (count, 64, 64) or kind != np.uint8:
                raise RecordsError(f"{path} must hold imgs of shape {(count, 64, 64)}, uint8 (got {shape}, {kind}). It "
                                   "is not the original: fetch it again.")
            bits = np.empty((count, 512), np.uint8)
            for start in range(0, count, _BLOCK):
                rows = min(_BLOCK, count - start)
                block = np.frombuffer(read_exactly(file, rows * 4096, path), np.uint8)
                bits[start:start + rows] = np.packbits(block.reshape(rows, 4096), axis=1)
            return bits
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise RecordsError(f"{path} cannot be read as NPZ: {error}. It is damaged: fetch it again.") from error
