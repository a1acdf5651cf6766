"""All that a run leaves behind, clocks apart, to compare two runs bit for bit."""

import io
import zipfile

import h5py
import numpy as np

from vae_rd.storage import files, runs

CLOCKS = ("wall_seconds", "steps_per_second", "progress.wall_seconds", "progress.train_seconds", "bound.history")


def outcome(run: runs.RunDir) -> dict[str, object]:
    """Arrays and numbers by name: history, results, final model, checkpoint, best weights, values per image."""
    found = {"history": [{name: value for name, value in row.items() if name not in CLOCKS}
                         for row in run.read_history()],
             "results": {name: value for name, value in (run.read_results() or {}).items()
                         if name not in (*CLOCKS, "machine", "versions")}}
    for path in sorted([*run.path.glob("*.npz"), *run.checkpoints.glob("*.npz")]):
        found |= {f"{path.name}: {name}": value for name, value in files.read_arrays(path).items()
                  if name not in CLOCKS}
    if run.model.is_file():
        found |= {f"{run.model.name}: {name}": value for name, value in saved_weights(run).items()}
    return found


def saved_weights(run: runs.RunDir) -> dict[str, np.ndarray]:
    """The arrays in model.keras, read without Keras."""
    arrays = {}
    with zipfile.ZipFile(run.model) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of what is not the same, bit for bit."""
    return sorted(name for name in {*one, *other} if name not in one or name not in other
                  or not _same(one[name], other[name]))


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())  # NaN too
    return repr(one) == repr(other)  # NaN too


def leftovers(run: runs.RunDir) -> list[str]:
    """Half-written files in a run directory."""
    return sorted(path.name for path in run.path.rglob(".*"))
