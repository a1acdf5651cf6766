"""SmallNORB's reader on small files of exactly its matrix format."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from data_gen import generate
from data_gen.builders.smallnorb import SmallNorb, read_matrix
from data_gen.raw_files import RawFile
from vae_rd.config import DataSpec
from vae_rd.datasets import records
from vae_rd.datasets.records import RecordsError

BYTES, INTS = 0x1E3D4C55, 0x1E3D4C54
NAMES = [file.name for file in SmallNorb.files]


def _matrix(array):
    """The format of the authors' page: little-endian magic number, dimensions, at least three sizes, the data."""
    magic = BYTES if array.dtype == np.uint8 else INTS
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return struct.pack(f"<II{len(sizes)}I", magic, array.ndim, *sizes) + data


def _partition(seed, count):
    """Pairs of pictures, categories, and rows of instance, elevation, azimuth (0, 2, ..., 34) and lighting."""
    rng = np.random.default_rng(seed)
    info = np.stack([rng.integers(0, 10, count), np.arange(count) % 9, 2 * (np.arange(count) // 9 % 18),
                     rng.integers(0, 6, count)], axis=1)
    return (rng.integers(0, 256, (count, 2, 96, 96), np.uint8), rng.integers(0, 5, count).astype(np.int32),
            info.astype(np.int32))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """162 + 324 pairs under the name `smallnorb`: every elevation with every azimuth, once and twice."""
    folder = tmp_path / "raw" / "smallnorb"
    folder.mkdir(parents=True)
    partitions = _partition(0, 162), _partition(1, 324)
    for name, array in zip(NAMES, [array for partition in partitions for array in partition]):
        (folder / name).write_bytes(gzip.compress(_matrix(array), 1))

    class Small(SmallNorb):
        num_images, num_official_train = 486, 162
        files = tuple(RawFile(name, "http://127.0.0.1:9/", 1,
                              hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in NAMES)

    monkeypatch.setitem(generate.DATASETS, "smallnorb", Small)
    return folder, partitions


def test_matrices_are_read(tmp_path):
    for number, array in enumerate(_partition(0, 7)):
        (tmp_path / f"{number}.gz").write_bytes(gzip.compress(_matrix(array)))
        np.testing.assert_array_equal(read_matrix(tmp_path / f"{number}.gz"), array)


def test_numbers_are_little_endian_and_short_shapes_are_padded_to_three_sizes(tmp_path):
    (tmp_path / "file").write_bytes(bytes.fromhex("544c3d1e 01000000 02000000 01000000 01000000 2a000000 01010000"))
    assert read_matrix(tmp_path / "file").tolist() == [42, 257]


@pytest.mark.parametrize("content, words", [
    (struct.pack(">II", BYTES, 1), "got 0x554c3d1e .*It is not a SmallNORB matrix file"),
    (b"", "ends too early"),
    (struct.pack("<IIIII", INTS, 1, 2, 1, 1) + b"1234567", "expected 8 bytes, got 7")])
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RecordsError, match=words):
        read_matrix(tmp_path / "file")


def test_official_partitions_of_the_first_camera(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("smallnorb", "official"), progress=False)
    info = records.read_info(folder)
    for name, (pictures, category, rows) in zip(("train", "test"), small[1]):
        images, _, factors = records.load_partition(folder, info, name)
        means = pictures[:, 0].reshape(-1, 32, 3, 32, 3).mean(axis=(2, 4))
        assert np.abs(images[..., 0] - means).max() <= 0.5
        np.testing.assert_array_equal(factors, np.stack(
            [category, rows[:, 0], 30 + 5 * rows[:, 1], 10 * rows[:, 2], rows[:, 3]], axis=1))
    assert (info.num_train, info.num_test) == (162, 324)
    assert info.factor_names[2:4] == ("elevation", "azimuth") and info.factor_units[2:4] == ("degrees", "degrees")


def test_original_size(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("smallnorb", "official", image_size=96), progress=False)
    images = records.load_partition(folder, records.read_info(folder), "train")[0]
    np.testing.assert_array_equal(images[..., 0], small[1][0][0][:, 0])


def test_checkerboard_cuts_elevation_and_azimuth(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("smallnorb", "checkerboard"), progress=False)
    info = records.read_info(folder)
    for name, parity in (("train", 0), ("test", 1)):
        factors = records.load_partition(folder, info, name)[2]
        # Nine elevations, 30 to 70 degrees: the lower half has five; 18 azimuths, 0 to 340 degrees: nine and nine.
        upper = (factors[:, 2] >= 55).astype(int) + (factors[:, 3] >= 180)
        assert (upper % 2 == parity).all()
    assert (info.num_train, info.num_test) == (243, 243)


def test_cd_keeps_to_the_middle_of_elevation_and_azimuth(small, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("smallnorb", "cd_9"), progress=False)
    factors = np.concatenate([records.load_partition(folder, records.read_info(folder), name)[2]
                              for name in ("train", "test")])
    # Levels lie at (k + 1/2) / n, so 3 elevations and 6 azimuths have |unit - 1/2| below 1/6: 18 cells of 3 images.
    assert factors[:, 2].min() >= 45 and factors[:, 2].max() <= 55
    assert factors[:, 3].min() >= 140 and factors[:, 3].max() <= 200


def test_truncated_and_wrong_files_are_refused(small, tmp_path):
    path = small[0] / NAMES[3]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(RecordsError, match="testing-dat.mat.gz is not the original: expected sha256"):
        generate.generate(tmp_path, DataSpec("smallnorb", "official"), progress=False)
    assert not (tmp_path / "smallnorb").exists()


def test_truncated_file_that_is_taken_for_the_original(small, tmp_path):
    """Even with its checksum forged, a file that is cut short is named."""
    path = small[0] / NAMES[3]
    path.write_bytes(path.read_bytes()[:-50])
    kind = generate.DATASETS["smallnorb"]
    forged = kind.files[3]._replace(checksum=hashlib.sha256(path.read_bytes()).hexdigest())
    kind.files = (*kind.files[:3], forged, *kind.files[4:])
    with pytest.raises(RecordsError, match="testing-dat.mat.gz cannot be read.*cut short or damaged"):
        generate.generate(tmp_path, DataSpec("smallnorb", "official"), progress=False)
    assert not (tmp_path / "smallnorb" / "official").exists()


def test_all_six_files_are_asked_for(tmp_path, monkeypatch):
    files = tuple(file._replace(url=f"http://127.0.0.1:9/{file.name}") for file in SmallNorb.files)
    monkeypatch.setattr(SmallNorb, "files", files)
    with pytest.raises(RecordsError) as error:
        generate.generate(tmp_path, DataSpec("smallnorb", "official"), progress=False)
    assert all(f"http://127.0.0.1:9/{name}" in str(error.value) for name in NAMES)
