"""Draws what the data and the splits look like: samples, and the four kinds of split on a small set of two factors."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from data_gen import randomness
from data_gen.dataset import Dataset, checked_images
from data_gen.splits import make_split
from vae_rd.config import ConfigError
from vae_rd.storage.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SPLITS = {"default": "Random halves", "checkerboard": "Checkerboard", "cv_60": "Constant volume",
                 "cd_60": "Constant density"}  # of the 600 points, and the word for each
_GRID = (30, 20)  # bins of the two factors: one point in each
_COLOURS = {"train": "#0072B2", "test": "#E69F00"}  # blue and orange: told apart by every kind of colour vision
_MARKERS = {"train": "o", "test": "x"}
_ROWS, _COLUMNS = 5, 16


def sample_images(data: Dataset) -> np.ndarray:
    """uint8 [80, height, width, channels]: images drawn at random from the whole set."""
    stream = randomness.stream(data.data_seed, "preview")
    chosen = stream.choice(data.num_images, _ROWS * _COLUMNS, replace=data.num_images < _ROWS * _COLUMNS)
    return stream.permutation(checked_images(data, np.sort(chosen)))


def two_factor_points(seed: int) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """Unit factors [600, 2], stratified, and the index of training and test points under each of FIGURE_SPLITS."""
    cells = np.stack(np.unravel_index(np.arange(np.prod(_GRID)), _GRID), axis=1)
    points = (cells + randomness.stream(seed, "preview").random(cells.shape)) / _GRID
    splits = {name: dict(zip(("train", "test"), make_split(name, points, cells, len(points), seed)))
              for name in FIGURE_SPLITS}
    return points, splits


def montage(images: np.ndarray) -> np.ndarray:
    """One picture [height, width, 3] of 5 rows and 16 columns of images, with a grey line between them."""
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    framed = np.pad(images, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=96)
    height, width = framed.shape[1:3]
    return framed.reshape(_ROWS, _COLUMNS, height, width, 3).swapaxes(1, 2).reshape(_ROWS * height, _COLUMNS * width, 3)


def draw_split(axes: "Axes", points: np.ndarray, split: dict[str, np.ndarray], title: str) -> None:
    """Draws one split of two-factor points into Matplotlib axes."""
    for partition, index in split.items():
        axes.scatter(points[index, 0], points[index, 1], s=11, c=_COLOURS[partition], marker=_MARKERS[partition],
                     linewidths=0.9, label=partition)
    sizes = ", ".join(f"{len(index)} {partition}" for partition, index in split.items())
    axes.set(title=f"{title}\n{sizes}", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
             xlabel="factor 1 (unit interval)")


def figure(name: str, images: np.ndarray, points: np.ndarray, splits: dict[str, dict[str, np.ndarray]]
           ) -> "Figure":
    """The Matplotlib Figure: samples above, one panel for each kind of split below.

    Args:
        name: of the data set.
        images: what `sample_images` returned.
        points, splits: what `two_factor_points` returned.
    """
    from matplotlib.figure import Figure
    picture = Figure(figsize=(12, 8.8), layout="constrained")
    top, bottom = picture.subfigures(2, 1, height_ratios=(1, 1), squeeze=False)[:, 0]
    samples = top.subplots()
    samples.imshow(montage(images), interpolation="nearest")
    samples.set_title(f"{len(images)} samples of {name}")
    samples.set_axis_off()
    bottom.suptitle(f"The four kinds of split, on {len(points)} points of a set of two factors")
    panels = bottom.subplots(1, len(FIGURE_SPLITS), sharey=True)
    for panel, (split, title) in zip(panels, FIGURE_SPLITS.items()):
        draw_split(panel, points, splits[split], f"{title} ({split})")
    panels[0].set_ylabel("factor 2 (unit interval)")
    bottom.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return picture


def save(path: str | pathlib.Path, data: Dataset) -> None:
    """Draws the preview of a data set into a file whose ending says the format.

    Raises:
        ConfigError: if Matplotlib does not know the ending.
    """
    path = pathlib.Path(path)
    picture = figure(data.name, sample_images(data), *two_factor_points(data.data_seed))
    known = picture.canvas.get_supported_filetypes()
    if path.suffix[1:] not in known:
        endings = ", ".join(f".{kind}" for kind in sorted(known))
        raise ConfigError(f"preview must end in one of {endings} (got {str(path)!r}).")
    with whole_file(path) as beside:
        picture.savefig(beside, dpi=150)
