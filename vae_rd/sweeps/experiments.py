"""The paper's figures and further experiments as lists of Configs, at four scales.

An experiment is a product of small lists: networks x splits x betas x restarts. Runs that several figures share are
equal Configs, so they are trained once.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from vae_rd.catalogue import LIKELIHOODS, NETWORKS, PRIORS
from vae_rd.config import CONDITIONINGS, NAMED_SIZES, Config, ConfigError

ONE_LAYER, THREE_LAYERS = {"architecture": "mlp", "num_layers": 1}, {"architecture": "mlp", "num_layers": 3}
MLPS = (ONE_LAYER, THREE_LAYERS)
CNNS = tuple({**network, "architecture": "cnn"} for network in MLPS)
PAPER_BETAS = (0.001, 0.005, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 2.0, 3.0, 5.0)
BUILT_IN_PRIORS, BUILT_IN_LIKELIHOODS = tuple(PRIORS), tuple(LIKELIHOODS)  # without those of a user's modules
OTHER_DATASETS = ("fashion_mnist", "smallnorb", "mnist", "shapes3d")  # the panels of figure 7, in its order


class Scale(NamedTuple):
    """What an experiment's lists hold at one scale; each split plays the same part at every scale."""

    name: str
    base: Config  # the protocol; an experiment changes what it varies
    mlp: dict[str, int]  # widths of the networks, where they are not the protocol's
    cnn: dict[str, int]
    betas: tuple[float, ...]
    few_betas: tuple[float, ...]  # where a figure has many curves
    restarts: int
    large: str  # the split on which nothing is to be gained by memorising: CV(82k) in the paper
    small: str  # the one on which models memorise: CV(16k)
    cv: tuple[str, ...]  # constant volume, by size
    cd: tuple[str, ...]  # constant density, by size
    other: str  # the one small training set of figure 7
    other_sizes: tuple[str, ...]  # its appendix: a range of sizes
    latent_dims: tuple[int, ...]
    settings: dict[str, dict[str, int]] = {}  # of the measures, by name, that keep them within the scale


class Entry(NamedTuple):
    """How an experiment is written down: which runs it trains at a scale, what it measures and how it is drawn."""

    text: str  # one line: what it shows
    configs: Callable[[Scale], Iterable[Config]]
    measures: tuple[str, ...] = ()  # names in the registry of measures
    checkpoints: tuple[str, ...] = ("last",)  # which states of the runs the figures need
    drawing: str = "rd_curves"  # name of a drawing in figures/drawings.py
    layout: dict[str, Any] = {}  # of the drawing: mostly arguments of rd_curves.rd_figure, as facet, hue, partitions
    complete_by: str = ""  # a field: runs with one of its values say something before the others are there


class Experiment(NamedTuple):
    """One experiment at one scale: runs to train, what to measure on them and how to draw them."""

    name: str
    scale: str
    text: str
    configs: tuple[Config, ...]
    measures: tuple[str, ...]
    checkpoints: tuple[str, ...]
    drawing: str
    layout: dict[str, Any]
    complete_by: str = ""

    @property
    def command(self) -> str:
        """The command that trains and measures what is missing."""
        return f"python -m vae_rd.sweep --experiment={self.name} --scale={self.scale}"

    @property
    def run_names(self) -> list[str]:
        """Names of the run directories, in the order of the Configs."""
        return [config.run_name for config in self.configs]


_SMOKE = Scale("smoke", Config(train_steps=40, image_size=16, eval_images=256), {"hidden_units": 32}, {"channels": 4},
               betas=(0.01, 0.1, 1.0), few_betas=(0.1, 1.0), restarts=1, large="cv_4000", small="cv_500",
               cv=("cv_500", "cv_4000"), cd=("cd_500", "cd_4000"), other="cv_500", other_sizes=("cv_500", "cv_1000"),
               latent_dims=(2, 10), settings={
                   "information": {"query_images": 500}, "log_marginal": {"query_images": 8, "num_samples": 50},
                   "annealed": {"query_images": 2, "num_samples": 50, "ais_chains": 4, "ais_steps": 20},
                   "memorisation": {"query_images": 200}, "refitted_prior": {"query_images": 200},
                   "refinement": {"query_images": 16, "refinement_steps": 20},
                   "distortion": {"query_images": 200, "posterior_samples": 2}})
_LAPTOP = Scale("laptop", Config(train_steps=3000, eval_images=4096), {}, {},
                betas=(0.001, 0.01, 0.1, 0.3, 1.0, 5.0), few_betas=(0.001, 0.1, 1.0, 5.0), restarts=3, large="cv_16k",
                small="cv_2000", cv=("cv_2000", "cv_4000", "cv_16k"), cd=("cd_2000", "cd_16k"), other="cv_1000",
                other_sizes=("cv_1000", "cv_4000"), latent_dims=(2, 5, 10, 32), settings={
                    "information": {"query_images": 4096}, "log_marginal": {"query_images": 100},
                    "annealed": {"query_images": 4}, "refitted_prior": {"query_images": 1000},
                    "refinement": {"query_images": 100},
                    "distortion": {"query_images": 2048, "posterior_samples": 2}})
