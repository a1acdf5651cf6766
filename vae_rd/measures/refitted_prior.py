"""The rate that the run's codes would have had under a prior fitted to them, encoder and decoder as they are.

    refitted rate = E[log q(z|x) - log p_fit(z)],    rate saved = E[log p_fit(z) - log p(z)],    z ~ q(z|x)

For fixed networks the prior changes the rate alone, and the best one is q(z), the mixture of all training posteriors.
Two priors are fitted to training codes: a mixture of 16 diagonal Gaussians, which smooths, and a kernel at every code,
which comes close to q(z) where codes are dense. What they save on TEST images is what a prior could give.

No code is scored by a fit that has seen its image: the training images are dealt into 5 folds, and those of a fold are
scored by the fit to the other four. Test images are scored by the same 5 fits, and the mean of the log densities is
taken: train and test differ by their codes alone, not by how many codes the fits have seen.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vae_rd.measures import information
from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings, means_with_errors, query_images
from vae_rd.measures.progress import Progress, silent

RATE_REFITTED, RATE_SAVED = "rate_refitted_", "rate_saved_"  # before the name of the fitted prior
MIXTURE, KERNEL = "mixture", "kernel"

NUM_FOLDS = 5
MAX_FITTED = 16_384  # training codes that the fits see
NUM_COMPONENTS = 16
MAX_ITERATIONS = 300
TOLERANCE = 1e-4  # nats per code in an iteration: EM has converged
LEAST_SCALE = 1e-3  # of a component, in standard deviations of all codes: it cannot close in on a single code
LEFT_OUT = 512  # codes that are left out in turn to choose the bandwidth
BANDWIDTHS = np.geomspace(1e-3, 10, 13)  # in standard deviations; the best one is refined between its neighbours


class Mixture(NamedTuple):
    """A mixture of diagonal Gaussians."""

    weights: np.ndarray  # [components], their sum is 1
    means: np.ndarray  # [components, d]
    stddevs: np.ndarray  # [components, d]

    def log_density(self, codes: np.ndarray) -> np.ndarray:
        """log p(z) at codes [n, d]: [n] float64, nats."""
        return np.logaddexp.reduce(self.log_joint(codes), axis=1)

    def log_joint(self, codes: np.ndarray) -> np.ndarray:
        """Logarithm of weight times density of each component at codes [n, d]: [n, components] float64."""
        columns = [information.posterior_log_density(codes, mean, stddev)
                   for mean, stddev in zip(self.means, self.stddevs)]
        return np.stack(columns, 1) + np.log(self.weights)


class Kernel(NamedTuple):
    """A Gaussian at every fitted code, all of one width per dimension."""

    centres: np.ndarray  # [N, d]
    stddevs: np.ndarray  # [d], the bandwidth times the standard deviation of the fitted codes

    def log_density(self, codes: np.ndarray) -> np.ndarray:
        """log p(z) at codes [n, d]: [n] float64, nats."""
        return information.aggregate_log_density(codes, self.centres,
                                                 np.broadcast_to(self.stddevs, self.centres.shape))


@dataclasses.dataclass(frozen=True)
class RefittedPriorSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(4096)


def measure(run: FinishedRun, settings: RefittedPriorSettings) -> Outcome:
    """The rate under both fitted priors at the run's own code of every image, and what they save.

    Raises:
        ValueError: if there are fewer training images than the fits need.
    """
    fitted, folds = run.rows("train", MAX_FITTED), image_folds(run.partition("train").index)
    needed = NUM_FOLDS * NUM_COMPONENTS
    if len(fitted) < needed:
        raise ValueError(f"training images must be {needed} or more, for {NUM_COMPONENTS} components and {NUM_FOLDS} "
                         f"folds (got {len(fitted)}).")
    scored = {name: run.rows(name, settings.query_images) for name in run.partitions}
    found = {prior: fit_and_score(
        fit, run.codes("train", rows=fitted), folds[fitted],
        {name: run.codes(name, rows=rows) for name, rows in scored.items()}, folds[scored["train"]], run.progress)
        for prior, fit in ((MIXTURE, fit_mixture), (KERNEL, fit_kernel))}
    scalars: dict[str, dict[str, float]] = {}
    per_example = {}
    for name, rows in scored.items():
        log_posterior = run.log_posterior(name, rows=rows)
        log_prior = run.log_prior(name, rows, run.codes(name, rows=rows))
        refitted = {RATE_REFITTED + prior: log_posterior - logs[name] for prior, logs in found.items()}
        saved = {RATE_SAVED + prior: logs[name] - log_prior for prior, logs in found.items()}
        scalars[name] = means_with_errors(**refitted, **saved)
        per_example[name] = run.spread(name, rows, **refitted)
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "refitted_prior", measure, "the rate that codes would have had under a mixture, or a kernel, fitted to training "
    "codes of other images (under a minute)", RefittedPriorSettings,
    (f"test/{RATE_REFITTED}{MIXTURE}", f"test/{RATE_SAVED}{MIXTURE}"))


def image_folds(index: np.ndarray) -> np.ndarray:
    """The fold of each image [num], from 0 to 4: the same wherever the index [num] is the same; equally large."""
    images, position = np.unique(index, return_inverse=True)
    return np.random.default_rng(0).permutation(len(images))[position] % NUM_FOLDS


def fit_and_score(fit: Callable[[np.ndarray], Mixture | Kernel], codes: np.ndarray, folds: np.ndarray,
                  scored: dict[str, np.ndarray], scored_folds: np.ndarray, progress: Progress = silent
                  ) -> dict[str, np.ndarray]:
    """Log densities of codes under fits that have not seen their images.

    Args:
        fit: training codes [n, d] -> the prior fitted to them.
        codes: [N, d], training codes to fit to.
        folds: [N], the fold of each.
        scored: codes to score, {"train" and, where there are any, "test": [n, d]}.
        scored_folds: [n], the fold of each training code that is scored.
        progress: called as `progress(folds, desc=...)`, as `tqdm.tqdm` is.

    Returns:
        [n] nats each: of "train", by the fit without the code's fold; of others, the mean over the fits.
    """
    found = {name: np.zeros(len(values)) for name, values in scored.items()}
    for fold in progress(range(NUM_FOLDS), desc="refitted prior"):
        fitted = fit(codes[folds != fold])
        for name, values in scored.items():
            if name == "train":
                rows = np.flatnonzero(scored_folds == fold)
                found[name][rows] = fitted.log_density(values[rows])
            else:
                found[name] += fitted.log_density(values) / NUM_FOLDS
    return found


def fit_mixture(codes: np.ndarray, num_components: int = NUM_COMPONENTS, seed: int = 0) -> Mixture:
    """The mixture of diagonal Gaussians of highest likelihood that EM finds from a spread-out start.

    Args:
        codes: [n, d].
        num_components: Gaussians; n or fewer.
        seed: of the start.
    """
    codes = np.asarray(codes, np.float64)
    centre, spread = codes.mean(0), _spread(codes)
    codes = (codes - centre) / spread
    starts = _spread_out(codes, num_components, np.random.default_rng(seed))
    mixture = Mixture(np.full(num_components, 1 / num_components), codes[starts], np.ones_like(codes[starts]))
    last = -math.inf
    for _ in range(MAX_ITERATIONS):
        log_joint = mixture.log_joint(codes)
        log_density = np.logaddexp.reduce(log_joint, axis=1)
        shares = np.exp(log_joint - log_density[:, None])
        counts = shares.sum(0) + 1e-9  # a component that has lost all its codes stays finite
        means = shares.T @ codes / counts[:, None]
        variances = shares.T @ np.square(codes) / counts[:, None] - np.square(means)
        mixture = Mixture(counts / counts.sum(), means, np.sqrt(np.maximum(variances, LEAST_SCALE**2)))
        if log_density.mean() - last < TOLERANCE:
            break
        last = log_density.mean()
    return Mixture(mixture.weights, mixture.means * spread + centre, mixture.stddevs * spread)


def fit_kernel(codes: np.ndarray) -> Kernel:
    """The kernel whose bandwidth gives codes [n, d] the highest likelihood when each is left out of its own density."""
    from scipy.optimize import minimize_scalar
    from scipy.spatial.distance import cdist
    codes, spread = np.asarray(codes), _spread(np.asarray(codes, np.float64))
    chosen = np.sort(np.random.default_rng(0).permutation(len(codes))[:LEFT_OUT])
    squares = cdist(codes[chosen] / spread, codes / spread, "sqeuclidean").astype(np.float32)
    squares[np.arange(len(chosen)), chosen] = np.inf  # left out

    def negative_log_likelihood(log_bandwidth: float) -> float:
        logs = squares * np.float32(-0.5 * math.exp(-2 * log_bandwidth))
        largest = logs.max(1, keepdims=True)
        sums = np.exp(logs - largest).sum(1, dtype=np.float64)
        return float(codes.shape[1] * log_bandwidth - (np.log(sums) + largest[:, 0]).mean())

    grid = np.log(BANDWIDTHS)
    best = int(np.argmin([negative_log_likelihood(log_bandwidth) for log_bandwidth in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 0.01})
    bandwidth = math.exp(found.x)
    return Kernel(codes, (bandwidth * spread).astype(codes.dtype))


def _spread(codes: np.ndarray) -> np.ndarray:
    """Standard deviation of each dimension [d]; 1 for one that does not vary."""
    spread = codes.std(0)
    return np.where(spread > 0, spread, 1.0)


def _spread_out(codes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of codes far from each other: each drawn in proportion to its squared distance from those before."""
    rows = [int(rng.integers(len(codes)))]
    squares = np.square(codes - codes[rows[0]]).sum(1)
    while len(rows) < count:
        total = squares.sum()
        rows.append(int(rng.choice(len(codes), p=squares / total if total > 0 else None)))
        squares = np.minimum(squares, np.square(codes - codes[rows[-1]]).sum(1))
    return np.array(rows)
