"""Likelihoods against SciPy, quadrature and sums; the linear VAE against probabilistic PCA."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.linear_gaussian import LinearGaussian
from tests.model.test_networks import linear  # noqa: F401 (a fixture)
from tests.model.test_priors import check_column, check_saved, check_step
from tests.training.test_column import SMALL, trained
from vae_rd import catalogue, model
from vae_rd.config import Config, ConfigError
from vae_rd.figures import learned_scale
from vae_rd.measures import annealed
from vae_rd.model import likelihoods
from vae_rd.model.likelihoods import LIKELIHOODS

SHAPE = (3, 4, 2)
NEW = [name for name in LIKELIHOODS if name != "bernoulli"]


def decoder_output(name, size=5, scale=2.0):
    """What a decoder might return for `size` images of SHAPE: [size, 3, 4, 2 * parameters per pixel]."""
    channels = SHAPE[-1] * catalogue.LIKELIHOODS[name].per_pixel
    return scale * np.random.default_rng(0).standard_normal((size, *SHAPE[:-1], channels))


def grey(size=5, shape=SHAPE):
    """Images of grey levels k / 255, black and white among them."""
    levels = np.random.default_rng(1).integers(0, 256, (size, *shape))
    levels.flat[:2] = 0, 255
    return levels / 255


def expected_log_prob(name, output, images):
    """log p(x) of each pixel by SciPy."""
    if name == "bernoulli":
        return images * output - np.logaddexp(0, output)
    if name == "continuous_bernoulli":
        return images * output - np.log(np.expm1(output) / output)
    if name.startswith("normal"):
        return scipy.stats.norm.logpdf(images, output, 0.1)
    mean, scale = output[..., :2], 1e-4 + 0.1 * np.exp(output[..., 2:])
    lower = np.where(images == 0, -np.inf, images - 0.5 / 255)
    upper = np.where(images == 1, np.inf, images + 0.5 / 255)
    return np.log(scipy.stats.logistic.cdf(upper, mean, scale) - scipy.stats.logistic.cdf(lower, mean, scale))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_is_the_sum_over_pixels_of_scipys(name):
    output, images = decoder_output(name, scale=0.3), grey()  # SciPy's difference of two sigmoids is 0 for more
    layer = LIKELIHOODS[name](dtype="float64")
    distribution = layer.distribution(tf.constant(output))
    assert distribution.event_shape == SHAPE and distribution.batch_shape == (5,)
    expected = expected_log_prob(name, output, images).sum((1, 2, 3))
    np.testing.assert_allclose(distribution.log_prob(images), expected, rtol=1e-6)  # SciPy's difference cancels
    single = LIKELIHOODS[name](dtype="float32").distribution(tf.constant(output, tf.float32))
    np.testing.assert_allclose(single.log_prob(images.astype(np.float32)), expected, rtol=1e-5, atol=1e-5)


LOGITS = [-800.0, -30.0, -1.0, -0.2, -0.19, -1e-3, -1e-9, 0.0, 1e-20, 1e-5, 0.19999, 0.20001, 2.0, 50.0, 1000.0]


def continuous_bernoulli(logits, dtype=np.float64):
    """Of single pixels; TFP would round NumPy's logits to float32."""
    return likelihoods.ContinuousBernoulliPixel(tf.constant(np.asarray(logits, dtype)), dtype=dtype)


@pytest.mark.parametrize("logit", LOGITS)
def test_the_continuous_bernoulli_is_a_density_with_the_mean_it_says(logit):
    pixel = continuous_bernoulli(logit)
    corner = np.clip(20 / max(abs(logit), 1), 0, 0.5)  # most of the mass of a large logit lies this near an end
    ends = dict(points=[corner, 1 - corner], epsabs=1e-12, limit=200)
    mass, mean = (scipy.integrate.quad(lambda x, power=power: x**power * float(np.exp(pixel.log_prob(np.float64(x)))),
                                       0, 1, **ends)[0] for power in (0, 1))
    assert mass == pytest.approx(1, abs=1e-9)
    assert float(pixel.mean()) == pytest.approx(mean, abs=1e-9)


