"""Priors: their densities against quadrature, SciPy and autodiff, and their weights in training, columns and files."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.training.test_column import SMALL, distance, member_state, members, trained
from vae_rd import catalogue, model
from vae_rd.config import Config, ConfigError
from vae_rd.datasets import random_streams
from vae_rd.model import priors
from vae_rd.model.priors import PRIORS
from vae_rd.training import column

SHAPE = (8, 8, 3)
LEARNED = [name for name in PRIORS if name != "standard_normal"]


def make(latent_dim=2, scale=0.3, **changes):
    """A small model in float64 whose prior's weights are drawn anew."""
    vae = model.build(Config(**{"image_size": 8, "hidden_units": 16, "latent_dim": latent_dim, "precision": "float64"}
                             | changes), SHAPE, 300)
    random = np.random.default_rng(1)
    for weight in vae.prior_layer.trainable_variables:
        weight.assign(weight.numpy() + scale * random.standard_normal(weight.shape))
    return vae


def batch(latent_dim=2, size=6, dtype=np.float64):
    """Grey images and noise."""
    random = np.random.default_rng(2)
    return random.uniform(size=(size, *SHAPE)).astype(dtype), random.standard_normal((size, latent_dim)).astype(dtype)


# Densities


@pytest.mark.parametrize("prior", [pytest.param(name, marks=[pytest.mark.slow] * (name == "exemplar"))
                                   for name in PRIORS])
def test_the_density_integrates_to_one_and_its_samples_match_it(prior):
    """Over a 2-d grid: the mass, and five moments, which the means over samples must equal within their errors."""
    step = 0.1
    axis = np.arange(-9, 9 + step, step)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    distribution = make(prior=prior, scale=0.03 if prior == "flow" else 0.15).prior()
    density = np.exp(distribution.log_prob(grid).numpy()) * step**2
    assert density.sum() == pytest.approx(1, abs=1e-5)
    samples = distribution.sample(40_000, seed=[0, 1]).numpy()
    assert samples.shape == (40_000, 2) and samples.dtype == np.float64
    for moment in (lambda z: z[..., 0], lambda z: z[..., 1], lambda z: z[..., 0]**2, lambda z: z[..., 1]**2,
                   lambda z: z[..., 0] * z[..., 1], lambda z: np.sin(3 * z[..., 0] + z[..., 1]),
                   lambda z: distribution.log_prob(z).numpy()):
        drawn, expected = moment(samples), (density * moment(grid)).sum()
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / np.sqrt(len(drawn))
    np.testing.assert_array_equal(samples, distribution.sample(40_000, seed=[0, 1]))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_density_takes_any_leading_axes(prior):
    distribution, codes = make(5, prior=prior).prior(), np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    assert distribution.event_shape == (5,) and distribution.batch_shape == ()
    flat = distribution.log_prob(codes.reshape(-1, 5)).numpy()
    np.testing.assert_allclose(distribution.log_prob(codes), flat.reshape(2, 3, 4), rtol=1e-12)
    assert flat.std() > 0.1 and distribution.log_prob(codes[0, 0, 0]).shape == ()
    assert distribution.sample([2, 3], seed=[0, 0]).shape == (2, 3, 5)


def test_the_learned_normal_is_scipys_and_starts_as_the_papers():
    distribution = make(3, prior="learned_normal").prior()
    mean, log_scale = (weight.numpy() for weight in make(3, prior="learned_normal").prior_layer.trainable_variables)
    codes = np.random.default_rng(0).standard_normal((9, 3))
    np.testing.assert_allclose(distribution.log_prob(codes),
                               scipy.stats.norm.logpdf(codes, mean, np.exp(log_scale)).sum(1), rtol=1e-12)
    first, papers = (make(3, scale=0.0, prior=prior).prior() for prior in ("learned_normal", "standard_normal"))
    np.testing.assert_array_equal(first.log_prob(codes), papers.log_prob(codes))


def test_a_mixture_of_one_component_is_the_learned_normal():
    mixture = priors.GaussianMixture(3, num_components=1, dtype="float64")
    normal = make(3, prior="learned_normal").prior_layer
    mixture.means.assign(normal.mean.numpy()[None])
    mixture.log_scales.assign(normal.log_scale.numpy()[None])
    codes = np.random.default_rng(0).standard_normal((9, 3))
    np.testing.assert_allclose(mixture.distribution().log_prob(codes), normal.distribution().log_prob(codes),
                               rtol=1e-12)


