"""Makes a split, which appears whole or not at all: several processes draw or read images and write shards."""

import concurrent.futures
import contextlib
import functools
import math
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tqdm

from data_gen import randomness, split_folder
from data_gen.builders import DATASETS
from data_gen.dataset import Dataset, check_class, check_factors, checked_images
from vae_rd.config import BINARIZATIONS, NAMED_SIZES, ConfigError, DataSpec, canonical_split
from vae_rd.datasets import records

_SHARD_IMAGES = 8192  # images in a shard at most, unless --num_shards says otherwise
_WORKER_IMAGES = 4096  # below this number of images for each, more processes cost more than they save
_UNGUARDED = ("the script lacks `if __name__ == \"__main__\":` before what makes data: worker processes import the "
              "script. Try adding it, or num_workers=1 of generate, which starts no process.")


class _PlannedShard(NamedTuple):
    """One shard to be written."""

    partition: str
    file: str
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody calls


def check(spec: DataSpec) -> None:
    """Refuses an unknown data set or binarization, a split or size that the data set lacks, and a class at fault.

    Raises:
        ConfigError: saying what is allowed.
    """
    if spec.dataset not in DATASETS:
        raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, or one that --import adds (got "
                          f"{spec.dataset!r}).")
    if spec.binarization not in BINARIZATIONS:
        raise ConfigError(f"binarization must be one of {', '.join(BINARIZATIONS)} (got {spec.binarization!r}).")
    check_class(spec.dataset, DATASETS[spec.dataset])
    DATASETS[spec.dataset].check(spec.split, spec.image_size)


def all_splits(dataset: str, image_size: int = 32) -> list[str]:
    """Every named split that a data set can have: what `--split=all` makes."""
    check(DataSpec(dataset, "default", image_size))
    names = ["default", "checkerboard", "official",
             *(f"{kind}_{size}" for kind, sizes in NAMED_SIZES.items() for size in sizes)]
    possible = []
    for name in names:
        with contextlib.suppress(ConfigError):
            check(DataSpec(dataset, name, image_size))
            possible.append(name)
    return possible


def open_dataset(dataset: str, data_seed: int, image_size: int, raw_dir: str | os.PathLike) -> Dataset:
    """A full data set, its original files present.

    Raises:
        ConfigError: if there is no such data set, or not at this size.
        RecordsError: if its original files are missing and cannot be downloaded, or are not the ones they should be.
    """
    check(DataSpec(dataset, "default", image_size))
    data = DATASETS[dataset](data_seed, image_size, str(raw_dir))
    data.prepare()
    return data


def generate(data_dir: str | os.PathLike, spec: DataSpec, *, raw_dir: str | os.PathLike | None = None,
             num_shards: int | None = None, num_workers: int | None = None, overwrite: bool = False,
             progress: bool = True) -> pathlib.Path:
    """Makes one split, unless it exists.

    The bytes depend on `spec` and `num_shards`, never on the number of workers. Everything is written to a
    temporary folder next to the destination, which is renamed when complete. A second process that makes the
    same split waits for the first.

    Args:
        data_dir: folder of all data sets.
        spec: data set (a name in DATASETS), split, size and seed; `static` binarization draws every pixel once, with
            its grey value as probability; otherwise the grey values are written.
        raw_dir: folder of the original files; default `<data_dir>/raw`.
        num_shards: files per partition; default one for every 8192 images.
        num_workers: processes; default the CPUs that this process may use.
        overwrite: replaces an existing split.
        progress: shows a bar.

    Returns:
        The folder of the split.

    Raises:
        ConfigError: if the arguments describe no valid split, or the data set returns what it must not.
        RecordsError: if an existing split is damaged, or original files cannot be used.
        OSError: if the disk is full or the folder cannot be written.
    """
    check(spec)
    spec = spec._replace(split=canonical_split(spec.split))
    destination = spec.path(data_dir)
    if not overwrite and split_folder.is_complete(destination):
        return destination
    data = open_dataset(spec.dataset, spec.data_seed, spec.image_size, raw_dir or pathlib.Path(data_dir) / "raw")
    check_factors(data)
    planned = _plan_shards(_checked(data.split(spec.split), data.num_images), num_shards)
    workers = num_workers or min(len(os.sched_getaffinity(0)), math.ceil(_num_images(planned) / _WORKER_IMAGES))
    workers = min(workers, len(planned))
    _check_memory(planned, data.image_shape, workers)
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # or it would wait for its own parent below
        raise RuntimeError(f"data cannot be made in a process that is starting: {_UNGUARDED}")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with split_folder.alone(destination, progress):
        if overwrite or not split_folder.is_complete(destination):
            with split_folder.beside(destination) as folder:
                _write(folder, data, spec.split, planned, spec.binarization == "static", workers, progress)
                split_folder.publish(folder, destination, overwrite)
    return destination


def ensure(data_dir: str | os.PathLike, spec: DataSpec, *, raw_dir: str | os.PathLike | None = None,
           progress: bool = True) -> None:
    """`generate` for a split that is missing; one that is there is left alone, as loading it checks it."""
    if not (spec.path(data_dir) / records.INFO_FILE).is_file():
        generate(data_dir, spec, raw_dir=raw_dir, progress=progress)


