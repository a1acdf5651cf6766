"""Exact nearest images of query images, in pixels and in factors, by bounds from blocked matrix products.

Two measures use it, neighbours and memorisation, and what is kept with a split.
"""

from typing import NamedTuple

import numpy as np

from vae_rd.measures.progress import Progress, silent

NUM_DIRECTIONS = 256  # of the projection that bounds distances; it holds 94% of the variance of Tetrominoes
MIN_SHARE = 0.85  # of the variance: with less (0.77 in binarized Tetrominoes: 138 candidates a query) whole images are
#   multiplied instead
PAIRS_PER_BLOCK = 2**25  # 128 MiB of float32 bounds at a time
PAIRS_PER_CHECK = 4096  # candidate pairs that are compared exactly at a time


class Nearest(NamedTuple):
    """The nearest of the references to each query; of several images at the same distance, the first."""

    position: np.ndarray  # [n] int64, row of the reference
    distance: np.ndarray  # [n] float64, Euclidean


class _Bounds(NamedTuple):
    """Float32 rows whose products bound squared distances from below, and how far rounding may put them off."""

    centre: np.ndarray  # [pixels]
    basis: np.ndarray | None  # [pixels, k], orthonormal; None: all pixels are used
    references: np.ndarray  # [k + 2, N]
    largest_norm: float
    rounding: float  # worst relative error of the float32 sums of products involved