def test_the_vampprior_is_the_mean_posterior_of_its_pseudo_inputs():
    vae = make(3, prior="vamp")
    pseudo_inputs = scipy.special.expit(vae.prior_layer.trainable_variables[0].numpy())
    assert pseudo_inputs.shape == (128, *SHAPE)
    posterior = vae.posterior(pseudo_inputs)
    codes = np.random.default_rng(0).standard_normal((9, 3))
    pairs = scipy.stats.norm.logpdf(codes[:, None], posterior.mean(), posterior.stddev()).sum(2)
    np.testing.assert_allclose(vae.prior().log_prob(codes), scipy.special.logsumexp(pairs, axis=1) - np.log(128),
                               rtol=1e-10)


@pytest.mark.parametrize("count", [300, 40])
def test_pseudo_inputs_start_as_training_images_of_each_restart(count):
    """Up to the margin that leaves them a gradient; of few images each serves several times."""
    images = grey(count)
    configs = [Config(image_size=8, hidden_units=16, latent_dim=3, prior="vamp", seed=seed) for seed in (0, 1)]
    made = column.Column(configs, images, strategy=tf.distribute.get_strategy(), jit=False, stacked=False)
    weights = made.state()
    (name,) = [name for name in made.weight_names if "pseudo" in name]
    starts = scipy.special.expit(weights[name])
    assert starts.shape == (2, 128, *SHAPE)
    distances = np.abs(starts[:, :, None] - images / 255).max((3, 4, 5))  # [restarts, pseudo-inputs, images]
    assert distances.min(2).max() < 0.0101
    chosen = [set(rows) for rows in distances.argmin(2)]
    assert all(len(rows) == min(count, 128) for rows in chosen) and (chosen[0] != chosen[1]) == (count > 128)


def test_pseudo_inputs_stay_images_and_the_encoder_feels_them():
    vae = make(3, prior="vamp", scale=1000.0)
    pseudo_inputs = vae.prior_layer.pseudo_inputs.numpy()
    assert pseudo_inputs.min() == 0 and pseudo_inputs.max() == 1
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(vae.prior().log_prob(np.ones((2, 3))))
    assert all(np.abs(slope).max() > 0 for slope in tape.gradient(log_prob, vae.encoder.trainable_variables))
    assert len(vae.prior_layer.trainable_variables) == 1  # the encoder is not a part of the prior


def exemplar(images, log_scale=-1.0, **changes):
    """A model with exemplar prior that keeps images of these, and the log densities [n, K] at codes by SciPy."""
    vae = model.build(Config(image_size=8, hidden_units=16, latent_dim=3, prior="exemplar", precision="float64",
                             **changes), SHAPE, len(images))
    vae.adapt(images)
    vae.prior_layer.log_scale.assign(log_scale)
    kept = vae.prior_layer.exemplars.numpy()
    means = vae.posterior(kept / 255).mean().numpy()
    return vae, kept, lambda codes: scipy.stats.norm.logpdf(np.asarray(codes)[..., None, :], means,
                                                            np.exp(log_scale)).sum(-1)


def grey(count):
    """Training images."""
    return np.random.default_rng(5).integers(0, 256, (count, *SHAPE), np.uint8)


def test_exemplars_are_a_seeded_part_of_the_training_images():
    images = grey(400)
    for seed in (0, 1):
        kept = exemplar(images, seed=seed)[1]
        rows = [np.flatnonzero((images == one).all((1, 2, 3))) for one in kept]
        assert kept.shape == (256, *SHAPE) and np.ptp(np.diff(np.concatenate(rows))) > 0
        assert len(np.unique(np.concatenate(rows))) == 256
        np.testing.assert_array_equal(kept, exemplar(images)[1])
    assert exemplar(images[:40])[1].shape[0] == 40


def test_binarization_anew_in_each_step_is_refused():
    with pytest.raises(ConfigError, match="binarization must be none or static with prior=exemplar, which knows"):
        Config(prior="exemplar", binarization="dynamic")


