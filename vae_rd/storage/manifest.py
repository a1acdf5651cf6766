"""The manifest of an ended run: which run it is of, and the size and sha256 of each file that belongs to it.

It is written when a run ends, just before results.json, and counts while results.json is there; a run without results
is bound by its checkpoint instead (see `checkpoints`). What is checked when:

- config.json, history.csv, results.json and measures.json, by sha256, whenever they are read;
- model.keras, the values per image, the arrays of measures and the best weights, by sha256, whenever they are opened;
- the presence and size of all files in the table of runs, where a difference is noted beside the run's numbers;
- the manifest itself, by the sha256 that it ends with, whenever it is read.

Pictures and event files are views and are not in it. Runs that ended before there were manifests are read as they are;
the table names them as unsealed.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from vae_rd import schema
from vae_rd.storage import files

FILE, RESULTS = "manifest.json", "results.json"
FORMAT_VERSION = 1
END_AGAIN = ("remove results.json and run the same training command: the final files are written anew from the last "
             "checkpoint, and the run can be measured again")
_SEAL = schema.mapping({"bytes": schema.count, "sha256": schema.text})
_SCHEMA = schema.mapping({"format_version": schema.count, "run": schema.text, "sha256": schema.text,
                          "files": schema.mapping(others=schema.list_of(_SEAL))})


class Seal(NamedTuple):
    """Size and sha256 of a file's content."""

    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """The content of manifest.json."""

    run: str  # name of the run: Config.run_name
    files: dict[str, list[Seal]]  # by path within the run; two while a file is being replaced: new, old


def seal(content: bytes) -> Seal:
    """The seal of a content in memory."""
    return Seal(len(content), hashlib.sha256(content).hexdigest())


def seal_file(path: pathlib.Path) -> Seal:
    """The seal of a file on disk."""
    return Seal(path.stat().st_size, files.sha256(path))


def read(folder: pathlib.Path) -> Manifest | None:
    """The manifest of an ended run; None of a run that has not ended, or ended before there were manifests.

    Raises:
        FileError: if it is damaged.
    """
    return read_any(folder) if os.path.lexists(folder / RESULTS) else None


def read_any(folder: pathlib.Path) -> Manifest | None:
    """The manifest of a run that has ended, even if its results.json has been removed since."""
    path = folder / FILE
    if not files.present(path):
        return None
    try:
        content = schema.parse(path.read_bytes())
        _SCHEMA(content, "")
        schema.require(content["format_version"] == FORMAT_VERSION, f"format_version must be {FORMAT_VERSION} (got "
                                                                    f"{content['format_version']})")
        schema.require(content.pop("sha256") == schema.checksum(content), "its sha256 is not that of its content")
    except ValueError as error:
        raise files.FileError(f"{path} is damaged, or was not written by vae_rd ({error}): {END_AGAIN}.") from error
    return Manifest(content["run"], {name: [Seal(**one) for one in seals] for name, seals in content["files"].items()})


def write(folder: pathlib.Path, manifest: Manifest) -> None:
    """Replaces the manifest."""
    content = {"format_version": FORMAT_VERSION, "run": manifest.run,
               "files": {name: [one._asdict() for one in seals] for name, seals in manifest.files.items()}}
    files.write_json(folder / FILE, {**content, "sha256": schema.checksum(content)})


def check(folder: pathlib.Path, path: pathlib.Path, remedy: str = END_AGAIN) -> bytes:
    """The content of a file of a run, as it was when the run ended.

    Raises:
        FileError: if it is another content: a file of another run, or changed after it was written.
    """
    for _ in range(3):  # between our two reads, a measurement may replace both
        manifest, content = read(folder), path.read_bytes()
        known = manifest and manifest.files.get(_name(folder, path))
        if manifest is None or known and seal(content) in known:
            return content
    raise files.FileError(f"{path} does not match {FILE}: it belongs to another run, or was changed after it was "
                          f"written. Put the original back, or {remedy}.")


def matches(manifest: Manifest | None, folder: pathlib.Path, path: pathlib.Path) -> bool:
    """Whether a file exists and matches the manifest; without a manifest, every file counts as matching."""
    return manifest is None or path.is_file() and seal_file(path) in manifest.files.get(_name(folder, path), ())


@contextlib.contextmanager
def replaced(folder: pathlib.Path, path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`files.whole_file` for a file of an ended run: at no moment does the manifest contradict the file.

    The manifest first has the new content beside the old, then the file gets its name, then the old is forgotten. An
    unsealed run stays unsealed.
    """
    manifest, name = read(folder), _name(folder, path)
    with files.whole_file(path) as beside:
        yield beside
        if manifest is not None:
            new = seal_file(beside)
            write(folder, manifest._replace(files=manifest.files | {name: [new, *manifest.files.get(name, ())]}))
    if manifest is not None:
        write(folder, manifest._replace(files=manifest.files | {name: [new]}))


def differences(folder: pathlib.Path, manifest: Manifest) -> list[str]:
    """The files of a run that are missing or have another size than the manifest says, one line each."""
    found = []
    for name, seals in manifest.files.items():
        try:
            size = os.stat(folder / name).st_size
            if size not in [one.bytes for one in seals]:
                found.append(f"{name} must have {seals[0].bytes} bytes (got {size})")
        except OSError:
            found.append(f"{name} is missing")
    return found


def _name(folder: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix()