# The paper's data, networks and betas for a tenth of its steps. The evaluations before the last see a seeded 16,384 of
# the images of each partition: all of them would take a third of the training's time.
_TENTH = Scale("tenth", Config(train_steps=25_700, eval_images=16_384), {}, {}, betas=PAPER_BETAS,
               few_betas=(0.001, 0.1, 1.0, 5.0), restarts=3, large="cv_82k", small="cv_16k",
               cv=("cv_8k", "cv_16k", "cv_82k"), cd=("cd_8k", "cd_65k"), other="cv_8k", other_sizes=("cv_8k", "cv_16k"),
               latent_dims=(2, 5, 10, 32), settings={
                   "information": {"query_images": 16_384}, "log_marginal": {"query_images": 200},
                   "annealed": {"query_images": 16}})
_PAPER = Scale("paper", Config(), {}, {}, betas=PAPER_BETAS, few_betas=PAPER_BETAS, restarts=5, large="cv_82k",
               small="cv_16k", cv=tuple(f"cv_{size}" for size in NAMED_SIZES["cv"]),
               cd=tuple(f"cd_{size}" for size in NAMED_SIZES["cd"]), other="cv_8k",
               other_sizes=("cv_8k", "cv_16k", "cv_33k"), latent_dims=(2, 5, 10, 20, 32, 64))
SCALES = {scale.name: scale for scale in (_SMOKE, _LAPTOP, _TENTH, _PAPER)}
DEFAULT_SCALE = _LAPTOP.name  # what vae_rd.sweep takes unless told otherwise


def experiment(name: str, scale: str = "paper") -> Experiment:
    """One experiment at one scale.

    Raises:
        ConfigError: for an unknown name or scale; it lists the known ones.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"experiment must be one of these (got {name!r}): "
                          f"{'; '.join(f'{known}: {entry.text}' for known, entry in EXPERIMENTS.items())}.")
    if scale not in SCALES:
        raise ConfigError(f"scale must be one of {', '.join(SCALES)} (got {scale!r}).")
    entry = EXPERIMENTS[name]
    configs = tuple(dict.fromkeys(entry.configs(SCALES[scale])))
    measures = (*entry.measures, _SHOWN) if configs else ()
    return Experiment(name, scale, **entry._asdict() | {"configs": configs, "measures": measures})


def names() -> list[str]:
    """The names of all experiments."""
    return list(EXPERIMENTS)


def product(scale: Scale, networks: Iterable[dict], splits: Iterable[str], betas: Iterable[float] | None = None,
            **constant: Any) -> list[Config]:
    """networks x splits x betas x restarts of one scale, other fields constant; restarts of a point lie together."""
    widths = {"hidden_units": scale.mlp, "channels": scale.cnn}  # by the setting that gives a network its width
    points = itertools.product(splits, networks, betas or scale.betas, range(scale.restarts))
    return [scale.base.replace(**(widths[NETWORKS[network["architecture"]].width] | network | constant), split=split,
                               beta=beta, seed=seed) for split, network, beta, seed in points]


def _small_and_large(scale: Scale) -> list[Config]:
    return product(scale, MLPS, (scale.large, scale.small))


def _small(scale: Scale) -> list[Config]:
    return product(scale, MLPS, (scale.small,))


def _few_betas(scale: Scale) -> list[Config]:
    return product(scale, MLPS, (scale.small,), scale.few_betas)


def _ten_times(scale: Scale) -> list[Config]:
    """One restart; at the scale `tenth` it is the paper's protocol. Every evaluation sees all images."""
    longer = {"dataset": "tetrominoes_released", "train_steps": 10 * scale.base.train_steps, "eval_images": None}
    return [config for config in product(scale, MLPS, (scale.small,), (0.1, 1.0), **longer) if config.seed == 0]


def _sizes(scale: Scale) -> list[Config]:
    return product(scale, MLPS, (*scale.cv, *scale.cd), scale.few_betas)


def _kinds(scale: Scale) -> list[Config]:
    return product(scale, MLPS, (scale.large, scale.small, "checkerboard"), scale.few_betas)


def _networks(scale: Scale) -> list[Config]:
    return product(scale, (*MLPS, *CNNS), (scale.small,), scale.few_betas)


def _others(scale: Scale) -> list[Config]:
    return [config for dataset in OTHER_DATASETS
            for config in product(scale, MLPS, (scale.other,), scale.few_betas, dataset=dataset)]


def _other_sizes(scale: Scale) -> list[Config]:
    return [config for dataset in OTHER_DATASETS
            for config in product(scale, MLPS, scale.other_sizes, scale.few_betas, dataset=dataset)]


def _rate_terms(scale: Scale) -> list[Config]:
    return [config for terms in ("both", "mutual_information", "marginal_kl")
            for config in product(scale, MLPS, (scale.small,), scale.few_betas, rate_terms=terms)]


def _latent_dims(scale: Scale) -> list[Config]:
    return [config for size in scale.latent_dims
            for config in product(scale, MLPS, (scale.small,), scale.few_betas, latent_dim=size)]