def nearest_images(queries: np.ndarray, references: np.ndarray, *, excluded: np.ndarray | None = None,
                   progress: Progress = silent) -> Nearest:
    """The nearest reference image of each query image, exact, in L2 distance between pixels on the [0, 1] scale.

    With an orthonormal projection P and residual norms r, |x - y|^2 >= |Px - Py|^2 + (r_x - r_y)^2. Blocked float32
    products of the short rows (P, r) give this bound for all pairs; only references whose bound lies below the exact
    distance of the best one are compared pixel by pixel, in whole numbers for uint8 images.

    Args:
        queries: [n, ...] uint8, or float in [0, 1].
        references: [N, ...] uint8.
        excluded: [n] position of a reference that does not count for the query (its own image); negative for none.
        progress: called as `progress(blocks, desc=...)` to report on the blocks, as `tqdm.tqdm` is.

    Raises:
        ValueError: for images of different sizes, values that are not finite, or too few references.
    """
    queries, references = _flat(queries), _flat(references)
    least = 1 if excluded is None else 2
    if queries.shape[1] != references.shape[1] or len(references) < least:
        raise ValueError(f"queries and references must have as many values each, and references be {least} or more "
                         f"(got {len(queries)} queries of {queries.shape[1]} values and {len(references)} references "
                         f"of {references.shape[1]}).")
    if queries.dtype.kind == "f" and not np.isfinite(queries).all():
        raise ValueError("queries must be finite (some values are not).")
    bounds = _bounds(references)
    excluded = np.full(len(queries), -1) if excluded is None else np.asarray(excluded)
    nearest = Nearest(np.empty(len(queries), np.int64), np.empty(len(queries)))
    block = max(1, min(2048, PAIRS_PER_BLOCK // len(references)))
    for start in progress(range(0, len(queries), block), desc="nearest images"):
        rows = slice(start, start + block)
        nearest.position[rows], squares = _search(queries[rows], references, excluded[rows], bounds)
        nearest.distance[rows] = np.sqrt(squares)
    return nearest


def nearest_factors(queries: np.ndarray, references: np.ndarray, periods: np.ndarray | None = None) -> Nearest:
    """The nearest reference of each query in factor space, in L2 distance.

    Args:
        queries, references: [n, f] and [N, f] factors on the unit scale.
        periods: [f] length after which a factor repeats itself (1 for a full turn); 0 for factors that do not.
    """
    from scipy.spatial import cKDTree
    periods = np.zeros(queries.shape[1]) if periods is None else np.asarray(periods, np.float64)
    wrapped = [np.where(periods > 0, np.mod(values, np.where(periods > 0, periods, 1)), values).astype(np.float64)
               for values in (queries, references)]
    distance, position = cKDTree(wrapped[1], boxsize=periods).query(wrapped[0], workers=-1)
    return Nearest(position.astype(np.int64), distance)


def unit_factors(factors: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Factors [n, f] mapped from [low, high] to [0, 1]; a factor that does not vary becomes 0."""
    width = np.where(high > low, np.asarray(high, np.float64) - low, 1)
    return (np.asarray(factors, np.float64) - low) / width


def _bounds(references: np.ndarray) -> _Bounds:
    centre = references.mean(0, dtype=np.float64).astype(np.float32)
    centred = references.astype(np.float32)
    centred -= centre
    norms = _squared_norms(centred)
    basis = _basis(centred, norms.sum())
    rounding = 2 * (centred.shape[1] + (centred if basis is None else basis).shape[1]) * 2.0**-24
    short, residual = _projected(centred, norms, basis, rounding)
    columns = np.empty((short.shape[1] + 2, len(references)), np.float32)  # without a basis, gigabytes
    np.multiply(short.T, -2, out=columns[:-2])
    columns[-2], columns[-1] = -2 * residual[:, 0], norms
    return _Bounds(centre, basis, columns, float(np.sqrt(norms.max())), rounding)


def _basis(centred: np.ndarray, total: float) -> np.ndarray | None:
    """Orthonormal directions [pixels, k] that hold most of the variance (randomised range finder), or None."""
    if NUM_DIRECTIONS >= min(centred.shape):
        return None
    sample = centred[::max(1, len(centred) // 8192)]
    directions = np.random.default_rng(0).standard_normal((centred.shape[1], NUM_DIRECTIONS), np.float32)
    for _ in range(3):
        directions = np.linalg.qr(sample.T @ (sample @ directions))[0]
    share = np.square(centred @ directions).sum(dtype=np.float64) / total if total else 0
    return directions if share >= MIN_SHARE else None


def _projected(centred: np.ndarray, norms: np.ndarray, basis: np.ndarray | None, rounding: float
               ) -> tuple[np.ndarray, np.ndarray]:
    """Projections [n, k] and what they leave of each row's length [n, 1], rounded up: the bound stays a bound."""
    if basis is None:
        return centred, np.zeros((len(centred), 1))
    short = centred @ basis
    return short, np.sqrt(np.maximum(norms - _squared_norms(short), 0) + rounding * norms)[:, None]


def _search(queries: np.ndarray, references: np.ndarray, excluded: np.ndarray, bounds: _Bounds
            ) -> tuple[np.ndarray, np.ndarray]:
    """Positions [b] and squared distances [b] on the [0, 1] scale."""
    scaled = queries if queries.dtype == np.uint8 else queries * np.float64(255)
    centred = scaled.astype(np.float32) - bounds.centre
    norms = _squared_norms(centred)
    short, residual = _projected(centred, norms, bounds.basis, bounds.rounding)
    rows = np.concatenate([short, residual, np.ones_like(residual)], axis=1).astype(np.float32)
    products = rows @ bounds.references  # the bound, less the query's own squared norm
    mine = np.flatnonzero(excluded >= 0)
    products[mine, excluded[mine]] = np.inf
    first = products.argmin(1)
    limit = _squared_distances(scaled, references, np.arange(len(queries)), first)
    slack = bounds.rounding * (np.sqrt(norms) + bounds.largest_norm)**2
    candidates = np.flatnonzero(products <= (limit - norms + slack)[:, None].astype(np.float32))
    query, reference = np.divmod(candidates, len(references))
    squares = _squared_distances(scaled, references, query, reference)
    order = np.lexsort((reference, squares, query))
    best = order[np.unique(query[order], return_index=True)[1]]
    return reference[best], squares[best] / 255.0**2


def _squared_distances(queries: np.ndarray, references: np.ndarray, query: np.ndarray, reference: np.ndarray
                       ) -> np.ndarray:
    """Exact squared distances of pairs of rows: whole numbers for uint8 queries, float64 for others."""
    kind = np.int32 if queries.dtype == np.uint8 and queries.shape[1] * 255**2 < 2**31 else np.float64
    squares = np.empty(len(query), np.float64)
    for start in range(0, len(query), PAIRS_PER_CHECK):
        pairs = slice(start, start + PAIRS_PER_CHECK)
        difference = queries[query[pairs]].astype(kind) - references[reference[pairs]]
        squares[pairs] = np.einsum("ij,ij->i", difference, difference)
    return squares


def _squared_norms(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def _flat(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    return images.reshape(len(images), int(np.prod(images.shape[1:])))
