"""Making a split: the same bytes whatever the workers, only what is needed, whole or not at all."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_gen import drawing, generate, split_folder
from data_gen.builders.tetrominoes import Tetrominoes
from vae_rd.config import ConfigError, DataSpec
from vae_rd.datasets import records


def _make(data_dir, split="cd_50", **options):
    fields = {name: options.pop(name) for name in DataSpec._fields if name in options}
    return generate.generate(data_dir, DataSpec("tetrominoes", split, **fields), progress=False, **options)


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _info(folder):
    return json.loads((folder / "info.json").read_text())


def test_what_is_on_disk(tmp_path):
    folder = _make(tmp_path, num_shards=2)
    assert folder == tmp_path / "tetrominoes" / "cd_50"
    assert sorted(path.name for path in folder.iterdir()) == ["info.json"] + [
        f"{partition}-0000{number}-of-00002.tfrecord.gz" for partition in ("test", "train") for number in (0, 1)]
    info = _info(folder)
    assert {name: info[name] for name in ("dataset", "split", "seed", "image_shape", "num_train", "num_test",
                                          "format_version")} == {
        "dataset": "tetrominoes", "split": "cd_50", "seed": 0, "image_shape": [32, 32, 3], "num_train": 50,
        "num_test": 50, "format_version": 1}
    assert info["factor_units"] == ["degrees", "hue", "pixels", "pixels", "pixels"]
    assert not list(folder.parent.glob("*unfinished*"))


def test_images_are_those_of_their_stored_factors_and_split(tmp_path):
    folder = _make(tmp_path)
    data = Tetrominoes()
    for partition, expected in zip(("train", "test"), data.split("cd_50")):
        images, index, factors = records.load_partition(folder, records.read_info(folder), partition)
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_array_equal(factors, data.factors[expected])
        np.testing.assert_array_equal(images, drawing.draw(*factors.astype(np.float64).T))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path):
    """Its workers import it and so begin to make the same data; they waited for their own parent, for ever."""
    script = tmp_path / "script.py"
    script.write_text("from data_gen import generate\nfrom vae_rd.config import DataSpec\n"
                      f"generate.generate({str(tmp_path)!r}, DataSpec('tetrominoes', 'cd_50'), num_workers=2, "
                      "num_shards=2, progress=False)\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1 and "lacks `if __name__" in ended.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("tetrominoes/[!.]*"))


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    """One process here, two and three spawned ones there; the last shards are smaller than the first."""
    expected = _bytes(_make(tmp_path / "1", num_workers=1, num_shards=7))
    for workers in (2, 3):
        assert _bytes(_make(tmp_path / str(workers), num_workers=workers, num_shards=7)) == expected


def test_content_does_not_depend_on_the_sharding(tmp_path):
    contents = [_info(_make(tmp_path / str(shards), num_shards=shards))["content_sha256"] for shards in (1, 3, 50)]
    assert contents[0] == contents[1] == contents[2]


def test_content_depends_on_the_seed_and_the_split(tmp_path):
    infos = [_info(_make(tmp_path)), _info(_make(tmp_path, data_seed=1)), _info(_make(tmp_path, split="cd_51"))]
    assert len({info["content_sha256"]["train"] for info in infos}) == 3
    assert (tmp_path / "tetrominoes-seed1" / "cd_50").is_dir()


def test_the_same_image_has_the_same_bytes_in_every_split(tmp_path):
    folders = [_make(tmp_path), _make(tmp_path, split="cd_60")]
    images = {}
    for folder in folders:
        for partition in ("train", "test"):
            for image, number, _ in zip(*records.load_partition(folder, records.read_info(folder), partition)):
                assert images.setdefault(int(number), image.tobytes()) == image.tobytes()
    assert len(images) < 220  # the sets do overlap


def test_only_the_images_of_the_split_are_drawn(tmp_path, monkeypatch):
    drawn = []
    images = Tetrominoes.images
    monkeypatch.setattr(Tetrominoes, "images", lambda self, index: drawn.append(index) or images(self, index))
    _make(tmp_path, num_workers=1)
    assert sorted(np.concatenate(drawn)) == sorted(np.concatenate(Tetrominoes().split("cd_50")))


@pytest.fixture
def no_drawing(monkeypatch):
    """From here on every attempt to draw fails."""
    def refuse():
        monkeypatch.setattr(Tetrominoes, "images", lambda self, index: pytest.fail("it drew again"))
    return refuse


def test_a_complete_split_is_left_alone(tmp_path, no_drawing):
    folder = _make(tmp_path, num_workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    no_drawing()
    assert _make(tmp_path, num_workers=1, num_shards=3) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_equal_names_are_one_folder(tmp_path, no_drawing):
    folder = _make(tmp_path, split="cd_8k", image_size=8)
    no_drawing()
    assert _make(tmp_path, split="cd_8192", image_size=8) == folder


def test_a_damaged_split_is_named_and_kept_until_overwritten(tmp_path):
    folder = _make(tmp_path)
    good = _bytes(folder)
    (folder / "train-00000-of-00001.tfrecord.gz").write_bytes(b"")
    with pytest.raises(records.RecordsError, match="train-00000-of-00001.tfrecord.gz: it must .* .got 0.*--overwrite"):
        _make(tmp_path)
    assert (folder / "train-00000-of-00001.tfrecord.gz").stat().st_size == 0
    assert _bytes(_make(tmp_path, overwrite=True)) == good
    assert [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")] == ["cd_50"]


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path):
    folder = tmp_path / "tetrominoes" / "cd_50"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("dear")
    with pytest.raises(records.RecordsError, match="must be the folder of a split .*with data_gen.main --overwrite"):
        _make(tmp_path)
    assert (folder / "thesis.tex").read_text() == "dear"
    assert records.read_info(_make(tmp_path, overwrite=True)).num_train == 50
    assert not (folder / "thesis.tex").exists()


@pytest.mark.parametrize("moment", ["write_shard", "content_sha256"])
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, moment):
    original, calls = getattr(records, moment), []

    def fail_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    monkeypatch.setattr(records, moment, fail_second)
    with pytest.raises(OSError, match="No space left"):
        _make(tmp_path, num_workers=1)
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "tetrominoes").iterdir()] == [".cd_50.lock"]
    monkeypatch.undo()
    records.read_info(_make(tmp_path))


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    leftover = tmp_path / "tetrominoes" / ".cd_50.abcdefgh.unfinished"
    other = tmp_path / "tetrominoes" / ".cd_60.abcdefgh.unfinished"
    for folder in (leftover, other):
        folder.mkdir(parents=True)
        (folder / "train-00000-of-00001.tfrecord.gz").write_text("half")
    _make(tmp_path)
    assert not leftover.exists()
    assert other.exists()  # perhaps a living process makes that one


def test_a_split_is_not_lost_while_it_is_replaced(tmp_path, no_drawing):
    """Killed between the two renames, or where the second fails."""
    folder = _make(tmp_path)
    no_drawing()
    folder.rename(folder.with_name(".cd_50.abcdefgh.old.unfinished"))
    assert _make(tmp_path) == folder and records.read_info(folder)
    new = folder.with_name(".cd_50.second.unfinished")
    with pytest.raises(FileNotFoundError):
        split_folder.publish(new, folder, overwrite=True)
    assert records.read_info(folder)


def test_the_slower_of_two_keeps_the_faster_ones_split(tmp_path):
    """Without file locks two processes may both draw: the second finds the folder there, and that is well."""
    folder = _make(tmp_path)
    before = _bytes(folder)
    second = tmp_path / "tetrominoes" / ".cd_50.second.unfinished"
    shutil.copytree(folder, second)
    split_folder.publish(second, folder, overwrite=False)
    assert _bytes(folder) == before


def test_a_linked_split_is_replaced_and_what_it_linked_to_stays(tmp_path):
    folder = _make(tmp_path)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert _bytes(_make(tmp_path, overwrite=True)) == _bytes(elsewhere)
    assert not folder.is_symlink() and not list(folder.parent.glob("*.unfinished"))


def test_a_read_only_complete_split_is_fine(tmp_path, no_drawing):
    folder = _make(tmp_path)
    no_drawing()
    for path in (folder, folder.parent):
        path.chmod(0o555)
    try:
        assert _make(tmp_path) == folder
    finally:
        for path in (folder.parent, folder):
            path.chmod(0o755)


def test_static_binarization_draws_each_pixel_by_its_grey_value(tmp_path):
    grey = records.load_partition(_make(tmp_path), records.read_info(_make(tmp_path)), "train")[0]
    folder = _make(tmp_path, binarization="static")
    assert folder.parent.name == "tetrominoes-static"
    drawn = records.load_partition(folder, records.read_info(folder), "train")[0]
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn[grey == 0] == 0).all() and (drawn[grey == 255] == 255).all()
    between = (grey > 0) & (grey < 255)
    z = (drawn[between] / 255 - grey[between] / 255).sum() / np.sqrt((grey[between] / 255
                                                                     * (1 - grey[between] / 255)).sum())
    assert abs(z) < 4
    for low, high in ((1, 85), (86, 170), (171, 254)):
        here = (grey >= low) & (grey <= high)
        assert (drawn[here] / 255).mean() == pytest.approx((grey[here] / 255).mean(), abs=0.03)


def test_static_draws_belong_to_the_index_and_the_seed():
    images = np.full((6, 8, 8, 1), 128, np.uint8)
    whole = generate.binarize(images, np.arange(6), 0)
    np.testing.assert_array_equal(generate.binarize(images[:2], np.array([4, 5]), 0), whole[4:])
    assert (generate.binarize(images, np.arange(6), 1) != whole).any()
    assert (whole[0] != whole[1]).any()


def test_dynamic_binarization_shares_the_grey_images(tmp_path, no_drawing):
    folder = _make(tmp_path)
    no_drawing()
    assert _make(tmp_path, binarization="dynamic") == folder


@pytest.mark.parametrize("arguments, words", [
    (("nothing", "default"), "dataset must be one of tetrominoes, .*, or one that --import adds .got 'nothing'"),
    (("tetrominoes", "halves"), "split must be of one of these kinds .got 'halves'"),
    (("tetrominoes", "official"), "dataset=tetrominoes, which is not distributed in partitions"),
    (("tetrominoes", "cv_163840"), "at most cv_163839 with dataset=tetrominoes, which has 163840 images"),
    (("tetrominoes", "cd_81921"), "split must be at most cd_81920"),
    (("tetrominoes", "default", 7), "image_size must be 8 or more .got 7"),
    (("tetrominoes", "default", 32, "gray"), "binarization must be one of none, static, dynamic")])
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        generate.check(DataSpec(*arguments))
    with pytest.raises(ConfigError, match=words):
        generate.generate(tmp_path, DataSpec(*arguments))
    assert not list(tmp_path.iterdir())


def test_more_shards_than_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="num_shards must be from 1 to the 50 images of the train set .got 51."):
        _make(tmp_path, num_shards=51)
    assert not list(tmp_path.iterdir())


def test_all_splits_are_the_papers():
    names = generate.all_splits("tetrominoes")
    assert len(names) == 2 + 8 + 9 and {"default", "checkerboard", "cd_65k", "cv_82k"} <= set(names)


def test_shards_follow_from_the_size(tmp_path):
    assert len(_info(_make(tmp_path, split="cd_8193", image_size=8))["shards"]) == 2 * math.ceil(8193 / 8192)


def test_a_shard_with_a_flipped_bit_is_not_complete(tmp_path):
    folder = _make(tmp_path)
    path = folder / "test-00000-of-00001.tfrecord.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(records.RecordsError, match="test-00000-of-00001.tfrecord.gz: its sha256 is not .*--overwrite"):
        _make(tmp_path)


def test_images_that_no_memory_holds_are_refused_before_work(tmp_path, no_drawing):
    no_drawing()
    with pytest.raises(ConfigError, match="1 workers .*got 50 images with image_size=100000, 1,500 GB .* smaller"):
        _make(tmp_path, image_size=100_000, num_workers=1)
    with pytest.raises(ConfigError, match="a shard for each of 2 workers must .* 3,000 GB in all.* fewer workers"):
        _make(tmp_path, image_size=100_000, num_workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_refused(tmp_path, there):
    """Its target is neither written nor made; with the link gone, the split is made."""
    target, lock = tmp_path / "mine.txt", tmp_path / "data" / "tetrominoes" / ".cd_50.lock"
    lock.parent.mkdir(parents=True)
    if there:
        target.write_text("mine")
    lock.symlink_to(target)
    with pytest.raises(records.RecordsError, match=".cd_50.lock is a symbolic link, .*: remove it"):
        _make(tmp_path / "data")
    assert target.read_text() == "mine" if there else not target.exists()
    lock.unlink()
    assert records.read_info(_make(tmp_path / "data")).num_train == 50


def test_without_locks_on_the_file_system_a_split_is_made(tmp_path, monkeypatch):
    def no_locks(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(split_folder.fcntl, "lockf", no_locks)
    assert records.read_info(_make(tmp_path)).num_train == 50
