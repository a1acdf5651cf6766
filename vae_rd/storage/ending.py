"""The end of a run: values per image, the manifest, results.json last; earlier measures are kept if they still hold."""

import pathlib
from typing import Any

import numpy as np

from vae_rd.storage import files, manifest, runs


def write_values(run: runs.RunDir, partition: str, checkpoint: str, values: dict[str, np.ndarray]) -> None:
    """Writes the values per image of a run that is about to end, before `end`.

    A run that had ended and was measured before keeps the measures' columns if its values are the same to the bit;
    if not, its measures are forgotten.
    """
    path = run.per_example(partition, checkpoint)
    measured = _measured_columns(run, path, values)
    if measured is None:
        run.measures.unlink(missing_ok=True)
    files.write_arrays(path, {**values, **(measured or {})})


def end(run: runs.RunDir, results: dict[str, Any]) -> None:
    """Ends the run: writes its manifest, then results.json, which says that it has ended.

    All other files must have been written. Measures of an earlier end are kept if its manifest lists them as they are.
    """
    before, name = _manifest_before(run), run.read_config().run_name
    arrays = [path for path in sorted(run.path.glob("*.npz")) if not path.name.startswith(("per_example_", "."))]
    if not all(manifest.matches(before, run.path, path) for path in arrays) or not _measures_stand(run, before):
        for path in (run.measures, *arrays, *run.path.glob("[!.]*.png")):
            path.unlink(missing_ok=True)
    text = files.json_text({**results, "run": name})
    kept = [run.config, run.history, run.model, run.measures, *sorted(run.path.glob("[!.]*.npz")),
            *sorted(run.checkpoints.glob("[!.]*.npz"))]
    seals = {path.relative_to(run.path).as_posix(): [manifest.seal_file(path)] for path in kept if path.is_file()}
    seals[run.results.name] = [manifest.seal(text.encode())]
    manifest.write(run.path, manifest.Manifest(name, seals))
    files.write_text(run.results, text)


def _measured_columns(run: runs.RunDir, path: pathlib.Path, values: dict[str, np.ndarray]
                      ) -> dict[str, np.ndarray] | None:
    """What measures added to a file of values per image; None if the file is missing or holds other values."""
    try:
        if not files.present(path) or not manifest.matches(_manifest_before(run), run.path, path):
            return None
        there = files.read_arrays(path)
    except files.FileError:
        return None
    same = all(name in there and there[name].tobytes() == np.asarray(value).tobytes()
               for name, value in values.items())
    return {name: value for name, value in there.items() if name not in values} if same else None


def _measures_stand(run: runs.RunDir, before: manifest.Manifest | None) -> bool:
    """Whether the measures of an earlier end are as it left them: neither changed nor, by `write_values`, forgotten."""
    if before and run.measures.name in before.files and not run.measures.exists():
        return False
    try:
        return not run.read_measures() or manifest.matches(before, run.path, run.measures)
    except files.FileError:
        return False


def _manifest_before(run: runs.RunDir) -> manifest.Manifest | None:
    """The manifest of an earlier end, if there is one that can be read."""
    try:
        return manifest.read_any(run.path)
    except files.FileError:
        return None
