"""The data set interface: sizes of images, what is refused, and a data set of one's own in 20 lines."""

import functools

import numpy as np
import pytest

from data_gen import generate
from data_gen.dataset import Dataset, resized
from data_gen.raw_files import RawFile
from vae_rd.config import ConfigError, DataSpec
from vae_rd.datasets import records


class Squares(Dataset):
    """A toy set, as docs/extending.md shows it: 60 grey squares of 3 sizes at 20 heights, of 2 kinds without order."""

    name = "squares"
    num_images = 120
    factor_names, factor_units = ("side", "height", "kind"), ("pixels", "pixels", "class")
    ordered_factors = ("side", "height")

    @functools.cached_property
    def factors(self):
        """float32 [120, 3]."""
        side, height, kind = np.unravel_index(np.arange(120), (3, 20, 2))
        return np.stack([2 + 2 * side, height, kind], axis=1).astype(np.float32)

    def images(self, index):
        """Draws the squares."""
        images = np.zeros((len(index), *self.image_shape), np.uint8)
        for image, (side, height, kind) in zip(images, self.factors[index].astype(int)):
            image[height:height + side, 10:10 + side] = 255 if kind else 128
        return images


class Plain(Squares):
    """Without factors, without partitions."""

    name = "plain"
    factor_names = factor_units = ordered_factors = ()
    factors = Dataset.factors

    def images(self, index):
        """Grey pictures, each of its own shade."""
        return np.full((len(index), *self.image_shape), 1, np.uint8) * index[:, None, None, None].astype(np.uint8)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(generate.DATASETS, "squares", Squares)
    monkeypatch.setitem(generate.DATASETS, "plain", Plain)


def _load(folder, partition="train"):
    return records.load_partition(folder, records.read_info(folder), partition)


@pytest.mark.parametrize("train, test, words", [
    ([3, 1], [5], "return ascending indices from 0 to 119, each once .got others in the train set.. Try np.sort"),
    ([1], [5, 5], "each once .got others in the test set"), ([1], [5, 120], "each once .got others in the test set"),
    ([1, 2, 3], [2, 3], "return two sets that share no image .got 2 in both.. Try np.setdiff1d")])
def test_a_split_of_ones_own_that_is_none_is_refused(tmp_path, monkeypatch, train, test, words):
    monkeypatch.setattr(Squares, "split", lambda self, name: (np.array(train), np.array(test)))
    with pytest.raises(ConfigError, match=rf"split\(\) must .*{words}"):
        generate.generate(tmp_path, DataSpec("squares", "cv_100"), progress=False)
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_ones_own(tmp_path):
    folder = generate.generate(tmp_path, DataSpec("squares", "cv_100"), progress=False)
    images, index, factors = _load(folder)
    assert images.shape == (100, 32, 32, 1)
    np.testing.assert_array_equal(factors, Squares().factors[index])
    np.testing.assert_array_equal(images, Squares().images(index))
    assert records.read_info(folder).factor_names == ("side", "height", "kind")


def test_it_can_be_split_by_its_ordered_factors(tmp_path):
    train, test = (_load(generate.generate(tmp_path, DataSpec("squares", "checkerboard"), progress=False), name)[2]
                   for name in ("train", "test"))
    for factors, parity in ((train, 0), (test, 1)):
        # The side has 3 levels, so its lower half has 2 of them; the kind takes no part.
        assert (((factors[:, 0] >= 6).astype(int) + (factors[:, 1] >= 10)) % 2 == parity).all()
        assert set(factors[:, 2]) == {0, 1}
    assert (len(train), len(test)) == (60, 60)


def test_cd_of_discrete_factors(tmp_path):
    folder = generate.generate(tmp_path, DataSpec("squares", "cd_4"), progress=False)
    factors = np.concatenate([_load(folder, name)[2] for name in ("train", "test")])
    assert set(factors[:, 0]) == {4} and set(factors[:, 1]) <= {8, 9, 10, 11} and set(factors[:, 2]) == {0, 1}


def test_it_reaches_worker_processes(tmp_path):
    one = generate.generate(tmp_path / "1", DataSpec("squares", "cv_30"), progress=False, num_workers=1, num_shards=4)
    two = generate.generate(tmp_path / "2", DataSpec("squares", "cv_30"), progress=False, num_workers=2, num_shards=4)
    one, two = ([path.read_bytes() for path in sorted(folder.iterdir())] for folder in (one, two))
    assert one == two and len(one) == 9


