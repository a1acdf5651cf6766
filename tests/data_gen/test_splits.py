"""Splits: exact sizes, disjointness, parity, nesting and density, checked from the factors alone."""

import numpy as np
import pytest

from data_gen.builders.tetrominoes import Tetrominoes
from data_gen.splits import centred_box, make_split
from vae_rd.config import ConfigError

NUM = 163840
SIZES = {"8k": 8192, "16k": 16384, "25k": 24576, "33k": 32768, "41k": 40960, "49k": 49152, "57k": 57344, "65k": 65536}
PAPER = {"default": (81920, 81920), "checkerboard": (81920, 81920), "cv_82k": (81920, 81920),
         **{f"cd_{name}": (size, size) for name, size in SIZES.items()},
         **{f"cv_{name}": (size, NUM - size) for name, size in SIZES.items()}}
LOW, HIGH = np.array([0, 0, 2, 9.0138781887, 9.0138781887]), np.array([360, 0.875, 5, 22.9861218113, 22.9861218113])


@pytest.fixture(scope="module")
def data():
    return Tetrominoes()


def _unit(data):
    return (data.factors.astype(np.float64) - LOW) / (HIGH - LOW)


@pytest.mark.parametrize("name", PAPER)
def test_sizes_are_exact_and_the_sets_disjoint(data, name):
    train, test = data.split(name)
    assert (len(train), len(test)) == PAPER[name]
    for index in (train, test):
        assert (np.diff(index) > 0).all() and index[0] >= 0 and index[-1] < NUM
    assert len(np.intersect1d(train, test)) == 0


@pytest.mark.parametrize("name, sizes", [("cv_1000", (1000, 162840)), ("cv_1", (1, 163839)), ("cv_163839", (163839, 1)),
                                         ("cd_1", (1, 1)), ("cd_77", (77, 77)), ("cd_81920", (81920, 81920))])
def test_any_whole_number_is_a_size(data, name, sizes):
    assert tuple(map(len, data.split(name))) == sizes


def test_names_and_numbers_are_one(data):
    for short, number in (("cv_8k", "cv_8192"), ("cd_25k", "cd_24576")):
        for one, other in zip(data.split(short), data.split(number)):
            np.testing.assert_array_equal(one, other)


def test_cv_is_nested_random_and_complete(data):
    smaller = np.array([], int)
    for name in [*SIZES, "82k"]:
        train, test = data.split(f"cv_{name}")
        assert np.isin(smaller, train).all()
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(NUM))
        np.testing.assert_allclose(_unit(data)[train].mean(axis=0), 0.5, atol=4 / np.sqrt(12 * len(train)))
        smaller = train


def test_cd_keeps_to_a_centred_box_of_constant_density(data):
    distance = np.abs(_unit(data) - 0.5).max(axis=1)
    for name, size in SIZES.items():
        train, test = data.split(f"cd_{name}")
        inside = np.zeros(NUM, bool)
        inside[train] = inside[test] = True
        assert distance[inside].max() <= distance[~inside].min()
        side = 2 * distance[inside].max()
        assert side == pytest.approx((2 * size / NUM) ** 0.2, rel=0.01)
        np.testing.assert_allclose(np.bincount(inside[train], minlength=2), [0, size])
        assert abs(distance[train].mean() - distance[test].mean()) < 0.01  # halves by chance, not shells


