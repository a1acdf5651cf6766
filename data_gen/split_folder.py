"""The folder of a split: made by one process at a time, beside its place, and there as a whole or not at all."""

import contextlib
import errno
import fcntl
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TextIO

from vae_rd.datasets import records
from vae_rd.storage import files

_OLD = ".old.unfinished"  # ends the name of a split that is being replaced, until the new one has its place


def is_complete(destination: pathlib.Path) -> bool:
    """Whether the split exists; one that disagrees with its info.json is an error, and never overwritten."""
    if not destination.exists():
        return False
    records.check_contents(destination, records.read_info(destination))
    return True


@contextlib.contextmanager
def alone(destination: pathlib.Path, progress: bool) -> Iterator[None]:
    """Waits until no other process makes this split; on a file system without locks both make it, which is harmless.

    Raises:
        RecordsError: if there is a symbolic link in place of the lock.
    """
    with _open_lock(destination.parent / f".{destination.name}.lock") as file:
        if _locked(file, f"another process is making {destination}: waiting for it" if progress else None):
            # Of a killed process: no living one holds the lock.
            for leftover in destination.parent.glob(f".{destination.name}.*.unfinished"):
                if leftover.name.endswith(_OLD) and not destination.exists():
                    leftover.rename(destination)
                else:
                    files.remove(leftover)
        yield


def _open_lock(path: pathlib.Path) -> TextIO:
    """The lock file of a split; raises RecordsError for a symbolic link in its place."""
    try:
        return files.open_lock(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise records.RecordsError(f"{path} is a symbolic link, which is never the lock of a split: remove it."
                                       ) from error
        raise


def _locked(file: TextIO, waiting: str | None) -> bool:
    """Locks a file until it is closed, printing `waiting` if that takes a while; False where there are no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            print(waiting, flush=True)
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def beside(destination: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder beside the split, removed when the block ends."""
    parent = destination.parent
    folder = pathlib.Path(tempfile.mkdtemp(".unfinished", f".{destination.name}.", parent))
    try:
        folder.chmod(parent.stat().st_mode & 0o777)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: pathlib.Path, destination: pathlib.Path, overwrite: bool) -> None:
    """Renames the finished folder into place; a split that another process put there meanwhile is as good and stays."""
    if overwrite and destination.exists():
        old = folder.with_name(folder.name.replace(".unfinished", _OLD))
        destination.rename(old)
        try:
            folder.rename(destination)
        except OSError:
            old.rename(destination)
            raise
        files.remove(old)
        return
    try:
        folder.rename(destination)
    except OSError:
        if not is_complete(destination):
            raise