def test_without_factors(tmp_path):
    images, index, factors = _load(generate.generate(tmp_path, DataSpec("plain", "default"), progress=False))
    assert factors.shape == (60, 0)
    assert (images == index[:, None, None, None]).all()


def test_an_original_file_that_has_gone_is_named(tmp_path):
    file = RawFile("data.gz", "http://127.0.0.1:9/data.gz", 4, "0" * 64)
    with pytest.raises(records.RecordsError, match="data.gz must be in .*Put it back"):
        Squares(raw_dir=tmp_path).path(file)
    (tmp_path / "data.gz").write_bytes(b"data")
    assert Squares(raw_dir=tmp_path).path(file) == tmp_path / "data.gz"


@pytest.mark.parametrize("arguments, words", [
    (("plain", "cd_8"), "with dataset=plain, which has no ordered factors .got 'cd_8'"),
    (("plain", "checkerboard"), "split must be default or cv_<size> with dataset=plain, which has no ordered factors"),
    (("plain", "official"), "must be default or cv_<size> with dataset=plain, which is not distributed in partitions"),
    (("mnist", "cd_8k"), "must be default, official or cv_<size> with dataset=mnist, which has no ordered"),
    (("mnist", "cv_82k"), "must be at most cv_69999 with dataset=mnist, which has 70000 images .got 'cv_82k'"),
    (("shapes3d", "official"), "not distributed in partitions"),
    (("dsprites", "cv_737280"), "split must be at most cv_737279"),
    (("dsprites", "default", 48), "image_size must be a divisor of the 64 pixels of dsprites .*got 48"),
    (("mnist", "default", 20), "a divisor of the 28 pixels of mnist .averaged., or more .padded."),
    (("smallnorb", "cd_24301"), "split must be at most cd_24300")])
def test_impossible_wishes_are_refused_before_anything_is_read(arguments, words):
    with pytest.raises(ConfigError, match=words):
        generate.check(DataSpec(*arguments))


@pytest.mark.parametrize("arguments", [
    ("mnist", "official", 28), ("mnist", "cv_69999", 14), ("fashion_mnist", "default", 64),
    ("smallnorb", "checkerboard"), ("smallnorb", "official", 48), ("shapes3d", "cd_65k", 64), ("dsprites", "cv_82k")])
def test_possible_wishes_are_not(arguments):
    generate.check(DataSpec(*arguments))


def test_every_data_set_fits_its_splits_and_default_size():
    for name in generate.DATASETS:
        assert "default" in generate.all_splits(name)


def _returning(*shape, kind=np.uint8, size=None):
    """A class's images of this shape and type, and resized to a size."""
    def images(self, index):
        found = np.ones((len(index), *shape), kind)
        return resized(found, size) if size else found
    return {"images": images}


NAMED = {"factor_names": ("a", "b"), "factor_units": ("m", "class"), "ordered_factors": ("a",)}


