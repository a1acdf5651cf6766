"""Mutual information and marginal KL: exact against the mixture over all training codes, and by minibatch.

    rate = mutual information + marginal KL
    E[log q(z|x) - log p(z)] = E[log q(z|x) - log q(z)] + E[log q(z) - log p(z)],    q(z) = 1/N sum_n q(z|x_n)
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings, means_with_errors, query_images, setting
from vae_rd.measures.progress import Progress, silent

PAIRS_PER_BLOCK = 2**22  # 16 MiB of float32 log densities at a time; larger blocks are at most 10% faster
MAX_BLOCK = 1024

MUTUAL_INFORMATION, MARGINAL_KL = "mutual_information", "marginal_kl"  # exact, against all training codes
MINIBATCH = "_minibatch"  # suffix of the paper's estimates of both
RATE_PER_DIMENSION = "rate_per_dimension"  # per image [num, latent_dim]


class Information(NamedTuple):
    """The three log densities of each code, in nats; their differences are the two parts of the rate."""

    log_posterior: np.ndarray  # [n] log q(z|x), the code's own image
    log_aggregate: np.ndarray  # [n] log q(z), the mixture over the training images
    log_prior: np.ndarray  # [n] log p(z)

    @property
    def mutual_information(self) -> np.ndarray:
        """log q(z|x) - log q(z), [n]: its mean over the training images is the mutual information."""
        return self.log_posterior - self.log_aggregate

    @property
    def marginal_kl(self) -> np.ndarray:
        """log q(z) - log p(z), [n]: its mean over the training images is KL(q(z), p(z))."""
        return self.log_aggregate - self.log_prior

    @property
    def rate(self) -> np.ndarray:
        """log q(z|x) - log p(z), [n]: the one-sample estimate of each image's rate."""
        return self.log_posterior - self.log_prior


@dataclasses.dataclass(frozen=True)
class InformationSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(None)
    minibatch: int = setting(512, "images in a batch of the minibatch estimate", least=2)


def measure(run: FinishedRun, settings: InformationSettings) -> Outcome:
    """The two parts of the rate at one code per image, and the rate of each latent dimension."""
    scalars, per_example = {}, {}
    train = run.posteriors("train")
    for name in run.partitions:
        rows = run.rows(name, settings.query_images)
        codes, posteriors = run.codes(name, rows=rows), run.posteriors(name, rows)
        log_aggregate = aggregate_log_density(codes, *train, progress=run.progress)
        log_posterior = run.log_posterior(name, rows=rows)
        if name == "train":
            log_aggregate += lost_noise(log_posterior, codes, *posteriors)
        found = Information(log_posterior, log_aggregate, run.log_prior(name, rows, codes))
        rate = run.per_example(name)["rate"][rows]
        parts = {MUTUAL_INFORMATION: found.mutual_information, MARGINAL_KL: found.marginal_kl}
        if name == "test":  # they are not information, but how new, and how usual, codes are
            parts = dict(zip(("novelty", "typicality"), parts.values()))
        scalars[name] = {**means_with_errors(**parts), **means_with_errors(rate_residual=found.rate - rate)}
        per_example[name] = run.spread(name, rows, **parts)
        by_dimension = rate_per_dimension(*posteriors, run.vae.prior())
        if by_dimension is not None:
            per_example[name] |= run.spread(name, rows, **{RATE_PER_DIMENSION: by_dimension})
    codes, log_posterior = run.codes("train"), run.log_posterior("train")  # the minibatch estimate is of ALL of them
    log_minibatch = minibatch_log_density(codes, *train, len(codes), settings.minibatch)
    estimate = Information(log_posterior, log_minibatch + lost_noise(log_posterior, codes, *train),
                           run.log_prior("train", np.arange(len(codes)), codes))
    scalars["train"] |= {MUTUAL_INFORMATION + MINIBATCH: float(estimate.mutual_information.mean()),
                         MARGINAL_KL + MINIBATCH: float(estimate.marginal_kl.mean())}
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "information", measure, "mutual information and marginal KL, exact against all training codes and by the paper's "
    "minibatch estimate; test codes against the training codes (seconds; a minute for 82k / 82k)", InformationSettings,
    (f"train/{MUTUAL_INFORMATION}", f"train/{MARGINAL_KL}"), quick=True)


