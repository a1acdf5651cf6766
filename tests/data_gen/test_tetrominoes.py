"""The Tetrominoes data set: stratified cells, ranges of the paper, seeds."""

import numpy as np
import pytest

from data_gen.builders.tetrominoes import Tetrominoes

BINS = (16, 8, 5, 16, 16)
MARGIN = 9.0138781887  # 5 * sqrt(1 + 1.5**2), worked out by hand
LOW, HIGH = np.array([0, 0, 2, MARGIN, MARGIN]), np.array([360, 0.875, 5, 32 - MARGIN, 32 - MARGIN])


@pytest.fixture(scope="module")
def data():
    return Tetrominoes()


def test_one_image_in_each_cell(data):
    bins = np.floor((data.factors.astype(np.float64) - LOW) / (HIGH - LOW) * BINS + 1e-9).astype(int)
    assert len(data.factors) == 163840
    assert len(np.unique(bins, axis=0)) == 163840
    np.testing.assert_array_equal(bins, data.cells)
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(data.cells.T), BINS), np.arange(163840))


def test_factors_are_uniform_and_independent_inside_their_ranges(data):
    assert data.factor_names == ("rotation", "hue", "scale", "x", "y")
    assert data.factor_units == ("degrees", "hue", "pixels", "pixels", "pixels")
    unit = data.unit_factors
    assert (data.factors >= LOW.astype(np.float32)).all() and (data.factors < HIGH).all()
    np.testing.assert_allclose(unit.mean(axis=0), 0.5, atol=1e-3)
    np.testing.assert_allclose(unit.var(axis=0), 1 / 12, rtol=5e-3)
    np.testing.assert_allclose(np.corrcoef(unit.T), np.eye(5), atol=0.01)
    within = unit * BINS - data.cells
    assert 0 <= within.min() and within.max() <= 1 + 1e-6
    np.testing.assert_allclose(within.var(axis=0), 1 / 12, rtol=0.02)  # a uniform draw in the cell, not its middle


def test_seed_decides_the_draws(data):
    np.testing.assert_array_equal(Tetrominoes(0).factors, data.factors)
    assert (Tetrominoes(1).factors != data.factors).mean() > 0.99


def test_no_global_random_state_is_used(data):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(Tetrominoes().factors, data.factors)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_images_belong_to_their_index(data):
    index = np.array([0, 77, 5000, 163839])
    images = data.images(index)
    assert images.shape == (4, 32, 32, 3) and images.dtype == np.uint8
    for image, row in zip(images, data.factors[index]):
        cover = image.max(axis=-1) / 255.0
        assert cover.sum() == pytest.approx(4 * row[2]**2, rel=0.01)
        y, x = np.mgrid[:32, :32] + 0.5
        mass_x, mass_y = (cover * x).sum() / cover.sum(), (cover * y).sum() / cover.sum()
        # The J's centre of mass lies (0.25, 0.25) blocks from the box's centre: 3 blocks at x = 0.5 and 1 at -0.5.
        angle = np.radians(row[0])
        expected_x = row[3] + row[2] * 0.25 * (np.cos(angle) + np.sin(angle))
        expected_y = row[4] + row[2] * 0.25 * (np.cos(angle) - np.sin(angle))
        assert (mass_x, mass_y) == (pytest.approx(expected_x, abs=0.05), pytest.approx(expected_y, abs=0.05))


def test_another_image_size_is_the_same_picture(data):
    index = np.arange(0, 163840, 9973)
    fine = Tetrominoes(image_size=64).images(index).reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(fine, data.images(index), atol=1.0)
