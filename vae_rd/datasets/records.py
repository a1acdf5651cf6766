"""What is in a shard and in info.json: names, writing, reading and checking; the only module that knows.

A shard is a GZIP TFRecord of tf.train.Example messages with the features `image` (raw uint8 bytes, height x width x
channels), `index` (int64, position in the full data set) and `factors` (floats, physical units), in index order.

info.json ends with a sha256 of the rest of it (files of earlier versions have none, and are read), and holds size and
sha256 of every shard: sizes are checked by `check_files`, contents by `check_contents` and whenever images are loaded.
"""

import concurrent.futures
import dataclasses
import gzip
import hashlib
import itertools
import json
import math
import os
import pathlib

import numpy as np

from vae_rd import schema
from vae_rd.config import DataSpec
from vae_rd.datasets import tfrecord

FORMAT_VERSION = 1
INFO_FILE = "info.json"
PARTITIONS = ("train", "test")
CLASS = "class"  # unit of factors without an order, such as a label: differences of their numbers mean nothing
SHARD_SUFFIX = ".tfrecord.gz"
_COMPRESSION_LEVEL = 4  # per Tetromino 15 us and 189 bytes; level 1: 10 us, 207 bytes; level 9: 119 us, 179 bytes
_PARSE_BATCH = 1024
_DEFLATE_LIMIT = 1032  # no compressed byte stands for more bytes than these
_SHA256 = schema.mapping(dict.fromkeys(PARTITIONS, schema.text))
_TEXTS = schema.list_of(schema.text)
_SCHEMA = schema.mapping({
    **dict.fromkeys(("dataset", "split", "binarization"), schema.text),
    **dict.fromkeys(("seed", "image_size", "num_total", "num_train", "num_test"), schema.count),
    "image_shape": schema.list_of(schema.count, 3), "factor_names": _TEXTS, "factor_units": _TEXTS,
    "factor_ranges": schema.list_of(schema.list_of(schema.number, 2)), "content_sha256": _SHA256,
    "shards": schema.list_of(schema.mapping({"file": schema.text, "examples": schema.count, "bytes": schema.count,
                                             "sha256": schema.text}))}, {"sha256": schema.text})
_REMEDY = "Make the split again with data_gen.main --overwrite."


class RecordsError(RuntimeError):
    """Data on disk that cannot be used as asked; the message says which file, what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a partition, as listed in info.json."""

    file: str
    examples: int
    bytes: int
    sha256: str

    @property
    def partition(self) -> str:
        """`train` or `test`."""
        return self.file.partition("-")[0]


@dataclasses.dataclass(frozen=True)
class Info:
    """The content of info.json: what a split is and which files hold it.

    `content_sha256` covers, per partition, the decompressed records (the serialised examples, without TFRecord framing)
    in index order: it identifies the data, whatever the sharding and the compression.
    """

    dataset: str
    split: str
    seed: int
    image_size: int
    binarization: str
    image_shape: tuple[int, int, int]
    factor_names: tuple[str, ...]
    factor_units: tuple[str, ...]  # CLASS: without an order
    factor_ranges: tuple[tuple[float, float], ...]  # (low, high) over the full data set, not over the split
    num_total: int
    num_train: int
    num_test: int
    shards: tuple[Shard, ...]
    content_sha256: dict[str, str]
    format_version: int = FORMAT_VERSION

    def num_images(self, partition: str) -> int:
        """Images in `train` or `test`."""
        return {"train": self.num_train, "test": self.num_test}[partition]

    def shards_of(self, partition: str) -> list[Shard]:
        """The shards of one partition, in index order."""
        return [shard for shard in self.shards if shard.partition == partition]

    def to_json(self) -> str:
        """The text of info.json."""
        content = dataclasses.asdict(self)
        return json.dumps({**content, "sha256": schema.checksum(content)}, indent=2) + "\n"


def shard_name(partition: str, number: int, count: int) -> str:
    """File name of shard `number` of `count`.

    >>> shard_name("train", 0, 2)
    'train-00000-of-00002.tfrecord.gz'
    """
    return f"{partition}-{number:05d}-of-{count:05d}{SHARD_SUFFIX}"


def write_shard(path: pathlib.Path, images: np.ndarray, index: np.ndarray, factors: np.ndarray) -> Shard:
    """Writes one shard and returns its line for info.json; equal arguments give equal bytes.

    Args:
        path: file to write.
        images: uint8 [n, height, width, channels].
        index: int64 [n], ascending.
        factors: float32 [n, number of factors].
    """
    records = b"".join(tfrecord.framed(images, index, factors))
    content = gzip.compress(records, _COMPRESSION_LEVEL, mtime=0)
    path.write_bytes(content)
    return Shard(path.name, len(index), len(content), hashlib.sha256(content).hexdigest())


