"""Several posterior samples per image: means, spread and the share of sampling against closed forms."""

import numpy as np
import pytest

from tests.measures.exact_run import ExactRun
from vae_rd.measures import distortion
from vae_rd.storage import runs

SAMPLES, IMAGES = 200, 300


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A run whose encoder is half as wide as the posterior: what is measured is the encoder's, not the model's."""
    return ExactRun.of(runs.RunDir(tmp_path_factory.mktemp("exact")), narrow=0.5, num_images=IMAGES)


@pytest.fixture(scope="module")
def outcome(exact):
    """The measure with many samples."""
    return distortion.measure(exact, distortion.DistortionSettings(posterior_samples=SAMPLES))


def _moments(exact, partition):
    """Mean and variance over z ~ q(z|x) of distortion and one-sample rate, [images] each, by algebra.

    With z = m + s e, e ~ N(0, I): -log p(x|z) = const + |r - e G|^2 / (2 noise^2), G = diag(s) W, and the rate of a
    dimension is -log s - e^2 (1 - s^2) / 2 + m s e + m^2 / 2.
    """
    means, stddevs = exact.posteriors(partition)
    weights, noise = exact.model.weights, exact.model.noise
    residual = exact.flat(partition) - means @ weights - exact.model.offset
    scaled = stddevs[:, :, None] * weights  # [images, latent, pixels]
    products = scaled @ scaled.transpose(0, 2, 1) / noise**2
    linear = np.einsum("ikp,ip->ik", scaled, residual) / noise**2
    constant = 0.5 * residual.shape[1] * np.log(2 * np.pi * noise**2)
    yield (constant + 0.5 * np.square(residual).sum(1) / noise**2 + 0.5 * np.trace(products, axis1=1, axis2=2),
           0.5 * np.square(products).sum((1, 2)) + np.square(linear).sum(1))
    yield (0.5 * (means**2 + stddevs**2 - 1 - 2 * np.log(stddevs)).sum(1),
           (0.5 * np.square(1 - stddevs**2) + np.square(means * stddevs)).sum(1))


@pytest.mark.parametrize("partition", ["train", "test"])
@pytest.mark.parametrize("number, name", [(0, distortion.EXPECTED_DISTORTION), (1, distortion.EXPECTED_RATE)])
def test_means_and_errors_in_closed_form(exact, outcome, partition, number, name):
    mean, variance = list(_moments(exact, partition))[number]
    scalars, values = outcome.scalars[partition], outcome.per_example[partition]
    error = np.sqrt(variance / SAMPLES)
    assert np.abs((values[name] - mean) / error).max() < 6 and np.std((values[name] - mean) / error) < 1.2
    assert abs(scalars[name] - mean.mean()) < 4 * np.sqrt(variance.mean() / SAMPLES / IMAGES)
    spread = values[name + "_sampling_std"]
    assert np.square(spread).mean() == pytest.approx(variance.mean(), rel=0.05)
    assert np.abs(np.log(np.square(spread) / variance)).max() < 0.8, "each image has its own"
    between = mean.var(ddof=1)
    assert scalars[f"{name}_se"] == pytest.approx(np.sqrt((between + variance.mean() / SAMPLES) / IMAGES), rel=0.02)
    share = variance.mean() / SAMPLES / (between + variance.mean() / SAMPLES)
    assert scalars[f"{name}_sampling_share"] == pytest.approx(share, rel=0.06)
    assert scalars[f"{name}_one_sample_se"] == pytest.approx(np.sqrt(variance.mean() / IMAGES), rel=0.03)


def test_the_error_of_one_sample_is_that_of_repeated_evaluations(exact, outcome):
    """Means over all images of one sample each scatter as it says; the run's own is the first of them."""
    rows = np.arange(IMAGES)
    means = [-exact.log_likelihood("test", rows, exact.codes("test", sample)).mean() for sample in range(SAMPLES)]
    scalars = outcome.scalars["test"]
    assert np.std(means, ddof=1) == pytest.approx(scalars["expected_distortion_one_sample_se"], rel=0.15)
    assert np.mean(means) == pytest.approx(scalars["expected_distortion"], rel=1e-9)


@pytest.mark.parametrize("partition", ["train", "test"])
def test_squared_error_is_that_of_the_normal_likelihood(exact, outcome, partition):
    """distortion = pixels / 2 log(2 pi noise^2) + squared error / (2 noise^2), at the run's own sample."""
    noise, pixels = exact.model.noise, exact.flat(partition).shape[1]
    found = outcome.per_example[partition][distortion.MEAN_SQUARED_ERROR]
    own = -exact.log_likelihood(partition, np.arange(IMAGES), exact.codes(partition))
    np.testing.assert_allclose(0.5 * pixels * (np.log(2 * np.pi * noise**2) + found / noise**2), own, rtol=1e-9)
    assert outcome.scalars[partition]["mean_squared_error"] == pytest.approx(found.mean())
    assert outcome.scalars[partition]["mean_squared_error_se"] == pytest.approx(found.std(ddof=1) / np.sqrt(IMAGES))


def test_all_error_is_sampling_where_images_are_alike():
    values = np.random.default_rng(0).normal(size=(4, 20_000))
    found = distortion.reduced(values)
    assert found.sampling_share == pytest.approx(1, abs=0.05)
    assert np.isnan(distortion.reduced(np.ones((3, 5))).sampling_share)  # nothing varies
    assert found.standard_error == pytest.approx(0.5 / np.sqrt(20_000), rel=0.03)


def test_images_left_out_are_nan_and_the_error_is_for_all_images(exact):
    settings = distortion.DistortionSettings(query_images=50, posterior_samples=20)
    part = distortion.measure(exact, settings)
    assert np.isfinite(part.per_example["test"]["expected_distortion"]).sum() == 50
    spread = part.per_example["test"]["expected_distortion_sampling_std"]
    assert part.scalars["test"]["expected_distortion_one_sample_se"] == pytest.approx(
        np.sqrt(np.nanmean(np.square(spread)) / IMAGES))
