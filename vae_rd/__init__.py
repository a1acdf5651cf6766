"""Rate, distortion and generalisation of variational autoencoders: train, measure, draw."""

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {"Config": "vae_rd.config",
          **dict.fromkeys(("train", "open_run", "measure", "load_runs", "plot_rd", "plot_against_beta"), "vae_rd.api")}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import vae_rd` itself takes no time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vae_rd' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