def rate_per_dimension(means: np.ndarray, stddevs: np.ndarray, prior: Any) -> np.ndarray | None:
    """KL(q(z_k|x), p(z_k)) of each latent dimension, whose sum over k is the rate: [n, d] nats.

    Args:
        means, stddevs: [n, d] of the posteriors.
        prior: `tfd` object over codes.

    Returns:
        None where the prior is not a product over the dimensions, or TFP knows no closed form.
    """
    import tensorflow_probability as tfp
    if not isinstance(prior, tfp.distributions.Independent) or prior.distribution.batch_shape != means.shape[1:]:
        return None
    try:
        return tfp.distributions.Normal(means, stddevs).kl_divergence(prior.distribution).numpy()
    except NotImplementedError:
        return None


def posterior_log_density(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray) -> np.ndarray:
    """log q(z_i|x_i), each code under its own diagonal Gaussian, in float64.

    Args:
        codes, means, stddevs: [..., d], row-aligned.

    Returns:
        [...], nats.
    """
    codes, means, stddevs = (np.asarray(values, np.float64) for values in (codes, means, stddevs))
    squares = np.square((codes - means) / stddevs).sum(-1)
    return -0.5 * squares - np.log(stddevs).sum(-1) - 0.5 * codes.shape[-1] * math.log(2 * math.pi)


def lost_noise(log_posterior: np.ndarray, codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray) -> np.ndarray:
    """log q(z|x) of the unrounded codes less that of these, which are rounded: [n] nats.

    It matters only where a posterior is so narrow that the image's own component makes up log q(z); adding it to log
    q(z) of training codes is exact there. (`vae.minibatch_log_aggregate`, in training, sets that component itself.)

    Args:
        log_posterior: [n], computed from the noise.
        codes, means, stddevs: [n, d], row-aligned.
    """
    return log_posterior - posterior_log_density(codes, means, stddevs)


def aggregate_log_density(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray,
                          progress: Progress = silent) -> np.ndarray:
    """log q(z_i) = log 1/N sum_n N(z_i; means_n, stddevs_n^2) over ALL N components.

    Pairs are formed as direct differences: expanding the square into matrix products costs 0.67 nats in float32 at a
    standard deviation of 0.003. Float64 inputs are computed in float64, all others in float32.

    Args:
        codes: [n, d].
        means, stddevs: [N, d], of the mixture's components.
        progress: called as `progress(blocks, desc=...)` to report on the blocks, as `tqdm.tqdm` is.

    Returns:
        [n] float64, nats.

    Raises:
        ValueError: for shapes that do not fit, or values that do not describe Gaussians.
    """
    import tensorflow as tf
    codes, means, stddevs = _checked(codes, means, stddevs)
    columns, reduced = _columns(means, stddevs), _compiled(tf.reduce_logsumexp)
    block = max(1, min(MAX_BLOCK, PAIRS_PER_BLOCK // len(means)))
    log_sums = np.empty(len(codes), np.float64)
    for start in progress(range(0, len(codes), block), desc="aggregate posterior"):
        rows = codes[start:start + block]
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)), mode="edge")  # one shape, so compiled once
        log_sums[start:start + block] = reduced(tf.constant(padded), *columns)[:len(rows)]
    return log_sums - math.log(len(means))