def _checked(partitions: tuple[np.ndarray, np.ndarray], num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The partitions of a split, which a data set of a user's own may draw itself, if they are what they must be."""
    for name, index in zip(records.PARTITIONS, partitions):
        if not len(index):
            raise ConfigError(f"the {name} set of this split has no images. Try a larger split.")
        whole = np.asarray(index).dtype.kind in "iu"
        if not whole or (np.diff(np.asarray(index, np.int64)) <= 0).any() or not (
                0 <= index[0] and index[-1] < num_images):
            raise ConfigError(f"split() must return ascending indices from 0 to {num_images - 1}, each once (got "
                              f"others in the {name} set). Try np.sort(index).")
    if shared := np.intersect1d(*partitions).size:
        raise ConfigError(f"split() must return two sets that share no image (got {shared} in both). Try "
                          "np.setdiff1d(test, train).")
    return partitions


def _plan_shards(partitions: tuple[np.ndarray, np.ndarray], num_shards: int | None) -> list[_PlannedShard]:
    """The shards to write: contiguous parts of each partition's index."""
    planned = []
    for partition, index in zip(records.PARTITIONS, partitions):
        count = num_shards or math.ceil(len(index) / _SHARD_IMAGES)
        if not 1 <= count <= len(index):
            raise ConfigError(f"num_shards must be from 1 to the {len(index)} images of the {partition} set "
                              f"(got {num_shards}).")
        planned += [_PlannedShard(partition, records.shard_name(partition, number, count), part)
                    for number, part in enumerate(np.array_split(index, count))]
    return planned


def _num_images(planned: list[_PlannedShard]) -> int:
    return sum(len(shard.index) for shard in planned)


def _check_memory(planned: list[_PlannedShard], image_shape: tuple[int, int, int], workers: int) -> None:
    """Refuses shards that this machine cannot hold, before work starts: each worker draws one in memory."""
    largest = max(len(shard.index) for shard in planned)
    needed, there = workers * largest * math.prod(image_shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise ConfigError(f"a shard for each of {workers} workers must fit in the {there / 1e9:,.0f} GB of memory of "
                          f"this machine (got {largest} images with image_size={image_shape[0]}, {needed / 1e9:,.0f} "
                          "GB in all). Try smaller images, more shards (--num_shards), fewer workers (--num_workers).")


def _write(folder: pathlib.Path, data: Dataset, split: str, planned: list[_PlannedShard], static: bool,
           workers: int, progress: bool) -> None:
    """Writes all shards and info.json into `folder`."""
    shards = []
    with _mapper(workers) as each, tqdm.tqdm(
            total=_num_images(planned), desc=f"making {data.name}/{split}", unit=" images", unit_scale=True,
            disable=not progress, dynamic_ncols=True) as bar:
        for shard in each(functools.partial(_write_shard, folder, data, static), planned):
            shards.append(shard)
            bar.update(shard.examples)
        files = [[folder / shard.file for shard in shards if shard.partition == name] for name in records.PARTITIONS]
        content = dict(zip(records.PARTITIONS, each(records.content_sha256, files)))
    sizes = {name: sum(len(shard.index) for shard in planned if shard.partition == name) for name in records.PARTITIONS}
    ranges = tuple((float(low), float(high)) for low, high in data.factor_ranges)
    info = records.Info(
        dataset=data.name, split=split, seed=data.data_seed, image_size=data.image_size,
        binarization="static" if static else "none", image_shape=data.image_shape, factor_names=data.factor_names,
        factor_units=data.factor_units, factor_ranges=ranges, num_total=data.num_images,
        num_train=sizes["train"], num_test=sizes["test"], shards=tuple(shards), content_sha256=content)
    (folder / records.INFO_FILE).write_text(info.to_json())


def _write_shard(folder: pathlib.Path, data: Dataset, static: bool, shard: _PlannedShard) -> records.Shard:
    images = checked_images(data, shard.index)
    if static:
        images = binarize(images, shard.index, data.data_seed)
    return records.write_shard(folder / shard.file, images, shard.index, data.factors[shard.index])


def binarize(images: np.ndarray, index: np.ndarray, data_seed: int) -> np.ndarray:
    """Draws every pixel as 0 or 255, its grey value being the probability of 255; the draw belongs to the index.

    Args:
        images: uint8 [n, height, width, channels].
        index: [n].
        data_seed: seed of the draws.
    """
    drawn = np.empty_like(images)
    for row, number in enumerate(index):
        threshold = randomness.stream(data_seed, "binary", int(number)).integers(0, 255, images.shape[1:], np.uint8)
        drawn[row] = np.where(threshold < images[row], 255, 0)
    return drawn


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable, Iterable], Iterator[Any]]]:
    """A `map` that keeps order: over processes, or plain for one worker."""
    if workers <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that has TensorFlow loaded may hang
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield pool.map
        except concurrent.futures.process.BrokenProcessPool as error:
            raise records.RecordsError("a worker process died. Probably it ran out of memory, or the class of the data "
                                       f"set is not in a module (but in a notebook), or {_UNGUARDED}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent does: orphaned workers would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
