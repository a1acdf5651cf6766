"""Files that appear whole or not at all, and plain arrays read without pickle."""

import contextlib
import encodings.cp437  # noqa: F401  names in zip files: Python loads it late, when a process may have lost the rights
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

UNFINISHED = ".vae_rd-"  # what the name of everything half-written begins with, and nothing else's
_ABANDONED = 600.0  # seconds after which nobody is still writing a table or a figure


class FileError(RuntimeError):
    """A file that is missing, damaged or not written by vae_rd; the message names it, the reason and what to do."""


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; renamed onto it if the block ends well, removed if it does not.

    Raises:
        FileError: if a folder has the file's name.
    """
    present(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{UNFINISHED}{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = pathlib.Path(name)
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def open_lock(path: pathlib.Path) -> io.TextIOWrapper:
    """A lock file, open for reading and writing, made if it is missing.

    Raises:
        OSError: with errno ELOOP for a symbolic link, which is not followed: its target would be overwritten.
    """
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes files that killed processes left half-written in a folder and below it, and no others."""
    for leftover in list(folder.rglob(f"{UNFINISHED}*")):
        remove(leftover)


def remove_abandoned(folder: pathlib.Path) -> None:
    """Removes what killed processes left half-written in a folder that no lock guards: untouched for ten minutes."""
    for leftover in list(folder.glob(f"{UNFINISHED}*")):
        if time.time() - leftover.lstat().st_mtime > _ABANDONED:
            remove(leftover)


def remove(leftover: pathlib.Path) -> None:
    """Removes a file, a link (not what it links to) or a folder with all that is in it, as far as it can."""
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def present(path: pathlib.Path) -> bool:
    """Whether a file exists.

    Raises:
        FileError: if something else has its name, such as a folder or a broken link.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        kind = "a folder" if path.is_dir() else "neither a file nor a folder"
        raise FileError(f"{path} must be a file (it is {kind}). Move it away, and run the same command again.")
    return False


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def json_text(content: Any) -> str:
    """The text of a JSON file; NaN and infinities become null, as JSON has none."""
    return json.dumps(_finite(content), indent=2) + "\n"


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all; NaN and infinities become null, as JSON has none."""
    write_text(path, json_text(content))


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes plain arrays as .npz, whole or not at all; object arrays are refused."""
    with whole_file(path) as beside:
        np.savez(beside, allow_pickle=False, **arrays)


def read_arrays(path: pathlib.Path, remedy: str = "remove it, and run the same command again",
                content: bytes | None = None) -> dict[str, np.ndarray]:
    """The arrays of a .npz; raises FileError for a file that is damaged or holds anything but plain arrays.

    Args:
        path: of the file.
        remedy: against damage.
        content: of the file, if it has been read already.
    """
    try:
        with np.load(path if content is None else io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
        raise FileError(f"{path} cannot be read: {error}. It is damaged, or was not written by vae_rd: {remedy}."
                        ) from error


def sha256(path: pathlib.Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, np.ndarray):
        return _finite(content.tolist())
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content
