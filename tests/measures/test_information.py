"""Mutual information and marginal KL against closed forms, quadrature and the published wrong estimators."""

import dataclasses

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.measures.exact_run import ExactRun, ExactVae, exact_run  # noqa: F401  a fixture
from vae_rd.datasets import random_streams
from vae_rd.measures import information, measure


def _codes(rng, num_images, latent_dim, stddev, spread=1.0):
    means = (spread * rng.normal(size=(num_images, latent_dim))).astype(np.float32)
    stddevs = (stddev * np.exp(0.3 * rng.normal(size=means.shape))).astype(np.float32)
    return (means + stddevs * rng.normal(size=means.shape)).astype(np.float32), means, stddevs


def _mixture_by_scipy(codes, means, stddevs):
    logs = scipy.stats.norm.logpdf(codes[:, None].astype(float), means.astype(float), stddevs.astype(float)).sum(-1)
    return scipy.special.logsumexp(logs, axis=1) - np.log(len(means))


@pytest.mark.parametrize("stddev", [0.003, 0.1, 1.0])
def test_mixture_equals_scipy_at_every_scale(stddev):
    codes, means, stddevs = _codes(np.random.default_rng(0), 500, 10, stddev, spread=0.01)
    np.testing.assert_allclose(information.aggregate_log_density(codes, means, stddevs),
                               _mixture_by_scipy(codes, means, stddevs), atol=1e-4)


def test_matrix_product_shortcut_would_lose_the_density():
    """Negative control: the expanded square in float32 is wrong by far more than the tolerance that ours keeps."""
    codes, means, stddevs = _codes(np.random.default_rng(1), 300, 10, 0.003)
    precision = 1 / np.square(stddevs)
    squares = np.square(codes) @ precision.T - 2 * codes @ (means * precision).T + np.square(means * stddevs**-1).sum(1)
    logs = -0.5 * squares - np.log(stddevs).sum(1) - 5 * np.log(2 * np.pi)
    shortcut = scipy.special.logsumexp(logs, axis=1) - np.log(300)
    exact = _mixture_by_scipy(codes, means, stddevs)
    assert np.abs(shortcut - exact).max() > 0.1
    assert np.abs(information.aggregate_log_density(codes, means, stddevs) - exact).max() < 1e-3


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_last_block_of_any_size(monkeypatch, extra):
    monkeypatch.setattr(information, "MAX_BLOCK", 32)
    rng = np.random.default_rng(2)
    codes, means, stddevs = _codes(rng, 40, 3, 0.2)
    many = np.resize(codes, (64 + extra, 3))
    ours = information.aggregate_log_density(many, means, stddevs)
    assert ours.shape == (64 + extra,)
    np.testing.assert_allclose(ours, _mixture_by_scipy(many, means, stddevs), atol=1e-4)


def test_large_mixture_is_summed_accurately():
    """Equal components: whatever N, the mixture is the component itself."""
    codes = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
    components = np.zeros((200_000, 2), np.float32)
    ours = information.aggregate_log_density(codes, components, components + 1)
    np.testing.assert_allclose(ours, scipy.stats.norm.logpdf(codes.astype(float)).sum(-1), atol=1e-4)


def test_float64_inputs_are_computed_in_float64():
    codes, means, stddevs = (values.astype(np.float64) for values in _codes(np.random.default_rng(4), 50, 4, 0.01))
    np.testing.assert_allclose(information.aggregate_log_density(codes, means, stddevs),
                               _mixture_by_scipy(codes, means, stddevs), rtol=1e-12, atol=1e-11)


def test_reports_progress_by_block(monkeypatch):
    monkeypatch.setattr(information, "MAX_BLOCK", 8)
    seen = []
    codes, means, stddevs = _codes(np.random.default_rng(5), 20, 2, 0.2)
    information.aggregate_log_density(codes, means, stddevs,
                                      progress=lambda blocks, desc: seen.append((len(blocks), desc)) or blocks)
    assert seen == [(3, "aggregate posterior")]


@pytest.mark.parametrize("change, words", [
    (dict(means=np.zeros((4, 3))), "codes, means and stddevs must be .*got .2, 2., .4, 3. and .4, 2."),
    (dict(codes=np.full((2, 2), np.nan)), "codes must be finite .got 4 values"),
    (dict(stddevs=np.zeros((4, 2))), "above 0"),
    (dict(means=np.zeros((0, 2)), stddevs=np.ones((0, 2))), "N of 1 or more")])
def test_refuses_what_is_no_mixture(change, words):
    good = dict(codes=np.zeros((2, 2)), means=np.zeros((4, 2)), stddevs=np.ones((4, 2)))
    with pytest.raises(ValueError, match=words):
        information.aggregate_log_density(**good | change)


