"""The measures that cost most: the exact aggregate density and the nearest training images."""

import numpy as np

from tests.benchmarks.contest import Row, alone, compare, measure, timed
from tests.benchmarks.material import Material
from vae_rd.measures import information
from vae_rd.measures.nearest import nearest_images

AGGREGATE_SECONDS = 10  # for 16,384 codes
PAIRS_PER_SECOND = 147_456 * 16_384 / 90 / 1e6  # millions: cv_16k in 90 s
_BLOCK = 1024


def aggregate(material: Material, repeats: int, report) -> list[Row]:
    """log q(z) of N codes under all N posteriors, at the scales of a trained model."""
    random, size = np.random.default_rng(0), material.sizes.codes
    means = random.standard_normal((size, 10)).astype(np.float32)
    stddevs = np.exp(random.uniform(np.log(0.003), 0, (size, 10))).astype(np.float32)
    codes = (means + stddevs * random.standard_normal((size, 10))).astype(np.float32)
    figures = measure({"exact": lambda: timed(lambda: information.aggregate_log_density(codes, means, stddevs))},
                      repeats, report)
    return [alone(f"exact aggregate density, N={size:,}", "s", figures["exact"], AGGREGATE_SECONDS)]


def nearest(material: Material, repeats: int, report) -> list[Row]:
    """Nearest training images of some test images, against plain blocked products of whole images."""
    references, queries = material.split.train.images, material.split.test.images[:material.sizes.queries]
    pairs = len(references) * len(queries) / 1e6
    figures = measure({"nearest_images": lambda: pairs / timed(lambda: nearest_images(queries, references)),
                       "whole products (inexact)": lambda: pairs / timed(lambda: _plain(queries, references))},
                      repeats, report)
    label = f"nearest images, {len(queries):,} x {len(references):,}"
    note = f"{len(queries):,} queries bear the preparation that 147,456 share in cv_16k"
    return [alone(label, "M pairs/s", figures["nearest_images"], round(PAIRS_PER_SECOND, 1), at_least=True, note=note),
            compare(label, "M pairs/s", figures, "nearest_images", "whole products (inexact)")]


def _plain(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Row of the nearest reference to each query, up to the rounding of float32 products."""
    flat = [images.reshape(len(images), -1).astype(np.float32) / 255 for images in (queries, references)]
    squares, columns = np.einsum("ij,ij->i", flat[1], flat[1]), flat[1].T
    blocks = [flat[0][start:start + _BLOCK] for start in range(0, len(queries), _BLOCK)]
    return np.concatenate([(squares - 2 * block @ columns).argmin(1) for block in blocks])
