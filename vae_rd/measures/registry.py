"""The table of measures: a name, the function that makes it from a finished run, and what its numbers depend on."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vae_rd.config import ConfigError
from vae_rd.measures import annealed, information, log_marginal, memorisation, neighbours
from vae_rd.measures.subject import Subject

STRIP_IMAGES = 10
NUM_SAMPLES = 40


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user may choose; a measure's record holds the ones that its numbers depend on."""

    query_images: int | None = None  # images per partition; None: each measure's own number
    minibatch: int = 512  # images in a batch of the minibatch estimate
    num_samples: int = 5000  # importance samples per image
    widen: float = 1.0  # half of the importance samples from a posterior so many times as wide; 1: none
    ais_chains: int = 16  # annealed chains per image
    ais_steps: int = 250  # HMC steps of each chain

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 2 if field.name == "minibatch" else annealed.NUM_STAGES if field.name == "ais_steps" else 1
            if not (value is None and field.default is None) and not value >= least:
                raise ConfigError(f"{field.name}={value}: must be {least} or more.")


class Outcome(NamedTuple):
    """What a measure found."""

    scalars: dict[str, dict[str, float]] = {}  # {"train" | "test" | "run": {name: value}}
    per_example: dict[str, dict[str, np.ndarray]] = {}  # {"train" | "test": {name: [num]}}, NaN for images left out
    pictures: dict[str, Any] = {}  # matplotlib figures by name
    arrays: dict[str, dict[str, np.ndarray]] = {}  # further files of plain arrays, by name


class Measure(NamedTuple):
    """An entry of the table."""

    function: Callable[[Subject, Settings], Outcome]
    text: str  # what it measures, and what it costs
    settings: tuple[str, ...] = ()  # names of the settings that its numbers depend on
    query_images: int | None = None  # images per partition unless told otherwise; None: all
    headlines: tuple[str, ...] = ()  # scalars worth a column in TensorBoard's table of runs

    def depends_on(self, settings: Settings) -> dict[str, Any]:
        """The settings that decide this measure's numbers, as they are recorded."""
        chosen = {name: getattr(settings, name) for name in self.settings}
        if "query_images" in chosen:
            chosen["query_images"] = settings.query_images or self.query_images
        return chosen


def _information(subject: Subject, settings: Settings) -> Outcome:
    scalars, per_example = {}, {}
    train = subject.posteriors["train"]
    for name in subject.partitions:
        rows = subject.rows(name, settings.query_images)
        codes, posterior = subject.codes(name), subject.posteriors[name]
        log_posterior = information.posterior_log_density(codes, *posterior)
        found = information.Information(
            log_posterior[rows], information.aggregate_log_density(codes[rows], *train, progress=subject.progress),
            subject.log_prior(codes[rows]))
        rate = subject.finished.per_example(name)["rate"][rows]
        parts = {"mutual_information": found.mutual_information, "marginal_kl": found.marginal_kl}
        if name == "test":  # against the TRAINING mixture they are no information: how new, and how usual, codes are
            parts = dict(zip(("novelty", "typicality"), parts.values()))
        scalars[name] = {**_means(**parts), **_means(rate_residual=found.rate - rate)}
        per_example[name] = subject.spread(name, rows, **parts)
        if name == "train":
            scalars[name] |= _minibatch(subject, settings, codes, log_posterior)
    return Outcome(scalars, per_example)


def _minibatch(subject: Subject, settings: Settings, codes: np.ndarray, log_posterior: np.ndarray) -> dict[str, float]:
    """The paper's estimate, over all training images."""
    log_aggregate = information.minibatch_log_density(codes, *subject.posteriors["train"], subject.num_train,
                                                      settings.minibatch)
    return {"mutual_information_minibatch": float((log_posterior - log_aggregate).mean()),
            "marginal_kl_minibatch": float((log_aggregate - subject.log_prior(codes)).mean())}


def _importance_weights(subject: Subject, name: str, rows: np.ndarray, settings: Settings) -> np.ndarray:
    means, stddevs = (values[rows] for values in subject.posteriors[name])
    return log_marginal.log_importance_weights(
        subject.images(name, rows), subject.partition(name).index[rows], means, stddevs, subject.vae.prior(),
        subject.vae.likelihood, settings.num_samples, widen=settings.widen, progress=subject.progress)


