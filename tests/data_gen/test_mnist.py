"""MNIST and Fashion-MNIST: the IDX format on small files, and the original files."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from data_gen import generate
from data_gen.builders import mnist
from data_gen.builders.fashion_mnist import FashionMnist
from data_gen.builders.mnist import Mnist, read_idx
from data_gen.raw_files import RawFile
from tests import real_files
from vae_rd.config import DataSpec
from vae_rd.datasets import records
from vae_rd.datasets.records import RecordsError

NAMES = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz"]


def _idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _arrays():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, np.uint8) for shape in ((30, 28, 28), 30, (12, 28, 28), 12)]


def _checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A set of 42 images in files of exactly the format, under the name `mnist`; yields its class and folder."""
    folder = tmp_path / "raw" / "mnist"
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, _arrays()):
        (folder / name).write_bytes(gzip.compress(_idx(array)))

    class Small(Mnist):
        num_images, num_official_train = 42, 30
        files = tuple(RawFile(name, "http://127.0.0.1:9/", 1, _checksum(folder / name)) for name in NAMES)

    monkeypatch.setitem(generate.DATASETS, "mnist", Small)
    return Small, folder


def test_idx_is_read(tmp_path):
    for number, array in enumerate(_arrays()):
        (tmp_path / f"{number}").write_bytes(_idx(array))
        (tmp_path / f"{number}.gz").write_bytes(gzip.compress(_idx(array)))
        np.testing.assert_array_equal(read_idx(tmp_path / f"{number}"), array)
        np.testing.assert_array_equal(read_idx(tmp_path / f"{number}.gz"), array)


def test_sizes_are_big_endian(tmp_path):
    (tmp_path / "file").write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    assert read_idx(tmp_path / "file").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("content, words", [
    (b"", "ends too early: expected 4 bytes, got 0"),
    (_idx(np.zeros((2, 3), np.uint8))[:-1], "ends too early: expected 6 bytes, got 5"),
    (_idx(np.zeros((2, 3), np.uint8))[:6], "ends too early: expected 8 bytes"),
    (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "got 00 00 0d 01.. It is not an IDX file of bytes"),
    (b"PK\x03\x04abcdefgh", "is not an IDX file of bytes")])
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RecordsError, match=words):
        read_idx(tmp_path / "file")


def test_official_partitions_padded_to_32(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False)
    info = records.read_info(folder)
    arrays = _arrays()
    for name, first, pictures, labels in (("train", 0, arrays[0], arrays[1]), ("test", 30, arrays[2], arrays[3])):
        images, index, factors = records.load_partition(folder, info, name)
        assert index.tolist() == list(range(first, first + len(pictures)))
        np.testing.assert_array_equal(images, np.pad(pictures[..., None], ((0, 0), (2, 2), (2, 2), (0, 0))))
        np.testing.assert_array_equal(factors, labels[:, None])
    assert info.image_shape == (32, 32, 1)


def test_original_size_and_halved(small, tmp_path):
    native = generate.generate(tmp_path, DataSpec("mnist", "official", image_size=28), progress=False)
    images = records.load_partition(native, records.read_info(native), "test")[0]
    assert native.parent.name == "mnist-size28"
    np.testing.assert_array_equal(images[..., 0], _arrays()[2])
    halved = generate.generate(tmp_path, DataSpec("mnist", "official", image_size=14), progress=False)
    means = _arrays()[2].reshape(12, 14, 2, 14, 2).mean(axis=(2, 4))
    assert np.abs(records.load_partition(halved, records.read_info(halved), "test")[0][..., 0] - means).max() <= 0.5


def test_cv_pools_the_partitions(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("mnist", "cv_20"), progress=False)
    info = records.read_info(folder)
    train, test = (records.load_partition(folder, info, name)[1] for name in ("train", "test"))
    assert sorted([*train, *test]) == list(range(42))
    assert train.max() >= 30 and test.min() < 30


def test_wrong_checksum_is_refused_before_anything_is_written(small, tmp_path):
    (small[1] / NAMES[0]).write_bytes(gzip.compress(_idx(_arrays()[0] // 2)))
    with pytest.raises(RecordsError, match="train-images-idx3-ubyte.gz is not the original: expected sha256 .* found"):
        generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False)
    assert not (tmp_path / "mnist").exists()


def test_missing_files_are_named(small, tmp_path):
    (small[1] / NAMES[3]).unlink()
    with pytest.raises(RecordsError, match=f"{NAMES[3]} of mnist is not in {tmp_path}/raw and cannot be downloaded"):
        generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False)


def test_data_made_elsewhere_need_no_original_files(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False)
    for path in small[1].iterdir():
        path.unlink()
    assert generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False) == folder


def test_files_of_other_sizes_are_refused(small, tmp_path):
    small[0].num_official_train = 29
    with pytest.raises(RecordsError, match=r"must hold \[29, 13\] items .got \[30, 12\]"):
        generate.generate(tmp_path, DataSpec("mnist", "official"), progress=False, num_workers=1)


def test_the_two_sets_share_names_but_no_checksum():
    assert [file.name for file in Mnist.files] == [file.name for file in FashionMnist.files] == NAMES
    checksums = [checksum for kind in (Mnist, FashionMnist) for file in kind.files
                 for checksum in (file.checksum, file.content_checksum)]
    assert len(set(checksums)) == 16


# What is known of the sets from elsewhere: images of each class, mean grey value of the training images in [0, 1].
KNOWN = {"mnist": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 0.1307, Mnist),
         "fashion_mnist": ([6000] * 10, 0.2860, FashionMnist)}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_original_files(name, tmp_path):
    raw = tmp_path / "raw" / name
    raw.mkdir(parents=True)
    getattr(real_files, name)(raw)
    counts, mean, kind = KNOWN[name]
    folder = generate.generate(tmp_path, DataSpec(name, "official", image_size=28), progress=False)
    info = records.read_info(folder)
    images, index, factors = records.load_partition(folder, info, "train")
    assert (info.num_train, info.num_test, info.image_shape) == (60000, 10000, (28, 28, 1))
    np.testing.assert_array_equal(np.bincount(factors[:, 0].astype(int)), counts)
    assert images.mean() / 255 == pytest.approx(mean, abs=5e-5)
    np.testing.assert_array_equal(index, np.arange(60000))
    data = kind(raw_dir=tmp_path / "raw")
    file = data.path(data.files[2])
    np.testing.assert_array_equal(records.load_partition(folder, info, "test")[0][..., 0], mnist.read_idx(file))
