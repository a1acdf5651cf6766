"""Rate, distortion and generalisation of variational autoencoders: train, measure, draw."""

import importlib
import importlib.util
import sys
from typing import Any

__version__ = "0.2.0"

_HOMES = {"Config": "vae_rd.config",
          **dict.fromkeys(("train", "open_run", "measure", "load_runs", "plot_rd", "plot_against_beta"), "vae_rd.api")}
__all__ = [*_HOMES]
_NEEDED = ("absl", "bokeh", "google_crc32c", "h5py", "keras", "matplotlib", "numpy", "pandas", "scipy", "tensorboard",
           "tensorflow", "tensorflow_probability", "tf_keras", "tqdm")  # the packages of setup.cfg
if sys.argv[:1] == ["-m"] and (_lacking := [name for name in _NEEDED if importlib.util.find_spec(name) is None]):
    # An entry point is being started (python -m) in the wrong Python: words in place of ModuleNotFoundError.
    sys.exit(f"error: {sys.executable} lacks {', '.join(_lacking)}. Activate the environment that has them (source "
             ".venv/bin/activate, if launch/quickstart.sh made it), or install them with pip install --constraint "
             "launch/constraints.txt --editable . in the folder of setup.cfg.")


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import vae_rd` itself takes no time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vae_rd' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
