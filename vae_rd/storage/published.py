"""Published results: the small files of finished runs, from which every table and figure can be made again.

`results/runs/<run>/` holds of each run what the tables and most figures read. Models, checkpoints and values per image
stay where the run was trained: they are a thousand times as large, and the same Config makes them again.
"""

import os
import pathlib
import shutil
import tempfile

from vae_rd.storage import files, manifest, runs
from vae_rd.storage.runs import RunDir

RUNS = "runs"  # the folder of run directories within a folder of results
ARRAYS = ("reconstruction", "gallery")  # small arrays that a figure or a page shows


def publish(runs_dir: str | os.PathLike, results_dir: str | os.PathLike) -> list[str]:
    """Copies the small files of every finished run into `<results_dir>/runs`; each run appears whole or not at all.

    An already published run is replaced if any of its files has changed, as after further measures. Published runs have
    a manifest of their own, of the published files only.

    Args:
        runs_dir: where runs are trained.
        results_dir: the folder of results.

    Returns:
        The names of the runs that are new or have changed.
    """
    target = pathlib.Path(results_dir) / RUNS
    target.mkdir(parents=True, exist_ok=True)
    changed = []
    for run in runs.find_runs(runs_dir):
        if run.status() != runs.FINISHED or _same(run, RunDir(target / run.path.name)):
            continue
        with tempfile.TemporaryDirectory(prefix=f"{files.UNFINISHED}published-", dir=target) as folder:
            fresh = pathlib.Path(folder) / run.path.name
            fresh.mkdir()
            for path in small_files(run):
                shutil.copyfile(path, fresh / path.name)
            seals = {path.name: [manifest.seal_file(path)] for path in sorted(fresh.iterdir())}
            manifest.write(fresh, manifest.Manifest(run.path.name, seals))
            old = target / run.path.name
            if old.exists():
                shutil.rmtree(old)
            fresh.replace(old)
        changed.append(run.path.name)
    return changed


def small_files(run: RunDir) -> list[pathlib.Path]:
    """The files of a run that are published, as far as they are there."""
    wanted = [run.config, run.history, run.results, run.measures, *(run.arrays(name) for name in ARRAYS)]
    return [path for path in wanted if path.is_file()]


def _same(run: RunDir, copy: RunDir) -> bool:
    """Whether a copy holds the same small files, byte for byte."""
    originals = small_files(run)
    return {path.name for path in originals} == {path.name for path in small_files(copy)} and all(
        path.read_bytes() == (copy.path / path.name).read_bytes() for path in originals)
