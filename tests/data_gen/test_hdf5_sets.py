"""3dShapes and dSprites: their readers on small files of exactly the format, and 3dShapes' memory at full size."""

import hashlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from data_gen import generate
from data_gen.builders import hdf5
from data_gen.builders.dsprites import DSprites
from data_gen.builders.shapes3d import Shapes3d
from data_gen.raw_files import RawFile
from vae_rd.config import DataSpec
from vae_rd.datasets import records
from vae_rd.datasets.records import RecordsError

SHAPES_LEVELS = (2, 2, 2, 4, 4, 3)  # 384 pictures; the original has (10, 10, 10, 8, 4, 15)
SPRITES_LEVELS = (1, 3, 2, 4, 4, 4)  # colour first, always one


def _grid(levels):
    return np.stack(np.unravel_index(np.arange(np.prod(levels)), levels), axis=1)


def _raw(path):
    return RawFile(path.name, "http://127.0.0.1:9/", path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def _load(folder, partition):
    return records.load_partition(folder, records.read_info(folder), partition)


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A small 3dshapes.h5, chunked and compressed; yields its path, images and labels."""
    path = tmp_path / "raw" / "shapes3d" / "3dshapes.h5"
    path.parent.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (384, 64, 64, 3), np.uint8)
    labels = _grid(SHAPES_LEVELS) * [0.1, 0.1, 0.1, 0.07, 1, 30] + [0, 0, 0, 0.75, 0, -30]
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(48, 8, 64, 3), compression="gzip")
        file.create_dataset("labels", data=labels)

    class Small(Shapes3d):
        num_images = 384
        files = (_raw(path),)

    monkeypatch.setitem(generate.DATASETS, "shapes3d", Small)
    return path, images, labels


@pytest.fixture(params=["hdf5", "npz"])
def sprites(request, tmp_path, monkeypatch):
    """A small dSprites file, once in each of its two formats; yields its path, images and latent values."""
    path = tmp_path / "raw" / "dsprites" / f"dsprites_ndarray_co1sh3sc6or40x32y32_64x64.{request.param}"
    path.parent.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 2, (384, 64, 64), np.uint8)
    classes = _grid(SPRITES_LEVELS)
    values = classes * [1, 1, 0.1, 1.5, 0.3, 0.3] + [1, 1, 0.5, 0, 0, 0]
    if request.param == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("imgs", data=images, compression="gzip")
            file.create_dataset("latents/classes", data=classes)
            file.create_dataset("latents/values", data=values)
    else:  # as the original, with an object array beside the plain ones
        np.savez_compressed(path, imgs=images, latents_classes=classes, latents_values=values,
                            metadata=np.array({"title": "dSprites"}, dtype=object), allow_pickle=True)

    class Small(DSprites):
        num_images = 384

    setattr(Small, request.param, _raw(path))
    monkeypatch.setitem(generate.DATASETS, "dsprites", Small)
    return path, images, values


@pytest.mark.parametrize("block", [1, 50, 4096])
def test_shapes_are_read_averaged_and_split(shapes, tmp_path, monkeypatch, block):
    monkeypatch.setattr(hdf5, "_BLOCK", block)
    folder = generate.generate(tmp_path, DataSpec("shapes3d", "cv_100"), progress=False)
    means = shapes[1].reshape(384, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    seen = []
    for name in ("train", "test"):
        images, index, factors = _load(folder, name)
        assert np.abs(images - means[index]).max() <= 0.5
        np.testing.assert_array_equal(factors, shapes[2][index].astype(np.float32))
        seen += index.tolist()
    assert sorted(seen) == list(range(384))


def test_shapes_in_original_size(shapes, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("shapes3d", "default", image_size=64), progress=False)
    images, index, _ = _load(folder, "test")
    np.testing.assert_array_equal(images, shapes[1][index])


def test_shapes_split_by_all_factors_but_the_shape(shapes, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("shapes3d", "checkerboard"), progress=False)
    levels = _grid(SHAPES_LEVELS)
    upper = (levels >= [1, 1, 1, 2, 99, 2]).sum(axis=1) % 2  # three orientations: two below, one above the cut
    np.testing.assert_array_equal(_load(folder, "train")[1], np.flatnonzero(upper == 0))
    assert len(_load(folder, "test")[1]) == 192


def test_sprites_are_read_averaged_and_split(sprites, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("dsprites", "cv_100"), progress=False)
    means = 255 * sprites[1].reshape(384, 32, 2, 32, 2).mean(axis=(2, 4))
    for name in ("train", "test"):
        images, index, factors = _load(folder, name)
        assert np.abs(images[..., 0] - means[index]).max() <= 0.5
        np.testing.assert_array_equal(factors, sprites[2][index, 1:].astype(np.float32))
    assert records.read_info(folder).factor_names == ("shape", "scale", "orientation", "x", "y")


def test_sprites_in_original_size_are_black_and_white(sprites, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("dsprites", "default", image_size=64), progress=False)
    images, index, _ = _load(folder, "train")
    np.testing.assert_array_equal(images[..., 0], 255 * sprites[1][index])


def test_sprites_split_by_the_ordered_factors(sprites, tmp_path):
    folder = generate.generate(tmp_path, DataSpec("dsprites", "cd_12"), progress=False)
    index = np.concatenate([_load(folder, name)[1] for name in ("train", "test")])
    levels = _grid(SPRITES_LEVELS)[index]
    assert set(levels[:, 1]) == {0, 1, 2}  # every shape
    assert ((levels[:, 3:] >= 1) & (levels[:, 3:] <= 2)).all()  # the middle two of four levels


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:50] + b"?" + data[51:],
                                    lambda data: b""])
def test_wrong_checksums_are_refused(shapes, sprites, tmp_path, damage):
    for name, path in (("shapes3d", shapes[0]), ("dsprites", sprites[0])):
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(RecordsError, match="is not the original: expected sha256 .* found"):
            generate.generate(tmp_path, DataSpec(name, "default"), progress=False)
        assert not (tmp_path / name).exists()


def _forge(name, attribute, path):
    kind = generate.DATASETS[name]
    setattr(kind, attribute, (_raw(path),) if attribute == "files" else _raw(path))


def test_truncated_files_that_are_taken_for_the_original(shapes, sprites, tmp_path):
    """Even with its checksum forged, a file that is cut short is named."""
    for name, path, attribute in (("shapes3d", shapes[0], "files"), ("dsprites", sprites[0], sprites[0].suffix[1:])):
        path.write_bytes(path.read_bytes()[:-2000])
        _forge(name, attribute, path)
        with pytest.raises(RecordsError, match="cannot be read as (HDF5|NPZ).*fetch it again"):
            generate.generate(tmp_path, DataSpec(name, "default"), progress=False, num_workers=1)


def test_files_of_other_sizes_are_refused(shapes, sprites, tmp_path):
    for name in ("shapes3d", "dsprites"):
        generate.DATASETS[name].num_images = 380
        with pytest.raises(RecordsError, match="must hold .* of shape .* is not the original: fetch it again"):
            generate.generate(tmp_path, DataSpec(name, "default"), progress=False, num_workers=1)


def test_hdf5_file_is_preferred_and_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(DSprites, "hdf5", DSprites.hdf5._replace(url="http://127.0.0.1:9/dsprites.hdf5"))
    with pytest.raises(RecordsError, match="fetch\n  http://127.0.0.1:9/dsprites.hdf5\nand put it into"):
        generate.generate(tmp_path, DataSpec("dsprites", "default"), progress=False)


@pytest.mark.slow
def test_shapes_at_full_size_stay_under_the_memory_limit(tmp_path):
    """480,000 pictures in a file of the original's shape, most of its chunks empty: one shard's index spans it all."""
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        shape, chunks = (480_000, 64, 64, 3), (1875, 8, 8, 3)
        images = file.create_dataset("images", shape, np.uint8, chunks=chunks, compression="gzip")
        images[479_000:] = np.full((1000, 64, 64, 3), 200, np.uint8)
        file.create_dataset("labels", (480_000, 6), np.float64)
    # VmHWM, not ru_maxrss: a child that is started by a large process begins with that one's maximum.
    program = ("import sys, numpy as np; from data_gen.builders.shapes3d import Shapes3d; "
               "data = Shapes3d(raw_dir=sys.argv[1]); images = data.images(np.arange(0, 480_000, 58)); "
               "assert images.shape == (8276, 32, 32, 3) and images[-1].min() == 200 and images[0].max() == 0; "
               "data.factors; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_500_000  # kilobytes
