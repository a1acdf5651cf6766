"""What the page to explore shows of a run: the same few test images reconstructed, and distortion against distance.

The images are spread from the nearest to the training set to the farthest, so they depend on the split alone and are
the same for every run on it. Everything is small: 12 images of 32 x 32 x 3 and their reconstructions take 74 kB.
"""

from typing import NamedTuple

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings

GALLERY = "gallery"  # the arrays' name in the run directory
NUM_IMAGES = 12
BINS = 24  # of the histogram, along each axis


class DistortionByDistance(NamedTuple):
    """How the distortion of test images goes with their distance to the nearest training image."""

    counts: np.ndarray  # [BINS, BINS] int64, images by distance, then by distortion
    distance_edges: np.ndarray  # [BINS + 1], L2 between pixels on the [0, 1] scale; the same for all runs of a split
    distortion_edges: np.ndarray  # [BINS + 1], nats per image
    mean_distortion: np.ndarray  # [BINS], of the images in each bin of distances; NaN where there are none


def near_to_far(distance: np.ndarray, count: int = NUM_IMAGES) -> np.ndarray:
    """Positions of `count` images (all, if they are fewer) at equal steps of rank, from the nearest to the farthest."""
    order = np.argsort(distance, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]


def by_distance(distance: np.ndarray, distortion: np.ndarray, bins: int = BINS) -> DistortionByDistance:
    """The histogram of distances [n] and distortions [n], and the mean distortion in each bin of distances."""
    counts, distance_edges, distortion_edges = np.histogram2d(
        distance, distortion, bins, [(0, max(distance.max(), np.finfo(float).tiny)), _limits(distortion)])
    totals, _ = np.histogram(distance, distance_edges, weights=distortion)
    images = counts.sum(1)
    means = np.divide(totals, images, out=np.full(bins, np.nan), where=images > 0)
    return DistortionByDistance(counts.astype(np.int64), distance_edges, distortion_edges, means)


def measure(run: FinishedRun, settings: Settings) -> Outcome:
    """Reconstructions of the fixed test images at the posterior mean, and the histogram; no numbers of its own."""
    distance = run.neighbours.nearest_distance
    rows = near_to_far(distance)
    test = run.partition("test")
    reconstructions = run.decode(run.encode(test.images[rows]).means)
    arrays = {"inputs": test.images[rows], "reconstructions": np.round(255 * reconstructions).astype(np.uint8),
              "index": test.index[rows], "nearest_distance": distance[rows],
              **by_distance(distance, run.per_example("test")["distortion"])._asdict()}
    return Outcome(arrays={GALLERY: arrays})


MEASURE = Measure(
    GALLERY, measure, "what the page to explore shows: 12 test images near to and far from the training set, "
    "reconstructed, and distortion against distance (seconds, once the neighbours are known)", quick=True)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest value, apart by something."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
