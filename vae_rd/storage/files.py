"""Files that appear whole or not at all, and plain arrays read without pickle."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np


class FileError(RuntimeError):
    """A file that is missing, damaged or not ours; the message names it, the reason and what to do."""


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; renamed onto it if the block ends well, removed if it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
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


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_text(text)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all; NaN and infinities become null, as JSON has none."""
    write_text(path, json.dumps(_finite(content), indent=2) + "\n")


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes plain arrays as .npz, whole or not at all; object arrays are refused."""
    with whole_file(path) as beside:
        np.savez(beside, allow_pickle=False, **arrays)


def read_arrays(path: pathlib.Path, remedy: str = "remove results.json and measures.json beside it, and train and "
                "measure the run again: it ends again from its last checkpoint") -> dict[str, np.ndarray]:
    """The arrays of a .npz; raises FileError for a file that is damaged or holds anything but plain arrays.

    Args:
        path: of the file.
        remedy: against damage; by default of values per image and a measure's arrays, which the end of a run writes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
        raise FileError(f"{path} cannot be read: {error}. It is damaged or not ours: {remedy}.") from error


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
