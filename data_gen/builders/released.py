"""Tetrominoes as the authors' released generator makes them: ranges, draws and splits that differ from the paper's."""

import functools

import numpy as np

from data_gen import drawing, splits
from data_gen.builders.tetrominoes import BINS, Tetrominoes
from vae_rd.config import canonical_split, split_size

LOW = np.array([0.0, 0.0, 2.0, 8.0, 8.0])
HIGH = np.array([337.5, 0.875, 5.0, 23.0, 23.0])  # x and y: index of the pixel at the centre, the same for every scale


class TetrominoesReleased(Tetrominoes):
    """The released generator, so that numbers can be compared with the authors'.

    Its draws come from `numpy.random.RandomState(1)`; a data seed s, 0 being theirs, stands for RandomState(1 + s).
    Deviations: training sets of `cv_*` have the exact sizes (its float arithmetic gives 8193, 24577 and 49153 for 8k,
    25k and 49k), and pixels are exact area averages, not means over a bilinearly warped 512 x 512 picture.
    """

    name = "tetrominoes_released"

    @functools.cached_property
    def _random(self) -> tuple[np.ndarray, np.ndarray]:
        """The one `rand` call and the `permutation` after it."""
        state = np.random.RandomState(1 + self.data_seed)
        return state.rand(self.num_images, len(BINS)), state.permutation(self.num_images)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """float64 [163840, 5]; bins run in the order of NumPy's `xy` meshgrid: hue slowest, then rotation."""
        borders = [np.linspace(low, high, bins + 1)[:-1] for low, high, bins in zip(LOW, HIGH, BINS)]
        lower = np.stack([axis.ravel() for axis in np.meshgrid(*borders)], axis=1)
        return lower + self._random[0] * ((HIGH - LOW) / BINS)

    @functools.cached_property
    def factors(self) -> np.ndarray:
        """float32 [163840, 5]: the labels."""
        return self.labels.astype(np.float32)

    @property
    def factor_ranges(self) -> tuple[tuple[float, float], ...]:
        """LOW and HIGH, which are not the paper's."""
        return tuple(zip(LOW.tolist(), HIGH.tolist()))

    @property
    def unit_factors(self) -> np.ndarray:
        """Labels mapped from their ranges to [0, 1]."""
        return (self.labels - LOW) / (HIGH - LOW)

    @property
    def cells(self) -> None:  # type: ignore[override]  # the paper's set has bins
        """None: its checkerboard cuts every range at the middle, not at a bin's edge."""
        return None

    def images(self, index: np.ndarray) -> np.ndarray:
        """Draws the images; a few corners leave the image by half a pixel."""
        rotation, hue, *pixels = self.labels[index].T
        zoom = self.image_size / 32
        scale, centre_x, centre_y = pixels[0] * zoom, (pixels[1] + 0.5) * zoom, (pixels[2] + 0.5) * zoom
        return drawing.draw(rotation, hue, scale, centre_x, centre_y, self.image_size)

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The released splits: `cd_*` are the default halves cropped to the centred box, so sizes only come near."""
        name, size = canonical_split(name), split_size(name)
        in_train, keep = self._random[1] < self.num_images // 2, np.ones(self.num_images, bool)
        if name == "checkerboard":
            in_train = splits.even_cells(self.unit_factors, None)
        elif size is not None and name.startswith("cv_"):
            in_train = self._random[1] < size
        elif size is not None and name.startswith("cd_"):
            side = (2 * size / self.num_images) ** (1 / len(BINS))
            keep = (np.abs(self.unit_factors - 0.5) <= side / 2).all(axis=1)
        return np.flatnonzero(in_train & keep), np.flatnonzero(~in_train & keep)