def test_the_continuous_bernoulli_keeps_its_precision_around_a_logit_of_0():
    logits = np.concatenate([[0.0], *([-size, size] for size in 10.0**np.arange(-30, 2.5, 0.25))])
    images = np.linspace(0, 1, 11)[:, None]
    exact, single = continuous_bernoulli(logits), continuous_bernoulli(logits, np.float32)
    allowed = 3e-7 * (1 + np.abs(logits))
    error = single.log_prob(images.astype(np.float32)).numpy() - exact.log_prob(images).numpy()
    assert (np.abs(error) < allowed).all()
    assert (np.abs(single.mean().numpy() - exact.mean().numpy()) < 1e-6).all()
    values = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(values)
        log_prob = likelihoods.ContinuousBernoulliPixel(values, dtype=tf.float64).log_prob(tf.constant(0.3, tf.float64))
    np.testing.assert_allclose(tape.gradient(log_prob, values), 0.3 - exact.mean(), atol=1e-12)


@pytest.mark.parametrize("logit", [30.0, 1e3, 3e4, 4e5, 1e7])
def test_the_continuous_bernoulli_keeps_its_precision_at_large_logits(logit):
    """Black and white pixels drive them there, as the density at 0 grows with log |logit|."""
    images = np.float64([0, 1e-6, 0.25, 1])
    exact = images * logit - (logit + np.log1p(-np.exp(-logit)) - np.log(logit))  # the defining formula, in float64
    mean = 1 - 1 / logit + 1 / np.expm1(logit) if logit < 700 else 1 - 1 / logit
    for sign, values in ((1, images), (-1, 1 - images)):
        logits = tf.fill(4, tf.constant(sign * logit, tf.float32))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_prob = likelihoods.ContinuousBernoulliPixel(logits).log_prob(values.astype(np.float32))
        np.testing.assert_allclose(log_prob, exact, rtol=2e-7, atol=2e-6)
        np.testing.assert_allclose(tape.gradient(log_prob, logits), sign * (images - mean), rtol=2e-6)


def all_levels(mean, scale, dtype=np.float64):
    """log P of the 256 levels."""
    pixel = likelihoods.DiscretizedLogisticPixel(dtype(mean), dtype(scale))
    return pixel, np.asarray(pixel.log_prob((np.arange(256) / 255).astype(dtype)), np.float64)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.2, 0.5 / 255, 100 / 255, 1.0, 1.7])
@pytest.mark.parametrize("scale", [1e-4, 1 / 255, 0.03, 0.5, 40.0])
def test_the_probabilities_of_the_256_levels_sum_to_one(mean, scale):
    pixel, log_probs = all_levels(mean, scale)
    assert np.isfinite(log_probs).all() and np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(all_levels(mean, scale, np.float32)[1]).sum() == pytest.approx(1, abs=1e-4)
    exact = (np.exp(log_probs) * np.arange(256)).sum()  # of levels
    assert 255 * float(pixel.mean()) == pytest.approx(exact, abs=0.02 if scale >= 1 / 255 else 0.5)