def _log_marginal(subject: Subject, settings: Settings) -> Outcome:
    scalars, per_example = {}, {}
    for name in subject.partitions:
        rows = subject.rows(name, settings.query_images)
        log_weights = _importance_weights(subject, name, rows, settings)
        log_px, judged = log_marginal.importance_bound(log_weights), log_marginal.reliability(log_weights)
        from vae_rd.model import likelihoods  # imports Keras: not before it is needed
        floor = likelihoods.entropy_floor(subject.partition(name).images[rows])
        curve = {f"log_px_k{size}": float(log_marginal.importance_bound(log_weights, size).mean())
                 for size in log_marginal.curve_sizes(settings.num_samples)}
        scalars[name] = {**_means(log_px=log_px), "ess": float(np.median(judged.ess)),
                         "log_px_unreliable": float(judged.unreliable.mean()),
                         "log_px_ceiling": float(-floor.mean()), **curve}
        per_example[name] = subject.spread(name, rows, log_px=log_px, ess=judged.ess, tail_index=judged.tail_index)
    return Outcome(scalars, per_example)


def _annealed(subject: Subject, settings: Settings) -> Outcome:
    rows, vae = subject.rows("test", settings.query_images), subject.vae
    chains = dict(num_chains=settings.ais_chains, num_steps=settings.ais_steps, progress=subject.progress)
    found = annealed.annealed_log_marginal(subject.images("test", rows), vae.prior(), vae.likelihood,
                                           subject.posteriors["test"].stddevs[rows], **chains)
    importance = log_marginal.importance_bound(_importance_weights(subject, "test", rows, settings))
    check = annealed.bidirectional_check(vae.prior(), lambda images: subject.encode(images).stddevs, vae.likelihood,
                                         len(rows), **chains)
    test = {**_means(log_px_ais=found.log_px, ais_excess=found.log_px - importance),
            "ais_ess": float(np.median(found.ess)), "ais_acceptance": float(found.acceptance.mean())}
    run = {"bidirectional_gap": float(check.gap.mean()), "bidirectional_gap_max": float(check.gap.max())}
    return Outcome({"test": test, "run": run}, {"test": subject.spread("test", rows, log_px_ais=found.log_px)})


def _neighbours(subject: Subject, settings: Settings) -> Outcome:
    found = subject.neighbours
    test = {"nearest_distance": float(found.nearest_distance.mean()),
            "nearest_distance_p90": float(np.percentile(found.nearest_distance, 90)),
            "nearest_factor_distance": float(found.nearest_factor_distance.mean())}
    row = np.array([neighbours.at_percentile(found.nearest_distance)])
    image = subject.partition("test").images[row]
    reconstruction = subject.decode(subject.posteriors["test"].means[row])
    strip = {"input": image[0], "reconstruction": np.round(255 * reconstruction[0]).astype(np.uint8),
             "index": subject.partition("test").index[row]}
    return Outcome({"test": test}, {"test": found._asdict()}, arrays={"reconstruction": strip})


def _memorisation(subject: Subject, settings: Settings) -> Outcome:
    scalars, per_example, pictures = {}, {}, {}
    train = subject.partition("train").images
    for name in subject.partitions:
        rows = subject.rows(name, settings.query_images)
        images, codes = subject.partition(name).images[rows], subject.codes(name)[rows]
        average = memorisation.infinite_capacity(codes, *subject.posteriors["train"], train, subject.progress)
        reconstructions = subject.decode(codes)
        others = None
        if name == "test":
            chosen = subject.rows(name, len(train) + 1)
            others = memorisation.other_test_images(subject.partition(name).images, chosen, rows)
        found = memorisation.compare(images, reconstructions, average.images, train, rows if name == "train" else None,
                                     others, subject.progress)
        values = {"perplexity": average.perplexity, "distance_to_input": found.to_input,
                  "distance_to_training_image": found.to_training_image, "distance_to_average": found.to_average}
        if others:
            values["distance_to_other_test_image"] = found.to_other_test_image
        scalars[name] = {**{key: float(value.mean()) for key, value in values.items()},
                         "memorised": float(found.memorised.mean()), "averaged": float(found.averaged.mean())}
        per_example[name] = subject.spread(name, rows, **values)
        if name == "test":
            scalars[name]["memorised_control"] = float(found.memorised_control.mean())
            pictures["memorisation"] = _strips(images, reconstructions, found, average, train)
    return Outcome(scalars, per_example, pictures)


