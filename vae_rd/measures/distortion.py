"""Distortion and one-sample rate over several posterior samples per image, and how much of their error is sampling.

    E_q[-log p(x|z)] ~ 1/K sum_k -log p(x|z_k),    E_q[log q(z|x) - log p(z)] likewise,    z_k ~ q(z|x)

The distortion of a run is the mean over its images of ONE sample each, the same sample in every restart: its sampling
error is in no error bar over restarts. Here it is measured. With the values v_ik of image i and sample k,

    s_i^2 = Var_k v_ik,    Var_i mean_k v_ik = Var_i E_q v_i + mean_i s_i^2 / K

so the part of the squared standard error that is due to sampling is mean_i s_i^2 / K over the left-hand side.

Distortions of different likelihoods are not comparable, as they are densities of different kinds; squared errors are.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import (
    STANDARD_ERROR,
    Measure,
    Outcome,
    Settings,
    estimate,
    means_with_errors,
    query_images,
    setting,
)

EXPECTED_DISTORTION, EXPECTED_RATE = "expected_distortion", "expected_rate"  # means over K samples per image
MEAN_SQUARED_ERROR = "mean_squared_error"  # over pixels and channels, at the run's own sample; compares likelihoods
SAMPLING_SHARE = "_sampling_share"  # suffix: share of the squared standard error over images that is due to sampling
ONE_SAMPLE_ERROR = "_one_sample_se"  # suffix: error by sampling alone of the mean over all images of one sample each
SAMPLING_STD = "_sampling_std"  # suffix, per image: standard deviation over its samples


@dataclasses.dataclass(frozen=True)
class DistortionSettings(Settings):
    """What a user may choose."""

    query_images: int | None = query_images(None)
    posterior_samples: int = setting(8, "posterior samples per image of the distortion", least=2)


class Sampled(NamedTuple):
    """Values of a quantity at several posterior samples per image, reduced."""

    mean: np.ndarray  # [n], over the samples
    std: np.ndarray  # [n], over the samples (ddof=1)
    num_samples: int

    @property
    def standard_error(self) -> float:
        """Of the mean over the images: spread between images and sampling together."""
        return estimate(self.mean).standard_error

    @property
    def sampling_share(self) -> float:
        """The share of sampling in the squared standard error; up to noise between 0 and 1; NaN if nothing varies."""
        error = self.standard_error
        return self.sampling_error(len(self.mean), self.num_samples)**2 / error**2 if error else math.nan

    def sampling_error(self, num_images: int, num_samples: int = 1) -> float:
        """Standard error, by sampling alone, of a mean over this many images with this many samples each."""
        return float(np.sqrt(np.square(self.std).mean() / (num_images * num_samples)))


def reduced(values: np.ndarray) -> Sampled:
    """Mean and spread over the samples of values [samples, n]."""
    values = np.asarray(values, np.float64)
    return Sampled(values.mean(0), values.std(0, ddof=1), len(values))


def measure(run: FinishedRun, settings: DistortionSettings) -> Outcome:
    """Both quantities at the run's own sample of every image and at further ones; squared error at its own."""
    scalars: dict[str, dict[str, float]] = {}
    per_example = {}
    for name in run.partitions:
        rows = run.rows(name, settings.query_images)
        distortions, rates = [], []
        for sample in run.progress(range(settings.posterior_samples), desc="posterior samples"):
            codes = run.codes(name, sample, rows)
            distortions.append(-run.log_likelihood(name, rows, codes))
            rates.append(run.log_posterior(name, sample, rows) - run.log_prior(name, rows, codes))
        scalars[name] = {}
        values: dict[str, np.ndarray] = {}
        for quantity, samples in ((EXPECTED_DISTORTION, distortions), (EXPECTED_RATE, rates)):
            found = reduced(np.array(samples))
            scalars[name] |= {
                quantity: float(found.mean.mean()), quantity + STANDARD_ERROR: found.standard_error,
                quantity + SAMPLING_SHARE: found.sampling_share,
                quantity + ONE_SAMPLE_ERROR: found.sampling_error(len(run.partition(name).index))}
            values |= {quantity: found.mean, quantity + SAMPLING_STD: found.std}
        values[MEAN_SQUARED_ERROR] = run.squared_errors(name, rows, run.codes(name, rows=rows))
        scalars[name] |= means_with_errors(**{MEAN_SQUARED_ERROR: values[MEAN_SQUARED_ERROR]})
        per_example[name] = run.spread(name, rows, **values)
    return Outcome(scalars, per_example)


MEASURE = Measure(
    "distortion", measure, "distortion and one-sample rate over several posterior samples per image, with the error "
    "that sampling brings (a minute for 30k images and 1 layer, or 10k and 3 convolutional ones)", DistortionSettings,
    (f"test/{EXPECTED_DISTORTION}",))
