"""Shards and info.json: what is written is what TensorFlow reads, and damage of every kind is named."""

import gzip
import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from vae_rd.config import DataSpec
from vae_rd.datasets import records, splits


def _arrays(index, num_factors=2, shape=(3, 4, 2)):
    rng = np.random.default_rng(1)
    index = np.asarray(index, np.int64)
    return (rng.integers(0, 256, (len(index), *shape), np.uint8), index,
            rng.normal(size=(len(index), num_factors)).astype(np.float32))


def _read_examples(path):
    """The independent reader: TensorFlow's own TFRecord and Example classes."""
    import tensorflow as tf
    return [tf.train.Example.FromString(record)
            for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()]


def _write_split(folder, train=range(0, 40, 2), test=range(1, 21, 2), num_factors=2, shards=2):
    """A small split on disk: 20 training images in two shards, 10 test images in two."""
    folder.mkdir(parents=True)
    written, content = [], {}
    for partition, index in (("train", train), ("test", test)):
        images, index, factors = _arrays(list(index), num_factors)
        parts = np.array_split(np.arange(len(index)), shards)
        names = [records.shard_name(partition, number, shards) for number in range(shards)]
        written += [records.write_shard(folder / name, images[part], index[part], factors[part])
                    for name, part in zip(names, parts)]
        content[partition] = records.content_sha256([folder / name for name in names])
    info = records.Info("toy", folder.name, 0, 32, "none", (3, 4, 2), ("a", "b")[:num_factors],
                        ("m", "s")[:num_factors], ((0.0, 1.0), (2.0, 3.0))[:num_factors], 2000, len(train), len(test),
                        tuple(written), content)
    (folder / "info.json").write_text(info.to_json())
    return info


@pytest.fixture
def split_dir(tmp_path):
    """A valid split, to be damaged."""
    folder = tmp_path / "toy" / "default"
    _write_split(folder)
    return folder


def _change_info(folder, **changes):
    content = json.loads((folder / "info.json").read_text())
    content.update(changes)
    content.pop("sha256", None)  # as in files of earlier versions: what is left to find it is the rest
    (folder / "info.json").write_text(json.dumps(content))


def _replace_shard(folder, name, records_bytes):
    """Puts other records into a shard AND makes bytes and sha256 in info.json agree, so only the content is wrong."""
    data = gzip.compress(records_bytes)
    (folder / name).write_bytes(data)
    content = json.loads((folder / "info.json").read_text())
    for shard in content["shards"]:
        if shard["file"] == name:
            shard.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    content.pop("sha256", None)
    (folder / "info.json").write_text(json.dumps(content))


def _load(folder, partition="train"):
    return records.load_partition(folder, records.read_info(folder), partition)


TRAIN_0, TRAIN_1 = "train-00000-of-00002.tfrecord.gz", "train-00001-of-00002.tfrecord.gz"


def test_tensorflow_reads_what_we_write(tmp_path):
    images, index, factors = _arrays([0, 1, 127, 128, 16383, 16384, 163839, 2**40], num_factors=5)
    records.write_shard(tmp_path / "s.gz", images, index, factors)
    examples = _read_examples(tmp_path / "s.gz")
    assert len(examples) == 8
    for example, image, number, row in zip(examples, images, index, factors):
        feature = example.features.feature
        assert sorted(feature) == ["factors", "image", "index"]
        assert feature["image"].bytes_list.value[0] == image.tobytes()
        assert list(feature["index"].int64_list.value) == [number]
        np.testing.assert_array_equal(np.float32(feature["factors"].float_list.value), row)


def test_messages_are_the_bytes_of_tensorflow(tmp_path):
    import tensorflow as tf
    records.write_shard(tmp_path / "s.gz", *_arrays([300]))
    raw = next(tf.data.TFRecordDataset(str(tmp_path / "s.gz"), "GZIP").as_numpy_iterator())
    assert tf.train.Example.FromString(raw).SerializeToString(deterministic=True) == raw


