"""Pictures: labelled grids show the right image in the right cell, and traversals move one dimension at a time."""

import io

import numpy as np
import PIL.Image
import pytest

from vae_rd.measures import pictures


def _pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(PIL.Image.open(buffer).convert("RGB")).astype(int)


@pytest.mark.parametrize("dtype, channels", [(np.uint8, 3), (np.float32, 3), (np.uint8, 1), (np.float64, 1)])
def test_every_image_lies_in_its_cell(dtype, channels):
    levels = np.linspace(0.1, 0.9, 6).reshape(2, 3, 1, 1, 1)
    images = np.broadcast_to(levels, (2, 3, 8, 8, channels))
    images = np.round(images * 255).astype(dtype) if dtype == np.uint8 else images.astype(dtype)
    figure = pictures.grid(images, ["first", "second"], ["a", "b", "c"], "title")
    shown = _pixels(figure)
    for axes, level in zip(figure.axes, levels.ravel()):
        box = axes.get_position()
        row, column = int((1 - (box.y0 + box.y1) / 2) * len(shown)), int((box.x0 + box.x1) / 2 * shown.shape[1])
        np.testing.assert_allclose(shown[row, column], 255 * level, atol=2)


def test_labels_are_written_and_may_be_left_out():
    images = np.zeros((2, 2, 4, 4, 1))
    figure = pictures.grid(images, ["input", "output"], ["1.0", "2.0"], "a title")
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    texts |= {axes.get_title() for axes in figure.axes}
    assert {"input", "output", "1.0", "2.0"} <= texts and figure.texts[0].get_text() == "a title"
    assert len(pictures.grid(images).axes) == 4


def test_traversal_moves_one_dimension_over_the_range_of_the_codes():
    mean, codes = np.array([0.0, 5.0, 1.0]), np.random.default_rng(0).normal(size=(1000, 3)) * [1, 2, 3]
    moved = pictures.traversal_codes(mean, codes)
    assert moved.shape == (3, pictures.TRAVERSAL_STEPS, 3)
    for k in range(3):
        others = np.delete(moved[k], k, axis=1)
        np.testing.assert_array_equal(others, np.broadcast_to(np.delete(mean, k), others.shape))
        np.testing.assert_allclose(moved[k, [0, -1], k], np.percentile(codes[:, k], [0.5, 99.5]))
        assert (np.diff(moved[k, :, k]) > 0).all()
