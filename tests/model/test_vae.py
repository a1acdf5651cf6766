"""The model against closed forms, NumPy and SciPy; its gradients, its steps, and its file."""

import hashlib
import io
import os
import pathlib
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.numpy_vae import NumpyVae
from vae_rd import model
from vae_rd.config import Config, ConfigError
from vae_rd.storage import files

SHAPE = (8, 8, 3)
KINDS = [{}, {"num_layers": 3}, {"architecture": "cnn"}, {"architecture": "cnn", "num_layers": 3}, {"prior": "mixture"}]


def make(num_train=300, scale=1.0, **changes):
    """A small model whose posterior is not the prior: its weights are drawn anew, biases too."""
    small = {"channels": 4} if changes.get("architecture") == "cnn" else {"hidden_units": 16}
    made = model.build(Config(**small, **{"image_size": 8, "latent_dim": 4} | changes), SHAPE, num_train)
    random = np.random.default_rng(1)
    for weight in made.trainable_variables:
        weight.assign(weight.numpy() + scale * 0.3 * random.standard_normal(weight.shape))
    return made


def batch(size=6, dtype=np.float64, latent_dim=4):
    """Grey images [size, 8, 8, 3], black and white pixels among them, and noise [size, latent_dim]."""
    random = np.random.default_rng(2)
    images = np.clip(random.uniform(-0.5, 1.5, (size, *SHAPE)), 0, 1)
    return images.astype(dtype), random.standard_normal((size, latent_dim)).astype(dtype)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_terms_are_those_of_numpy(num_layers):
    vae = make(num_layers=num_layers, precision="float64")
    images, noise = batch()
    rate, distortion, mean, stddev, logits, _ = NumpyVae([w.numpy() for w in vae.trainable_variables],
                                                         num_layers).forward(images, noise)
    terms = vae.terms(images, noise, 0.7)
    np.testing.assert_allclose(terms.rate, rate, rtol=1e-12)
    np.testing.assert_allclose(terms.distortion, distortion, rtol=1e-12)
    np.testing.assert_allclose(terms.penalty, rate, rtol=1e-12)
    np.testing.assert_allclose(terms.objective, distortion + 0.7 * rate, rtol=1e-12)
    np.testing.assert_allclose(vae.posterior(images).mean(), mean, rtol=1e-10)
    np.testing.assert_allclose(vae.posterior(images).stddev(), stddev, rtol=1e-10)
    np.testing.assert_allclose(vae.likelihood(mean + stddev * noise).mean(),
                               scipy.special.expit(logits).reshape(images.shape), rtol=1e-10)


@pytest.mark.parametrize("changes", KINDS)
def test_distortion_sums_the_cross_entropy_of_grey_targets_over_pixels(changes):
    vae = make(scale=0.3, precision="float64", **changes)
    images, noise = batch()
    posterior = vae.posterior(images)
    pixels = vae.likelihood(posterior.mean() + posterior.stddev() * noise).mean().numpy()
    expected = -(scipy.special.xlogy(images, pixels) + scipy.special.xlog1py(1 - images, -pixels)).sum((1, 2, 3))
    distortion = vae.terms(images, noise, 1.0).distortion
    np.testing.assert_allclose(distortion, expected, rtol=1e-9)
    assert not np.allclose(distortion, expected / images[0].size)  # a mean over pixels would pass nowhere near


def test_distortion_of_a_perfect_reconstruction_is_the_entropy_floor():
    vae = make(precision="float64")
    images = batch()[0][:1].clip(0.01, 0.99)
    kernel, bias = vae.decoder.trainable_variables[-2:]
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(scipy.special.logit(images).reshape(-1))
    floor = (scipy.special.entr(images) + scipy.special.entr(1 - images)).sum()
    np.testing.assert_allclose(vae.terms(images, np.zeros((1, 4)), 1.0).distortion, [floor], rtol=1e-12)


def test_rate_is_zero_where_the_posterior_is_the_prior():
    vae = make(precision="float64")
    for weight in vae.encoder.trainable_variables[-4:]:  # both heads: mean 0, log scale 0
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(vae.terms(*batch(), 1.0).rate, np.zeros(6))


