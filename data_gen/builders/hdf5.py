"""Reads arrays of HDF5 files, block by block."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vae_rd.datasets.records import RecordsError

_BLOCK = 4096  # rows read at once: 50 MB of 64 x 64 colour pictures


def open_hdf5(path: pathlib.Path, shapes: dict[str, tuple[int, ...]]) -> Any:
    """An open h5py.File whose arrays have these shapes.

    Raises:
        RecordsError: if it is not an HDF5 file, or holds other arrays.
    """
    import h5py  # only where such a file is read: not for --help
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise RecordsError(f"{path} cannot be read as HDF5: {error}. It is cut short or damaged: fetch it again."
                           ) from error
    for name, shape in shapes.items():
        found = file[name].shape if name in file else "nothing"
        if found != shape:
            raise RecordsError(f"{path} must hold {name!r} of shape {shape} (got {found}). It is not the original: "
                               "fetch it again.")
    return file


def read_blocks(array: Any, index: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The rows of an array on disk at an ascending index, converted block by block.

    Whole blocks are read, in order and along the file's own chunks: picking single rows would decompress each chunk
    many times over.

    Args:
        array: h5py.Dataset [N, ...].
        index: ascending [n].
        convert: is given the rows wanted from one block, uint8 [k, ...], and returns what is kept of them.
    """
    chunk = array.chunks[0] if array.chunks else 1
    size = max(1, _BLOCK // chunk) * chunk
    parts = []
    for block in np.unique(index // size):
        wanted = index[index // size == block]
        first = wanted[0] // chunk * chunk
        parts.append(convert(array[first:wanted[-1] + 1][wanted - first]))
    return np.concatenate(parts)
