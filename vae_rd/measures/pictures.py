"""Pictures of what a model does: reconstructions, samples and traversals as labelled grids of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings

CELL = 0.52  # inches per image
STRIP_IMAGES = 10  # across
NUM_SAMPLES = 40
TRAVERSAL_STEPS = 9
TRAVERSAL_PERCENTILES = (0.5, 99.5)  # of the training codes, between which a dimension is moved


def measure(run: FinishedRun, settings: Settings) -> Outcome:
    """Images with their reconstructions at the posterior mean, samples from the prior, and traversals."""
    rows, names = [], []
    for name in run.partitions:
        chosen = run.rows(name, STRIP_IMAGES)
        rows += [run.images(name, chosen), run.decode(run.posteriors(name, chosen).means)]
        names += [f"{name} image", "reconstruction"]
    samples = run.decode(np.asarray(run.vae.prior().sample(NUM_SAMPLES, seed=[0, 0])))
    across = min(len(row) for row in rows)
    name = run.partitions[-1]
    mean = run.posteriors(name, run.rows(name, 1)).means[0]
    moved = traversal_codes(mean, run.codes("train")).astype(run.dtype)
    return Outcome(pictures={
        "reconstructions": grid(np.stack([row[:across] for row in rows]), names),
        "samples": grid(samples.reshape(-1, 10, *samples.shape[1:]), title="samples from the prior"),
        "traversals": grid(run.decode(moved), [f"dimension {k}" for k in range(len(mean))],
                           title="one latent dimension at a time, over the range of the training codes")})


MEASURE = Measure("pictures", measure, "reconstructions of fixed images, samples and latent traversals as PNG files "
                  "(seconds)", quick=True)


def grid(images: np.ndarray, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None,
         title: str = "") -> Any:
    """A labelled grid of images, as a matplotlib Figure.

    Args:
        images: [rows, columns, height, width, channels] in [0, 1] or uint8; 1 channel is drawn grey.
        rows, columns: a label for each row and column.
        title: above the grid.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and not needed by --help
    from matplotlib.figure import Figure
    count, across = images.shape[:2]
    left, top = 1.35 if rows else 0.05, 0.2 * bool(columns) + 0.18 * bool(title) + 0.04
    width, height = left + across * CELL + 0.05, top + count * CELL + 0.05
    figure = Figure((width, height), dpi=200)
    FigureCanvasAgg(figure)
    for row, column in np.ndindex(count, across):
        axes = figure.add_axes(((left + column * CELL) / width, 1 - (top + (row + 1) * CELL) / height,
                                0.94 * CELL / width, 0.94 * CELL / height))
        axes.imshow(np.squeeze(images[row, column]), cmap="gray", vmin=0, vmax=255 if images.dtype == np.uint8 else 1)
        axes.set_axis_off()
        if rows and column == 0:
            axes.text(-0.12, 0.5, rows[row], transform=axes.transAxes, ha="right", va="center", fontsize=6.5)
        if columns and row == 0:
            axes.set_title(columns[column], fontsize=6, pad=2)
    if title:
        figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top", fontsize=7.5)
    return figure


def traversal_codes(mean: np.ndarray, train_codes: np.ndarray) -> np.ndarray:
    """Codes [d, TRAVERSAL_STEPS, d] that move one dimension at a time, all others staying at `mean` [d].

    Args:
        mean: [d], posterior mean of the image to start from.
        train_codes: [N, d]; each dimension runs from its 0.5th to its 99.5th percentile over them.
    """
    low, high = np.percentile(train_codes, TRAVERSAL_PERCENTILES, axis=0)
    codes = np.tile(mean, (len(mean), TRAVERSAL_STEPS, 1))
    for k in range(len(mean)):
        codes[k, :, k] = np.linspace(low[k], high[k], TRAVERSAL_STEPS)
    return codes
