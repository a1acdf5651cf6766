"""log p(x) by annealed importance sampling from the prior, and the bidirectional check of its accuracy.

    log p(x) ~ log mean_c exp(w_c),    w = sum_i (t_i - t_(i-1)) log p(x|z_i),    z_i: one HMC step at p(z) p(x|z)^t_i

No encoder is involved in the numbers. On images simulated from the model an exact posterior sample is known, and chains
that run backwards from it bound log p(x) from above (Grosse et al. 2015): the two bounds enclose the truth.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from vae_rd.measures import log_marginal
from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, means_with_errors, query_images, setting
from vae_rd.measures.progress import Progress, silent

NUM_STAGES = 16  # temperatures between two stages are evenly spaced; step sizes are tuned for each stage
FIRST_TEMPERATURE = 1e-4  # below it temperatures rise evenly, above it by a constant factor: errors of 0.3 nats where
#   the sigmoid schedule of Wu et al. 2017 gave 1.3 (4-d, posterior scale 0.01, 500 steps, 16 chains)
NUM_LEAPFROG_STEPS = 5
TARGET_ACCEPTANCE = 0.8
NUM_PILOT_CHAINS = 4
CHAINS_PER_BLOCK = 256  # chains, over images, that run at a time

SEEDS = {"test": 0, "train": 1}  # of the chains: they differ, so that the errors of a gap are independent

LOG_PX_AIS = "log_px_ais"  # mean over the images
BIDIRECTIONAL_GAP = "bidirectional_gap"  # mean over simulated images; how far LOG_PX_AIS lies too low, at most


class Annealed(NamedTuple):
    """Annealed estimates of log p(x), one per image."""

    log_px: np.ndarray  # [n], stochastic lower bound
    ess: np.ndarray  # [n], effective number of chains
    acceptance: np.ndarray  # [n], share of HMC proposals accepted, over the last steps of the stages


class Bidirectional(NamedTuple):
    """Bounds on log p(x) of simulated images, one per image."""

    lower: np.ndarray  # [n], chains from the prior to the posterior
    upper: np.ndarray  # [n], chains from the exact posterior sample back to the prior

    @property
    def gap(self) -> np.ndarray:
        """How far the truth can be from either bound, up to noise: [n] nats."""
        return self.upper - self.lower


class _Path(NamedTuple):
    """What a run along the path left behind."""

    codes: np.ndarray  # [chains, n, d]
    log_weights: np.ndarray  # [chains, n]
    step_sizes: np.ndarray  # [stages, n]
    acceptance: np.ndarray  # [n]


@dataclasses.dataclass(frozen=True)
class AnnealedSettings(log_marginal.LogMarginalSettings):
    """What a user may choose; those of importance sampling too, which is compared on the same images."""

    query_images: int | None = query_images(16)
    ais_chains: int = setting(16, "annealed chains per image")
    ais_steps: int = setting(250, "HMC steps of each annealed chain", least=NUM_STAGES)


def measure(run: FinishedRun, settings: AnnealedSettings) -> Outcome:
    """Annealed log p(x) of each partition, how far importance sampling lies below it, and the bidirectional gap."""
    vae = run.vae
    chains: dict[str, Any] = dict(num_chains=settings.ais_chains, num_steps=settings.ais_steps,
                                  progress=run.progress)
    scalars, per_example = {}, {}
    for name in run.partitions:
        rows = run.rows(name, settings.query_images)
        found = annealed_log_marginal(run.images(name, rows), vae.prior(), vae.likelihood,
                                      run.posteriors(name, rows).stddevs, seed=SEEDS[name], **chains)
        importance = log_marginal.importance_bound(log_marginal.weights_of(run, name, rows, settings))
        scalars[name] = {**means_with_errors(**{LOG_PX_AIS: found.log_px}, ais_excess=found.log_px - importance),
                         "ais_ess": float(np.median(found.ess)), "ais_acceptance": float(found.acceptance.mean())}
        per_example[name] = run.spread(name, rows, **{LOG_PX_AIS: found.log_px})
    check = bidirectional_check(vae.prior(), lambda images: run.encode(images).stddevs, vae.likelihood,
                                len(run.rows("test", settings.query_images)), **chains)
    scalars["run"] = {BIDIRECTIONAL_GAP: float(check.gap.mean()), f"{BIDIRECTIONAL_GAP}_max": float(check.gap.max())}
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "annealed", measure, "log p(x) of training and test images by annealed importance sampling, with the bidirectional "
    "check (8 to 60 s per image)", AnnealedSettings, (f"test/{LOG_PX_AIS}",), version=2)  # the first: test images only


def annealed_log_marginal(images: np.ndarray, prior: Any, likelihood: Callable[[Any], Any], scales: np.ndarray, *,
                          num_chains: int = 16, num_steps: int = 250, seed: int = 0, progress: Progress = silent
                          ) -> Annealed:
    """Annealed importance sampling from the prior to the posterior of each image.

    Args:
        images: [n, ...] float, as `likelihood(codes).log_prob` takes them.
        prior: `tfd` object over codes.
        likelihood: codes [..., d] -> `tfd` object over images.
        scales: [n, d], a guess at the standard deviations of the true posterior: HMC steps are proportional to them. It
            changes how well the chains move, never what they estimate.
        num_chains: independent chains per image.
        num_steps: HMC steps of each chain, each of 5 leapfrog steps.
        seed: of all chains.
        progress: called as `progress(blocks, desc=...)`, as `tqdm.tqdm` is.
    """
    steps = _Steps(prior, likelihood, num_steps)
    parts = []
    for rows, rng in _image_blocks(len(images), num_chains, seed, "annealing", progress):
        forward = steps.forward(images[rows], scales[rows], num_chains, rng)
        weights = forward.log_weights.T
        parts.append(Annealed(log_marginal.importance_bound(weights), log_marginal.effective_sample_size(weights),
                              forward.acceptance))
    return Annealed(*(np.concatenate(values) for values in zip(*parts)))


def bidirectional_check(prior: Any, posterior_scales: Callable[[np.ndarray], np.ndarray],
                        likelihood: Callable[[Any], Any], num_images: int, *, num_chains: int = 16,
                        num_steps: int = 250, seed: int = 0, progress: Progress = silent) -> Bidirectional:
    """Encloses log p(x) of images that the model simulates, which differ from the data: Bernoulli pixels are binary.

    Args:
        prior, likelihood: as in `annealed_log_marginal`.
        posterior_scales: images -> scales [n, d], as in `annealed_log_marginal`.
        num_images: images to simulate.
        num_chains, num_steps, seed, progress: as in `annealed_log_marginal`.
    """
    codes, images = simulate(prior, likelihood, num_images, seed)
    scales = posterior_scales(images)
    steps = _Steps(prior, likelihood, num_steps)
    parts = []
    for rows, rng in _image_blocks(num_images, num_chains, seed, "bidirectional check", progress):
        forward = steps.forward(images[rows], scales[rows], num_chains, rng)
        backward = steps.run(images[rows], scales[rows], np.repeat(codes[None, rows], num_chains, 0),
                             forward.step_sizes, rng, backward=True)
        parts.append((log_marginal.importance_bound(forward.log_weights.T),
                      -log_marginal.importance_bound(backward.log_weights.T)))
    return Bidirectional(*(np.concatenate(values) for values in zip(*parts)))


def simulate(prior: Any, likelihood: Callable[[Any], Any], num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, d] from the prior and images [n, ...] from the likelihood of each."""
    codes = prior.sample(num_images, seed=[seed, 0])
    images = likelihood(codes).sample(seed=[seed, 1]).numpy()
    return codes.numpy(), images.astype(codes.numpy().dtype)