def test_checkerboard_is_the_parity_of_cells_cut_on_bin_edges(data):
    train, test = data.split("checkerboard")
    cuts = np.array([180, 0.4375, 2 + 3 * 3 / 5, 16, 16])  # scale has 5 bins: 0-2 and 3-4
    parity = (data.factors >= cuts).sum(axis=1) % 2
    assert not parity[train].any() and parity[test].all()
    for partition in (train, test):  # marginals as in default: every bin of every factor as often in both sets
        for axis, bins in enumerate((16, 8, 5, 16, 16)):
            np.testing.assert_array_equal(np.bincount(data.cells[partition, axis]), [81920 // bins] * bins)


def test_default_has_the_training_set_of_cv_82k(data):
    for one, other in zip(data.split("default"), data.split("cv_82k")):
        np.testing.assert_array_equal(one, other)


def test_the_seed_decides_chance_and_nothing_else(data):
    other = Tetrominoes(1)
    assert 0.4 < np.isin(other.split("default")[0], data.split("default")[0]).mean() < 0.6
    np.testing.assert_array_equal(other.split("checkerboard")[0], data.split("checkerboard")[0])
    for one, again in zip(Tetrominoes(0).split("cd_8k"), data.split("cd_8k")):
        np.testing.assert_array_equal(one, again)


def test_a_two_factor_set_of_600_as_in_figure_2():
    cells = np.stack(np.unravel_index(np.arange(600), (30, 20)), axis=1)
    unit = (cells + 0.5) / (30, 20)
    sizes = {"default": (300, 300), "checkerboard": (300, 300), "cv_60": (60, 540), "cd_60": (60, 60)}
    for name, expected in sizes.items():
        assert tuple(map(len, make_split(name, unit, cells, 600, 0))) == expected


def test_discrete_factors_break_ties_by_seed():
    """A 4 x 4 x 4 grid of levels: the cube of side 2 holds 8 images; 3 + 3 of them and 6 + 6 with 4 from the shell."""
    cells = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    unit = (cells + 0.5) / 4
    core = np.flatnonzero(((cells == 1) | (cells == 2)).all(axis=1))
    picked = {seed: np.concatenate(make_split("cd_3", unit, cells, 64, seed)) for seed in range(5)}
    assert all(np.isin(index, core).all() for index in picked.values())
    assert len({tuple(sorted(index)) for index in picked.values()}) > 1
    assert np.isin(core, np.concatenate(make_split("cd_6", unit, cells, 64, 0))).all()


@pytest.mark.parametrize("levels", [(9, 18), (20, 40), (6, 32, 10)])
def test_a_box_of_discrete_factors_takes_both_sides_of_its_shell_alike(levels):
    """Mirrored levels, such as 0.35 and 0.65 of twenty, lie as far from the middle, though not to the last bit."""
    count = int(np.prod(levels))
    cells = np.stack(np.unravel_index(np.arange(count), levels), axis=1)
    mirrored = np.ravel_multi_index(tuple((np.array(levels) - 1 - cells).T), levels)
    orders = [np.random.default_rng(seed).permutation(count) for seed in range(40)]
    for size in range(count // 10, count, count // 10):
        taken = np.mean([centred_box((cells + 0.5) / levels, size, order) for order in orders], axis=0)
        assert abs(taken - taken[mirrored]).max() < 0.7, "1 where a side is always taken before the other"


def test_checkerboard_of_odd_axes_gives_the_middle_to_the_lower_half():
    cells = np.stack(np.unravel_index(np.arange(15), (3, 5)), axis=1)
    train, test = make_split("checkerboard", None, cells, 15, 0)
    np.testing.assert_array_equal(train, [i for i, (a, b) in enumerate(cells) if (a >= 2) == (b >= 3)])
    assert (len(train), len(test)) == (8, 7)


def test_checkerboard_without_bins_cuts_in_the_middle():
    unit = np.array([[0.1, 0.2], [0.49, 0.5], [0.5, 0.5], [0.9, 0.1]])
    train, test = make_split("checkerboard", unit, None, 4, 0)
    assert (train.tolist(), test.tolist()) == ([0, 2], [1, 3])


@pytest.mark.parametrize("num_images, halves", [(2, (1, 1)), (7, (3, 4))])
def test_default_of_few_images(num_images, halves):
    assert tuple(map(len, make_split("default", None, None, num_images, 0))) == halves


@pytest.mark.parametrize("name, words", [("cv_10", "must leave images for .* testing .got 'cv_10' of 10 images"),
                                         ("cd_6", "at most the 10 images of the data set .got 12"),
                                         ("official", "must be default")])
def test_sizes_that_do_not_fit(name, words):
    with pytest.raises(ConfigError, match=words):
        make_split(name, np.zeros((10, 1)), None, 10, 0)


def test_a_checkerboard_of_one_level_leaves_nothing_for_testing():
    with pytest.raises(ConfigError, match="must leave images for training and for testing .got 'checkerboard' of 6"):
        make_split("checkerboard", None, np.zeros((6, 2), int), 6, 0)


@pytest.mark.parametrize("name", ["cd_2", "checkerboard"])
def test_factors_are_needed(name):
    with pytest.raises(ConfigError, match="needs factors, but the data set has none"):
        make_split(name, None, None, 10, 0)


@pytest.mark.parametrize("name", ["cd_82k", "cv_", "cv_0", "cv_9k", "halves", "cd_-3"])
def test_unknown_names_list_the_known_ones(data, name):
    with pytest.raises(ConfigError, match="of one of these kinds .*default.*checkerboard.*cd_<size>.*8k, 16k"):
        data.split(name)
