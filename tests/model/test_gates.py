"""Networks that are told beta: their gates against NumPy, at their limits, and in the model."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from vae_rd import model
from vae_rd.config import Config, ConfigError
from vae_rd.model import networks

SHAPE = (8, 8, 3)
CONFIG = Config(conditioning="beta", image_size=8, latent_dim=4, hidden_units=16, num_layers=2, precision="float64")
CNN = Config(conditioning="beta", image_size=8, latent_dim=4, architecture="cnn", channels=4, num_layers=2)


def decoder_gate(score):
    """In NumPy, as in the docstring."""
    return np.sqrt(np.maximum(0, 1 - np.exp(np.minimum(score, 700))))


@pytest.mark.parametrize("gate, expected", [(networks.EncoderGate, scipy.special.expit),
                                            (networks.DecoderGate, decoder_gate)])
def test_gates_are_those_of_numpy_and_reach_their_limits(gate, expected):
    layer, scores = gate(keras.DTypePolicy("float64")), np.array([-800.0, -40, -3, -1, -0.01, 0.0, 0.01, 3, 40, 800])
    opening = layer.opening(tf.constant(scores)).numpy()
    np.testing.assert_allclose(opening, expected(scores), rtol=1e-12)
    limits = (0, 1) if gate is networks.EncoderGate else (1, 0)
    assert (opening[0], opening[-1]) == limits and ((0 <= opening) & (opening <= 1)).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_slopes_of_a_gate_are_finite_where_it_closes(precision):
    """The root has no slope at 0, and relu(1 - exp) no value beyond: either would be NaN, and end the run."""
    scores = tf.constant([-1.0, -1e-6, -1e-12, 0.0, 1e-12, 1.0, 90.0, 1000.0], precision)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        opening = networks.DecoderGate(keras.DTypePolicy(precision)).opening(scores)
    slopes = tape.gradient(opening, scores).numpy()
    assert np.isfinite(slopes).all() and (slopes[3:] == 0).all()
    np.testing.assert_allclose(slopes[0], -np.exp(-1) / 2 / np.sqrt(1 - np.exp(-1)), rtol=1e-6)


def gated_forward(weights, images, noise, beta):
    """Rate and distortion of the MLP with 2 layers, in NumPy."""
    weights, log_beta = iter(weights), np.log(beta)[:, np.newaxis]
    pixels = images.reshape(len(images), -1)

    def hidden_layer(values, opening):
        kernel, bias, slope, offset = (next(weights) for _ in range(4))
        return np.maximum(values @ kernel + bias, 0) * opening(slope * log_beta + offset)

    hidden = hidden_layer(hidden_layer(pixels, scipy.special.expit), scipy.special.expit)
    mean, log_scale = (hidden @ next(weights) + next(weights) for _ in range(2))
    hidden = hidden_layer(hidden_layer(mean + np.exp(log_scale) * noise, decoder_gate), decoder_gate)
    logits = hidden @ next(weights) + next(weights)
    rate = 0.5 * (mean**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale).sum(1)
    return rate, (np.logaddexp(0, logits) - pixels * logits).sum(1)


def test_terms_with_a_beta_for_each_image_are_those_of_numpy():
    vae, random = model.build(CONFIG, SHAPE, 300), np.random.default_rng(0)
    for weight in vae.trainable_variables:
        weight.assign(weight.numpy() + 0.3 * random.standard_normal(weight.shape))
    images, noise, beta = random.uniform(size=(6, *SHAPE)), random.standard_normal((6, 4)), np.geomspace(0.001, 5, 6)
    rate, distortion = gated_forward([weight.numpy() for weight in vae.trainable_variables], images, noise, beta)
    terms = vae.terms(images, noise, beta)
    np.testing.assert_allclose(terms.rate, rate, rtol=1e-9)
    np.testing.assert_allclose(terms.distortion, distortion, rtol=1e-9)
    np.testing.assert_allclose(terms.objective, distortion + beta * rate, rtol=1e-9)
    one = vae.terms(images, noise, beta[2])
    np.testing.assert_allclose(one.rate[2], rate[2], rtol=1e-9)
    assert not np.allclose(one.rate, rate, rtol=1e-3)


@pytest.mark.parametrize("config", [CONFIG.replace(beta=0.2), CNN.replace(beta=0.2)], ids=["mlp", "cnn"])
def test_a_model_is_told_its_own_beta_unless_it_is_told_another_also_when_saved_and_opened(tmp_path, config):
    vae, random = model.build(config, SHAPE, 300), np.random.default_rng(0)
    for weight in vae.trainable_variables:
        weight.assign(weight.numpy() + 0.3 * random.standard_normal(weight.shape))
    vae.save(tmp_path / "model.keras")
    loaded = model.load(tmp_path / "model.keras", config)
    images, codes = random.uniform(size=(6, *SHAPE)).astype(config.precision), random.standard_normal((3, 6, 4))
    for one in (vae, loaded):
        for beta in (0.2, np.full(6, 0.2)):
            np.testing.assert_array_equal(one.posterior(images).mean(), vae.posterior(images, beta).mean())
            np.testing.assert_array_equal(one.likelihood(codes).mean(), vae.likelihood(codes, beta).mean())
        np.testing.assert_allclose(one.picture(codes), vae.likelihood(codes, 0.2).mean(), rtol=1e-5)
        np.testing.assert_array_equal(one(images), vae(images))
    assert not np.allclose(vae.posterior(images).mean(), vae.posterior(images, 0.5).mean(), rtol=1e-3)
    assert not np.allclose(vae.likelihood(codes).mean(), vae.likelihood(codes, 0.5).mean(), rtol=1e-3)


@pytest.mark.parametrize("config", [CONFIG, CNN], ids=["mlp", "cnn"])
def test_gates_keep_their_digits_in_mixed_precision(config):
    """In graphs and outside: Keras casts a layer's weights to the type that it computes in."""
    full, mixed = (model.build(config.replace(precision=name), SHAPE, 300) for name in ("float32", "bfloat16"))
    for weight, other in zip(mixed.trainable_variables, full.trainable_variables):
        weight.assign(other)
    images = np.random.default_rng(0).uniform(size=(6, *SHAPE)).astype(np.float32)
    gates = [layer for layer in mixed.encoder.layers if isinstance(layer, networks.Gate)]
    assert len(gates) == 2 and {gate.compute_dtype for gate in gates} == {"float32"}
    for given in (mixed(images), tf.function(mixed)(images)):
        np.testing.assert_allclose(given, full(images), atol=0.02)
    assert mixed.posterior(images).mean().dtype == tf.float32


@pytest.mark.slow
def test_fit_trains_a_model_at_its_own_beta():
    vae = model.build(CONFIG.replace(beta=0.2), SHAPE, 300)
    images = np.random.default_rng(0).uniform(0.8, 1, (64, *SHAPE))
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
    objectives = vae.fit(images, batch_size=32, epochs=30, verbose=0).history["objective"]
    assert objectives[-1] < 0.95 * objectives[0]


def test_a_network_without_gates_cannot_be_conditioned(monkeypatch):
    class Deaf(networks.Mlp):
        def _dense(self, layers, hidden):
            for _ in range(self.num_layers):
                hidden = layers.make(keras.layers.Dense, self.width, activation="relu")(hidden)
            return hidden
    monkeypatch.setitem(networks.NETWORKS, "mlp", Deaf)
    with pytest.raises(ConfigError, match="architecture must have gates .* layers.gated"):
        model.build(CONFIG, SHAPE, 300)
    model.build(CONFIG.replace(conditioning="none"), SHAPE, 300)