def temperatures() -> np.ndarray:
    """The ends of the stages, [NUM_STAGES + 1] from 0 to 1: densest where the likelihood begins to tell."""
    return np.expm1(-np.log(FIRST_TEMPERATURE) * np.linspace(0, 1, NUM_STAGES + 1)) / (1 / FIRST_TEMPERATURE - 1)


class _Steps:
    """Runs chains along the path of one model; the graphs of its stages are made once."""

    def __init__(self, prior: Any, likelihood: Callable[[Any], Any], num_steps: int) -> None:
        if num_steps < NUM_STAGES:
            raise ValueError(f"num_steps must be {NUM_STAGES} or more: one for each stage of the path (got "
                             f"{num_steps}).")
        self._prior, self._sizes = prior, np.diff(np.linspace(0, num_steps, NUM_STAGES + 1).astype(int))
        self._stage = _stage_function(prior, likelihood)

    def forward(self, images: np.ndarray, scales: np.ndarray, num_chains: int, rng: np.random.Generator) -> _Path:
        """Chains from the prior, after pilot chains have tuned the step sizes (so that the weights stay unbiased)."""
        start = self._prior.sample([NUM_PILOT_CHAINS + num_chains, len(images)], seed=_draw(rng)).numpy()
        tuned = self.run(images, scales, start[:NUM_PILOT_CHAINS], None, rng).step_sizes
        return self.run(images, scales, start[NUM_PILOT_CHAINS:], tuned, rng)

    def run(self, images: np.ndarray, scales: np.ndarray, codes: np.ndarray, step_sizes: np.ndarray | None,
            rng: np.random.Generator, backward: bool = False) -> _Path:
        """Chains through all stages; with no step sizes given they are tuned on the way."""
        ends = temperatures()
        log_weights, acceptance, used = 0.0, 0.0, np.zeros((NUM_STAGES, len(images)), codes.dtype)
        size = np.full(len(images), 0.5, codes.dtype)
        for stage in reversed(range(NUM_STAGES)) if backward else range(NUM_STAGES):
            start, end = (ends[stage + 1], ends[stage]) if backward else (ends[stage], ends[stage + 1])
            widths = 1 / np.sqrt(1 + ends[stage + 1] * (1 / np.minimum(scales, 1)**2 - 1))
            size = size if step_sizes is None else step_sizes[stage]
            arrays = (np.asarray(values, codes.dtype) for values in (images, codes, widths, size, start, end))
            codes, added, accepted, size = (values.numpy() for values in self._stage(
                *arrays, np.asarray(self._sizes[stage], np.int32), _draw(rng), tune=step_sizes is None))
            log_weights, acceptance, used[stage] = log_weights + added, acceptance + accepted / NUM_STAGES, size
        return _Path(codes, np.asarray(log_weights, np.float64), used, np.asarray(acceptance))