def test_wrong_checksum_of_a_record_is_noticed_by_tensorflow(tmp_path):
    """Negative control: our checksums are real ones, else TensorFlow would not have read the files above."""
    import tensorflow as tf
    records.write_shard(tmp_path / "s.gz", *_arrays([3, 4]))
    data = bytearray(gzip.decompress((tmp_path / "s.gz").read_bytes()))
    data[40] ^= 1
    (tmp_path / "s.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(tf.errors.DataLossError):
        _read_examples(tmp_path / "s.gz")


@pytest.mark.parametrize("num_factors", [0, 1, 2])
def test_load_returns_what_was_written(tmp_path, num_factors):
    _write_split(tmp_path / "toy" / "default", num_factors=num_factors)
    images, index, factors = _arrays(list(range(0, 40, 2)), num_factors)
    for got, expected in zip(_load(tmp_path / "toy" / "default"), (images, index, factors)):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("count", [1023, 1024, 1025])
def test_load_keeps_the_ragged_last_batch(tmp_path, count):
    folder = tmp_path / "toy" / "default"
    _write_split(folder, train=range(count), shards=1)
    images, index, factors = _load(folder)
    np.testing.assert_array_equal(images, _arrays(range(count))[0])
    np.testing.assert_array_equal(index, np.arange(count))


def test_equal_data_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        records.write_shard(tmp_path / name, *_arrays(range(9)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_content_sha256_is_that_of_the_records_and_ignores_the_sharding(tmp_path):
    import tensorflow as tf
    images, index, factors = _arrays(range(0, 300, 7))
    whole, parts = tmp_path / "whole.gz", [tmp_path / "p0.gz", tmp_path / "p1.gz", tmp_path / "p2.gz"]
    records.write_shard(whole, images, index, factors)
    for path, part in zip(parts, np.array_split(np.arange(len(index)), 3)):
        records.write_shard(path, images[part], index[part], factors[part])
    expected = hashlib.sha256(b"".join(tf.data.TFRecordDataset(str(whole), "GZIP").as_numpy_iterator())).hexdigest()
    assert records.content_sha256([whole]) == records.content_sha256(parts) == expected
    images[5, 0, 0, 0] ^= 1
    records.write_shard(whole, images, index, factors)
    assert records.content_sha256([whole]) != expected


def test_info_json_has_the_documented_fields(split_dir):
    content = json.loads((split_dir / "info.json").read_text())
    rest = {name: value for name, value in content.items() if name != "sha256"}
    assert content["sha256"] == hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    documented = {"dataset", "split", "seed", "image_shape", "factor_names", "factor_units", "num_train", "num_test",
                  "shards", "content_sha256", "format_version"}
    assert documented <= set(content)
    assert set(content["shards"][0]) == {"file", "examples", "bytes", "sha256"}
    assert set(content["content_sha256"]) == {"train", "test"}
    shard = content["shards"][0]
    data = (split_dir / shard["file"]).read_bytes()
    assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("arguments, folder", [
    ({}, "mnist"), ({"data_seed": 1}, "mnist-seed1"), ({"image_size": 28}, "mnist-size28"),
    ({"binarization": "static"}, "mnist-static"), ({"binarization": "dynamic"}, "mnist"),
    ({"data_seed": 3, "image_size": 64, "binarization": "static"}, "mnist-seed3-size64-static")])
def test_every_variant_has_a_folder_of_its_own(arguments, folder):
    assert DataSpec("mnist", "cv_8k", **arguments).path("d") == pathlib.Path("d", folder, "cv_8k")


def test_missing_data(tmp_path):
    with pytest.raises(records.RecordsError, match="must be the folder of a split .it has no info.json.*Make"):
        records.read_info(tmp_path)


def test_every_flipped_digit_of_info_is_noticed(split_dir):
    path = split_dir / "info.json"
    whole = path.read_bytes()
    for place in [place for place, byte in enumerate(whole) if byte in b"12345678"]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        with pytest.raises(records.RecordsError, match="info.json"):
            records.read_info(split_dir)


def test_info_of_earlier_versions_has_no_checksum_and_is_read(split_dir):
    info = records.read_info(split_dir)
    _change_info(split_dir)
    assert "sha256" not in json.loads((split_dir / "info.json").read_text())
    assert records.read_info(split_dir) == info


@pytest.mark.parametrize("change, words", [
    ({"image_shape": [10**6, 10**6, 3]}, "cannot be in train shards of"), ({"image_shape": [0, 4, 2]}, "cannot be in"),
    ({"image_shape": [3, 4]}, "image_shape must be a list of 3"), ({"image_shape": [3, -4, 2]}, "whole number"),
    ({"num_train": -20}, "num_train must be a whole"), ({"num_train": 10**30}, "num_train must be a whole number"),
    ({"num_total": "many"}, 'num_total must be a whole number, 0 or more .got "many"'), ({"num_total": 3}, "at least"),
    ({"factor_names": ["a"]}, "must have the same length .got 1, 2, 2"), ({"split": 3}, "split must be text"),
    ({"factor_ranges": [[0, 1], [2, "x"]]}, "must be a number"),
    ({"content_sha256": {"train": "0"}}, "test is missing"),
    ({"shards": [{"file": "train-00000-of-00001.tfrecord.gz"}]}, "examples is missing"), ({"colour": 1}, "colour")])
def test_wrong_info_is_refused_in_words_before_any_allocation(split_dir, change, words):
    _change_info(split_dir, **change)
    with pytest.raises(records.RecordsError, match=f"info.json.*{words}"):
        _load(split_dir)


def test_a_folder_in_place_of_info_is_named(split_dir):
    (split_dir / "info.json").unlink()
    (split_dir / "info.json").mkdir()
    with pytest.raises(records.RecordsError, match="info.json must be a file .it is a folder.. Remove it"):
        records.read_info(split_dir)


@pytest.mark.parametrize("text", ["[" * 100_000, "", "{", "[]", "{}", '{"format_version": 1, "shards": [{"file": 3}]}'])
def test_damaged_info(split_dir, text):
    (split_dir / "info.json").write_text(text)
    with pytest.raises(records.RecordsError, match="info.json is damaged.*--overwrite"):
        records.read_info(split_dir)


def test_info_of_another_format(split_dir):
    _change_info(split_dir, format_version=99)
    with pytest.raises(records.RecordsError, match="format_version must be 1 .got 99"):
        records.read_info(split_dir)


def test_info_that_disagrees_with_its_shards(split_dir):
    _change_info(split_dir, num_test=11)
    with pytest.raises(records.RecordsError, match="num_test is 11, but its test shards sum to 10"):
        records.read_info(split_dir)


@pytest.mark.parametrize("change", [{"split": "cv_8k"}, {"dataset": "mnist"}, {"seed": 1}, {"image_size": 28},
                                    {"binarization": "static"}])
def test_info_that_disagrees_with_its_place(split_dir, change):
    _change_info(split_dir, **change)
    with pytest.raises(records.RecordsError, match="but is in toy/default"):
        records.read_info(split_dir)


def test_data_behind_links_count_by_the_name_of_the_link(split_dir, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "toy").symlink_to(split_dir.parent)
    split_dir.rename(split_dir.with_name("scratch_17"))
    split_dir.symlink_to(split_dir.with_name("scratch_17"))
    assert len(_load(tmp_path / "elsewhere" / "toy" / "default")[1]) == 20


def test_info_that_leaves_a_shard_out(split_dir):
    content = json.loads((split_dir / "info.json").read_text())
    _change_info(split_dir, shards=content["shards"][1:], num_train=10)
    with pytest.raises(records.RecordsError, match="its train shards must be train-00000-of-00001"):
        records.read_info(split_dir)


def test_info_with_other_numbers_of_images(split_dir):
    content = json.loads((split_dir / "info.json").read_text())
    content["shards"][0]["examples"] += 1
    _change_info(split_dir, shards=content["shards"], num_train=21)
    with pytest.raises(records.RecordsError, match="must hold 11 images, as info.json says .got 10"):
        _load(split_dir)


@pytest.mark.parametrize("shape", [[4, 4, 2], [3, 4, 1]])
def test_info_with_another_image_shape(split_dir, shape):
    _change_info(split_dir, image_shape=shape)
    with pytest.raises(records.RecordsError, match="its images must be the 10 of shape"):
        _load(split_dir)


def test_missing_shard(split_dir):
    (split_dir / TRAIN_1).unlink()
    with pytest.raises(records.RecordsError, match=f"{TRAIN_1}: it is missing.*--overwrite"):
        _load(split_dir)


@pytest.mark.parametrize("keep", [0, 30, -1])
def test_truncated_shard(split_dir, keep):
    path = split_dir / TRAIN_0
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(records.RecordsError, match=f"{TRAIN_0}: it must have .* bytes, as info.json says"):
        _load(split_dir)


def test_shard_cut_at_a_record_boundary(split_dir):
    """TensorFlow reads such a file without complaint; even with bytes and sha256 forged, the count gives it away."""
    data = gzip.decompress((split_dir / TRAIN_0).read_bytes())
    length = struct.unpack_from("<Q", data)[0] + 16
    _replace_shard(split_dir, TRAIN_0, data[:-length])
    assert len(_read_examples(split_dir / TRAIN_0)) == 9
    with pytest.raises(records.RecordsError, match=f"{TRAIN_0}: it must hold 10 images, as info.json says .got 9"):
        _load(split_dir)


def test_bit_flip(split_dir):
    data = bytearray((split_dir / TRAIN_1).read_bytes())
    data[len(data) // 2] ^= 4
    (split_dir / TRAIN_1).write_bytes(bytes(data))
    with pytest.raises(records.RecordsError, match=f"{TRAIN_1}: its sha256 is not the one in info.json"):
        _load(split_dir)
    _load(split_dir, "test")  # the other partition is whole and can be read


def test_damage_inside_a_record_with_forged_sums(split_dir):
    data = bytearray(gzip.decompress((split_dir / TRAIN_0).read_bytes()))
    data[60] ^= 1
    _replace_shard(split_dir, TRAIN_0, bytes(data))
    with pytest.raises(records.RecordsError, match=f"{TRAIN_0}: it cannot be parsed"):
        _load(split_dir)


def test_swapped_shards(split_dir):
    first, second = (split_dir / TRAIN_0).read_bytes(), (split_dir / TRAIN_1).read_bytes()
    _replace_shard(split_dir, TRAIN_0, gzip.decompress(second))
    _replace_shard(split_dir, TRAIN_1, gzip.decompress(first))
    with pytest.raises(records.RecordsError, match="the train shards are not in index order"):
        _load(split_dir)


def test_foreign_shard(split_dir):
    shutil.copy(split_dir / TRAIN_0, split_dir / "train-00000-of-00009.tfrecord.gz")
    with pytest.raises(records.RecordsError, match="holds train-00000-of-00009.tfrecord.gz, which info.json does not"):
        _load(split_dir)


def test_foreign_content(split_dir):
    """A TFRecord of other features is named, not half read."""
    import tensorflow as tf
    example = tf.train.Example(features=tf.train.Features(feature={
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))}))
    with tf.io.TFRecordWriter(str(split_dir / "other")) as writer:
        writer.write(example.SerializeToString())
    _replace_shard(split_dir, TRAIN_0, (split_dir / "other").read_bytes())
    with pytest.raises(records.RecordsError, match=f"{TRAIN_0}: it cannot be parsed"):
        _load(split_dir)


def test_an_index_outside_the_data_set(tmp_path):
    _write_split(tmp_path / "toy" / "default", train=[*range(19), 2000])
    with pytest.raises(records.RecordsError, match="train images must have an index from 0 to 1999 .got others"):
        _load(tmp_path / "toy" / "default")


def test_an_image_in_both_sets(tmp_path):
    """As by another program: its sums agree."""
    _write_split(tmp_path / "toy" / "default", train=range(20), test=range(18, 30))
    with pytest.raises(records.RecordsError, match="must hold two sets that share no image .got 2 in both"):
        splits.load(tmp_path / "toy" / "default")


def test_a_shard_that_is_replaced_while_it_is_read(split_dir, monkeypatch):
    check = records._check_shard

    def replaced(path, shard):
        check(path, shard)
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    monkeypatch.setattr(records, "_check_shard", replaced)
    with pytest.raises(records.RecordsError, match="tfrecord.gz: it was replaced while it was read"):
        _load(split_dir)


def test_reading_info_needs_no_tensorflow(split_dir):
    program = ("import sys; from vae_rd.datasets import records; records.read_info(sys.argv[1]); "
               "print([name for name in sys.modules if name.startswith('tensorflow')])")
    done = subprocess.run([sys.executable, "-c", program, str(split_dir)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