def content_sha256(paths: list[pathlib.Path]) -> str:
    """sha256 over the decompressed records of a partition's shards, given in index order."""
    digest = hashlib.sha256()
    for path in paths:
        for message in tfrecord.messages(gzip.decompress(path.read_bytes())):
            digest.update(message)
    return digest.hexdigest()


def read_info(split_dir: str | os.PathLike) -> Info:
    """Reads info.json and checks it against itself and against its place on disk.

    Raises:
        RecordsError: if it is missing, damaged, of another format, or says something that its folder's name or its own
            numbers contradict.
    """
    path = pathlib.Path(split_dir) / INFO_FILE
    if path.is_dir():
        raise RecordsError(f"{path} must be a file (it is a folder). Remove it, then make the split again with "
                           "data_gen.main --overwrite.")
    if not path.is_file():
        remedy = "Make the split with data_gen.main" + (
            " --overwrite, which removes whatever else is in the folder." if path.parent.exists() else ".")
        raise RecordsError(f"{split_dir} must be the folder of a split (it has no {INFO_FILE}). {remedy} If the data "
                           "are elsewhere, give their folder with --data_dir.")
    info = _parse_info(path)
    folder = pathlib.Path(os.path.abspath(split_dir))  # links keep their names: the place is where the user sees it
    spec = DataSpec(info.dataset, info.split, info.image_size, info.binarization, info.seed)
    named = (spec.folder, spec.split)
    _require(named == (folder.parent.name, folder.name), path,
             f"it describes {'/'.join(named)}, but is in {folder.parent.name}/{folder.name}: the folder was renamed, "
             "or the file belongs elsewhere")
    for partition in PARTITIONS:
        shards = info.shards_of(partition)
        total = sum(shard.examples for shard in shards)
        _require(total == info.num_images(partition), path,
                 f"num_{partition} is {info.num_images(partition)}, but its {partition} shards sum to {total}")
        names = [shard_name(partition, number, len(shards)) for number in range(len(shards))]
        _require([shard.file for shard in shards] == names, path, f"its {partition} shards must be {', '.join(names)}")
        image_bytes, size = math.prod(info.image_shape), sum(shard.bytes for shard in shards)
        _require(0 < image_bytes and image_bytes * total <= size * _DEFLATE_LIMIT, path,
                 f"{total} images of shape {list(info.image_shape)} cannot be in {partition} shards of {size} bytes")
    _require(len(info.shards) == sum(len(info.shards_of(partition)) for partition in PARTITIONS), path,
             "it lists shards of neither the training set nor the test set")
    return info


def check_files(split_dir: str | os.PathLike, info: Info) -> None:
    """Compares the folder with info.json without reading the shards: each has its size, and there are no others.

    Raises:
        RecordsError: naming a file that is missing, has the wrong size, or is not listed.
    """
    folder = pathlib.Path(split_dir)
    for shard in info.shards:
        path = folder / shard.file
        _require(path.is_file(), path, f"it is missing, though {INFO_FILE} lists it")
        size = path.stat().st_size
        _require(size == shard.bytes, path,
                 f"it must have {shard.bytes} bytes, as {INFO_FILE} says (got {size}): it is cut short or damaged")
    unlisted = {path.name for path in folder.glob(f"*{SHARD_SUFFIX}")} - {shard.file for shard in info.shards}
    if unlisted:
        raise RecordsError(f"{folder} holds {', '.join(sorted(unlisted))}, which {INFO_FILE} does not list: files of "
                           "other data. Move them away.")


def check_contents(split_dir: str | os.PathLike, info: Info) -> None:
    """Compares the folder with info.json, every shard read: seconds for the largest data sets.

    Raises:
        RecordsError: naming a file that is missing, changed, or not listed.
    """
    check_files(split_dir, info)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda shard: _check_shard(pathlib.Path(split_dir) / shard.file, shard), info.shards))