def _kernel_class() -> type:
    """HMC that evaluates its target anew at each temperature.

    TFP's annealing hands the kernel the target's value at the LAST temperature, so proposals are accepted by a wrong
    ratio: -3.7 nats on average, with chains that never move again, where this one loses 0.4 (100 steps, 4-d
    linear-Gaussian model).
    """
    import tensorflow_probability as tfp

    class FreshHMC(tfp.mcmc.HamiltonianMonteCarlo):
        """HMC whose acceptance ratio compares both states at the same temperature."""

        def one_step(self, current_state, previous_kernel_results, seed=None):
            fresh = self.bootstrap_results(current_state).accepted_results
            fresh = fresh._replace(step_size=previous_kernel_results.accepted_results.step_size)
            return super().one_step(current_state, previous_kernel_results._replace(accepted_results=fresh), seed=seed)

    return FreshHMC


def _stage_function(prior, likelihood):
    """Compiled chains through one stage of the path."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    kernel_class = _kernel_class()

    def stage(images, codes, widths, size, start, end, num_steps, seed, tune):
        shared = []  # TFP evaluates both ends of the stage at each point, one right after the other: decode once

        def at_start(scaled):
            log_prior, log_likelihood = prior.log_prob(scaled * widths), likelihood(scaled * widths).log_prob(images)
            shared.append((log_prior, log_likelihood))
            return log_prior + start * log_likelihood

        def at_end(scaled):
            log_prior, log_likelihood = shared.pop()
            return log_prior + end * log_likelihood

        def kernel(log_prob):
            step_size = size[:, None]  # [n, 1]: one for each image, in units of `widths`
            hmc = kernel_class(log_prob, step_size, NUM_LEAPFROG_STEPS, store_parameters_in_results=True)
            if not tune:
                return hmc
            return tfp.mcmc.SimpleStepSizeAdaptation(hmc, num_adaptation_steps=2**30, adaptation_rate=0.05,
                                                     target_accept_prob=TARGET_ACCEPTANCE)

        scaled, log_weights, results = tfp.mcmc.sample_annealed_importance_chain(
            num_steps, at_start, at_end, codes / widths, kernel, seed=seed)
        results = results.inner_results
        size_now = results.new_step_size[:, 0] if tune else size
        log_ratio = (results.inner_results if tune else results).log_accept_ratio
        return scaled * widths, log_weights, tf.reduce_mean(tf.exp(tf.minimum(log_ratio, 0)), 0), size_now

    compiled = tf.function(stage, autograph=False)
    return lambda *arrays, tune: compiled(*(tf.constant(array) for array in arrays), tune)  # Python numbers retrace


def _image_blocks(num_images: int, num_chains: int, seed: int, name: str, progress: Progress
                  ) -> Iterable[tuple[slice, np.random.Generator]]:
    size = max(1, CHAINS_PER_BLOCK // num_chains)
    for start in progress(range(0, num_images, size), desc=name):
        yield slice(start, start + size), np.random.default_rng([seed, start])


def _draw(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(2**31, size=2, dtype=np.int32)
