"""The frozen, self-validating Config that identifies a run.

Two runs with the same Config are the same run: a field belongs here if, and only if, it changes the numbers.
Paths, devices and thread counts do not. This module imports nothing heavy, so a sweep can be listed at once.
"""

import dataclasses
import hashlib
import json
import math
import numbers
import os
import pathlib
import re
import sys
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from vae_rd.catalogue import LIKELIHOODS, NETWORKS, PRIORS, described

RATE_TERMS = ("both", "mutual_information", "marginal_kl")
CONDITIONINGS = ("none", "beta")
BINARIZATIONS = ("none", "static", "dynamic")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16", "float64")
# The fields to whose values modules of a user may add.
_PARTS: dict[str, Mapping[str, Any]] = {"architecture": NETWORKS, "prior": PRIORS, "likelihood": LIKELIHOODS}
_LARGEST = 3.4e38  # of what float32 holds
DATASET_NAME = "[a-z][a-z0-9_]*"  # a pattern; in names of folders and runs a "-" ends it
STACKABLE_FIELDS = ("beta", "seed")  # the fields in which the members of one column may differ
_ALWAYS_NAMED = ("dataset", "split", "architecture", "num_layers", "beta", "seed")  # in every run's name
_NEVER_NAMED = ("train_steps", "eval_every", "eval_images", "imports")  # how long and how observed: in the hash only

# The paper's names stand for exactly these sizes (a table, no arithmetic).
SPLIT_SIZES = {"8k": 8192, "16k": 16384, "25k": 24576, "33k": 32768, "41k": 40960, "49k": 49152, "57k": 57344,
               "65k": 65536, "82k": 81920}
NAMED_SIZES = {"cd": {name: size for name, size in SPLIT_SIZES.items() if name != "82k"}, "cv": SPLIT_SIZES}
SPLIT_KINDS = {"default": "random halves",
               "checkerboard": "even and odd cells of a checkerboard over the factors",
               "official": "the partitions as distributed (data sets that have them)",
               "cd_<size>": "constant density: <size> training and <size> test images from a centred box",
               "cv_<size>": "constant volume: <size> random training images, all the rest for testing"}


class ConfigError(ValueError):
    """A value that cannot identify a run; the message says rule, value and remedy."""


class NotImported(ConfigError):
    """A Config needs modules of the user's that this process has not imported; reading one never imports them."""


def canonical_split(name: str) -> str:
    """The one spelling of a split's name: `cv_8192` becomes `cv_8k`; raises ConfigError for a name of no known kind.

    >>> canonical_split("cv_8192")
    'cv_8k'
    """
    if name in ("default", "checkerboard", "official"):
        return name
    kind, _, size = name.partition("_")
    named = NAMED_SIZES.get(kind, {})
    if size in named:
        return name
    if named and re.fullmatch("[1-9][0-9]*", size):
        short = {number: key for key, number in named.items()}.get(int(size))
        return f"{kind}_{short}" if short else name
    kinds = "; ".join(f"{known}: {meaning}" for known, meaning in SPLIT_KINDS.items())
    raise ConfigError(f"split must be of one of these kinds (got {name!r}): {kinds}. <size> is a whole number or one "
                      f"of {', '.join(SPLIT_SIZES)} (82k for cv only).")


def split_size(name: str) -> int | None:
    """Training images that a `cd_*` or `cv_*` split asks for; None for the kinds that have no size in their name."""
    kind, _, size = canonical_split(name).partition("_")
    return SPLIT_SIZES.get(size) or int(size) if kind in ("cd", "cv") else None


class DataSpec(NamedTuple):
    """What names a data set on disk: the fields of Config that decide which images there are."""

    dataset: str = "tetrominoes"
    split: str = "cv_16k"
    image_size: int = 32
    binarization: str = "none"
    data_seed: int = 0

    @property
    def folder(self) -> str:
        """Folder of the data set; what differs from the defaults is part of it, so one path never has two meanings.

        Dynamic binarization happens in training and shares the grey images.

        >>> DataSpec("mnist", image_size=28, binarization="static").folder
        'mnist-size28-static'
        """
        default = DataSpec()
        return "-".join([self.dataset] + [f"seed{self.data_seed}"] * (self.data_seed != default.data_seed)
                        + [f"size{self.image_size}"] * (self.image_size != default.image_size)
                        + ["static"] * (self.binarization == "static"))

    def path(self, data_dir: str | os.PathLike) -> pathlib.Path:
        """Folder of the split: `<data_dir>/<folder>/<split>`; it need not exist."""
        return pathlib.Path(data_dir) / self.folder / self.split


