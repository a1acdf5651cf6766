"""Words for values: how titles, labels and statements name data sets, splits, networks and partitions."""

from typing import Any

from vae_rd.config import split_size

DATASETS = {"tetrominoes": "Tetrominoes", "tetrominoes_released": "Tetrominoes (released)", "mnist": "MNIST",
            "fashion_mnist": "Fashion-MNIST", "smallnorb": "SmallNORB", "shapes3d": "3dShapes", "dsprites": "dSprites"}
PARTITIONS = {"train": "train", "test": "test", "test_select": "test (selecting half)",
              "test_compare": "test (other half)"}
RATE_TERMS = {"both": "whole rate", "mutual_information": "MI only", "marginal_kl": "marginal KL only"}
CONDITIONINGS = {"none": "a training for each \N{GREEK SMALL LETTER BETA}", "beta": "one training"}
NAMES = {"num_train": "N ="}
KINDS = {"cv": "constant volume", "cd": "constant density"}
CHOICES = {"vamp": "VampPrior", "bernoulli": "Bernoulli likelihood",  # the others are called by their names
           "continuous_bernoulli": "continuous Bernoulli likelihood",
           "normal_learned_scale": "normal likelihood of learned scale"}
CHECKPOINTS = {"last": "after the last step", "best": "early-stopped"}


def split_words(split: str) -> str:
    """A split's name as in the paper: `cv_16k` is CV(16k)."""
    kind, _, size = split.partition("_")
    return f"{kind.upper()}({size})" if size else split


def split_order(split: str) -> tuple[int, int]:
    """Sorts splits by kind, then by size.

    >>> sorted(["checkerboard", "cd_8k", "cv_8k", "cv_8100"], key=split_order)
    ['cv_8100', 'cv_8k', 'cd_8k', 'checkerboard']
    """
    kind, _, size = split.partition("_")
    return [*KINDS, kind].index(kind), split_size(split) or 0


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
    words += [known[values.pop(name)] for name, known in
              (("conditioning", CONDITIONINGS), ("rate_terms", RATE_TERMS),
               ("kind", KINDS), ("checkpoint", CHECKPOINTS)) if name in values]
    words += [_choice_words(name, str(values.pop(name))) for name in ("prior", "likelihood") if name in values]
    if "train_steps" in values:
        words.append(f"{_number(values.pop('train_steps'))} steps")
    words += [f"{NAMES.get(name, name.replace('_', ' '))} {_number(value)}" for name, value in values.items()]
    return ", ".join(words)


def _network_words(values: dict[str, Any]) -> list[str]:
    architecture, layers = values.pop("architecture", None), values.pop("num_layers", None)
    if layers is None:
        return [architecture.upper()] if architecture else []
    if architecture is None:
        return [f"{layers} layer{'s' if layers > 1 else ''}"]
    return [f"{layers}-layer {architecture.upper()}"]


def _choice_words(name: str, choice: str) -> str:
    return CHOICES.get(choice, f"{choice.replace('_', ' ')} {name}")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
