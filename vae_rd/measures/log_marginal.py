"""log p(x) by importance sampling, with the signs that it cannot be trusted, in nats per image.

    log p(x) >= E log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_k ~ q(z|x)    (Burda et al. 2016, eq. 8)

Where the encoder is narrower than the true posterior, which is what a small beta does, rare samples carry nearly all of
the weight and the bound is many nats too low. Two signs are given: the effective sample size, and the tail index of the
weights, which also shows it where it is hidden in a few dimensions. A posterior narrower than the steps between numbers
is flagged by itself (`unresolved`). `annealed.py` holds the independent check.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings, means_with_errors, query_images, setting
from vae_rd.measures.progress import Progress, silent

CODES_PER_BLOCK = 2048  # decoded at a time: 24 MiB of logits for 32 x 32 x 3 images
MIN_ESS = 100.0  # of the samples: 5,000 that are worth fewer than this carry a bias that can be seen
NO_TAIL = 0.01  # log weights that differ by less over the whole tail have none
MAX_TAIL_INDEX = 0.7  # above it importance sampling does not converge in practice (Vehtari et al. 2024)
CURVE = (1, 2, 5)  # times powers of ten: the sample numbers of the K-curve

LOG_PX = "log_px"  # mean over the images
LOG_PX_SAMPLES = "log_px_k"  # prefix of the bound's means, before the number of importance samples
UNRELIABLE = "log_px_unreliable"  # share of images whose log p(x) cannot be trusted
TRUSTED = 0.1  # largest such share with which the mean log p(x) of a run still counts: each of those images may be off
#   by ten nats, and claim C3 asks whether means differ by one; it was 0.5 until first results had been seen


class Reliability(NamedTuple):
    """How far each image's importance-sampled log p(x) can be trusted."""

    ess: np.ndarray  # [n], effective number of samples
    tail_index: np.ndarray  # [n], Pareto k of the largest weights; NaN with too few samples to tell
    unreliable: np.ndarray  # [n] bool


@dataclasses.dataclass(frozen=True)
class LogMarginalSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(500)
    num_samples: int = setting(5000, "importance samples per image")
    widen: float = setting(1.0, "draw half of the importance samples from a posterior widened by this factor (1: none)")


def measure(run: FinishedRun, settings: LogMarginalSettings) -> Outcome:
    """The bound with all samples and with fewer (the K-curve), and how far it can be trusted."""
    from vae_rd.model import likelihoods  # imports Keras with its package: not before it is needed
    lowest = likelihoods.LIKELIHOODS[run.config.likelihood].floor
    scalars, per_example = {}, {}
    for name in run.partitions:
        rows = run.rows(name, settings.query_images)
        log_weights = weights_of(run, name, rows, settings)
        log_px, judged = importance_bound(log_weights), reliability(log_weights)
        judged = judged._replace(unreliable=judged.unreliable | unresolved(*run.posteriors(name, rows)))
        floor = lowest(run.partition(name).images[rows])
        curve = {f"{LOG_PX_SAMPLES}{size}": float(importance_bound(log_weights, size).mean())
                 for size in curve_sizes(settings.num_samples)}
        scalars[name] = {**means_with_errors(**{LOG_PX: log_px}), "ess": float(np.median(judged.ess)),
                         UNRELIABLE: float(judged.unreliable.mean()), **curve}
        if floor is not None:
            scalars[name]["log_px_ceiling"] = float(-floor.mean())
        per_example[name] = run.spread(name, rows, ess=judged.ess, tail_index=judged.tail_index, **{LOG_PX: log_px})
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "log_marginal", measure, "log p(x) by importance sampling, with the share of images for which it cannot be trusted "
    "(0.2 to 1 s per image)", LogMarginalSettings, (f"train/{LOG_PX}", f"test/{LOG_PX}", f"test/{UNRELIABLE}"),
    shares=(UNRELIABLE,))


def weights_of(run: FinishedRun, partition: str, rows: np.ndarray, settings: LogMarginalSettings) -> np.ndarray:
    """The log importance weights [n, K] of the images at some rows of a partition."""
    means, stddevs = run.posteriors(partition, rows)
    return log_importance_weights(run.images(partition, rows), run.partition(partition).index[rows], means, stddevs,
                                  run.vae.prior(), run.vae.likelihood, settings.num_samples, widen=settings.widen,
                                  progress=run.progress)


def log_importance_weights(images: np.ndarray, keys: np.ndarray, means: np.ndarray, stddevs: np.ndarray,
                           prior: Any, likelihood: Callable[[Any], Any], num_samples: int, *, widen: float = 1.0,
                           seed: int = 0, progress: Progress = silent) -> np.ndarray:
    """log w_k = log p(x|z_k) + log p(z_k) - log r(z_k|x).

    The proposal r is the posterior q; with `widen` above 1 it is the defensive mixture of q and of q with standard
    deviations `widen` times as large, half of each.

    Args:
        images: [n, ...] float, as `likelihood(codes).log_prob` takes them.
        keys: [n] whole numbers; an image's samples depend on its key and the seed alone, not on its block.
        means, stddevs: [n, d] of the posterior.
        prior: `tfd` object over codes.
        likelihood: codes [..., d] -> `tfd` object over images.
        num_samples: K.

    Returns:
        [n, K] float64.
    """
    if num_samples < 1 or not widen >= 1:
        raise ValueError(f"num_samples and widen must be 1 or more (got {num_samples} and {widen:g}); widen=1 is none.")
    weights = np.empty((len(images), num_samples), np.float64)
    density = _joint_density(prior, likelihood)
    for image in progress(range(len(images)), desc="importance samples"):
        rng = np.random.default_rng([seed, int(keys[image])])
        noise = rng.standard_normal((num_samples, means.shape[1]))
        wide = np.where(rng.random((num_samples, 1)) < 0.5, widen, 1.0)
        codes = (means[image] + stddevs[image] * wide * noise).astype(means.dtype)
        log_joint = np.concatenate([density(images[image], block) for block in _blocks(codes)])
        weights[image] = log_joint[:num_samples] - _log_proposal(codes, means[image], stddevs[image], widen)
    return weights