def _strips(images, reconstructions, found, average, train) -> Any:
    """Test images from the nearest to the training set to the farthest, and what the model makes of them."""
    from vae_rd.measures import pictures
    nearest = neighbours.nearest_images(images, train)
    order = np.argsort(nearest.distance, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(STRIP_IMAGES, len(order))).round().astype(int)]
    rows = [images[chosen] / 255, reconstructions[chosen], train[nearest.position[chosen]] / 255,
            train[found.position[chosen]] / 255, average.images[chosen]]
    labels = ["input", "reconstruction", "training image\nnearest to input", "training image\nnearest to reconstr.",
              "weighted mean of\ntraining images"]
    return pictures.grid(np.stack(rows), labels, [f"{distance:.1f}" for distance in nearest.distance[chosen]],
                         "test images by L2 distance to the training set")


def _pictures(subject: Subject, settings: Settings) -> Outcome:
    from vae_rd.measures import pictures
    rows, names = [], []
    for name in subject.partitions:
        chosen = subject.rows(name, STRIP_IMAGES)
        rows += [subject.images(name, chosen), subject.decode(subject.posteriors[name].means[chosen])]
        names += [f"{name} image", "reconstruction"]
    samples = subject.decode(np.asarray(subject.vae.prior().sample(NUM_SAMPLES, seed=[0, 0])))
    across = min(len(row) for row in rows)
    name = subject.partitions[-1]
    mean = subject.posteriors[name].means[subject.rows(name, 1)[0]]
    moved = pictures.traversal_codes(mean, subject.codes("train")).astype(subject.dtype)
    return Outcome(pictures={
        "reconstructions": pictures.grid(np.stack([row[:across] for row in rows]), names),
        "samples": pictures.grid(samples.reshape(-1, 10, *samples.shape[1:]), title="samples from the prior"),
        "traversals": pictures.grid(subject.decode(moved), [f"dimension {k}" for k in range(len(mean))],
                                    title="one latent dimension at a time, over the range of the training codes")})


def _means(**values: np.ndarray) -> dict[str, float]:
    """Mean over the images of each quantity, and its standard error as `<name>_se`."""
    means = {}
    for name, chosen in values.items():
        means[name], means[f"{name}_se"] = information.estimate(chosen)
    return means


MEASURES: dict[str, Measure] = {
    "information": Measure(
        _information, "mutual information and marginal KL, exact against all training codes and by the paper's "
        "minibatch estimate; test codes against the training codes (seconds; a minute for 82k / 82k)",
        ("query_images", "minibatch"), None, ("train/mutual_information", "train/marginal_kl")),
    "log_marginal": Measure(
        _log_marginal, "log p(x) by importance sampling, with the share of images for which it cannot be trusted "
        "(0.2 to 1 s per image)", ("query_images", "num_samples", "widen"), 500,
        ("train/log_px", "test/log_px", "test/log_px_unreliable")),
    "annealed": Measure(
        _annealed, "log p(x) of test images by annealed importance sampling, with the bidirectional check (8 to 60 s "
        "per image)", ("query_images", "num_samples", "widen", "ais_chains", "ais_steps"), 16, ("test/log_px_ais",)),
    "neighbours": Measure(
        _neighbours, "nearest training image of every test image, in pixels and in factors (once per split: half a "
        "minute for cv_16k)",
        headlines=("test/nearest_distance",)),
    "memorisation": Measure(
        _memorisation, "reconstructions against training images and the infinite-capacity decoder (half a minute)",
        ("query_images",), 2000, ("test/memorised", "test/memorised_control", "test/perplexity")),
    "pictures": Measure(
        _pictures, "reconstructions of fixed images, samples and latent traversals as PNG files (seconds)"),
}