@pytest.mark.parametrize("wrong, words", [
    ({"name": "other"}, "name of dataset=plain must be its key in DATASETS, .*got 'other'.. Set it in class Wrong"),
    ({"num_images": None}, "num_images of dataset=plain must be a whole number .int., 2 or more .got None"),
    ({"num_images": np.int64(120)}, "num_images of dataset=plain must be a whole number .int., .*got np.int64"),
    ({"channels": 0}, "channels of dataset=plain must be 1 .grey. or 3 .colour. .got 0"),
    ({"channels": 6}, "channels of dataset=plain must be 1 .grey. or 3 .colour. .got 6"),
    ({"native_size": 12.0}, "native_size of dataset=plain must be None, or a whole number .int., 1 or more .got 12.0"),
    ({"factor_names": "side"}, "factor_names of dataset=plain must be a tuple of different texts .got 'side'"),
    ({"factor_names": ("a", "a")}, "factor_names of dataset=plain must be a tuple of different texts"),
    ({"factor_names": ("a", "b")}, r"factor_units of dataset=plain must be a tuple with .*got \(\)"),
    *((NAMED | {"ordered_factors": names}, "ordered_factors of dataset=plain must be .* whose unit is not 'class' .got")
      for names in (("c",), (), ("a", "b"))),
    ({"num_official_train": 120}, "num_official_train of dataset=plain must be None, or .* below num_images .got 120"),
    ({"images": Dataset.images}, "dataset=plain must be a subclass of Dataset that has a method images .got .*Wrong"),
    (NAMED, r"factors of dataset=plain must be finite numbers \[120, 2\], .*got float32 \[120, 0\]"),
    (NAMED | {"factors": np.full((120, 2), np.nan)}, r"factors .* .got float64 \[120, 2\] with NaN or infinity"),
    (NAMED | {"factors": np.full((120, 2), "red")}, r"factors of dataset=plain must be finite numbers .*got <U3"),
    ({"factor_ranges": ((0, 1),)}, r"factor_ranges of dataset=plain must be a pair .*got \(\(0, 1"),
    (NAMED | {"factors": np.zeros((120, 2)), "factor_ranges": ((0, 1), (0, np.nan))},
     "factor_ranges of dataset=plain must be a pair of finite numbers"),
    *((NAMED | {"factors": np.zeros((120, 2)), "factor_ranges": wrong}, "factor_ranges of dataset=plain must be a pair")
      for wrong in ((3, 4), (("0", "1"),) * 2, ((0, 1), (0,)), ((0, 10**400),) * 2)),
    ({"images": lambda self, index: [1] * len(index)}, "images of dataset=plain must be uint8 .* .got list.. Try np"),
    ({"images": lambda self, index: np.ones((5, 32, 32, 1), np.uint8)}, r"got \[5, 32, 32, 1\].. Return one for each"),
    (_returning(32, 32, 1, kind=float),
     r"images of dataset=plain must be uint8 \[n, .* .got float64 \[60, 32, 32, 1\].. Try np.round.255"),
    (_returning(32, 32), r"must be uint8 \[n, .* .got uint8 \[60, 32, 32\].. Try images\[..., None\]"),
    (_returning(32, 32, 3), r"= \[60, 32, 32, 1\] .got \[60, 32, 32, 3\].. Try channels = 3 in class Wrong"),
    (_returning(12, 12, 1), r"= \[60, 32, 32, 1\] .got \[60, 12, 12, 1\].. Try resized.images, self.image_size."),
    (_returning(64, 64, 1, kind=float, size=32), r"images to resize must be uint8 .*got float64 \[60, 64, 64, 1\]"),
    (_returning(64, 60, 1, size=32), "images to resize must be square, .*got 64 x 60 for 32"),
    (_returning(48, 48, 1, size=32), "of a multiple of the size asked for, or smaller .got 48 x 48 for 32")])
def test_a_class_at_fault_is_refused_before_anything_is_written(tmp_path, monkeypatch, wrong, words):
    monkeypatch.setitem(generate.DATASETS, "plain", type("Wrong", (Plain,), wrong))
    with pytest.raises(ConfigError, match=words):
        generate.generate(tmp_path, DataSpec("plain", "default"), progress=False)
    assert not list(tmp_path.glob("plain/[!.]*")) and not list(tmp_path.glob("plain/*.unfinished"))


def test_what_is_no_class_of_that_name_is_refused(monkeypatch):
    nameless = type("Nameless", (Dataset,), {"images": Plain.images})
    for wrong, words in ((nameless, "name of dataset=plain must be its key .*got None"),
                         (Plain(), "dataset=plain must be a subclass of Dataset .*got <"),
                         (Dataset, "dataset=plain must be a subclass of Dataset that has a method images")):
        monkeypatch.setitem(generate.DATASETS, "plain", wrong)
        with pytest.raises(ConfigError, match=words):
            generate.check(DataSpec("plain", "default"))
    monkeypatch.setitem(generate.DATASETS, "plain-2", type("Wrong", (Plain,), {"name": "plain-2"}))
    with pytest.raises(ConfigError, match="of small letters, digits and underscores .got 'plain-2'"):
        generate.check(DataSpec("plain-2", "default"))


def test_smaller_images_are_block_means():
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)
    for size in (4, 6):
        block = 12 // size
        expected = np.zeros((5, size, size, 3))
        for row in range(size):
            for column in range(size):
                cut = images[:, row * block:(row + 1) * block, column * block:(column + 1) * block]
                expected[:, row, column] = cut.reshape(5, -1, 3).mean(axis=1)
        small = resized(images, size)
        assert small.dtype == np.uint8
        assert np.abs(small - expected).max() <= 0.5


def test_larger_images_get_a_black_frame():
    images = np.full((2, 28, 28, 1), 7, np.uint8)
    for size, before, after in ((32, 2, 2), (29, 0, 1), (28, 0, 0)):
        padded = resized(images, size)
        assert padded.shape == (2, size, size, 1)
        assert (padded[:, before:size - after, before:size - after] == 7).all()
        assert padded.sum() == images.sum()