_DATA = DataSpec()


def _field(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of one run; the defaults are the paper's protocol.

    Raises:
        ConfigError: if a value is out of its range, with the rule, the value and the remedy.
    """

    dataset: str = _field(_DATA.dataset, "data set: a folder in --data_dir, or one that data_gen can make")
    data_seed: int = _field(_DATA.data_seed, "seed of the data: factor draws and splits (not the restart: that is "
                                             "--seed)")
    image_size: int = _field(_DATA.image_size, "height and width of the images in pixels")
    binarization: str = _field(_DATA.binarization, "targets: none (grey, as in the paper), static (one draw when the "
                                                   "data are generated) or dynamic (a fresh draw in each step)")
    split: str = _field(_DATA.split, "pair of training and test set: default, checkerboard, official, cd_<size>, "
                                     "cv_<size>")
    architecture: str = _field("mlp", f"encoder and decoder: {described(NETWORKS)}")
    num_layers: int = _field(1, "hidden layers in the encoder, and as many in the decoder")
    hidden_units: int = _field(512, "units in each hidden layer (mlp)")
    channels: int = _field(64, "channels in each convolution (cnn)")
    latent_dim: int = _field(10, "dimensions of the latent space")
    prior: str = _field("standard_normal", f"p(z): {described(PRIORS)}")
    likelihood: str = _field("bernoulli", f"p(x|z): {described(LIKELIHOODS)}")
    beta: float = _field(1.0, "weight of the rate in the objective distortion + beta * rate, both in nats per image")
    conditioning: str = _field("none", "what the networks are conditioned on: none, or beta (one training for a "
                                       "range of betas; --beta then says where it is evaluated)")
    beta_range: str = _field("0.001,5", "lowest and highest beta that training with conditioning=beta draws, "
                                        "log-uniformly for each image")
    rate_terms: str = _field("both", "part of the rate that is penalised: both (the whole rate), mutual_information or "
                                     "marginal_kl (the minibatch estimate of that part)")
    train_steps: int = _field(257_000, "optimizer steps")
    batch_size: int = _field(128, "images in a training batch, summed over all replicas")
    learning_rate: float = _field(1e-3, "learning rate of Adam")
    seed: int = _field(0, "restart: initialisation, batch order and noise (never the data)")
    precision: str = _field("float32", "arithmetic: float32, tensorfloat32 (GPUs), bfloat16 (mixed) or float64")
    eval_every: int | None = _field(None, "steps between evaluations (default: train_steps / 20)")
    eval_images: int | None = _field(None, "images per partition in all evaluations but the last: a fixed seeded "
                                           "subset (default: all)")
    imports: str = _field("", "modules of your own that the run needs, separated by commas, imported already")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field, getattr(self, field.name)))
        object.__setattr__(self, "imports", _imported(self.imports))
        object.__setattr__(self, "split", canonical_split(self.split))
        object.__setattr__(self, "beta_range", _canonical_range(self.beta_range))
        self._check_values()
        if self.eval_every == self._default_eval_every:
            object.__setattr__(self, "eval_every", None)
        self._check_parts()
        self._check_conditioning()

    def _check_values(self) -> None:
        """Each field by itself."""
        for name, table in _PARTS.items():
            _check(getattr(self, name) in table, name, f"one of {', '.join(table)}, or one that --import adds",
                   getattr(self, name))
        for name, known in (("conditioning", CONDITIONINGS), ("rate_terms", RATE_TERMS),
                            ("binarization", BINARIZATIONS), ("precision", PRECISIONS)):
            _check(getattr(self, name) in known, name, f"one of {', '.join(known)}", getattr(self, name))
        _check(re.fullmatch(DATASET_NAME, self.dataset), "dataset",
               "a name of small letters, digits and underscores", self.dataset)
        _check(0 <= self.beta <= _LARGEST, "beta", "a finite number, 0 or more, that float32 holds", self.beta)
        _check(0 < self.learning_rate <= _LARGEST, "learning_rate", "a finite number above 0 that float32 holds",
               self.learning_rate)
        for name in ("image_size", "num_layers", "hidden_units", "channels", "latent_dim", "train_steps", "batch_size"):
            _check(getattr(self, name) >= 1, name, "a whole number, 1 or more", getattr(self, name))
        for name in ("data_seed", "seed"):
            _check(0 <= getattr(self, name) < 2**31, name, "a whole number from 0 to 2**31 - 1", getattr(self, name))
        for name in ("eval_every", "eval_images"):
            _check(getattr(self, name) is None or getattr(self, name) >= 1, name, "a whole number, 1 or more",
                   getattr(self, name))

    def _check_parts(self) -> None:
        """Fields against what the architecture, the prior and the estimator of `rate_terms` need."""
        network = NETWORKS[self.architecture]
        for unused in {other.width for other in NETWORKS.values()} - {network.width}:
            _check(getattr(self, unused) == _defaults()[unused], unused,
                   f"left at {_defaults()[unused]} with architecture={self.architecture}, which does not use it",
                   getattr(self, unused))
        _check(not network.halves or self.image_size % 2**self.num_layers == 0, "image_size",
               f"a multiple of 2**num_layers = {2**self.num_layers} with architecture={self.architecture}, whose every "
               "layer halves it", self.image_size)
        least = PRIORS[self.prior].min_latent_dim
        _check(not PRIORS[self.prior].keeps_images or split_size(self.split) != 1, "split",
               f"one of 2 training images or more with prior={self.prior}, which leaves an image out of its own prior",
               self.split)
        _check(not (PRIORS[self.prior].keeps_images and self.binarization == "dynamic"), "binarization",
               f"none or static with prior={self.prior}, which knows an image by its pixels", self.binarization)
        _check(self.latent_dim >= least, "latent_dim", f"{least} or more with prior={self.prior}", self.latent_dim)
        _check(self.rate_terms == "both" or self.batch_size >= 2, "batch_size",
               f"2 or more with rate_terms={self.rate_terms}, whose estimator compares the images of a batch",
               self.batch_size)
        _check(self.rate_terms != "mutual_information" or not PRIORS[self.prior].has_weights(self.latent_dim), "prior",
               "one without weights with rate_terms=mutual_information, which does not depend on the prior",
               self.prior)

    def _check_conditioning(self) -> None:
        """Fields against what one training for a range of betas needs."""
        if self.conditioning == "none":
            unused = _defaults()["beta_range"]
            _check(self.beta_range == unused, "beta_range",
                   f"left at {unused} with conditioning=none, which does not use it", self.beta_range)
            return
        low, high = self.beta_bounds
        _check(low <= self.beta <= high, "beta", f"within beta_range={self.beta_range} with conditioning=beta, as the "
               "networks are trained for no other", self.beta)
        _check(self.rate_terms == "both", "rate_terms", "both with conditioning=beta, as the estimators of its parts "
               "compare the images of a batch, whose betas differ", self.rate_terms)
        prior, likelihood = PRIORS[self.prior], LIKELIHOODS[self.likelihood]
        _check(not prior.has_weights(self.latent_dim), "prior",
               "one without weights with conditioning=beta, as all betas would share them", self.prior)
        _check(likelihood.num_parameters == 0, "likelihood",
               "one without weights with conditioning=beta, as all betas would share them", self.likelihood)

    @property
    def data(self) -> DataSpec:
        """What names the run's data set on disk."""
        return DataSpec(**{name: getattr(self, name) for name in DataSpec._fields})

    @property
    def _default_eval_every(self) -> int:
        return max(1, self.train_steps // 20)

    @property
    def evaluation_interval(self) -> int:
        """Steps from one evaluation to the next."""
        return self.eval_every or self._default_eval_every

    @property
    def beta_bounds(self) -> tuple[float, float]:
        """The lowest and the highest beta of `beta_range`."""
        low, high = self.beta_range.split(",")
        return float(low), float(high)

    @property
    def training_key(self) -> Hashable:
        """Equal for runs that are one training: with conditioning=beta those that differ in beta alone."""
        return self.without("beta") if self.conditioning == "beta" else self

    def without(self, *names: str) -> tuple:
        """The values of all other fields: equal for Configs that differ in these at most."""
        return tuple(getattr(self, name) for name in _defaults() if name not in names)

    @property
    def non_default(self) -> dict[str, Any]:
        """The fields that differ from their defaults: what the run's hash is made of."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                if getattr(self, field.name) != field.default}

    @property
    def run_name(self) -> str:
        """Name of the run directory: a readable part and 8 characters of hash over the non-default fields.

        The readable part has every choice that differs from the default. A field that is added later, with a default
        that keeps today's behaviour, leaves every name as it is.

        >>> Config(prior="mixture", latent_dim=5, beta=0.1).run_name
        'tetrominoes-cv_16k-mlp1-latent5-mixture-beta0.1-seed0-4d6af4c9'
        """
        return self._named(_in_a_name(name, value) for name, value in self.non_default.items()
                           if name not in (*_ALWAYS_NAMED, *_NEVER_NAMED))

    @property
    def earlier_run_name(self) -> str:
        """The name that earlier versions gave the directory: some choices show in the hash only."""
        return self._named(())

    def _named(self, choices: Iterable[str]) -> str:
        digest = hashlib.sha256(json.dumps(self.non_default, sort_keys=True).encode()).hexdigest()[:8]
        return "-".join([self.dataset, self.split, f"{self.architecture}{self.num_layers}", *choices,
                         f"beta{self.beta:g}", f"seed{self.seed}", digest])

    def replace(self, **changes: Any) -> "Config":
        """A Config with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Every field, as the text of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """A Config from a mapping, as `config.json` holds it; fields that it lacks take their defaults.

        Raises:
            ConfigError: for an unknown name, listing the known ones.
            NotImported: for a prior, a likelihood or an architecture that this process does not know.
        """
        unknown = sorted(set(values) - set(_defaults()))
        if unknown:
            raise ConfigError(f"the fields of a Config must be among {', '.join(_defaults())} (got "
                              f"{', '.join(unknown)}). A newer vae_rd may have written them: update, or remove them.")
        _imported(str(values.get("imports", "")))
        for name, table in _PARTS.items():
            if isinstance(value := values.get(name), str) and value not in table:
                raise NotImported(f"{name} must be one of {', '.join(table)}, or one of your own whose module is "
                                  f"imported already (got {value!r}). Try --import=MODULE; in Python, import it first.")
        return cls(**values)


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(Config)}


def _in_a_name(field: str, value: Any) -> str:
    """A field's value in the name of a run: a word stands for itself, a number comes after its field's first word.

    >>> _in_a_name("prior", "mixture"), _in_a_name("latent_dim", 5), _in_a_name("learning_rate", 3e-4)
    ('mixture', 'latent5', 'learning0.0003')
    """
    if field == "conditioning":
        return f"conditioned_on_{value}"
    if field == "beta_range":
        return f"from{value.replace(',', 'to')}"
    text = f"{value:g}".replace("e+", "e") if isinstance(value, float) else re.sub("[^A-Za-z0-9_.-]+", "_", str(value))
    return text if text[:1].isalpha() else f"{field.partition('_')[0]}{text}"


def _imported(names: str) -> str:
    """Names of modules in one spelling: in order, each once."""
    wanted = sorted(set(names.split(","))) if names else []
    missing = [name for name in wanted if name not in sys.modules]
    if missing:
        raise NotImported(f"imports must be modules that are imported already (got {', '.join(missing)!r}). Try "
                          f"--import={','.join(wanted)}; in Python, import {', '.join(wanted)} first.")
    return ",".join(wanted)


def _canonical_range(text: str) -> str:
    """Two numbers above 0, the lower one first, in one spelling; raises ConfigError for anything else.

    >>> _canonical_range("1e-3, 5.0")
    '0.001,5'
    """
    rule = "two finite numbers above 0, the lower one first, as in 0.001,5"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"beta_range must be {rule} (got {text!r}).") from error
    _check(0 < low <= high < math.inf, "beta_range", rule, text)
    return ",".join(repr(bound).removesuffix(".0") for bound in (low, high))


def _check(holds: Any, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {rule} (got {value!r}).")


def _typed(field: dataclasses.Field, value: Any) -> Any:
    """The value in its field's own type (1 becomes 1.0 for a float), so that equal Configs hash alike.

    NumPy's whole numbers and its float64 are taken; its float32(0.1) is not 0.1, and would name another run.
    """
    if value is None and field.type == (int | None):
        return None
    kind: Any = int if field.type == (int | None) else field.type
    good = {str: isinstance(value, str),
            int: isinstance(value, numbers.Integral) and not isinstance(value, bool),
            float: isinstance(value, (numbers.Integral, float)) and not isinstance(value, bool)}[kind]
    words = {str: "text", int: "a whole number", float: "a number"}[kind]
    if isinstance(value, numbers.Real):
        words += " of Python's, or a float64 of NumPy's" if kind is float else ""
    _check(good, field.name, words, value)
    try:
        return kind(value) or kind()  # -0.0 becomes 0.0
    except OverflowError as error:
        raise ConfigError(f"{field.name} must be a number that a double can hold (got a larger one).") from error