def importance_bound(log_weights: np.ndarray, num_samples: int | None = None) -> np.ndarray:
    """The bound on log p(x) with K samples, [n]: the mean over as many disjoint groups of K as there are.

    Args:
        log_weights: [n, all samples].
        num_samples: K; all samples if None.
    """
    size = num_samples or log_weights.shape[1]
    groups = log_weights.shape[1] // size
    grouped = log_weights[:, :groups * size].reshape(-1, groups, size)
    return (np.logaddexp.reduce(grouped, axis=2) - math.log(size)).mean(1)


def curve_sizes(num_samples: int) -> list[int]:
    """The sample numbers K of the K-curve: 1, 2, 5, 10, ... up to `num_samples`.

    >>> curve_sizes(25)
    [1, 2, 5, 10, 20, 25]
    """
    sizes = {first * 10**power for power in range(len(str(num_samples))) for first in CURVE}
    return sorted({size for size in sizes if size < num_samples} | {num_samples})


def reliability(log_weights: np.ndarray) -> Reliability:
    """Effective sample size and tail index of each image's weights [n, K], and whether either is out of bounds."""
    ess = effective_sample_size(log_weights)
    tail = tail_index(log_weights)
    return Reliability(ess, tail, (ess < MIN_ESS) | ~(tail <= MAX_TAIL_INDEX))


def unresolved(means: np.ndarray, stddevs: np.ndarray) -> np.ndarray:
    """Whether a posterior [n, d] is narrower in some dimension than the steps between numbers of its type there, [n].

    Its samples are then all alike, with weights that look equal.
    """
    return (stddevs < np.spacing(np.abs(means))).any(axis=1)


def effective_sample_size(log_weights: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2, [n], for weights [n, K]."""
    return np.exp(2 * np.logaddexp.reduce(log_weights, axis=1) - np.logaddexp.reduce(2 * log_weights, axis=1))


def tail_index(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k of the largest weights, [n] (Vehtari et al. 2024; fit of Zhang & Stephens 2009).

    Moments of the weights above order 1/k do not exist: from 0.5 the variance is infinite, from 1 the mean.
    """
    num_samples = log_weights.shape[1]
    size = int(min(0.2 * num_samples, 3 * math.sqrt(num_samples)))
    if size < 5:
        return np.full(len(log_weights), np.nan)
    ordered = np.sort(log_weights, axis=1)[:, -size - 1:]
    scaled = np.exp(ordered - ordered[:, -1:])
    fitted = np.array([_pareto_shape(row[1:] - row[0]) for row in scaled])
    return np.where(ordered[:, -1] - ordered[:, 0] < NO_TAIL, -np.inf, fitted)  # too few distinct values to fit


def _joint_density(prior, likelihood):
    """Compiled log p(x|z) + log p(z) of one image and a block of codes, as a function of arrays."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def density(image, codes):
        return likelihood(codes).log_prob(image[None]) + prior.log_prob(codes)

    return lambda image, codes: density(tf.constant(image), tf.constant(codes)).numpy().astype(np.float64)


def _blocks(codes: np.ndarray) -> Iterable[np.ndarray]:
    """Blocks of one size, the last one filled up, so that the graph is made once."""
    count = math.ceil(len(codes) / CODES_PER_BLOCK)
    return np.split(np.pad(codes, ((0, -len(codes) % count), (0, 0)), mode="edge"), count)


def _log_proposal(codes: np.ndarray, mean: np.ndarray, stddev: np.ndarray, widen: float) -> np.ndarray:
    squares = np.square((codes.astype(np.float64) - mean) / stddev).sum(1)
    constant = -np.log(stddev.astype(np.float64)).sum() - 0.5 * len(mean) * math.log(2 * math.pi)
    narrow = constant - 0.5 * squares
    if widen == 1:
        return narrow
    wide = constant - 0.5 * squares / widen**2 - len(mean) * math.log(widen)
    return np.logaddexp(narrow, wide) - math.log(2)


def _pareto_shape(excess: np.ndarray) -> float:
    """Shape k of a generalised Pareto distribution fitted to ascending excesses [m] over a threshold."""
    size = len(excess)
    if excess[-1] < 1e-9:
        return -np.inf  # equal weights: no tail at all
    quartile = excess[max(0, int(size / 4 + 0.5) - 1)]
    if quartile <= 0:
        return np.inf  # one weight exceeds all others by more than a double can hold
    points = np.arange(1, 30 + int(math.sqrt(size)) + 1)
    theta = 1 / excess[-1] + (1 - np.sqrt(len(points) / (points - 0.5))) / (3 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    profile = size * (np.log(-theta / shape) - shape - 1)
    weights = np.exp(profile - np.logaddexp.reduce(profile))
    shape = np.log1p(-(theta * weights).sum() * excess).mean()
    return float((size * shape + 5) / (size + 10))  # the weak prior of Vehtari et al.: 10 observations at 0.5
