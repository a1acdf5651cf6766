"""Which part of the generalisation gap is the encoder's, and which the decoder's: posteriors refined image by image.

With the decoder and the prior as they are, the mean and the log scale of each image's posterior are improved by
gradient steps on the run's own objective (after Zhang et al. 2022, the generalisation gap of amortised inference):

    amortised objective >= refined objective ~ a minimum over (mean, scale) of E_q[distortion] + beta * rate
    objective gap (test - train) = [amortisation gap, test - train] + [refined objective, test - train]

The minimum is the local one near the encoder's posterior, approached from above in finitely many steps: what they miss
counts in the second part. The first part is the encoder's: by how much further it is from the best diagonal Gaussian on
test images than on training images. The second remains with the best diagonal Gaussian of every image: it is the gap of
the decoder and the prior, with that of the Gaussian approximation, which this measure cannot tell from theirs.

Each step draws fresh noise, as a pair of codes on both sides of the mean: with the same noise at every step, mean and
scale would be fitted to it. Two further sets of noise are apart from those of the steps. One chooses, image by image,
between the refined and the amortised posterior, so that refining never loses on it; the other gives the numbers
reported, before and after.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import STANDARD_ERROR, Measure, Outcome, Settings, means_with_errors, query_images, setting

AMORTISED, REFINED = "amortised_", "refined_"  # before objective, rate and distortion
AMORTISATION_GAP = "amortisation_gap"  # amortised less refined objective
GAP, GAP_ENCODER, GAP_DECODER = "objective_gap", "objective_gap_encoder", "objective_gap_decoder"  # test less train

IMAGES_PER_BLOCK = 256
NUM_CODES = 64  # per image, of each of the two sets of noise that do not move the posterior
# Adam's step sizes. At small beta a posterior is a thousandth as wide as the codes are spread, and the best one may lie
# hundreds of its standard deviations away: means move by steps of the spread at first and of the posterior at last.
MEAN_STEP, LOG_SCALE_STEP = 0.1, 0.3
DECAY = 2  # both also fall as (1 - step / steps)**DECAY
MOMENTUM, SECOND_MOMENTUM, EPSILON = 0.9, 0.99, 1e-8  # Adam's; 200 steps are too few for the usual 0.999


class Gaussians(NamedTuple):
    """Diagonal Gaussians, one per image."""

    means: np.ndarray  # [n, latent_dim]
    log_scales: np.ndarray  # [n, latent_dim]


class Values(NamedTuple):
    """Means over the codes of each image, nats."""

    objective: np.ndarray  # [n] float64
    rate: np.ndarray  # [n] float64
    distortion: np.ndarray  # [n] float64


class Refined(NamedTuple):
    """What refining does to some images."""

    posteriors: Gaussians  # of each image, the better of the amortised and the refined one
    choosing: tuple[Values, Values]  # amortised and better ones, on the noise by which they were chosen
    reported: tuple[Values, Values]  # the same on noise that neither moved nor chose them


@dataclasses.dataclass(frozen=True)
class RefinementSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(200)
    refinement_steps: int = setting(200, "gradient steps on the posterior of each image")


def measure(run: FinishedRun, settings: RefinementSettings) -> Outcome:
    """Objective, rate and distortion before and after, and the two parts of the objective's gap.

    Raises:
        ValueError: if the objective of an image depends on the images beside it.
    """
    if run.config.rate_terms != "both":
        raise ValueError(f"rate_terms must be both (got {run.config.rate_terms}): else an image's objective depends on "
                         "the others of its batch, and no image has a best posterior of its own.")
    refiner = Refiner(run.prior_of(), run.vae.likelihood, run.config.beta, settings.refinement_steps,
                      run.posteriors("train").means.std(0))
    scalars: dict[str, dict[str, float]] = {}
    per_example = {}
    for name in run.partitions:
        rows, found = run.rows(name, settings.query_images), []
        means, stddevs = run.posteriors(name, rows)
        keys, images = run.partition(name).index[rows], run.images(name, rows)
        for start in run.progress(range(0, len(rows), IMAGES_PER_BLOCK), desc="refinement"):
            block = slice(start, start + IMAGES_PER_BLOCK)
            before = Gaussians(means[block], np.log(stddevs[block]))
            found.append(refiner.refine(images[block], keys[block], before).reported)
        values = {}
        for prefix, parts in zip((AMORTISED, REFINED), zip(*found)):
            for quantity, blocks in zip(Values._fields, zip(*parts)):
                values[prefix + quantity] = np.concatenate(blocks)
        gained = values[AMORTISED + "objective"] - values[REFINED + "objective"]
        scalars[name] = means_with_errors(**values, **{AMORTISATION_GAP: gained})
        per_example[name] = run.spread(name, rows, **values)
    if {"train", "test"} <= set(scalars):
        scalars["run"] = gap_parts(scalars["train"], scalars["test"])
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "refinement", measure, "the best posterior of each image for the decoder as it is, and which part of the gap "
    "between test and train is the encoder's (half a minute for 1 layer, 2 minutes for 3 convolutional ones)",
    RefinementSettings,
    (f"test/{REFINED}objective", f"run/{GAP_ENCODER}", f"run/{GAP_DECODER}"), version=2)  # the first: fine steps only


def gap_parts(train: dict[str, float], test: dict[str, float]) -> dict[str, float]:
    """The gap in the objective and its two parts, with standard errors: those of test and train are independent."""
    names = {GAP: AMORTISED + "objective", GAP_ENCODER: AMORTISATION_GAP, GAP_DECODER: REFINED + "objective"}
    parts = {}
    for part, name in names.items():
        parts[part] = test[name] - train[name]
        parts[part + STANDARD_ERROR] = math.hypot(test[name + STANDARD_ERROR], train[name + STANDARD_ERROR])
    return parts


class Refiner:
    """Refines posteriors under one decoder; its graphs are made once.

    Args:
        prior: images [n, ...] -> `tfd` object over their codes.
        likelihood: codes [..., latent_dim] -> `tfd` object over images.
        beta: weight of the rate.
        num_steps: of Adam.
        spread: standard deviation [latent_dim] of the codes' means over images: how far a mean may have to go.
    """

    def __init__(self, prior: Callable[[Any], Any], likelihood: Callable[[Any], Any], beta: float,
                 num_steps: int, spread: np.ndarray) -> None:
        self._terms, self._step = _compiled(prior, likelihood, beta)
        self._num_steps, self._spread = num_steps, spread

    def refine(self, images: np.ndarray, keys: np.ndarray, amortised: Gaussians) -> Refined:
        """Improves the posterior of each image, independently of the others.

        Args:
            images: [n, ...] float, as `likelihood(codes).log_prob` takes them.
            keys: [n] whole numbers; the noise of an image depends on its key alone.
            amortised: the posteriors to start from.
        """
        moving, choosing, reporting = _noise(keys, amortised.means, self._num_steps)
        moved = self._moved(images, amortised, moving)
        before, after = (self.terms(images, posteriors, choosing) for posteriors in (amortised, moved))
        better = after.objective < before.objective
        kept = Gaussians(*(np.where(better[:, None], new, old) for new, old in zip(moved, amortised)))
        chosen = Values(*(np.where(better, new, old) for new, old in zip(after, before)))
        return Refined(kept, (before, chosen), (self.terms(images, amortised, reporting),
                                                self.terms(images, kept, reporting)))

    def terms(self, images: np.ndarray, posteriors: Gaussians, noise: np.ndarray) -> Values:
        """Objective, rate and distortion of each image over noise [pairs, n, latent_dim] and its opposite."""
        import tensorflow as tf
        arrays = [tf.constant(values) for values in (images, *posteriors)]
        return Values(*np.mean([[part.numpy().astype(np.float64) for part in self._terms(*arrays, tf.constant(pair))]
                               for pair in noise], axis=0))

    def _moved(self, images: np.ndarray, amortised: Gaussians, noise: np.ndarray) -> Gaussians:
        import tensorflow as tf
        images, fine = tf.constant(images), np.exp(amortised.log_scales)
        coarse = np.maximum(fine, self._spread)
        state = tf.stack([amortised, *np.zeros([2, 2, *fine.shape], fine.dtype)])  # Adam's position and moments
        for number, pair in enumerate(noise):
            done = number / len(noise)
            sizes = [MEAN_STEP * coarse**(1 - done) * fine**done, np.full_like(fine, LOG_SCALE_STEP)]
            state = self._step(images, state, tf.constant(pair), tf.constant((1 - done)**DECAY * np.stack(sizes)),
                               tf.constant(number + 1, state.dtype))
        return Gaussians(*state[0].numpy())


def _noise(keys: np.ndarray, means: np.ndarray, num_steps: int) -> list[np.ndarray]:
    """Noise to move, to choose and to report by: [num_steps or pairs, n, latent_dim] each."""
    pairs = NUM_CODES // 2
    drawn = np.stack([np.random.default_rng([1, int(key)]).standard_normal((2 * pairs + num_steps, means.shape[1]))
                      for key in keys], axis=1).astype(means.dtype)
    choosing, reporting, moving = np.split(drawn, [pairs, 2 * pairs])
    return [moving, choosing, reporting]


def _compiled(prior: Callable[[Any], Any], likelihood: Callable[[Any], Any], beta: float) -> tuple[Any, Any]:
    """The terms of each image at a pair of codes, and a step of Adam on the objective."""
    import tensorflow as tf
    from tensorflow_probability import distributions as tfd

    from vae_rd.model import vae

    def terms(images, means, log_scales, noise):
        scales = tf.exp(log_scales)
        posterior = tfd.Independent(tfd.Normal(means, scales), 1)
        pair = tf.stack([noise, -noise])
        codes = means + scales * pair
        distortion = -tf.reduce_mean(likelihood(codes).log_prob(images), 0)
        log_density = vae.log_posterior(posterior, pair)
        rate = vae.kl_divergence(posterior, prior(images), codes, log_density)  # [n] in closed form, else [2, n]
        rate = tf.reduce_mean(tf.reshape(rate, [-1, tf.shape(means)[0]]), 0)
        return vae.objective(distortion, rate, tf.cast(beta, rate.dtype)), rate, distortion

    def step(images, state, noise, sizes, number):
        position, first, second = tf.unstack(state)
        with tf.GradientTape() as tape:
            tape.watch(position)
            means, log_scales = tf.unstack(position)
            objective, _, _ = terms(images, means, log_scales, noise)
        gradient = tape.gradient(objective, position)
        first = MOMENTUM * first + (1 - MOMENTUM) * gradient
        second = SECOND_MOMENTUM * second + (1 - SECOND_MOMENTUM) * tf.square(gradient)
        scale = tf.sqrt(second / (1 - SECOND_MOMENTUM**number)) + EPSILON
        return tf.stack([position - sizes * first / (1 - MOMENTUM**number) / scale, first, second])

    return tf.function(terms, autograph=False), tf.function(step, autograph=False)