@pytest.mark.parametrize("changes", KINDS[:4])
def test_rate_is_the_closed_form(changes):
    vae = make(precision="float64", **changes)
    images, noise = batch()
    mean, stddev = vae.posterior(images).mean().numpy(), vae.posterior(images).stddev().numpy()
    expected = 0.5 * (mean**2 + stddev**2 - 1 - np.log(stddev**2)).sum(1)
    np.testing.assert_allclose(vae.terms(images, noise, 1.0).rate, expected, rtol=1e-12)
    draws = np.random.default_rng(0).standard_normal((200_000, 1, 4)) * stddev[:2] + mean[:2]  # and the definition
    log_ratio = scipy.stats.norm.logpdf(draws, mean[:2], stddev[:2]) - scipy.stats.norm.logpdf(draws)
    np.testing.assert_allclose(expected[:2], log_ratio.sum(2).mean(0), rtol=0.02)


def test_rate_against_a_mixture_is_the_log_ratio_at_the_code():
    vae = make(precision="float64", prior="mixture")
    images, noise = batch()
    posterior = vae.posterior(images)
    codes = (posterior.mean() + posterior.stddev() * noise).numpy()
    means, log_scales, logits = (weight.numpy() for weight in vae.prior_layer.trainable_variables)
    assert means.shape == (16, 4)
    log_prior = scipy.special.logsumexp(np.log(scipy.special.softmax(logits)) + scipy.stats.norm.logpdf(
        codes[:, None], means, np.exp(log_scales)).sum(2), axis=1)
    log_posterior = scipy.stats.norm.logpdf(codes, posterior.mean(), posterior.stddev()).sum(1)
    np.testing.assert_allclose(vae.terms(images, noise, 1.0).rate, log_posterior - log_prior, rtol=1e-10)


def test_likelihood_takes_any_leading_axes():
    vae, codes = make(), np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    likelihood = vae.likelihood(codes)
    assert likelihood.batch_shape == (2, 5, 3) and likelihood.event_shape == SHAPE
    flat = vae.likelihood(codes.reshape(-1, 4)).mean().numpy()
    np.testing.assert_allclose(likelihood.mean().numpy().reshape(flat.shape), flat, rtol=1e-6)
    assert vae.prior().event_shape == (4,) and vae.prior().batch_shape == ()
    assert vae.posterior(batch()[0]).event_shape == (4,)


@pytest.mark.parametrize("architecture, num_layers, expected", [
    ("mlp", 1, 192 * 16 + 16 + 2 * (16 * 4 + 4) + 4 * 16 + 16 + 16 * 192 + 192),
    ("mlp", 3, 192 * 16 + 16 + 2 * (16 * 4 + 4) + 4 * 16 + 16 + 16 * 192 + 192 + 4 * (16 * 16 + 16)),
    ("cnn", 1, 16 * 3 * 4 + 4 + 2 * (64 * 4 + 4) + 4 * 64 + 64 + 16 * 4 * 3 + 3),
    ("cnn", 3, 16 * 3 * 4 + 4 + 2 * (16 * 16 + 4) + 2 * (4 * 4 + 4) + 4 * 4 + 4 + 2 * (16 * 16 + 4) + 16 * 4 * 3 + 3),
])
def test_the_networks_have_the_layers_they_should(architecture, num_layers, expected):
    vae = make(architecture=architecture, num_layers=num_layers)
    assert sum(int(np.prod(weight.shape)) for weight in vae.trainable_variables) == expected


def test_weights_start_as_glorot_with_zero_biases_and_own_seeds():
    first, again, other = (model.build(Config(image_size=8, hidden_units=64, num_layers=2, seed=seed), SHAPE, 300)
                           for seed in (0, 0, 1))
    kernels = [weight.numpy() for weight in first.trainable_variables if weight.name == "kernel"]
    for kernel in kernels:
        limit = np.sqrt(6 / sum(kernel.shape))
        assert 0.9 * limit < np.abs(kernel).max() <= limit and abs(kernel.mean()) < 0.1 * limit
    assert all((weight.numpy() == 0).all() for weight in first.trainable_variables if weight.name == "bias")
    assert len({kernel.ravel()[0] for kernel in kernels}) == len(kernels)  # no two layers share their draw
    for one, same, different in zip(*(vae.trainable_variables for vae in (first, again, other))):
        np.testing.assert_array_equal(one, same)
        assert one.name == "bias" or not np.array_equal(one, different)


def test_beta_does_not_change_the_first_weights():
    for one, two in zip(*(model.build(Config(image_size=8, hidden_units=16, beta=beta), SHAPE, 300).trainable_variables
                          for beta in (0.0, 5.0))):
        np.testing.assert_array_equal(one, two)


# The parts of the rate


