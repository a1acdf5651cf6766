"""3dShapes: 480,000 colour pictures of a shape in a room, read in blocks from the original HDF5 file."""

import functools
from typing import Any

import numpy as np

from data_gen.builders.hdf5 import open_hdf5, read_blocks
from data_gen.dataset import Dataset, resized
from data_gen.raw_files import RawFile


class Shapes3d(Dataset):
    """3dShapes: the full grid of six factors. The shape (cube, cylinder, sphere, capsule) is a class."""

    name = "shapes3d"
    num_images, native_size, channels = 480_000, 64, 3
    factor_names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    factor_units = ("hue", "hue", "hue", "relative", "class", "degrees")
    ordered_factors = ("floor_hue", "wall_hue", "object_hue", "scale", "orientation")
    files = (RawFile("3dshapes.h5", "https://storage.googleapis.com/3d-shapes/3dshapes.h5", 267573662,
                     "0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"),)

    @functools.cached_property
    def _file(self) -> Any:
        return open_hdf5(self.path(self.files[0]), {"images": (self.num_images, 64, 64, 3),
                                                    "labels": (self.num_images, 6)})

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [480000, 6]: the file's labels."""
        return self._file["labels"][:].astype(np.float32)

    def images(self, index: np.ndarray) -> np.ndarray:
        """The pictures, averaged over blocks of 2 x 2 pixels at the default size."""
        return read_blocks(self._file["images"], index, lambda block: resized(block, self.image_size))