def test_a_single_training_image_is_refused():
    with pytest.raises(ConfigError, match="split must be one of 2 training images or more with prior=exemplar"):
        Config(prior="exemplar", split="cv_1")
    with pytest.raises(ConfigError, match=r"training images must be 2 or more with prior=exemplar.*\(got 1\)\. Try"):
        exemplar(grey(1))
    assert len(exemplar(grey(2))[1]) == 2


def test_a_prior_that_leaves_images_out_must_say_so_in_the_catalogue(monkeypatch):
    """Else the measures, which ask the catalogue, would measure without leaving out, and without a word."""
    monkeypatch.setitem(catalogue.PRIORS, "exemplar", catalogue.PRIORS["exemplar"]._replace(keeps_images=False))
    with pytest.raises(ConfigError, match=r"keeps_images of the prior 'exemplar' must be True.*\(got False\)\. Set it"):
        exemplar(grey(4))


class Broken(priors.Prior):
    """A prior of learned scale that breaks a rule: each subclass another."""

    def __init__(self, latent_dim, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.log_scale = self.add_weight(name="log_scale", shape=(latent_dim,), initializer="zeros")
        self.at_first = self.laplace()

    def laplace(self):
        scale = tf.exp(tf.convert_to_tensor(self.log_scale))
        return tfd.Independent(tfd.Laplace(tf.zeros_like(scale), scale), 1)


class Missing(Broken):
    """Without the method."""


class Separate(Broken):
    """Of single numbers, not of codes."""

    def distribution(self):
        return self.laplace().distribution


class Several(Broken):
    """Of components that nobody has mixed."""

    def distribution(self):
        scale = tf.exp(tf.convert_to_tensor(self.log_scale))
        return tfd.Independent(tfd.Laplace(tf.zeros([3, *scale.shape]), scale), 1)


class Untrained(Broken):
    """With a weight that Keras does not know of."""

    def __init__(self, latent_dim, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.mean = tf.Variable(tf.zeros([latent_dim]))

    def distribution(self):
        return self.laplace()


class Seeded(Broken):
    """With something kept that every seed chooses anew."""

    def __init__(self, latent_dim, seed, **kwargs):
        super().__init__(latent_dim, seed=seed, **kwargs)
        self.kept = self.add_weight(name="kept", shape=(), trainable=False,
                                    initializer=keras.initializers.Constant(seed))

    def distribution(self):
        return self.laplace()


class Frozen(Broken):
    """Built in __init__."""

    def distribution(self):
        return self.at_first


@pytest.mark.parametrize("prior, counted, error, message", [
    (Missing, 2, NotImplementedError, "Missing must define distribution"),
    (Separate, 2, ConfigError, r"must return a tfd.Distribution of events of shape \[2\].*\(got .*Try tfd.Independent"),
    (Several, 2, ConfigError, r"must return a tfd.Distribution .*batch_shape=.*or tfd.MixtureSameFamily of several"),
    (Seeded, 2, ConfigError, r"what the prior 'broken' keeps must not depend on the seed.*\(got others for seed 1\)"),
    (Untrained, 4, ConfigError, r"num_parameters .* must count the trained weights of mlp, broken and bernoulli \(got"),
    (Frozen, 2, ConfigError, r"\(got no gradient for prior.0.log_scale\)\. Build"),
])
def test_a_broken_prior_is_refused_in_words(monkeypatch, split, prior, counted, error, message):
    monkeypatch.setitem(PRIORS, "broken", prior)
    monkeypatch.setitem(catalogue.PRIORS, "broken", catalogue.Prior("", False, lambda latent_dim, pixels: counted))
    with pytest.raises(error, match=message):
        trained([SMALL.replace(prior="broken", latent_dim=2, seed=seed) for seed in (0, 1)], split, 1, jit=False)


def test_the_exemplar_prior_is_a_gaussian_at_each_code():
    vae, _, logs = exemplar(grey(400))
    codes = np.random.default_rng(0).standard_normal((9, 3))
    expected = scipy.special.logsumexp(logs(codes), axis=1) - np.log(256)
    np.testing.assert_allclose(vae.prior().log_prob(codes), expected, rtol=1e-10)
    others = np.random.default_rng(1).uniform(size=(9, *SHAPE))
    np.testing.assert_allclose(vae.prior(others).log_prob(codes), expected, rtol=1e-10)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_image_never_sees_its_own_code(copies):
    """Its rate is that under the other K - 1; with its own code, a narrow kernel would make it far smaller."""
    images = np.concatenate([grey(30)] * copies)
    vae, kept, logs = exemplar(images, log_scale=-5.0)
    batch = kept[:8] / 255
    codes = vae.posterior(batch).mean() + 1e-3
    own = (kept[:8, None] == kept).all((2, 3, 4))
    assert (own.sum(1) == copies).all()
    left = scipy.special.logsumexp(np.where(own, -np.inf, logs(codes)), axis=1) - np.log(30 * copies - copies)
    seen = scipy.special.logsumexp(logs(codes), axis=1) - np.log(30 * copies)
    np.testing.assert_allclose(vae.prior(batch).log_prob(codes), left, rtol=1e-9)
    np.testing.assert_allclose(vae.prior().log_prob(codes), seen, rtol=1e-9)
    assert (seen - left).min() > 5
    noise = np.zeros((8, 3))
    terms = vae.terms(batch, noise, 1.0)
    information = vae.information(vae.rate_and_distortion(batch, 1e-3 / vae.posterior(batch).stddev()), batch)
    mean = vae.posterior(batch).mean()
    expected = vae.posterior(batch).log_prob(mean) - vae.prior(batch).log_prob(mean)
    np.testing.assert_allclose(terms.rate, expected, rtol=1e-10)
    np.testing.assert_allclose(sum(information), vae.posterior(batch).log_prob(codes) - left, rtol=1e-9)
    batch[0, 0, 0, 0] += 1 / 255 if batch[0, 0, 0, 0] < 1 else -1 / 255
    changed = vae.prior(batch).log_prob(codes).numpy()
    assert changed[0] == pytest.approx(seen[0]), "one grey value makes it another image"


@pytest.mark.slow
@pytest.mark.parametrize("stacked, jit", [(True, False), (False, True)])
def test_no_image_of_a_column_sees_its_own_code_and_test_images_see_all(split, stacked, jit):
    configs = members(SMALL.replace(precision="float64", prior="exemplar"), (0.01, 2.0), (3, 0))[::3]
    column = trained(configs, split, 3, jit=jit, stacked=stacked)
    for place in range(2):
        vae = column.member_model(place, member_state(column, place))
        kept, scale = vae.prior_layer.exemplars.numpy(), np.exp(vae.prior_layer.log_scale.numpy())
        means = vae.posterior(kept / 255).mean().numpy()
        for partition in (split.train, split.test):
            found = column.evaluate(partition)
            codes = found.mean[place] + found.stddev[place] * random_streams.evaluation_noise(partition.index, 4)
            logs = scipy.stats.norm.logpdf(codes[:, None], means, scale).sum(2)
            own = (partition.images[:, None] == kept).all((2, 3, 4))
            assert own.any(0).all() == (partition is split.train)
            expected = scipy.special.logsumexp(np.where(own, -np.inf, logs), axis=1) - np.log((~own).sum(1))
            np.testing.assert_allclose(found.log_prior[place], expected, rtol=1e-7)
            np.testing.assert_allclose(found.rate[place], found.log_posterior[place] - expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("latent_dim", [3, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (2, 5))])
def test_the_flow_is_inverted_exactly_and_its_log_determinant_is_autodiffs(latent_dim):
    flow = make(latent_dim, prior="flow", scale=0.5).prior_layer
    noise = tf.constant(np.random.default_rng(0).standard_normal((7, latent_dim)))
    with tf.GradientTape() as tape:
        tape.watch(noise)
        codes = flow.codes(noise)
    jacobian = tape.batch_jacobian(codes, noise).numpy()
    back, log_det = flow.noise(codes)
    np.testing.assert_allclose(back, noise, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(log_det, -np.linalg.slogdet(jacobian)[1], rtol=1e-9, atol=1e-10)
    shifts = 1e-6 * np.eye(latent_dim)
    numerical = np.stack([(flow.codes(noise + shift) - flow.codes(noise - shift)).numpy() / 2e-6 for shift in shifts],
                         -1)
    np.testing.assert_allclose(jacobian, numerical, rtol=1e-6, atol=1e-7)
    density = scipy.stats.norm.logpdf(noise).sum(1) - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(flow.distribution().log_prob(codes), density, rtol=1e-9)
    assert np.abs(jacobian - np.eye(latent_dim)).max(0).min() > 0.1  # every dimension is moved
    assert np.abs(log_det).min() > 1e-3


def test_the_flow_starts_near_the_papers_prior():
    codes = np.random.default_rng(0).standard_normal((200, 4))
    first = make(4, prior="flow", scale=0.0).prior().log_prob(codes).numpy()
    ours = scipy.stats.norm.logpdf(codes).sum(1)
    assert 0 < np.abs(first - ours).max() < 1.5


@pytest.mark.parametrize("prior", PRIORS)
def test_the_rate_is_exact_where_the_catalogue_says_so(prior):
    """Then no noise changes it; else it is the log ratio at the code. Its mean over the noise is the KL in any case."""
    vae = make(prior=prior)
    images, _ = batch(size=3)
    posterior = vae.posterior(images)
    noise = np.random.default_rng(3).standard_normal((4000, 3, 2))
    rates = np.stack([vae.terms(images, noise[draw], 1.0).rate.numpy() for draw in range(2)])
    assert np.allclose(rates[0], rates[1], rtol=1e-12) == catalogue.PRIORS[prior].exact_rate
    codes = posterior.mean() + posterior.stddev() * noise
    ratios = (posterior.log_prob(codes) - vae.prior().log_prob(codes)).numpy()
    if catalogue.PRIORS[prior].exact_rate:
        assert (np.abs(ratios.mean(0) - rates[0]) < 4 * ratios.std(0) / np.sqrt(4000)).all()
    else:
        np.testing.assert_allclose(rates, ratios[:2], rtol=1e-10)


@pytest.mark.parametrize("part", ["both", "mutual_information", "marginal_kl"])
def test_a_narrow_posterior_far_from_zero_keeps_its_rate(part):
    """In single precision mean + stddev * noise has no digit of the noise left, and no density can be made of it."""
    prior = "standard_normal" if part == "mutual_information" else "mixture"  # of the former the prior is no part
    found, exact = (make(prior=prior, rate_terms=part, precision=precision) for precision in ("float32", "float64"))
    images, noise = batch()
    biases = [weight for weight in found.encoder.trainable_variables if weight.shape == (2,)]
    for bias, value in zip(biases, (30, -20), strict=True):  # of the mean, and of the log of stddev
        bias.assign(np.full(2, value))
    exact.set_weights(found.get_weights())
    single = images.astype(np.float32), noise.astype(np.float32)
    coded, expected = found.rate_and_distortion(*single), exact.rate_and_distortion(images, noise)
    assert np.abs(coded.posterior.log_prob(coded.codes).numpy() - expected.log_posterior).max() > 1
    np.testing.assert_allclose(coded.log_posterior, expected.log_posterior, rtol=1e-4)
    np.testing.assert_allclose(found.terms(*single, 1.0).penalty, exact.terms(images, noise, 1.0).penalty, atol=0.1)


# In training, columns and files


def check_step(changes):
    """One step moves every weight, those of the prior and the likelihood included."""
    width = {"channels": 4} if changes.get("architecture") == "cnn" else {"hidden_units": 16}
    vae = model.build(Config(image_size=8, latent_dim=4, **width, **changes), SHAPE, 300)
    vae.compile(optimizer=keras.optimizers.Adam(1e-3))
    before = [weight.numpy() for weight in vae.trainable_variables]
    vae.train_step(tf.constant(batch(size=32)[0], vae.variable_dtype))
    still = [weight.path for weight, old in zip(vae.trainable_variables, before) if np.array_equal(weight.numpy(), old)]
    assert still == []
    assert len(vae.named_weights()) == len(before) and all(np.isfinite(weight).all()
                                                           for weight in vae.trainable_variables)


def check_saved(folder, changes):
    """model.keras holds every weight, and loads without anything but vae_rd.model."""
    vae = make(4, **changes)
    vae.adapt(np.random.default_rng(3).integers(0, 256, (300, *SHAPE), np.uint8))
    vae.save(folder / "model.keras")
    loaded = model.load(folder / "model.keras")
    images, noise = batch(4, dtype=vae.variable_dtype)
    assert loaded.get_config() == vae.get_config() and list(loaded.named_weights()) == list(vae.named_weights())
    for value, expected in zip(loaded.terms(images, noise, 1.0), vae.terms(images, noise, 1.0)):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(loaded(images), vae(images))


def check_column(split, changes, stacked, jit):
    """A member trained beside another is the run trained alone, weight by weight; so are its evaluated values."""
    configs = members(SMALL.replace(precision="float64", **changes), (0.01, 2.0), (3, 0))[::3]
    together = trained(configs, split, 40, jit=jit, stacked=stacked)
    alone = trained(configs[1:], split, 40, jit=jit, stacked=False)
    assert distance(member_state(together, 1), member_state(alone, 0)) < 1e-9
    assert distance(member_state(together, 0), member_state(alone, 0)) > 0.1  # not by all being the same
    np.testing.assert_allclose(together.trace[:, :, 1], alone.trace[:, :, 0], rtol=1e-9)
    ours, expected = together.evaluate(split.test), alone.evaluate(split.test)
    single = alone.member_model(0, member_state(alone, 0))
    np.testing.assert_allclose(ours.distortion[1], expected.distortion[0], rtol=1e-9)
    np.testing.assert_allclose(ours.rate[1], expected.rate[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(single.prior().log_prob(np.ones((2, 4))), together.member_model(
        1, member_state(together, 1)).prior().log_prob(np.ones((2, 4))), rtol=1e-9)


@pytest.mark.parametrize("prior", LEARNED)
def test_every_parameter_moves_in_one_step(prior):
    check_step({"prior": prior})
    check_step({"prior": prior, "precision": "bfloat16", "rate_terms": "marginal_kl"})


@pytest.mark.slow
@pytest.mark.parametrize("prior, likelihood", [
    ("learned_normal", "continuous_bernoulli"), ("vamp", "normal_learned_scale"), ("exemplar", "bernoulli"),
    ("flow", "discretized_logistic"), ("mixture", "normal")])
def test_fit_learns_with_keras_defaults(split, prior, likelihood):
    vae = model.build(Config(image_size=8, hidden_units=16, prior=prior, likelihood=likelihood), SHAPE, 300)
    vae.adapt(split.train.images)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = vae.fit(split.train.images.astype(np.float32) / 255, batch_size=50, epochs=12, verbose=0).history
    assert np.diff(history["objective"])[:3].max() < 0 and history["objective"][-1] < history["objective"][3]


@pytest.mark.slow
@pytest.mark.parametrize("prior, allowed", [("mixture", 0.02), ("flow", 0.2), ("vamp", 0.1)])
def test_a_prior_learns_a_distribution_that_no_normal_fits(prior, allowed):
    """Two clusters: the negative log density falls to their entropy, far below that of the best Gaussian."""
    random = np.random.default_rng(0)
    signs = random.choice([-1.0, 1.0], (4000, 1))
    codes = signs * [2.0, 1.0] + 0.3 * random.standard_normal((4000, 2))
    parts = [scipy.stats.multivariate_normal([2 * sign, sign], 0.09 * np.eye(2)).logpdf(codes) for sign in (-1, 1)]
    entropy = -(np.logaddexp(*parts) - np.log(2)).mean()
    best_normal = -scipy.stats.multivariate_normal(codes.mean(0), np.cov(codes.T)).logpdf(codes).mean()
    vae = make(prior=prior, scale=0.0)
    weights = vae.prior_layer.trainable_variables + (vae.encoder.trainable_variables if prior == "vamp" else [])
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(weights)

    @tf.function(jit_compile=prior != "mixture")  # which takes less time than its compilation
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(vae.prior().log_prob(codes))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return loss

    losses = [float(step()) for _ in range(400)]
    assert entropy - 0.02 < losses[-1] < entropy + allowed < best_normal - 0.3 < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("prior", LEARNED)
def test_the_saved_model_is_the_same_model(tmp_path, prior):
    check_saved(tmp_path, {"prior": prior})
    check_saved(tmp_path, {"prior": prior, "precision": "float32", "likelihood": "normal_learned_scale"})


@pytest.mark.slow
@pytest.mark.parametrize("stacked, jit", [(True, False), (False, True)])
@pytest.mark.parametrize("prior", LEARNED)
def test_a_member_of_a_column_is_the_run_trained_alone(split, prior, stacked, jit):
    check_column(split, {"prior": prior}, stacked, jit)