def load_partition(split_dir: str | os.PathLike, info: Info, partition: str
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads one partition, every file checked against info.json.

    Args:
        split_dir: folder of the split.
        info: what `read_info` returned for it.
        partition: `train` or `test`.

    Returns:
        images uint8 [N, height, width, channels], index int64 [N] (ascending), factors float32 [N, number of factors].

    Raises:
        RecordsError: if a shard is missing, changed, or not listed.
    """
    check_files(split_dir, info)
    count, num_factors = info.num_images(partition), len(info.factor_names)
    images = np.empty((count, *info.image_shape), np.uint8)
    index, factors = np.empty(count, np.int64), np.empty((count, num_factors), np.float32)
    shards = info.shards_of(partition)

    def read(shard: Shard, stop: int) -> None:
        path = pathlib.Path(split_dir) / shard.file
        before = _identity(path)
        _check_shard(path, shard)
        rows = slice(stop - shard.examples, stop)
        _parse_shard(path, images[rows], index[rows], factors[rows])
        _require(_identity(path) == before, path, "it was replaced while it was read")

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(read, shards, itertools.accumulate(shard.examples for shard in shards)))
    _require(bool((np.diff(index) > 0).all()), pathlib.Path(split_dir),
             f"the {partition} shards are not in index order")
    _require(not ((index < 0) | (index >= info.num_total)).any(), pathlib.Path(split_dir),
             f"the {partition} images must have an index from 0 to {info.num_total - 1} (got others)")
    _require(bool(np.isfinite(factors).all()), pathlib.Path(split_dir),
             f"the {partition} images have factors that are not finite")
    return images, index, factors


def _identity(path: pathlib.Path) -> tuple[int, int, int]:
    """What changes if another file takes its name, or is written to it."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _check_shard(path: pathlib.Path, shard: Shard) -> None:
    _require(hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256, path,
             f"its sha256 is not the one in {INFO_FILE}: it was damaged or replaced after it was written")


def _parse_shard(path: pathlib.Path, images: np.ndarray, index: np.ndarray, factors: np.ndarray) -> None:
    """Fills the three arrays from one shard; parsing whole batches is 6 times as fast as parsing single examples."""
    import tensorflow as tf
    features = {"image": tf.io.FixedLenFeature([], tf.string), "index": tf.io.FixedLenFeature([], tf.int64),
                "factors": tf.io.FixedLenFeature([factors.shape[1]], tf.float32)}
    if not factors.shape[1]:
        del features["factors"]
    start, image_bytes = 0, images[0].size if len(images) else 0
    try:
        for batch in tf.data.TFRecordDataset(os.fsencode(path), "GZIP", buffer_size=1 << 20).batch(_PARSE_BATCH):
            parsed = tf.io.parse_example(batch, features)
            rows = slice(start, start + len(batch))
            raw = tf.io.decode_raw(parsed["image"], tf.uint8).numpy()
            _require(rows.stop <= len(index) and raw.shape[1] == image_bytes, path,
                     f"its images must be the {len(index)} of shape {list(images.shape[1:])} that {INFO_FILE} lists")
            images[rows] = raw.reshape(images[rows].shape)
            index[rows] = parsed["index"].numpy()
            factors[rows] = parsed["factors"].numpy() if factors.shape[1] else 0
            start = rows.stop
    except tf.errors.OpError as error:
        raise RecordsError(f"{path}: it cannot be parsed ({error.message}). {_REMEDY}") from error
    _require(start == len(index), path, f"it must hold {len(index)} images, as {INFO_FILE} says (got {start})")


def _parse_info(path: pathlib.Path) -> Info:
    try:
        content = schema.parse(path.read_bytes())
        schema.require("format_version" in content, "format_version is missing")
        version = content["format_version"]
        _require(version == FORMAT_VERSION, path, f"format_version must be {FORMAT_VERSION} (got {version})")
        _SCHEMA(content, "")
        checksum = content.pop("sha256", None)
        schema.require(checksum in (None, schema.checksum(content)), "its sha256 is not that of its content")
        lengths = {name: len(content[name]) for name in ("factor_names", "factor_units", "factor_ranges")}
        schema.require(len(set(lengths.values())) == 1, f"{', '.join(lengths)} must have the same length (got "
                                                        f"{', '.join(map(str, lengths.values()))})")
        schema.require(content["num_train"] + content["num_test"] <= content["num_total"],
                       "num_total must be at least num_train + num_test")
        content["shards"] = tuple(Shard(**shard) for shard in content["shards"])
        for name in ("image_shape", "factor_names", "factor_units"):
            content[name] = tuple(content[name])
        content["factor_ranges"] = tuple((low, high) for low, high in content["factor_ranges"])
        return Info(**content)
    except (ValueError, TypeError) as error:  # TypeError: a field that Info does not have
        raise RecordsError(f"{path} is damaged ({error}). {_REMEDY}") from error


def _require(holds: bool, path: pathlib.Path, problem: str) -> None:
    if not holds:
        raise RecordsError(f"{path}: {problem}. {_REMEDY}")
