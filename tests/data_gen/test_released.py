"""The released generator's variant: the check numbers of its description, and its own way of drawing."""

import colorsys

import numpy as np
import pytest
import scipy.ndimage

from data_gen import generate
from data_gen.builders.released import TetrominoesReleased
from vae_rd.config import ConfigError, DataSpec
from vae_rd.datasets import records


@pytest.fixture(scope="module")
def data():
    return TetrominoesReleased()


def test_labels_and_permutation_begin_as_released(data):
    np.testing.assert_allclose(data.labels[0], [8.79655791, 0.07878549, 2.00006862, 8.28343679, 8.13758365], atol=5e-9)
    assert data._random[1][:5].tolist() == [99382, 35455, 8151, 39783, 145414]


def test_labels_are_lower_border_plus_draw_times_width_bit_for_bit(data):
    """An independent loop over the meshgrid's order: hue slowest, then rotation, scale, x, y."""
    draws = np.random.RandomState(1).rand(163840, 5)
    widths = 337.5 / 16, 0.875 / 8, 3 / 5, 15 / 16, 15 / 16
    for index in (0, 1, 15, 16, 255, 256, 1279, 1280, 20479, 20480, 100000, 163839):
        rest, bins = index, []
        for size in (16, 16, 5, 16, 8):
            rest, position = divmod(rest, size)
            bins.append(position)
        y, x, scale, rotation, hue = bins
        lower = [rotation * widths[0], hue * widths[1], 2 + scale * widths[2], 8 + x * widths[3], 8 + y * widths[4]]
        np.testing.assert_array_equal(data.labels[index], np.array(lower) + draws[index] * np.array(widths))


def test_labels_keep_to_their_ranges(data):
    assert data.factor_ranges == ((0, 337.5), (0, 0.875), (2, 5), (8, 23), (8, 23))
    assert (data.labels.min(axis=0) >= [0, 0, 2, 8, 8]).all()
    assert (data.labels.max(axis=0) <= [337.5, 0.875, 5, 23, 23]).all()


@pytest.mark.parametrize("name, sizes", [
    ("default", (81920, 81920)), ("checkerboard", (82021, 81819)), ("cd_8k", (8159, 8275)), ("cv_8k", (8192, 155648)),
    ("cv_25k", (24576, 139264)), ("cv_49k", (49152, 114688)), ("cv_82k", (81920, 81920)), ("cv_1000", (1000, 162840))])
def test_split_sizes_are_the_released_ones(data, name, sizes):
    train, test = data.split(name)
    assert (len(train), len(test)) == sizes
    assert len(np.intersect1d(train, test)) == 0


def test_training_images_are_those_of_the_permutation(data):
    assert data.split("cv_16k")[0][:5].tolist() == [2, 10, 16, 45, 75]
    permutation = data._random[1]
    np.testing.assert_array_equal(data.split("default")[0], np.flatnonzero(permutation < 0.5 * 163840))
    small = data.split("cv_8k")[0]
    assert np.isin(small, data.split("cv_16k")[0]).all() and np.isin(small, data.split("default")[0]).all()


def test_cd_crops_the_default_halves_to_the_centred_box(data):
    train, test = data.split("cd_25k")
    half = (2 * 24576 / 163840) ** 0.2 / 2
    low, high = np.array([0, 0, 2, 8, 8]), np.array([337.5, 0.875, 5, 23, 23])
    inside = (np.abs((data.labels - low) / (high - low) - 0.5) <= half).all(axis=1)
    default_train, default_test = data.split("default")
    np.testing.assert_array_equal(train, default_train[inside[default_train]])
    np.testing.assert_array_equal(test, default_test[inside[default_test]])


def _as_described(label):
    """float [32, 32, 3]: J centred in a 512 x 512 canvas, warped bilinearly to its place, then a 16 x 16 box mean."""
    rotation, hue, scale, x, y = label
    block = 64  # canvas pixels of one block before it is warped
    canvas = np.zeros((512, 512))
    canvas[256 - 96:256 + 96, 256:256 + block] = 1
    canvas[256 + 32:256 + 96, 256 - block:256] = 1
    zoom = 16 * scale / block
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    back = np.array([[cos, sin], [-sin, cos]]) / zoom  # of (row, column) offsets: picture to canvas
    centre = (np.array([y, x]) + 0.5) * 16 - 0.5
    warped = scipy.ndimage.affine_transform(canvas, back, 255.5 - back @ centre, order=1)
    return warped.reshape(32, 16, 32, 16).mean(axis=(1, 3))[..., None] * np.array(colorsys.hsv_to_rgb(hue, 1, 1))


def test_images_agree_with_the_description(data):
    index = np.random.default_rng(0).integers(0, 163840, 40)
    index.sort()
    images = data.images(index) / 255
    errors = [np.abs(image - _as_described(label)).mean() for image, label in zip(images, data.labels[index])]
    assert max(errors) < 0.002
    turned = [np.abs(image[::-1] - _as_described(label)).mean() for image, label in zip(images, data.labels[index])]
    assert np.mean(turned) > 0.01  # negative control: the bound notices a mirrored picture


def test_another_seed_is_another_set_and_the_first_is_theirs(data):
    np.testing.assert_array_equal(TetrominoesReleased(1)._random[0], np.random.RandomState(2).rand(163840, 5))


def test_a_box_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="set of this split has no images"):
        generate.generate(tmp_path, DataSpec("tetrominoes_released", "cd_1"), progress=False)
    assert not list(tmp_path.iterdir())


def test_generates(tmp_path):
    folder = generate.generate(tmp_path, DataSpec("tetrominoes_released", "cd_100"), progress=False)
    info = records.read_info(folder)
    assert folder == tmp_path / "tetrominoes_released" / "cd_100"
    assert 60 < info.num_train < 140 and info.dataset == "tetrominoes_released"
