"""Published results: the small files of finished runs, from which every table and figure can be made again.

`results/runs/<run>/` holds of each run what the tables and most figures read. Models, checkpoints and values per image
stay where the run was trained: they are a thousand times as large, and the same Config makes them again.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable

from vae_rd.storage import files, manifest, runs
from vae_rd.storage.runs import RunDir

RUNS = "runs"  # the folder of run directories within a folder of results
FIGURE_ARRAYS, PAGE_ARRAYS = ("reconstruction",), ("gallery",)  # small arrays that a figure shows, or a page


def publish(runs_dir: str | os.PathLike, results_dir: str | os.PathLike) -> list[str]:
    """Copies the small files of every finished run into `<results_dir>/runs`; each run appears whole or not at all.

    An already published run is replaced if any of its files has changed, as after further measures. Published runs have
    a manifest of their own, of the published files only. Galleries, most of a run's bytes, are copied only if
    `results_dir` has a page to show them (*.html).

    Args:
        runs_dir: where runs are trained.
        results_dir: the folder of results.

    Returns:
        The names of the runs that are new or have changed.
    """
    target = pathlib.Path(results_dir) / RUNS
    target.mkdir(parents=True, exist_ok=True)
    arrays = (*FIGURE_ARRAYS, *(PAGE_ARRAYS if any(target.parent.glob("*.html")) else ()))
    changed = []
    for run in runs.find_runs(runs_dir):
        if run.status() != runs.FINISHED or _same(run, RunDir(target / run.path.name), arrays):
            continue
        with tempfile.TemporaryDirectory(prefix=f"{files.UNFINISHED}published-", dir=target) as folder:
            fresh = pathlib.Path(folder) / run.path.name
            fresh.mkdir()
            for path in _small_files(run, arrays):
                shutil.copyfile(path, fresh / path.name)
            seals = {path.name: [manifest.seal_file(path)] for path in sorted(fresh.iterdir())}
            manifest.write(fresh, manifest.Manifest(run.path.name, seals))
            old = target / run.path.name
            if old.exists():
                shutil.rmtree(old)
            fresh.replace(old)
        changed.append(run.path.name)
    return changed


def _small_files(run: RunDir, arrays: Iterable[str]) -> list[pathlib.Path]:
    """The files of a run that are published with these arrays, as far as they are there."""
    wanted = [run.config, run.history, run.results, run.measures, *(run.arrays(name) for name in arrays)]
    return [path for path in wanted if path.is_file()]


def _same(run: RunDir, copy: RunDir, arrays: Iterable[str]) -> bool:
    """Whether a copy holds the files to publish, byte for byte, and no more of a run's."""
    originals, copies = _small_files(run, arrays), _small_files(copy, FIGURE_ARRAYS + PAGE_ARRAYS)
    return {path.name for path in originals} == {path.name for path in copies} and all(
        path.read_bytes() == (copy.path / path.name).read_bytes() for path in originals)
