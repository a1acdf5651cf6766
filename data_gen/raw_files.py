"""Original distribution files: finding, checking, downloading and opening them."""

import gzip
import hashlib
import http.client
import io
import pathlib
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from typing import IO, NamedTuple

import tqdm

from vae_rd.datasets.records import RecordsError
from vae_rd.storage.files import whole_file

_TIMEOUT = 30  # seconds without an answer, after which a machine counts as one without a network
_BLOCK = 1 << 20


class RawFile(NamedTuple):
    """One file as its authors distribute it.

    A `.gz` file whose `content_checksum` is known also counts when it is decompressed, or compressed anew, whatever its
    name, as long as its content is the same. Checksums are SHA-256, or MD5 where they have 32 digits.
    """

    name: str
    url: str  # empty: it cannot be downloaded
    bytes: int | None
    checksum: str
    content_checksum: str | None = None  # of the decompressed file, where known

    def locate(self, raw_dir: str | pathlib.Path, dataset: str) -> pathlib.Path | None:
        """The file on disk, in `<raw_dir>/<dataset>` or in `raw_dir` itself; None if it is in neither."""
        folders = pathlib.Path(raw_dir) / dataset, pathlib.Path(raw_dir)
        places = [folder / name for folder in folders for name in (self.name, self.name.removesuffix(".gz"))]
        return next((path for path in places if path.is_file()), None)

    def check(self, path: pathlib.Path) -> None:
        """Compares a file on disk with the original.

        Raises:
            RecordsError: with what was expected and what was found.
        """
        if fault := self.fault(path):
            raise RecordsError(f"{path} is not the original: {fault}. It is cut short, damaged or a different file: "
                               f"remove it, and fetch {self.url}.")

    def fault(self, path: pathlib.Path) -> str:
        """What was expected of a file on disk and what was found; empty for the original."""
        kind = "md5" if len(self.checksum) == 32 else "sha256"
        with path.open("rb") as file:
            found = _digest(file, kind)
        if found in (self.checksum, self.content_checksum):
            return ""
        if self.content_checksum:
            with open_raw(path) as file:
                if _digest(file, kind) == self.content_checksum:
                    return ""
        size = "" if self.bytes is None else f" and {self.bytes} bytes"
        return f"expected {kind} {self.checksum}{size}, found {found} and {path.stat().st_size} bytes"


def provide(files: Iterable[RawFile], raw_dir: str | pathlib.Path, dataset: str) -> None:
    """Checks the files that are there and downloads those that are not into `<raw_dir>/<dataset>`.

    A file in `raw_dir` itself may be another data set's of the same name (MNIST and Fashion-MNIST), and is left alone.

    Raises:
        RecordsError: if one is not the original; where there is no network, saying what to put where.
    """
    missing = []
    for file in files:
        path = file.locate(raw_dir, dataset)
        if path is not None and path.parent != pathlib.Path(raw_dir):
            file.check(path)
        elif path is None or file.fault(path):
            missing.append(file)
    for number, file in enumerate(missing):
        if not file.url:
            raise RecordsError(f"{file.name} of {dataset} must be the original (in {raw_dir} there is none) and has no "
                               f"address to download it from. Put it into {pathlib.Path(raw_dir) / dataset}, or name "
                               "its folder with --raw_dir.")
        try:
            _download(file, pathlib.Path(raw_dir) / dataset / file.name)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            wanted = "\n  ".join(file.url for file in missing[number:])
            path = file.locate(raw_dir, dataset)
            other = f" ({path} is not the original: {file.fault(path)})" if path else ""
            raise RecordsError(f"{file.name} of {dataset} is not in {raw_dir}{other} and cannot be downloaded "
                               f"({error}). On a machine with a network, fetch\n  {wanted}\nand put it into "
                               f"{pathlib.Path(raw_dir) / dataset}, or name its folder with --raw_dir.") from error


def _download(file: RawFile, path: pathlib.Path) -> None:
    """Downloads a file and checks it before it gets its name."""
    print(f"downloading {file.url}", flush=True)
    with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as source, whole_file(path) as beside:
        with beside.open("wb") as target, tqdm.tqdm(total=file.bytes, desc=file.name, unit="B", unit_scale=True) as bar:
            while block := source.read(_BLOCK):
                target.write(block)
                bar.update(len(block))
        if fault := file.fault(beside):
            raise RecordsError(f"{file.url} must return the original (it returned another file: {fault}). Fetch it by "
                               f"hand, and put it into {path.parent}.")


def open_raw(path: pathlib.Path) -> io.BufferedIOBase:
    """Opens a file for reading, decompressed if it is a gzip file, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def read_exactly(file: IO[bytes] | io.BufferedIOBase, count: int, path: pathlib.Path) -> bytes:
    """Reads `count` bytes; raises RecordsError if the file is shorter or its compression is damaged."""
    try:
        content = file.read(count)
    except (EOFError, OSError, zlib.error) as error:
        raise RecordsError(f"{path} cannot be read: {error}. It is cut short or damaged: fetch it again.") from error
    if len(content) < count:
        raise RecordsError(f"{path} ends too early: expected {count} bytes, got {len(content)}. It is cut short: "
                           "fetch it again.")
    return content


def _digest(file: io.BufferedIOBase, kind: str) -> str:
    """Checksum of what is left to read; no checksum where the compression is damaged."""
    try:
        return hashlib.file_digest(file, kind).hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "none: the compression is damaged"