def test_a_level_far_from_the_mean_keeps_its_finite_log_probability_and_gradient():
    """The difference of two sigmoids would be 0 here, its log -infinity."""
    mean = tf.constant(0.0)
    with tf.GradientTape() as tape:
        tape.watch(mean)
        log_prob = likelihoods.DiscretizedLogisticPixel(mean, 1e-4).log_prob(np.float32(51 / 255))
    assert float(log_prob) == pytest.approx(-50.5 / 255 / 1e-4, rel=1e-5)
    assert float(tape.gradient(log_prob, mean)) == pytest.approx(1e4, rel=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_targets_are_drawn_from_the_likelihood(name):
    """Of two pixels: means of samples and frequencies of levels, or the distribution function."""
    draws = 20_000
    output = decoder_output(name, 1, 1.0)
    distribution = LIKELIHOODS[name](dtype="float64").distribution(tf.constant(output))
    samples = distribution.sample(draws, seed=[0, 1]).numpy()
    assert samples.shape == (draws, 1, *SHAPE) and samples.dtype == np.float64
    np.testing.assert_array_equal(samples, distribution.sample(draws, seed=[0, 1]))
    pixel = samples[:, 0, 0, 0, 0]
    own = output[0, 0, 0]
    if catalogue.LIKELIHOODS[name].is_density:
        pixels = LIKELIHOODS[name](dtype="float64")._pixels(tf.constant(output[0, 0, 0, :1]))
        points = np.linspace(pixel.min(), pixel.max(), 2001)
        density = np.exp(pixels.log_prob(points[:, None]).numpy()[:, 0])
        cdf = scipy.integrate.cumulative_trapezoid(density, points, initial=0)
        assert np.abs(np.interp(np.sort(pixel), points, cdf) - np.arange(draws) / draws).max() < 2 / np.sqrt(draws)
    else:
        levels = np.arange(2 if name == "bernoulli" else 256) / (1 if name == "bernoulli" else 255)
        assert np.isin(pixel, levels).all()
        log_probs = ([-np.logaddexp(0, own[0]), -np.logaddexp(0, -own[0])] if name == "bernoulli"
                     else all_levels(own[0], 1e-4 + 0.1 * np.exp(own[2]))[1])
        counts = (pixel[:, None] == levels).sum(0)
        deviation = (counts - draws * np.exp(log_probs)) / np.sqrt(draws * np.exp(log_probs) + 1)
        assert np.abs(deviation).max() < 4.5


@pytest.mark.parametrize("name, allowed", [
    ("bernoulli", lambda images: np.isin(images, (0, 1))),
    ("continuous_bernoulli", lambda images: abs(images - 0.5) <= 0.5),
    ("normal", np.isfinite), ("normal_learned_scale", np.isfinite),
    ("discretized_logistic", lambda images: np.isin(images, np.arange(256, dtype=np.float32) / np.float32(255)))])
def test_the_bidirectional_check_draws_targets_of_the_likelihood(name, allowed):
    vae = model.build(Config(image_size=8, hidden_units=8, latent_dim=3, likelihood=name), (8, 8, 3), 300)
    codes, images = annealed.simulate(vae.prior(), vae.likelihood, 7, seed=0)
    assert codes.shape == (7, 3) and images.shape == (7, 8, 8, 3) and images.std() > 0.05
    assert allowed(images).all() and np.isfinite(vae.likelihood(codes).log_prob(images)).all()


# The floor


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_parameters_reach_below_the_floor_and_some_reach_it(name):
    levels = np.round(grey() * 255).astype(np.uint8)
    floor, images = LIKELIHOODS[name].floor(levels), levels / 255
    layer = LIKELIHOODS[name](dtype="float64")
    if floor is None:  # there is no lower bound: black pixels, or a perfect mean, give any density
        assert catalogue.LIKELIHOODS[name].is_density
        return
    assert floor.shape == (5,)
    for scale in (0.1, 1.0, 5.0):
        output = tf.constant(decoder_output(name, scale=scale))
        assert (-layer.distribution(output).log_prob(images).numpy() >= floor - 1e-9).all()
    best = {"bernoulli": scipy.special.logit(images.clip(1e-12, 1 - 1e-12)), "normal": images,
            "discretized_logistic": np.concatenate([images, np.full_like(images, -50.0)], -1)}[name]
    np.testing.assert_allclose(-layer.distribution(tf.constant(best)).log_prob(images), floor, rtol=1e-6, atol=1e-6)


def test_a_mass_has_no_log_above_zero_and_a_density_has():
    black = np.zeros((5, *SHAPE))
    for name, facts in catalogue.LIKELIHOODS.items():
        output = np.zeros((5, *SHAPE[:-1], SHAPE[-1] * facts.per_pixel))
        output += -30.0 if "bernoulli" in name else 0.0
        log_prob = LIKELIHOODS[name](dtype="float64").distribution(tf.constant(output)).log_prob(black)
        assert (log_prob.numpy() > 0).all() == facts.is_density, name


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_picture_is_the_mean_within_0_and_1(name):
    layer, output = LIKELIHOODS[name](dtype="float64"), tf.constant(decoder_output(name))
    picture, mean = layer.picture(output).numpy(), layer.distribution(output).mean().numpy()
    assert picture.min() >= 0 and picture.max() <= 1 and picture.shape == (5, *SHAPE)
    np.testing.assert_array_equal(picture, mean.clip(0, 1))
    assert (mean.min() < -1) == name.startswith("normal")  # the others need no clipping


# In the model


@pytest.mark.parametrize("name", NEW)
def test_every_parameter_moves_in_one_step(name):
    check_step({"likelihood": name, "precision": "bfloat16", "architecture": "cnn"})


@pytest.mark.parametrize("name", NEW)
def test_the_saved_model_is_the_same_model(tmp_path, name):
    check_saved(tmp_path, {"likelihood": name, "precision": "float64"})


@pytest.mark.slow
@pytest.mark.parametrize("name, stacked, jit", [
    ("normal_learned_scale", True, False), ("normal_learned_scale", False, True),
    ("continuous_bernoulli", True, False), ("discretized_logistic", True, True)])
def test_a_member_of_a_column_is_the_run_trained_alone(split, name, stacked, jit):
    check_column(split, {"likelihood": name}, stacked, jit)


class Unsplit(likelihoods.Likelihood):
    """Two parameters per pixel, which it forgets to split: they broadcast against a grey image."""

    def distribution(self, parameters):
        return tfd.Independent(tfd.Normal(parameters, 0.1), 3)

    def picture(self, parameters):
        return parameters[..., :1]


def test_a_likelihood_of_another_shape_than_the_images_is_refused(monkeypatch, split):
    monkeypatch.setitem(LIKELIHOODS, "unsplit", Unsplit)
    monkeypatch.setitem(catalogue.LIKELIHOODS, "unsplit", catalogue.LIKELIHOODS["normal"]._replace(per_pixel=2))
    grey = split._replace(train=split.train._replace(images=split.train.images[..., :1]),
                          test=split.test._replace(images=split.test.images[..., :1]))
    with pytest.raises(ConfigError, match=r"distribution\(\) of the likelihood 'unsplit' must return a "
                                          r"tfd.Distribution of events of shape \[\d+, \d+, 1\], each an image"):
        trained([SMALL.replace(likelihood="unsplit")], grey, 1, jit=False)


@pytest.mark.parametrize("reported, words", [
    ({"rate": 1.0}, "got 'rate'"), ({"precision": 1.0}, "got 'precision'"), ({"distortion_se": 1.0}, "got 'distor"),
    ({"mean_squared_error": 1.0}, "got 'mean"), ({"a.b": 1.0}, "got 'a.b'"), ({"mine": True}, "got 'mine': True"),
    ({"mine": tf.constant(1.0)}, "got 'mine'.*Try another name, or float")])
def test_what_a_likelihood_reports_must_fit_into_the_tables(monkeypatch, reported, words):
    monkeypatch.setattr(LIKELIHOODS["bernoulli"], "reported", lambda self: reported)
    with pytest.raises(ConfigError, match=f"reported.. of the likelihood bernoulli must return a number .*{words}"):
        model.build(Config(hidden_units=4), (8, 8, 1), 10)


def test_the_scale_that_is_reported_is_best_where_its_square_is_the_mean_squared_error():
    layer, means, images = LIKELIHOODS["normal_learned_scale"](dtype="float64"), decoder_output("normal"), grey()
    error = np.square(images - means).mean()

    def distortion(scale):
        layer.log_scale.assign(np.log(scale))
        assert layer.reported() == {"likelihood_scale": pytest.approx(scale)}
        return -float(tf.reduce_sum(layer.distribution(tf.constant(means)).log_prob(images)))

    found = scipy.optimize.minimize_scalar(distortion, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert found.x == pytest.approx(np.sqrt(error), rel=1e-5)
    assert LIKELIHOODS["normal"]().reported() == {"likelihood_scale": 0.1}
    assert LIKELIHOODS["bernoulli"]().reported() == {}


@pytest.mark.parametrize("scale, beta", [(0.03, 2.0), (0.4, 0.5)])
def test_the_normal_likelihood_at_the_effective_beta_trains_the_networks_alike(scale, beta):
    """distortion_s + beta R = (distortion_0.1 + beta (s / 0.1)^2 R) (0.1 / s)^2, less a constant."""
    images, noise = grey(6, (4, 4, 1)), np.random.default_rng(2).standard_normal((6, 3))
    gradients = []
    for name, weight in (("normal_learned_scale", beta),
                         ("normal", learned_scale.effective_beta(beta, scale))):
        vae = model.build(Config(image_size=4, hidden_units=8, latent_dim=3, precision="float64", likelihood=name),
                          (4, 4, 1), 300)
        networks = vae.encoder.trainable_variables + vae.decoder.trainable_variables
        if name == "normal_learned_scale":
            vae.likelihood_layer.log_scale.assign(np.log(scale))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(vae.terms(images, noise, weight).objective)
        factor = (0.1 / scale)**2 if name == "normal" else 1
        gradients.append([factor * gradient for gradient in tape.gradient(loss, networks)])
    for learned, fixed in zip(*gradients):
        np.testing.assert_allclose(learned, fixed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_log_prob_takes_several_codes_for_each_image(name):
    """As annealed importance sampling asks for it: chains of codes, one row of images."""
    vae = model.build(Config(image_size=8, hidden_units=8, latent_dim=3, likelihood=name), (8, 8, 3), 300)
    codes, images = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32), grey(5, (8, 8, 3))
    likelihood = vae.likelihood(codes)
    assert likelihood.batch_shape == (4, 5) and likelihood.event_shape == (8, 8, 3)
    single = [vae.likelihood(chain).log_prob(images.astype(np.float32)) for chain in codes]
    np.testing.assert_allclose(likelihood.log_prob(images.astype(np.float32)), single, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(vae.picture(codes)[2], vae.picture(codes[2]), rtol=1e-5)


# Probabilistic PCA

SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))  # quadrature: exact for what is quadratic in the noise


def linear_vae(**changes):
    """A VAE with linear encoder and decoder, images of 2 x 2 x 3 and 3-dimensional codes."""
    config = Config(architecture="linear", image_size=2, latent_dim=3, precision="float64", **changes)
    return model.build(config, (2, 2, 3), 300)


def mean_terms(vae, images, beta=1.0):
    """The terms of each image, the expectation over the noise exact: [4, num]."""
    pairs = np.repeat(images.reshape(-1, 2, 2, 3), len(SIGNS), 0), np.tile(SIGNS, (len(images), 1))
    terms = vae.terms(*(tf.constant(values) for values in pairs), beta)
    return tf.reduce_mean(tf.reshape(tf.stack(terms), [len(terms), -1, len(SIGNS)]), -1)


def train_exactly(vae, images, beta=1.0):
    """Minimises the mean objective, without noise, by BFGS, which converges where L-BFGS crawls along flat valleys."""
    weights = vae.trainable_variables
    ends = np.cumsum([weight.numpy().size for weight in weights])[:-1]

    @tf.function(jit_compile=True)
    def loss_and_gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(mean_terms(vae, images, beta)[3])
        return loss, tape.gradient(loss, weights)

    def at(values):
        for weight, value in zip(weights, np.split(values, ends)):
            weight.assign(value.reshape(weight.shape))
        loss, gradients = loss_and_gradients()
        return float(loss), np.concatenate([np.ravel(gradient) for gradient in gradients])

    start = np.concatenate([weight.numpy().ravel() for weight in weights])
    at(scipy.optimize.minimize(at, start, jac=True, method="BFGS", options={"maxiter": 2000, "gtol": 1e-7}).x)


def test_the_bound_of_the_linear_gaussian_model_is_its_log_px(linear):  # noqa: F811
    gaussian = LinearGaussian(latent_dim=3, pixels=12, noise=catalogue.NORMAL_SCALE, scale=0.2, centre=0.5)
    vae, images = linear_vae(likelihood="normal"), gaussian.images(20)
    means, stddevs = gaussian.posterior(images)
    slope = gaussian.weights.T / gaussian.noise**2 * stddevs[0]**2  # of the posterior mean
    for weight, value in zip(vae.trainable_variables, [slope, -gaussian.offset @ slope, np.zeros((12, 3)),
                                                       np.log(stddevs[0]), gaussian.weights, gaussian.offset]):
        weight.assign(value)
    pictures = images.reshape(-1, 2, 2, 3)
    np.testing.assert_allclose(vae.posterior(pictures).mean(), means, rtol=1e-9)
    rate, distortion, _, objective = mean_terms(vae, pictures).numpy()
    np.testing.assert_allclose(-objective, gaussian.log_px(images), rtol=1e-10)
    np.testing.assert_allclose(rate, 0.5 * (means**2 + stddevs**2 - 1 - 2 * np.log(stddevs)).sum(1), rtol=1e-10)
    np.testing.assert_allclose(distortion, objective - rate, rtol=1e-10)


@pytest.mark.slow
def test_training_the_linear_vae_finds_probabilistic_pca(linear):  # noqa: F811
    """Tipping and Bishop 1999: the maximum of the likelihood, its scale, and log p(x) of new images."""
    gaussian = LinearGaussian(latent_dim=3, pixels=12, noise=0.15, scale=0.3, centre=0.5)
    images, new = gaussian.images(300), gaussian.images(300, seed=2)
    vae = linear_vae(likelihood="normal_learned_scale")
    weights = vae.trainable_variables
    assert weights[-1].name == "log_scale"
    train_exactly(vae, images)
    values, vectors = np.linalg.eigh(np.cov(images.T, bias=True))
    noise = values[:-3].mean()
    best = vectors[:, -3:] * np.sqrt(values[-3:] - noise)
    ppca = scipy.stats.multivariate_normal(images.mean(0), best @ best.T + noise * np.eye(12))
    assert np.exp(2 * weights[-1].numpy()) == pytest.approx(noise, rel=1e-3)
    for some in (images, new):
        bound = -mean_terms(vae, some).numpy()[3]
        np.testing.assert_allclose(bound, ppca.logpdf(some), atol=0.02)
    assert abs(-mean_terms(vae, images).numpy()[3].mean() - ppca.logpdf(images).mean()) < 1e-4


def linear_curve(train, images, beta, latent_dim=3, noise=catalogue.NORMAL_SCALE):
    """Mean rate and distortion of images under the optimal linear VAE of a training set, in closed form.

    objective / beta is the negative ELBO of probabilistic PCA with noise variance v = beta noise^2, less a constant.
    With eigenvalues l and eigenvectors u of the training covariance: the decoder has length sqrt(l - v) along the u of
    the `latent_dim` largest l above v, the others have collapsed; q(z|x) = N(sqrt(l - v) / l u.(x - mean), v / l).
    """
    variance = beta * noise**2
    values, vectors = np.linalg.eigh(np.cov(train.T, bias=True))
    along = np.square((images - train.mean(0)) @ vectors).mean(0)  # second moments of these images along each u
    active = (np.arange(len(values)) >= len(values) - latent_dim) & (values > variance)
    kept, of_kept = values[active], along[active]
    rate = 0.5 * ((kept - variance) / kept**2 * of_kept + variance / kept - 1 - np.log(variance / kept)).sum()
    errors = np.square(variance / kept) * of_kept + (kept - variance) * variance / kept
    squared = errors.sum() + along[~active].sum()
    return rate, squared / (2 * noise**2) + 0.5 * len(values) * np.log(2 * np.pi * noise**2)


@pytest.mark.slow
def test_a_trained_scale_says_at_which_beta_of_the_fixed_scale_the_run_is(linear):  # noqa: F811
    """The optimal linear VAE with a learned scale is the one with scale 0.1 at the effective beta, in closed form."""
    images = LinearGaussian(latent_dim=3, pixels=12, noise=0.15, scale=0.3, centre=0.5).images(150)
    vae = linear_vae(likelihood="normal_learned_scale")
    train_exactly(vae, images, beta=0.5)
    scale = vae.likelihood_layer.reported()[catalogue.LIKELIHOOD_SCALE]
    rate, distortion = linear_curve(images, images, learned_scale.effective_beta(0.5, scale))
    error = (distortion - 6 * np.log(2 * np.pi * 0.1**2)) * 2 * 0.1**2 / 12
    assert mean_terms(vae, images, 0.5).numpy()[0].mean() == pytest.approx(rate, rel=1e-3)
    assert scale == pytest.approx(np.sqrt(error), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [15, 150])
def test_the_curve_of_the_linear_vae_against_the_size_of_the_training_set(linear, size):  # noqa: F811
    """The setting of Ichikawa and Hukushima 2023 at finite size: train and test curves, and where codes collapse."""
    gaussian = LinearGaussian(latent_dim=3, pixels=12, noise=0.15, scale=0.3, centre=0.5)
    images, new = gaussian.images(150)[:size], gaussian.images(2000, seed=2)
    largest = np.linalg.eigvalsh(np.cov(images.T, bias=True))[-3:] / catalogue.NORMAL_SCALE**2  # betas of collapse
    for beta, num_active in ((0.3, 3), (np.sqrt(largest[0] * largest[1]), 2), (1.3 * largest[2], 0)):
        vae = linear_vae(likelihood="normal")
        train_exactly(vae, images, beta)
        for some in (images, new):
            rate, distortion, _, objective = mean_terms(vae, some, beta).numpy().mean(1)
            expected = linear_curve(images, some, beta)
            np.testing.assert_allclose((rate, distortion), expected, rtol=1e-5, atol=1e-5)
            assert objective == pytest.approx(expected[1] + beta * expected[0], rel=1e-6)
        kernel = vae.decoder.trainable_variables[0].numpy()
        assert (np.linalg.svd(kernel)[1] > 0.03).sum() == num_active


def test_fewer_training_images_lift_the_test_curve():
    """In closed form: both the gap in distortion and the test distortion fall as the training set grows."""
    gaussian = LinearGaussian(latent_dim=3, pixels=12, noise=0.15, scale=0.3, centre=0.5)
    new = gaussian.images(5000, seed=2)
    gaps, heights = np.zeros((2, 3, 2))
    for row, size in enumerate((15, 60, 600)):
        for column, beta in enumerate((0.1, 10.0)):
            points = [np.mean([linear_curve(images, new if test else images, beta) for images in
                               (gaussian.images(size, seed=seed) for seed in range(3, 23))], 0) for test in (0, 1)]
            gaps[row, column], heights[row, column] = (points[1] - points[0])[1], points[1][1]
    assert (np.diff(gaps, axis=0) < 0).all() and (np.diff(heights, axis=0) < 0).all()
