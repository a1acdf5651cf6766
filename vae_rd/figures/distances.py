"""How far test images lie from the training set: histograms by split, and the gap against distance."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vae_rd.analysis import naming
from vae_rd.figures import style

BINS = 60
_DISTANCE = "distance to the nearest\ntraining image (L2, pixels in [0, 1])"


def histogram_figure(distances: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of the distance of test images to their nearest training image, a panel per kind of split.

    Args:
        distances: values [n] by the name of the split, in pixels' L2 distance on the [0, 1] scale.
    """
    kinds = _by_kind(list(distances))
    edges = np.linspace(0, max(np.nanmax(values) for values in distances.values()), BINS + 1)
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _row(len(kinds))
        for axes, (title, splits) in zip(grid, kinds.items()):
            for split, colour in zip(splits, style.ordered_colours(len(splits))):
                values = distances[split][~np.isnan(distances[split])]
                density, _ = np.histogram(values, edges, density=True)
                axes.plot((edges[1:] + edges[:-1]) / 2, density, color=colour,
                          label=f"{naming.describe({'split': split})}  {np.median(values):.2f}")
            axes.set(title=title, xlabel=_DISTANCE)
            axes.legend(fontsize=5.5, handlelength=1.2, title="median", title_fontsize=5.5, alignment="right")
        grid[0].set_ylabel("density of test images")
    return figure


def gap_figure(groups: Mapping[str, tuple[np.ndarray, np.ndarray, float]], bins: int = 10) -> Figure:
    """Generalisation gap in excess distortion against distance to the training set, one run per split, by kind.

    Args:
        groups: by the name of the split: distances [n] and excess distortions [n] of test images (above their entropy
            floors, which differ between small and large shapes), and the mean excess of the training images.
        bins: groups of equally many test images.
    """
    kinds = _by_kind(list(groups))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = _row(len(kinds))
        for axes, (title, splits) in zip(grid, kinds.items()):
            for split, colour in zip(splits, style.ordered_colours(len(splits))):
                axes.plot(*gap_by_distance(*groups[split], bins), marker="o", color=colour,
                          label=naming.describe({"split": split}))
            axes.axhline(0, color=style.QUIET, linewidth=0.6)
            axes.set(title=title, xlabel=_DISTANCE)
            axes.legend(fontsize=5.5, handlelength=1.2, markerscale=0.7, title="one run each", title_fontsize=5.5)
        grid[0].set_ylabel("excess D above the floor,\ntest \N{MINUS SIGN} train (nats per image)")
    return figure


def gap_by_distance(distances: np.ndarray, distortions: np.ndarray, of_train: float, bins: int = 10
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance [bins] and mean gap [bins] of test images in groups of equal size, near to far; NaN left out."""
    known = ~(np.isnan(distances) | np.isnan(distortions))
    order = np.argsort(distances[known], kind="stable")
    groups = np.array_split(order, min(bins, len(order))) if len(order) else []
    return (np.array([distances[known][group].mean() for group in groups]),
            np.array([distortions[known][group].mean() for group in groups]) - of_train)


def _by_kind(splits: list[str]) -> dict[str, list[str]]:
    """Splits under the title of their panel, each panel's by size; kinds without splits have none."""
    kinds = {title: sorted((split for split in splits if split.startswith(f"{kind}_")), key=naming.split_order)
             for kind, title in naming.KINDS.items()}
    kinds["other splits"] = [split for split in splits if "_" not in split]
    return {title: members for title, members in kinds.items() if members}


def _row(count: int) -> tuple[Figure, np.ndarray]:
    figure = style.figure(style.COLUMN_WIDTH if count == 1 else style.TEXT_WIDTH, 2.2)
    return figure, figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