def brute_force_parts(vae, images, noise, num_train):
    """Both parts of the rate at each code, by the formula of Esmaeili et al. 2019, one density at a time."""
    mean, stddev = vae.posterior(images).mean().numpy(), vae.posterior(images).stddev().numpy()
    codes, size = mean + stddev * noise, len(images)
    density = np.array([[scipy.stats.norm.pdf(code, mean[n], stddev[n]).prod() for n in range(size)] for code in codes])
    others = np.array([sum(density[b, n] for n in range(size) if n != b) for b in range(size)])
    log_aggregate = np.log(density.diagonal() / num_train + (num_train - 1) / (num_train * (size - 1)) * others)
    return {"mutual_information": np.log(density.diagonal()) - log_aggregate,
            "marginal_kl": log_aggregate - scipy.stats.norm.logpdf(codes).sum(1)}


@pytest.mark.parametrize("size, num_train", [(6, 300), (2, 2), (6, 6), (5, 81_920)])
@pytest.mark.parametrize("part", ["mutual_information", "marginal_kl"])
def test_the_penalised_part_is_the_minibatch_estimate(part, size, num_train):
    vae = make(num_train, scale=0.3, precision="float64", rate_terms=part)
    images, noise = batch(size)
    terms = vae.terms(images, noise, 2.0)
    expected = brute_force_parts(vae, images, noise, num_train)[part]
    np.testing.assert_allclose(terms.penalty, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(terms.objective, terms.distortion + 2.0 * expected, rtol=1e-9)


@pytest.mark.parametrize("part", ["mutual_information", "marginal_kl"])
def test_a_copy_in_the_batch_is_none_of_the_other_images(part):
    """The estimate at an image is that of a batch without its copies; of an image seen alone, that of B = 1."""
    vae = make(300, scale=0.3, precision="float64", rate_terms=part)
    images, noise = batch(6)
    images[[3, 5]] = images[0]
    rows = np.array([7, 2, 9, 7, 4, 7], np.int32)
    penalty = vae.terms(images, noise, 1.0, rows).penalty.numpy()
    for copy in (0, 3, 5):
        kept = [copy, 1, 2, 4]
        expected = brute_force_parts(vae, images[kept], noise[kept], 300)[part]
        assert penalty[copy] == pytest.approx(expected[0], rel=1e-9)
    assert penalty[1] == pytest.approx(brute_force_parts(vae, images, noise, 300)[part][1], rel=1e-9)
    assert not np.allclose(penalty, vae.terms(images, noise, 1.0).penalty, rtol=1e-3)
    assert np.isfinite(vae.terms(images, noise, 1.0, np.zeros(6, np.int32)).penalty).all()


def test_the_parts_sum_to_the_log_ratio():
    vae = make(precision="float64")
    images, noise = batch()
    coded = vae.rate_and_distortion(images, noise)
    parts = vae.information(coded)
    ratio = coded.posterior.log_prob(coded.codes) - vae.prior().log_prob(coded.codes)
    np.testing.assert_allclose(parts.mutual_information + parts.marginal_kl, ratio, rtol=1e-9)


def test_far_apart_codes_have_the_most_information():
    """log N, not log B: what the plain mean over the batch would give."""
    vae = make(num_train=16384, precision="float64", rate_terms="mutual_information")
    vae.encoder.trainable_variables[-1].assign(np.full(4, -20.0))  # stddev near e^-20
    np.testing.assert_allclose(vae.terms(*batch(), 1.0).penalty, np.full(6, np.log(16384)), rtol=1e-6)


@pytest.mark.parametrize("rate_terms, prior", [
    ("both", "standard_normal"), ("both", "mixture"), ("mutual_information", "standard_normal"),
    ("marginal_kl", "standard_normal"), ("marginal_kl", "mixture")])
@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_gradients_are_those_of_finite_differences(rate_terms, prior, beta):
    vae = make(scale=0.3, precision="float64", rate_terms=rate_terms, prior=prior)
    images, noise = batch()
    weights = vae.trainable_variables
    loss = tf.function(lambda: tf.reduce_mean(vae.terms(images, noise, beta).objective))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(vae.terms(images, noise, beta).objective)
    gradients = tape.gradient(value, [weight.value for weight in weights], unconnected_gradients="zero")
    random, start = np.random.default_rng(3), [weight.numpy() for weight in weights]
    for number in range(len(weights)):
        direction = random.standard_normal(weights[number].shape)
        sides = []
        for shift in (1e-6, -1e-6):
            weights[number].assign(start[number] + shift * direction)
            sides.append(float(loss()))
        weights[number].assign(start[number])
        slope = float(tf.reduce_sum(gradients[number] * direction))
        np.testing.assert_allclose(slope, (sides[0] - sides[1]) / 2e-6, rtol=1e-5, atol=1e-6,
                                   err_msg=weights[number].path)
        unused = "mixture" in weights[number].path and (beta == 0 or rate_terms == "mutual_information")
        assert (slope == 0) == unused, weights[number].path


def test_beta_zero_is_an_autoencoder():
    vae = make(precision="float64")
    terms = vae.terms(*batch(), 0.0)
    np.testing.assert_array_equal(terms.objective, terms.distortion)


def test_beta_may_differ_between_images():
    vae, betas = make(precision="float64"), np.array([0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
    terms = vae.terms(*batch(), betas)
    np.testing.assert_allclose(terms.objective, terms.distortion.numpy() + betas * terms.rate.numpy(), rtol=1e-12)


# Keras's own loop


def compiled(vae, learning_rate=1e-3, **arguments):
    """The model, ready for `fit`."""
    vae.compile(optimizer=keras.optimizers.Adam(learning_rate), **arguments)
    return vae


@pytest.mark.parametrize("changes", [*KINDS, {"precision": "bfloat16"}, {"rate_terms": "marginal_kl"}])
def test_every_parameter_moves_in_one_step(changes):
    width = {} if "architecture" in changes else {"hidden_units": 16}
    vae = compiled(model.build(Config(image_size=8, **width, **changes), SHAPE, 300))
    before = [weight.numpy() for weight in vae.trainable_variables]
    vae.train_step(tf.constant(batch(32, np.float32)[0]))
    still = [weight.path for weight, old in zip(vae.trainable_variables, before) if np.array_equal(weight.numpy(), old)]
    assert still == [] and len(before) >= 10


@pytest.mark.slow
def test_fit_takes_the_steps_of_numpy():
    vae = compiled(make(precision="float64", beta=0.5, seed=7), jit_compile=False)
    check = NumpyVae([weight.numpy() for weight in vae.trainable_variables], 1)
    images, _ = batch(20)
    history = vae.fit(tf.data.Dataset.from_tensor_slices(images).batch(8), epochs=2, verbose=0, shuffle=False).history
    sums = []
    for step, start in enumerate([0, 8, 16] * 2):
        own = images[start:start + 8]
        noise = tf.random.stateless_normal([len(own), 4], tf.random.fold_in([7, 0], step), dtype=tf.float64).numpy()
        rate, distortion, *_ = check.forward(own, noise)
        sums.append([rate.sum(), distortion.sum()])
        check.step(own, noise, 0.5, 1e-3)
    for weight, expected in zip(vae.trainable_variables, check.weights):
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-9, atol=1e-12)
    means = np.array(sums).reshape(2, 3, 2).sum(1) / 20  # of images: the ragged last batch weighs what it is
    np.testing.assert_allclose(history["rate"], means[:, 0], rtol=1e-5)
    np.testing.assert_allclose(history["distortion"], means[:, 1], rtol=1e-5)


@pytest.mark.slow
def test_fit_learns_with_keras_defaults(split):
    vae = compiled(model.build(Config(image_size=8, hidden_units=16), SHAPE, 300), 1e-2)
    images = split.train.images.astype(np.float32) / 255
    history = vae.fit(images, batch_size=50, epochs=20, verbose=0).history
    assert history["objective"][-1] < 0.6 * history["objective"][0]
    test = vae.evaluate(split.test.images.astype(np.float32) / 255, batch_size=77, verbose=0, return_dict=True)
    assert test["objective"] == pytest.approx(test["distortion"] + test["rate"], rel=1e-4)
    assert test["objective"] < 0.7 * history["objective"][0]
    reconstructions = vae.predict(images[:5], verbose=0)
    np.testing.assert_allclose(reconstructions, vae(images[:5]), rtol=1e-4)


# Its file


@pytest.mark.parametrize("changes", [*KINDS, {"precision": "float64"}, {"precision": "bfloat16"},
                                     {"rate_terms": "marginal_kl", "beta": 0.1}])
def test_the_saved_model_is_the_same_model(tmp_path, changes):
    vae = make(**changes)
    vae.save(tmp_path / "model.keras")
    loaded = model.load(tmp_path / "model.keras")
    images, noise = batch(dtype=vae.variable_dtype)
    assert type(loaded) is model.VAE and loaded.get_config() == vae.get_config()
    assert [weight.path.partition("/")[2] for weight in loaded.variables] == [
        weight.path.partition("/")[2] for weight in vae.variables]
    for value, expected in zip(loaded.terms(images, noise, loaded.beta), vae.terms(images, noise, vae.beta)):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(loaded(images), vae(images))


def test_a_file_in_which_beta_is_a_weight_is_read(tmp_path):
    """Of a run trained at commit 0f7e11b: cd_40, 8 x 8, 40 steps, hidden_units 2, latent_dim 2, beta 0.3, float64."""
    path = pathlib.Path(__file__).with_name("saved_with_beta_as_weight.keras")
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        assert file["vars/0"][()] == 0.3
        saved = [value[()] for part in ("encoder", "decoder") for value in arrays_in(file[part])]
    loaded = model.load(path)
    assert loaded.beta == 0.3 and len(saved) == len(loaded.trainable_variables) == 10
    for value, weight in zip(sorted(saved, key=np.sum), sorted(loaded.trainable_variables, key=np.sum)):
        np.testing.assert_array_equal(value, weight)
    images, noise = batch(latent_dim=2)
    rate, distortion, *_ = NumpyVae([weight.numpy() for weight in loaded.trainable_variables], 1).forward(images, noise)
    terms = loaded.terms(images, noise, loaded.beta)
    np.testing.assert_allclose(terms.objective, distortion + 0.3 * rate, rtol=1e-12)
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(model.load(tmp_path / "again.keras")(images), loaded(images))


def arrays_in(group):
    """The arrays at and below a group of an HDF5 file."""
    found = []
    group.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def test_a_file_with_other_weights_of_its_own_is_refused():
    with pytest.raises(ValueError, match="2 variables"):
        make().load_own_variables({"0": np.zeros(()), "1": np.zeros(())})


def test_images_on_the_wrong_scale_are_refused():
    vae, images = make(prior="exemplar"), np.zeros((3, *SHAPE), np.uint8)
    for wrong in (images, tf.constant(images), images.astype(int)):
        with pytest.raises(ConfigError, match=r"images must be numbers in \[0, 1\] \(got u?int\d+\)\. Try images"):
            vae(wrong)
    for wrong in (images / 255, images[:, 1:]):
        with pytest.raises(ConfigError, match=r"images must be uint8 of shape \[num, 8, 8, 3\] \(got .*Partition"):
            vae.adapt(wrong)


def test_weights_are_assigned_by_name():
    source, target = make(prior="mixture"), make(prior="mixture", scale=2.0)
    values = {name: weight.numpy() for name, weight in source.named_weights().items()}
    assert len(values) == len(source.trainable_variables) == 13
    target.assign_weights({"beta": np.ones(())} | dict(reversed(values.items())))
    for weight, expected in zip(target.trainable_variables, source.trainable_variables):
        np.testing.assert_array_equal(weight, expected)
    del values["encoder.0.kernel"], values["prior.2.logits"]
    with pytest.raises(files.FileError, match="weights are missing: encoder.0.kernel, prior.2.logits. Their file is"):
        target.assign_weights(values)


@pytest.mark.slow
def test_another_program_loads_the_model_after_one_import(tmp_path):
    vae = make(beta=0.25)
    vae.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", batch(dtype=np.float32)[0])
    program = ("import keras, numpy as np, sys; {}loaded = keras.models.load_model('model.keras', safe_mode=True);"
               "np.save('out.npy', loaded(np.load('images.npy'))); print(loaded.beta)")
    done = subprocess.run([sys.executable, "-c", program.format("import vae_rd.model; ")], cwd=tmp_path, text=True,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])})
    assert done.stdout == "0.25\n", done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), vae(np.load(tmp_path / "images.npy")), rtol=1e-6)



@pytest.mark.parametrize("fields, expected", [
    ({"hidden_units": 16}, "35e636e106709c0a"), ({"architecture": "cnn", "channels": 4}, "e5815d092df5a835"),
    ({"hidden_units": 16, "num_layers": 3, "prior": "mixture"}, "9c2034a05ec3e2da")], ids=str)
def test_the_first_weights_are_those_of_version_0_1(fields, expected):
    """A seed keeps its meaning over versions: layers draw their seeds in the order in which they are made."""
    vae = model.build(Config(image_size=8, latent_dim=4, seed=3, **fields), (8, 8, 3), 10)
    digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in vae.named_weights().values()))
    assert digest.hexdigest()[:16] == expected