def _parts(codes, means, stddevs, log_prior):
    return information.Information(information.posterior_log_density(codes, means, stddevs),
                                   information.aggregate_log_density(codes, means, stddevs), log_prior)


def _log_standard_normal(codes):
    return scipy.stats.norm.logpdf(codes.astype(np.float64)).sum(-1)


def _within(values, truth, standard_errors=5, extra=0.0):
    mean, error = measure.estimate(values)
    assert abs(mean - truth) < standard_errors * error + extra, (mean, truth, error)


def test_linear_gaussian_vae_in_closed_form():
    """x ~ N(0, C), q(z|x) = N(Wx, S): rate, mutual information and marginal KL are known."""
    rng = np.random.default_rng(10)
    num_images, noise = 20_000, np.array([0.6, 0.9])
    weights = np.array([[0.8, 0.3, -0.2], [0.1, -0.5, 0.4]])
    means = (rng.normal(size=(num_images, 3)) @ weights.T).astype(np.float32)
    stddevs = np.tile(noise, (num_images, 1)).astype(np.float32)
    codes = (means + stddevs * rng.normal(size=means.shape)).astype(np.float32)
    marginal = weights @ weights.T + np.diag(noise**2)
    truth = 0.5 * np.linalg.slogdet(marginal)[1] - np.log(noise).sum()
    marginal_kl = 0.5 * (np.trace(marginal) - 2 - np.linalg.slogdet(marginal)[1])
    rate = 0.5 * (np.trace(marginal) - 2) - np.log(noise).sum()
    found = _parts(codes, means, stddevs, _log_standard_normal(codes))
    _within(found.mutual_information, truth, extra=2e-3)
    _within(found.marginal_kl, marginal_kl, extra=2e-3)
    _within(found.rate, rate)
    np.testing.assert_allclose(found.mutual_information + found.marginal_kl, found.rate, atol=1e-12)


def test_two_gaussians_by_quadrature():
    grid = np.linspace(-12, 12, 40_001)
    means, stddevs = np.array([[-1.0], [1.5]]), np.array([[0.5], [1.2]])
    densities = scipy.stats.norm.pdf(grid[:, None], means.T, stddevs.T)
    ratios = densities / densities.mean(1, keepdims=True)
    truth = np.trapezoid(scipy.special.xlogy(densities, ratios), grid, axis=0).mean()
    component = np.repeat([0, 1], 50_000)
    codes = means[component] + stddevs[component] * np.random.default_rng(11).normal(size=(100_000, 1))
    found = information.posterior_log_density(codes, means[component], stddevs[component]) \
        - information.aggregate_log_density(codes, means, stddevs)
    _within(found, truth)


def test_well_separated_codes_carry_log_n():
    rng = np.random.default_rng(12)
    means = 50 * rng.normal(size=(777, 10))
    found = _parts(means + 1e-3 * rng.normal(size=means.shape), means, np.full_like(means, 1e-3), np.zeros(777))
    np.testing.assert_allclose(found.mutual_information, np.log(777), atol=1e-5)


def test_collapsed_encoder_carries_nothing():
    codes = np.random.default_rng(13).normal(size=(500, 10)).astype(np.float32)
    found = _parts(codes, np.zeros_like(codes), np.ones_like(codes), _log_standard_normal(codes))
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-5)
    np.testing.assert_allclose(found.marginal_kl, 0, atol=1e-5)


def test_novelty_of_codes_far_from_all_training_codes():
    """A test code at distance r from the only training code: log q(z|x) - log q_train(z) grows as r^2 / 2."""
    codes = np.array([[0.0], [3.0]])
    novelty = information.posterior_log_density(codes, codes, np.ones((2, 1))) \
        - information.aggregate_log_density(codes, np.zeros((1, 1)), np.ones((1, 1)))
    np.testing.assert_allclose(novelty, [0, 4.5], atol=1e-6)


def test_responsibilities_are_bayes_rule():
    codes, means, stddevs = _codes(np.random.default_rng(14), 40, 3, 0.8)
    logs = scipy.stats.norm.logpdf(codes[:, None].astype(float), means, stddevs).sum(-1)
    np.testing.assert_allclose(information.responsibilities(codes, means, stddevs), scipy.special.softmax(logs, axis=1),
                               atol=1e-6)


def _minibatch_information(codes, means, stddevs, num_train, batch_size):
    return (information.posterior_log_density(codes, means, stddevs)
            - information.minibatch_log_density(codes, means, stddevs, num_train, batch_size)).mean()