def _one_training(scale: Scale) -> list[Config]:
    return [config for conditioning in CONDITIONINGS
            for config in product(scale, MLPS, (scale.small,), conditioning=conditioning)]


def _priors(scale: Scale) -> list[Config]:
    return [config for prior in BUILT_IN_PRIORS for config in product(scale, MLPS, (scale.small,), prior=prior)]


def _likelihoods(scale: Scale) -> list[Config]:
    return [config for likelihood in BUILT_IN_LIKELIHOODS
            for config in product(scale, MLPS, (scale.small,), scale.few_betas, likelihood=likelihood)]


def _one_per_split(scale: Scale) -> list[Config]:
    """Distances belong to the split: one run of each carries them."""
    return [config for config in product(scale, (ONE_LAYER,), ("default", "checkerboard", *scale.cv, *scale.cd), (1.0,))
            if config.seed == 0]


def _no_runs(scale: Scale) -> list[Config]:
    return []


_SHOWN = "gallery"  # measured in every experiment, for its page: seconds a run, and half a minute once a split
_PREVIEW = "no runs: python -m data_gen.main --preview=samples.png draws it"
_BY_LAYERS = {"facet": ("num_layers",)}  # a panel per number of layers
EXPERIMENTS: dict[str, Entry] = {
    "figure1": Entry(f"samples of the data ({_PREVIEW})", _no_runs),
    "figure2": Entry(f"the four kinds of split ({_PREVIEW})", _no_runs),
    "figure3": Entry("train and test curves on a large and a small training set, with reconstructions",
                     _small_and_large, ("neighbours",), drawing="curves_with_reconstructions", complete_by="split"),
    "figure4": Entry("test curves by training-set size, at constant volume and at constant density", _sizes,
                     layout={"facet": ("kind", "num_layers"), "hue": ("num_train",), "partitions": ("test",)}),
    "figure5": Entry("constant volume, large and small, against the checkerboard", _kinds, ("neighbours",),
                     layout={**_BY_LAYERS, "hue": ("split",)}),
    "figure6": Entry("MLP against CNN on the small training set", _networks,
                     layout={"facet": ("architecture",), "hue": ("num_layers",)}),
    "figure7": Entry("four other data sets, a small training set of each", _others,
                     layout={"facet": ("dataset",), "hue": ("num_layers",)},
                     complete_by="dataset"),
    "figure7_sizes": Entry("the other data sets over a range of training-set sizes", _other_sizes,
                           layout={"facet": ("dataset", "num_layers"), "hue": ("num_train",),
                                   "partitions": ("test",)}),
    "figure8": Entry("mutual information and marginal KL against beta", _small, ("information",),
                     drawing="information"),
    # Compared on the half of the test set that did not select the early-stopped weights.
    "early_stopping": Entry("last against early-stopped models on the small training set", _small,
                            checkpoints=("last", "best"),
                            layout={**_BY_LAYERS, "hue": ("checkpoint",), "partitions": ("test_compare",)}),
    "log_likelihood": Entry("log p(x) against beta, with what cannot be trusted marked", _small_and_large,
                            ("log_marginal", "annealed"), drawing="log_px", complete_by="split"),
    "nearest_neighbours": Entry("distance of test images to the training set, by split", _one_per_split,
                                ("neighbours",), drawing="nearest_distances"),
    "rate_terms": Entry("training without the mutual information or without the marginal KL", _rate_terms,
                        ("information",), layout={**_BY_LAYERS, "hue": ("rate_terms",)}),
    "memorisation": Entry("reconstructions against training images and the infinite-capacity decoder",
                          _small_and_large, ("neighbours", "memorisation"), drawing="memorisation",
                          complete_by="split"),
    "convergence": Entry("rate and distortion over the training: what more steps would still change", _few_betas,
                         drawing="over_steps"),
    "ten_times": Entry("ten times the steps at two betas, on the released images: how far the others are from their "
                       "end", _ten_times, drawing="over_steps", layout={"mark": 0.1}, complete_by="num_layers"),
    "one_training": Entry("curves of one training conditioned on beta over those of a training for each beta "
                          "(beyond the paper)",
                          _one_training, drawing="one_training", layout={**_BY_LAYERS, "hue": ("conditioning",)}),
    "priors": Entry("other priors: test curves, distortion at matched rate, the encoder's part of the gap (beyond "
                    "the paper)",
                    _priors, ("information", "refitted_prior", "refinement"), drawing="priors",
                    layout={**_BY_LAYERS, "hue": ("prior",), "partitions": ("test",)}),
    "likelihoods": Entry("other likelihoods: their curves, and squared error against rate (beyond the paper)",
                         _likelihoods, ("distortion",), drawing="likelihoods",
                         layout={"facet": ("likelihood",), "hue": ("num_layers",)}),
    "latent_dim": Entry("size of the latent space (beyond the paper)", _latent_dims, ("information",),
                        layout={**_BY_LAYERS, "hue": ("latent_dim",), "partitions": ("test",)}),
}
