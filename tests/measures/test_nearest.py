"""Nearest neighbours against SciPy's exhaustive search, with planted twins, ties, turns and the float32 shortcut."""

import numpy as np
import pytest
import scipy.spatial.distance

from vae_rd.measures import nearest, neighbours


def _smooth_images(rng, num_images, size=16, rank=20):
    """uint8 images whose variance lies in a few directions, as that of real images does."""
    parts = rng.random((rank, size * size * 3)) * 2 * 255 / rank
    images = rng.random((num_images, rank)) @ parts + rng.normal(0, 3, (num_images, size * size * 3))
    return np.clip(images, 0, 255).astype(np.uint8).reshape(num_images, size, size, 3)


def _exhaustive(queries, references):
    flat = [np.asarray(images, np.float64).reshape(len(images), -1) for images in (queries, references)]
    return scipy.spatial.distance.cdist(*flat) / 255


@pytest.mark.parametrize("num_queries", [1, 63, 64, 65])
def test_equals_exhaustive_search_in_blocks_of_any_size(monkeypatch, num_queries):
    monkeypatch.setattr(nearest, "PAIRS_PER_BLOCK", 64 * 700)
    monkeypatch.setattr(nearest, "NUM_DIRECTIONS", 30)
    rng = np.random.default_rng(0)
    references, queries = _smooth_images(rng, 700), _smooth_images(rng, num_queries)
    assert nearest._bounds(nearest._flat(references)).basis is not None, "the projection is not exercised"
    found, truth = nearest.nearest_images(queries, references), _exhaustive(queries, references)
    np.testing.assert_array_equal(found.position, truth.argmin(1))
    np.testing.assert_allclose(found.distance, truth.min(1), rtol=1e-12)


def test_images_without_common_directions_are_multiplied_whole(monkeypatch):
    monkeypatch.setattr(nearest, "NUM_DIRECTIONS", 8)
    rng = np.random.default_rng(1)
    references, queries = (rng.integers(0, 256, (n, 12, 12, 1), np.uint8) for n in (300, 50))
    assert nearest._bounds(nearest._flat(references)).basis is None
    found = nearest.nearest_images(queries, references)
    np.testing.assert_array_equal(found.position, _exhaustive(queries, references).argmin(1))


def test_twins_at_one_grey_level_are_told_apart_where_float32_products_cannot():
    """Bright images, one with a single pixel off by 1: float32 products confuse them, the exact check does not."""
    queries = np.random.default_rng(2).integers(200, 256, (64, 32, 32, 3)).astype(np.uint8)
    queries[:, 0, 0, 0] = 254
    twins = queries.copy()
    twins[:, 0, 0, 0] = 255
    references = np.concatenate([twins, queries])
    flat = [nearest._flat(images).astype(np.float32) for images in (queries, references)]
    shortcut = np.square(flat[0]).sum(1)[:, None] + np.square(flat[1]).sum(1) - 2 * flat[0] @ flat[1].T
    assert (shortcut.argmin(1) != 64 + np.arange(64)).any(), "the negative control does not bite"
    found = nearest.nearest_images(queries, references)
    np.testing.assert_array_equal(found.position, 64 + np.arange(64))
    assert (found.distance == 0).all()


def test_first_of_equally_near_references():
    references = np.repeat(np.arange(0, 200, 50, np.uint8), 3).reshape(-1, 1, 1, 1)
    found = nearest.nearest_images(np.array([100, 99], np.uint8).reshape(-1, 1, 1, 1), references)
    np.testing.assert_array_equal(found.position, [6, 6])
    np.testing.assert_allclose(found.distance, [0, 1 / 255])


def test_own_image_does_not_count():
    images = _smooth_images(np.random.default_rng(3), 80)
    found = nearest.nearest_images(images, images, excluded=np.arange(80))
    truth = _exhaustive(images, images)
    np.fill_diagonal(truth, np.inf)
    np.testing.assert_array_equal(found.position, truth.argmin(1))
    assert (nearest.nearest_images(images, images).distance == 0).all()


def test_float_queries():
    rng = np.random.default_rng(4)
    references, queries = _smooth_images(rng, 90), rng.random((20, 16, 16, 3)).astype(np.float32)
    found = nearest.nearest_images(queries, references)
    truth = _exhaustive(queries * 255.0, references)
    np.testing.assert_array_equal(found.position, truth.argmin(1))
    np.testing.assert_allclose(found.distance, truth.min(1), rtol=1e-6)


def test_constant_images():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    found = nearest.nearest_images(images, images)
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("references, excluded", [(np.zeros((5, 4, 4, 3)), None), (np.zeros((0, 4, 4, 1)), None),
                                             (np.zeros((1, 4, 4, 1)), [0, 0])])
def test_refuses_what_has_no_neighbour(references, excluded):
    with pytest.raises(ValueError, match="must have as many values each, and references be . or more .got"):
        nearest.nearest_images(np.zeros((2, 4, 4, 1), np.uint8), references.astype(np.uint8), excluded=excluded)


def test_refuses_what_is_not_finite():
    queries = np.full((3, 4, 4, 1), 0.5)
    queries[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="queries must be finite"):
        nearest.nearest_images(queries, np.zeros((5, 4, 4, 1), np.uint8))


def test_factors_turn_around():
    """350 degrees lies 20 from 10 degrees, not 340; a factor with no period does not wrap."""
    references = np.array([[10 / 360, 0.02], [200 / 360, 0.98]])
    queries = np.array([[350 / 360, 0.02], [1.0, 0.98]])
    found = nearest.nearest_factors(queries, references, periods=np.array([1, 0]))
    np.testing.assert_array_equal(found.position, [0, 1])
    np.testing.assert_allclose(found.distance, [20 / 360, 160 / 360])


def test_factors_equal_exhaustive_search():
    rng = np.random.default_rng(5)
    references, queries = rng.random((200, 5)), rng.random((70, 5))
    found = nearest.nearest_factors(queries, references)
    truth = scipy.spatial.distance.cdist(queries, references)
    np.testing.assert_array_equal(found.position, truth.argmin(1))
    np.testing.assert_allclose(found.distance, truth.min(1))


def test_unit_factors_of_a_factor_that_does_not_vary():
    unit = nearest.unit_factors(np.array([[90.0, 3.0], [360.0, 3.0]]), np.array([0, 3]), np.array([360, 3]))
    np.testing.assert_array_equal(unit, [[0.25, 0], [1, 0]])


def test_ninetieth_percentile_image():
    distance = np.random.default_rng(6).permutation(100).astype(float)
    assert distance[neighbours.at_percentile(distance)] == 89
    assert neighbours.at_percentile(np.array([7.0])) == 0