def test_minibatch_estimate_is_esmaeilis_formula():
    """One batch of all images, by explicit loops."""
    codes, means, stddevs = _codes(np.random.default_rng(15), 6, 2, 0.9)
    densities = [[scipy.stats.norm.pdf(codes[b], means[c], stddevs[c]).prod() for c in range(6)] for b in range(6)]
    pairs = np.array(densities)
    truth = [pairs[b, b] / 100 + 99 / (100 * 5) * (pairs[b].sum() - pairs[b, b]) for b in range(6)]
    ours = information.minibatch_log_density(codes, means, stddevs, 100, 6)
    np.testing.assert_allclose(ours, np.log(truth), rtol=1e-5)


def test_minibatch_density_is_unbiased_and_its_logarithm_is_not():
    codes, means, stddevs = _codes(np.random.default_rng(16), 60, 2, 0.5)
    drawn = np.stack([information.minibatch_log_density(codes, means, stddevs, 60, 10, seed) for seed in range(400)])
    exact = information.aggregate_log_density(codes, means, stddevs)
    np.testing.assert_allclose((np.exp(drawn).mean(0) / np.exp(exact)).mean(), 1, atol=0.02)
    assert drawn.mean() < exact.mean() - 0.05


@pytest.mark.parametrize("num_images", [15, 16, 17, 33])
def test_last_minibatch_is_filled_up(num_images):
    codes, means, stddevs = _codes(np.random.default_rng(17), num_images, 2, 0.5)
    logs = information.minibatch_log_density(codes, means, stddevs, num_images, 16)
    order = np.random.default_rng(0).permutation(num_images)  # the last batch takes further images from the front
    for place, image in enumerate(order):
        start = place // 16 * 16
        batch = np.roll(order, -start)[:16]
        pairs = information.posterior_log_density(codes[image], means[batch], stddevs[batch])
        weights = np.where(batch == image, 1 / num_images, (num_images - 1) / num_images / (len(batch) - 1))
        expected = scipy.special.logsumexp(pairs, b=weights)
        assert logs[image] == pytest.approx(expected, rel=1e-5), (place, num_images)


def test_caps_of_the_estimators():
    """Separated codes: ours reaches log N; a plain batch mean and the published stratified weights stop at log B."""
    rng = np.random.default_rng(18)
    batch, num_train = 64, 1000
    means = 50 * rng.normal(size=(num_train, 4))
    codes, stddevs = means + 1e-2 * rng.normal(size=means.shape), np.full_like(means, 1e-2)
    assert _minibatch_information(codes, means, stddevs, num_train, batch) == pytest.approx(np.log(num_train), abs=1e-6)
    own = information.posterior_log_density(codes, means, stddevs)[:batch]
    pairs = information.posterior_log_density(codes[:batch, None], means[None, :batch], stddevs[None, :batch])
    plain = own - (scipy.special.logsumexp(pairs, axis=1) - np.log(batch))
    stratified = own - scipy.special.logsumexp(pairs + np.log(_published_weights(batch, num_train)), axis=1)
    np.testing.assert_allclose(plain, np.log(batch), atol=1e-6)
    assert stratified[2:-1] == pytest.approx(np.log(batch - 1), abs=1e-6), "it leaves 1/(B-1) on the diagonal"


def _published_weights(batch, num_train):
    """The widely copied importance weights of `minibatch stratified sampling`, stride error included."""
    last = batch - 1
    stratum = (num_train - last) / (num_train * last)
    weights = np.full(batch * batch, 1 / last)
    weights[::last + 1] = 1 / num_train
    weights[1::last + 1] = stratum
    weights = weights.reshape(batch, batch)
    weights[last - 1, 0] = stratum
    return weights


def test_rate_per_dimension_by_quadrature():
    """Against a prior that is not N(0, I), by sums over a fine grid; none where the prior is no product."""
    import tensorflow_probability as tfp
    tfd = tfp.distributions
    means, stddevs = np.array([[0.3, -2.0], [1.5, 0.0]]), np.array([[0.1, 1.0], [0.5, 2.0]])
    location, scale = np.array([0.5, -1.0]), np.array([1.0, 3.0])
    grid = np.linspace(-30, 30, 600_001)
    expected = np.empty((2, 2))
    for image, k in np.ndindex(2, 2):
        posterior = scipy.stats.norm(means[image, k], stddevs[image, k])
        log_ratio = posterior.logpdf(grid) - scipy.stats.norm(location[k], scale[k]).logpdf(grid)
        expected[image, k] = (posterior.pdf(grid) * log_ratio).sum() * (grid[1] - grid[0])
    product = tfd.Independent(tfd.Normal(location, scale), 1)
    np.testing.assert_allclose(information.rate_per_dimension(means, stddevs, product), expected, rtol=1e-6)
    mixture = tfd.MixtureSameFamily(tfd.Categorical(np.zeros(2)), tfd.Independent(tfd.Normal(np.eye(2), np.ones(2)), 1))
    assert information.rate_per_dimension(means, stddevs, mixture) is None
    heavy = tfd.Independent(tfd.StudentT(np.full(2, 3.0), location, scale), 1)
    assert information.rate_per_dimension(means, stddevs, heavy) is None, "no closed form is known"


