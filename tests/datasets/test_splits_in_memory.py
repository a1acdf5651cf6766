"""A split in memory and the index streams over it: each image once per pass, resumable anywhere, keyed by index."""

import numpy as np
import pytest
import scipy.special

from data_gen.builders.tetrominoes import Tetrominoes
from tests.conftest import IMAGE_SIZE
from vae_rd.datasets import random_streams, splits
from vae_rd.datasets.records import RecordsError
from vae_rd.model import likelihoods


def images_of(index):
    """A partition of one grey image per index, with all pixels equal to it modulo 256."""
    pixels = np.broadcast_to((index % 256).astype(np.uint8)[:, None, None, None], (len(index), 2, 2, 1))
    return splits.Partition(pixels, index, np.zeros((len(index), 0), np.float32))


def test_a_loaded_split_holds_the_drawn_images(split):
    assert len(split.train.index) == len(split.test.index) == 300
    assert not set(split.train.index) & set(split.test.index)
    drawn = Tetrominoes(0, IMAGE_SIZE, ".")
    for partition in (split.train, split.test):
        assert partition.images.dtype == np.uint8 and (np.diff(partition.index) > 0).all()
        np.testing.assert_array_equal(partition.images, drawn.images(partition.index))
        np.testing.assert_array_equal(partition.factors, drawn.factors[partition.index])


def test_a_folder_without_data_is_named(tmp_path):
    with pytest.raises(RecordsError, match="must be the folder of a split"):
        splits.load(tmp_path)


@pytest.mark.parametrize("num_images, batch_size", [
    (300, 32), (7, 3), (6, 3), (5, 5), (5, 6), (3, 8), (1, 4), (128, 1)])
def test_every_pass_sees_every_image_once(num_images, batch_size):
    steps = -(-5 * num_images // batch_size)
    stream = random_streams.batch_indices(num_images, batch_size, seed=3, first_step=0, num_steps=steps)
    assert stream.shape == (steps, batch_size) and stream.dtype == np.int32
    passes = stream.reshape(-1)[:5 * num_images].reshape(5, num_images)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(num_images), (5, 1)))
    if num_images > 6:
        assert len({tuple(order) for order in passes}) == 5  # each pass in an order of its own


@pytest.mark.parametrize("num_images, batch_size", [(300, 32), (7, 3), (3, 8)])
def test_the_stream_can_be_entered_at_any_step(num_images, batch_size):
    whole = random_streams.batch_indices(num_images, batch_size, 0, 0, 40)
    for first, steps in ((0, 1), (1, 1), (13, 20), (39, 1)):
        np.testing.assert_array_equal(random_streams.batch_indices(num_images, batch_size, 0, first, steps),
                                      whole[first:first + steps])


def test_restarts_have_orders_of_their_own():
    orders = {tuple(random_streams.batch_indices(50, 50, seed, 0, 1)[0]) for seed in range(20)}
    assert len(orders) == 20


def test_late_steps_of_the_papers_protocol_are_reached_directly():
    late = random_streams.batch_indices(16384, 128, 0, 256_999, 1)
    assert late.shape == (1, 128) and len(set(late[0])) == 128


def test_evaluation_noise_belongs_to_the_index():
    index = np.array([3, 17, 163_839])
    noise = random_streams.evaluation_noise(index, 10)
    assert noise.dtype == np.float32 and noise.shape == (3, 10)
    np.testing.assert_array_equal(random_streams.evaluation_noise(index[:2], 10), noise[:2])
    np.testing.assert_array_equal(random_streams.evaluation_noise(index[[2, 0]], 10), noise[[2, 0]])
    many = random_streams.evaluation_noise(np.arange(20_000), 4)
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    assert len(np.unique(many[:, 0])) > 19_900


@pytest.mark.parametrize("size, expected", [(None, 300), (1, 1), (299, 299), (300, 300), (301, 300)])
def test_an_evaluation_subset_is_fixed_and_keeps_the_order(split, size, expected):
    rows = random_streams.evaluation_subset(split.train.index, size)
    assert len(rows) == expected and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, random_streams.evaluation_subset(split.train.index, size))


def test_a_subset_is_spread_over_all_images():
    """The first images would be those of one rotation."""
    chosen = random_streams.evaluation_subset(np.arange(10_000), 5000)
    assert abs((chosen < 5000).mean() - 0.5) < 0.03


def test_a_small_subset_lies_in_every_larger_one(split):
    sets = [set(random_streams.evaluation_subset(split.test.index, size)) for size in (10, 100, 200)]
    assert sets[0] < sets[1] < sets[2]


@pytest.mark.parametrize("size", [1, 2, 5, 300])
def test_the_selecting_half_is_a_fixed_half(size):
    index = np.arange(size) * 7
    chosen = random_streams.select_half(index)
    assert chosen.sum() == size // 2
    np.testing.assert_array_equal(chosen, random_streams.select_half(index))


def test_the_selecting_half_is_random():
    chosen = random_streams.select_half(np.arange(10_000))
    assert abs(chosen[:5000].mean() - 0.5) < 0.03 and abs(chosen[::2].mean() - 0.5) < 0.03


@pytest.mark.parametrize("num_images", [0, 1, 7, 8, 9, 16, 17])
def test_the_entropy_floor_is_the_entropy_of_the_pixels(monkeypatch, split, num_images):
    monkeypatch.setattr(likelihoods, "ENTROPY_BLOCK", 8)
    images = split.test.images[:num_images]
    grey = images.astype(np.float64) / 255
    expected = (scipy.special.entr(grey) + scipy.special.entr(1 - grey)).sum((1, 2, 3))
    np.testing.assert_allclose(likelihoods.entropy_floor(images), expected, rtol=1e-6)


def test_black_and_white_images_have_no_floor():
    images = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (5, 4, 4, 1))
    assert (likelihoods.entropy_floor(images) == 0).all()


def test_binarized_images_have_the_grey_values_as_frequencies():
    index = np.arange(256 * 40)
    grey = images_of(index)
    drawn = splits.binarized(grey)
    assert set(np.unique(drawn.images)) == {0, 255}
    frequency = (drawn.images == 255).reshape(40, 256, -1).mean((0, 2))
    np.testing.assert_allclose(frequency, np.arange(256) / 255, atol=0.16)  # 160 draws each: 4 standard deviations
    assert frequency[0] == 0 and frequency[255] == 1
    assert abs((frequency - np.arange(256) / 255).mean()) < 0.01


def test_binarized_images_belong_to_their_index():
    grey = images_of(np.full(6, 100) + 256 * np.arange(6))
    drawn = splits.binarized(grey).images
    part = splits.binarized(splits.Partition(*(values[[4, 1]] for values in grey))).images
    np.testing.assert_array_equal(part, drawn[[4, 1]])
    assert len({image.tobytes() for image in drawn}) > 2


def test_random_streams_differ_by_purpose_and_key():
    first = [random_streams.random("batches", 0, 1).random(), random_streams.random("batches", 1, 0).random(),
             random_streams.random("batches").random(), random_streams.random("evaluation_noise").random(),
             random_streams.random("select_half").random(), random_streams.random("evaluation_subset").random(),
             random_streams.random("binarization", 1).random()]
    assert len(set(first)) == 7
    index = np.arange(4000)  # a small subset that every evaluation sees lies in both halves of the test set
    assert 0.4 < random_streams.select_half(index)[random_streams.evaluation_subset(index, 500)].mean() < 0.6
