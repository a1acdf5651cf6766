"""Published results: the small files of finished runs, from which tables and figures can be made again.

`results/runs/<run>/` holds of each run what the tables and the figures read, but for values per image: histograms of
distances, intervals over images and tests of log p(x) that are paired by image can be made only where the runs were
trained. Models, checkpoints and these values stay there: they are a thousand times as large.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Container, Iterable
from typing import NamedTuple

from vae_rd.storage import files, manifest, runs
from vae_rd.storage.runs import RunDir

RUNS = "runs"  # the folder of run directories within a folder of results
FIGURE_ARRAYS, PAGE_ARRAYS = ("reconstruction",), ("gallery",)  # small arrays that a figure shows, or a page


class Published(NamedTuple):
    """What `publish` did, by names of runs."""

    changed: list[str]  # new, or replaced
    left_out: dict[str, str]  # diverged, not as they ended, or poorer than what is published of them: the reason


def publish(runs_dir: str | os.PathLike, results_dir: str | os.PathLike, names: Container[str] | None = None
            ) -> Published:
    """Copies the small files of finished runs into `<results_dir>/runs`; each run appears whole or not at all.

    An already published run is replaced if any of its files has changed, as after further measures; but what was
    measured of it is never lost. Published runs have a manifest of their own, of the published files only. Galleries,
    most of a run's bytes, are copied only if `results_dir` has a page to show them (*.html).

    Args:
        runs_dir: where runs are trained.
        results_dir: the folder of results.
        names: of the runs; None: all.

    Raises:
        runs.RunError: if `runs_dir` is the folder that would be published to: the models there would be lost.
    """
    target = pathlib.Path(results_dir) / RUNS
    if target.resolve() == pathlib.Path(runs_dir).resolve():
        raise runs.RunError(f"runs_dir must be another folder than the published runs (got {target} for both). Try "
                            f"--from={results_dir}, which makes every table and figure of the runs that are there.")
    target.mkdir(parents=True, exist_ok=True)
    arrays = (*FIGURE_ARRAYS, *(PAGE_ARRAYS if any(target.parent.glob("*.html")) else ()))
    changed: list[str] = []
    left_out: dict[str, str] = {}
    for run in runs.find_runs(runs_dir):
        if names is not None and run.path.name not in names:
            continue
        try:
            status = run.status()
            if status == runs.DIVERGED:
                left_out[run.path.name] = "it diverged"
            if status != runs.FINISHED or _same(run, RunDir(target / run.path.name), arrays):
                continue
            _check(run, RunDir(target / run.path.name), arrays)
        except files.FileError as error:
            left_out[run.path.name] = str(error)
            continue
        with tempfile.TemporaryDirectory(prefix=f"{files.UNFINISHED}published-", dir=target) as folder:
            fresh = pathlib.Path(folder) / run.path.name
            fresh.mkdir()
            for path in _small_files(run, arrays):
                shutil.copyfile(path, fresh / path.name)
            seals = {path.name: [manifest.seal_file(path)] for path in sorted(fresh.iterdir())}
            manifest.write(fresh, manifest.Manifest(run.path.name, seals))
            published = target / run.path.name
            if published.exists():
                published.replace(pathlib.Path(folder) / "replaced")  # removed with the folder
            fresh.replace(published)
        changed.append(run.path.name)
    return Published(changed, left_out)


def _check(run: RunDir, copy: RunDir, arrays: Iterable[str]) -> None:
    """Raises FileError unless the run's files are those of its manifest, and nothing published would be lost."""
    if copy.model.exists() or copy.checkpoints.exists():
        raise files.FileError(f"{copy.path} must hold a published run (it has a model or checkpoints, which would be "
                              "lost). Move it to the folder of the other runs.")
    sealed = manifest.read(run.path)
    for path in _wanted(run, arrays):
        if path.is_file():
            manifest.check(run.path, path)
        elif sealed and path.name in sealed.files:
            raise files.FileError(f"{path} is missing: {manifest.END_AGAIN}.")
    measures = run.read_measures()
    try:
        kept = copy.read_measures()
    except files.FileError:
        kept = {}  # damaged, and repaired by being replaced
    lost = [f"{name} ({checkpoint})" for checkpoint, block in kept.items() for name in block
            if name not in measures.get(checkpoint, {})]
    if lost:
        raise files.FileError(f"{copy.path} has measures that {run.path} lacks, and would lose them: "
                              f"{', '.join(lost)}. Make them there too, or remove what is published.")


def _wanted(run: RunDir, arrays: Iterable[str]) -> list[pathlib.Path]:
    return [run.config, run.history, run.results, run.measures, *(run.arrays(name) for name in arrays)]


def _small_files(run: RunDir, arrays: Iterable[str]) -> list[pathlib.Path]:
    """The files of a run that are published with these arrays, as far as they are there."""
    return [path for path in _wanted(run, arrays) if path.is_file()]


def _same(run: RunDir, copy: RunDir, arrays: Iterable[str]) -> bool:
    """Whether a copy holds the files to publish, byte for byte, no more of a run's, and a manifest of them."""
    originals, copies = _small_files(run, arrays), _small_files(copy, FIGURE_ARRAYS + PAGE_ARRAYS)
    if {path.name for path in originals} != {path.name for path in copies} or any(
            path.read_bytes() != (copy.path / path.name).read_bytes() for path in originals):
        return False
    try:
        sealed = manifest.read(copy.path)
    except files.FileError:
        return False  # damaged, and repaired by being replaced
    return sealed is not None and all(manifest.matches(sealed, copy.path, path) for path in copies)
