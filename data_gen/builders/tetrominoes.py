"""Tetrominoes as the paper describes them: five independent, stratified factors and 163,840 images."""

import functools

import numpy as np

from data_gen import drawing, randomness
from data_gen.dataset import Dataset

BINS = (16, 8, 5, 16, 16)  # rotation, hue, scale, x, y: one image in each of the 163,840 cells
SCALE_MAX = 5.0
MARGIN = SCALE_MAX * drawing.RADIUS  # 9.014 pixels: at any angle the largest shape stays inside the image
LOW = np.array([0.0, 0.0, 2.0, MARGIN, MARGIN])
HIGH = np.array([360.0, 0.875, SCALE_MAX, 32 - MARGIN, 32 - MARGIN])


class Tetrominoes(Dataset):
    """J-shaped tetrominoes; image i lies in cell i of the 16 x 8 x 5 x 16 x 16 grid over the factors.

    Scale and position count in pixels of a 32 x 32 image; at another `image_size` the same picture is drawn, finer or
    coarser.
    """

    name = "tetrominoes"
    num_images = int(np.prod(BINS))
    channels = 3
    factor_names = ("rotation", "hue", "scale", "x", "y")
    factor_units = ("degrees", "hue", "pixels", "pixels", "pixels")
    ordered_factors = factor_names

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [163840, 5]: one uniform draw in each cell, rounded to float32 and kept below the upper edge."""
        draws = randomness.stream(self.data_seed, "factors").random(self.cells.shape)
        width = (HIGH - LOW) / BINS
        upper = np.nextafter((LOW + (self.cells + 1) * width).astype(np.float32), np.float32(0))
        return np.minimum((LOW + (self.cells + draws) * width).astype(np.float32), upper)

    @property
    def factor_ranges(self) -> tuple[tuple[float, float], ...]:
        """The ranges that the draws are made from."""
        return tuple(zip(LOW.tolist(), HIGH.tolist()))

    @property
    def unit_factors(self) -> np.ndarray:
        """Factors mapped from their ranges to [0, 1]."""
        return (self.factors - LOW) / (HIGH - LOW)

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """int64 [163840, 5]: the bin of each factor."""
        return np.stack(np.unravel_index(np.arange(self.num_images), BINS), axis=1)

    def images(self, index: np.ndarray) -> np.ndarray:
        """Draws the images; black background, anti-aliased coverage times the pure hue."""
        rotation, hue, scale, centre_x, centre_y = self.factors[index].astype(np.float64).T
        zoom = self.image_size / 32
        return drawing.draw(rotation, hue, scale * zoom, centre_x * zoom, centre_y * zoom, self.image_size)