def minibatch_log_density(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray, num_train: int,
                          batch_size: int = 512, seed: int = 0) -> np.ndarray:
    """The paper's estimate of log q(z_b) from the other images of its batch (Esmaeili et al. 2019).

    q(z_b) ~ 1/N q(z_b|x_b) + (N-1)/(N(B-1)) * sum over b' != b of q(z_b|x_b'). Biased: the mutual information comes out
    too high. Kept to reproduce the paper; `aggregate_log_density` is the number to report.

    Args:
        codes, means, stddevs: [n, d], row-aligned, each code with its own image's posterior.
        num_train: N.
        batch_size: B; the images are dealt into batches at random, and the last ones, if they do not fill a batch, join
            images of the first.

    Returns:
        [n] float64, nats.

    Raises:
        ValueError: for fewer than 2 images.
    """
    from scipy.special import logsumexp
    if len(codes) < 2 or batch_size < 2:
        raise ValueError(f"the minibatch estimate compares images, so it must have 2 or more, in batches of 2 or more "
                         f"(got {len(codes)} images in batches of {batch_size}).")
    size = min(batch_size, len(codes))
    order = np.random.default_rng(seed).permutation(len(codes))
    log_other = math.log((num_train - 1) / (num_train * (size - 1)))
    log_weights = np.where(np.eye(size, dtype=bool), -math.log(num_train), log_other)
    logs = np.empty(len(codes), np.float64)
    for start in range(0, len(codes), size):
        batch = np.roll(order, -start)[:size]
        kept = batch[:len(codes) - start]
        pairs = posterior_log_density(codes[batch, None], means[None, batch], stddevs[None, batch])
        logs[kept] = logsumexp(pairs + log_weights, axis=1)[:len(kept)]
    return logs


def responsibilities(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray) -> np.ndarray:
    """w_n(z) = q(z|x_n) / sum_m q(z|x_m): the share of each mixture component in the density at each code.

    Args:
        codes: [n, d]; all pairs are in memory at a time, so keep n * N small.
        means, stddevs: [N, d].

    Returns:
        [n, N] float32 or float64, as the inputs; rows sum to 1.
    """
    import tensorflow as tf
    codes, means, stddevs = _checked(codes, means, stddevs)
    return _compiled(tf.nn.softmax)(tf.constant(codes), *_columns(means, stddevs)).numpy()


def _columns(means: np.ndarray, stddevs: np.ndarray) -> tuple:
    import tensorflow as tf
    return tf.constant(means.T), tf.constant(1 / stddevs.T), tf.constant(_log_normalisers(stddevs))


@functools.cache
def _compiled(reduce: Callable) -> Callable:
    """Compiled reduction over the components of log N(z_b; m_n, s_n^2), for codes [b, d] and components as [d, N]."""
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def block(codes, means, inverse_stddevs, log_normalisers):
        logs = log_normalisers[None, :]
        for k in range(codes.shape[1]):
            logs -= 0.5 * tf.square((codes[:, k, None] - means[None, k]) * inverse_stddevs[None, k])
        return reduce(logs, axis=1)

    return block


def _log_normalisers(stddevs: np.ndarray) -> np.ndarray:
    logs = -np.log(stddevs.astype(np.float64)).sum(1) - 0.5 * stddevs.shape[1] * math.log(2 * math.pi)
    return logs.astype(stddevs.dtype)


def _checked(codes: np.ndarray, means: np.ndarray, stddevs: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes, means, stddevs = np.asarray(codes), np.asarray(means), np.asarray(stddevs)
    dtype = np.float64 if np.float64 in (codes.dtype, means.dtype, stddevs.dtype) else np.float32
    if means.ndim != 2 or not len(means) or means.shape != stddevs.shape or codes.shape[1:] != means.shape[1:]:
        raise ValueError(f"codes, means and stddevs must be [n, d], [N, d] and [N, d] with N of 1 or more (got "
                         f"{codes.shape}, {means.shape} and {stddevs.shape}).")
    for name, values in (("codes", codes), ("means", means), ("stddevs", stddevs)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite (got {np.size(values) - np.isfinite(values).sum()} values that "
                             "are not): the model has diverged. Try an earlier checkpoint.")
    if not (stddevs > 0).all():
        raise ValueError(f"stddevs must be above 0 (got {stddevs.min():g}).")
    return codes.astype(dtype), means.astype(dtype), stddevs.astype(dtype)
