"""How figures look: sizes in print, colours that colour-blind readers can tell apart, and words for values."""

from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMN_WIDTH, TEXT_WIDTH = 3.35, 6.8  # inches: one column and the full width of a two-column page
DPI = 300
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#B0508A", "#B37A00", "#3A9BD1")  # Okabe-Ito, the light ones darkened
ORDERED = "viridis"  # colours for an ordered quantity, from its dark end to before its palest
QUIET = "#8A8A8A"  # of what helps to read and is no result
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5, "legend.fontsize": 6.5, "axes.linewidth": 0.6, "lines.linewidth": 1.1, "lines.markersize": 3,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5, "ytick.minor.size": 1.5, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4, "errorbar.capsize": 0, "pdf.fonttype": 42, "savefig.dpi": DPI, "figure.dpi": 100,
}
DATASETS = {"tetrominoes": "Tetrominoes", "tetrominoes_released": "Tetrominoes (released)", "mnist": "MNIST",
            "fashion_mnist": "Fashion-MNIST", "smallnorb": "SmallNORB", "shapes3d": "3dShapes", "dsprites": "dSprites"}
PARTITIONS = {"train": "train", "test": "test", "test_select": "test (selecting half)", "test_compare": "test (other half)"}


def figure(width: float, height: float) -> Figure:
    """An empty Figure of this size in inches, with a canvas that can measure texts; pyplot keeps no hold on it."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def ordered_colours(count: int) -> list[tuple]:
    """`count` colours for an ordered quantity, dark to light, all legible on white."""
    scale = matplotlib.colormaps[ORDERED]
    return [scale(0.88 * place / max(1, count - 1)) for place in range(count)]


def split_words(split: str) -> str:
    """A split's name as in the paper: `cv_16k` is CV(16k)."""
    kind, _, size = split.partition("_")
    return f"{kind.upper()}({size})" if size else split


def describe(values: dict[str, Any]) -> str:
    """Words for some fields of a Config: {"architecture": "mlp", "num_layers": 3} is `3-layer MLP`.

    >>> describe({"split": "cv_16k", "latent_dim": 5})
    'CV(16k), latent dim 5'
    """
    values = dict(values)
    words = []
    if "dataset" in values:
        name = values.pop("dataset")
        words.append(DATASETS.get(name, name))
    if "split" in values:
        words.append(split_words(values.pop("split")))
    words += _network_words(values)
    if "rate_terms" in values:
        words.append({"both": "whole rate", "mutual_information": "MI only", "marginal_kl": "marginal KL only"}[
            values.pop("rate_terms")])
    named = {"latent_dim": "latent dim", "train_steps": "steps", "num_train": "N ="}
    words += [f"{named.get(name, name.replace('_', ' '))} {_number(value)}" for name, value in values.items()]
    return ", ".join(words)


def _network_words(values: dict[str, Any]) -> list[str]:
    architecture, layers = values.pop("architecture", None), values.pop("num_layers", None)
    if layers is None:
        return [architecture.upper()] if architecture else []
    if architecture is None:
        return [f"{layers} layer{'s' if layers > 1 else ''}"]
    return [f"{layers}-layer {architecture.upper()}"]


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