def test_standard_error_covers_the_truth():
    rng = np.random.default_rng(19)
    estimates = [measure.estimate(rng.normal(size=40)) for _ in range(400)]
    inside = [abs(mean) < 1.96 * error for mean, error in estimates]
    assert 0.90 < np.mean(inside) < 0.98
    assert np.isnan(measure.estimate(np.ones(1)).standard_error)


@pytest.mark.parametrize("num_images, batch_size", [(1, 512), (10, 1)])
def test_minibatch_of_one_image_is_refused(num_images, batch_size):
    with pytest.raises(ValueError, match="must have 2 or more, in batches of 2 or more .got"):
        information.minibatch_log_density(*np.ones((3, num_images, 2)), 10, batch_size)


class NarrowVae(ExactVae):
    """Its posteriors are so narrow that single precision rounds their samples: by up to 0.6 of a width."""

    variable_dtype = "float32"

    def prior(self):
        """N(0, I)."""
        import tensorflow_probability as tfp
        return tfp.distributions.Independent(tfp.distributions.Normal(np.zeros(3, np.float32), np.float32(1)), 1)

    def posterior(self, images):
        """The encoder's means, and a width of 1e-7."""
        import tensorflow_probability as tfp
        means = super().posterior(images).mean().numpy().astype(np.float32)
        return tfp.distributions.Independent(tfp.distributions.Normal(means, np.full_like(means, 1e-7)), 1)


@pytest.mark.parametrize("name, parts", [("train", ("mutual_information", "marginal_kl")),
                                         ("test", ("novelty", "typicality"))])
def test_parts_of_the_rate_by_scipy(exact_run, name, parts):
    """The first from the code's own posterior to the aggregate of the training images, the second on to the prior."""
    run, log_density = ExactRun.of(exact_run), scipy.stats.norm.logpdf
    codes, (means, stddevs) = run.codes(name), run.posteriors("train")
    levels = [log_density(codes, *run.posteriors(name)).sum(1),
              scipy.special.logsumexp(log_density(codes[:, None], means, stddevs).sum(2), axis=1) - np.log(len(means)),
              log_density(codes).sum(1)]
    found = information.measure(run, information.InformationSettings()).per_example[name]
    for part, upper, lower in zip(parts, levels[:-1], levels[1:]):
        np.testing.assert_allclose(found[part], upper - lower, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["train", "test"])
def test_noise_that_codes_have_lost_is_in_no_number(exact_run, name):
    """The sum of the parts is log q - log p of the unrounded sample, and the information of codes apart is log N."""
    run = dataclasses.replace(ExactRun.of(exact_run), vae=NarrowVae())
    means, stddevs = (values.astype(np.float64) for values in run.posteriors(name))
    noise = random_streams.evaluation_noise(run.partition(name).index, 3)
    log_q = scipy.stats.norm.logpdf(noise).sum(1) - np.log(stddevs).sum(1)
    np.testing.assert_allclose(run.log_posterior(name), log_q, rtol=1e-12)
    rounded = information.posterior_log_density(run.codes(name), means, stddevs)
    assert np.abs(rounded - log_q).mean() > 0.1, "else this tests nothing"
    outcome = information.measure(run, information.InformationSettings())
    rate = log_q - scipy.stats.norm.logpdf(means).sum(1)
    parts = [outcome.per_example[name][part] for part in
             (("mutual_information", "marginal_kl") if name == "train" else ("novelty", "typicality"))]
    # The log density of the training mixture at test codes is down to -1e14, where float64 has steps of 0.016.
    np.testing.assert_allclose(sum(parts), rate, atol=1e-4 if name == "train" else 0.02)
    if name == "train":
        scalars = outcome.scalars["train"]
        assert scalars["mutual_information"] == pytest.approx(np.log(400), abs=1e-5)
        assert scalars["mutual_information_minibatch"] == pytest.approx(np.log(400), abs=1e-5)
        assert scalars["marginal_kl_minibatch"] == pytest.approx(rate.mean() - np.log(400), abs=1e-4)
