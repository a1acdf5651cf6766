"""The three registries: what may be chosen, what is refused, and the sizes that costs are estimated from."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest

from vae_rd import catalogue, model
from vae_rd.config import Config, ConfigError
from vae_rd.model import likelihoods, networks, priors
from vae_rd.sweeps import experiments

SHAPE = (8, 8, 3)


def test_the_catalogue_has_an_entry_for_every_class():
    for entries, classes in ((catalogue.NETWORKS, networks.NETWORKS), (catalogue.PRIORS, priors.PRIORS),
                             (catalogue.LIKELIHOODS, likelihoods.LIKELIHOODS)):
        assert list(entries) == list(classes)


@pytest.mark.parametrize("field, words", [
    ("architecture", "architecture must be one of mlp, cnn"),
    ("prior", "prior must be one of standard_normal, learned_normal, mixture, vamp, flow, exemplar"),
    ("likelihood", "likelihood must be one of bernoulli, continuous_bernoulli, normal, normal_learned_scale, "
                   "discretized_logistic"),
])
def test_an_unknown_name_is_refused_with_the_known_ones(field, words):
    for refused in (lambda: Config(**{field: "rnn"}), lambda: model.VAE(image_shape=SHAPE, **{field: "rnn"})):
        with pytest.raises(ConfigError) as caught:
            refused()
        assert words in str(caught.value) and "(got 'rnn')" in str(caught.value)


@pytest.mark.parametrize("architecture, layers", [("mlp", 1), ("mlp", 3), ("cnn", 1), ("cnn", 2)])
def test_parameters_are_counted_as_they_are_built(architecture, layers):
    pairs = list(itertools.product(catalogue.PRIORS, catalogue.LIKELIHOODS))
    told = Config(architecture=architecture, num_layers=layers, image_size=8, conditioning="beta")
    assert catalogue.num_parameters(told, SHAPE) == model.build(told, SHAPE, 300).count_params()
    for prior, likelihood in pairs[::4] + pairs[-1:]:  # each prior and each likelihood is among them
        config = Config(architecture=architecture, num_layers=layers, image_size=8, latent_dim=5, prior=prior,
                        likelihood=likelihood, **({"channels": 6} if architecture == "cnn" else {"hidden_units": 7}))
        vae = model.build(config, SHAPE, 300)
        built = sum(int(np.prod(weight.shape)) for weight in vae.trainable_variables)
        assert catalogue.num_parameters(config, SHAPE) == built
        channels = SHAPE[-1] * catalogue.LIKELIHOODS[likelihood].per_pixel
        assert vae.decoder.output_shape == (None, *SHAPE[:2], channels)


def test_counting_needs_no_framework():
    code = ("import sys; from vae_rd import catalogue; from vae_rd.config import Config; "
            "catalogue.num_parameters(Config(prior='flow'), (32, 32, 3)); "
            "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_names_and_explains_every_choice():
    for field, entries in (("architecture", catalogue.NETWORKS), ("prior", catalogue.PRIORS),
                           ("likelihood", catalogue.LIKELIHOODS)):
        text = Config.__dataclass_fields__[field].metadata["help"]
        assert all(f"{name} ({entry.text})" in text for name, entry in entries.items())


class Linear(networks.Network):
    """No hidden layer at all."""

    def _encoded(self, layers, images):
        return keras.layers.Flatten(dtype=layers.dtype)(images)

    def _decoded(self, layers, codes):
        shape = (*self.image_shape[:-1], self.channels)
        pixels = layers.make(keras.layers.Dense, int(np.prod(shape)))(codes)
        return keras.layers.Reshape(shape, dtype=layers.dtype)(pixels)


def count_linear(config, image_shape, channels):
    """Weights and biases of `Linear`."""
    pixels, codes = int(np.prod(image_shape)), config.latent_dim
    return 2 * (pixels + 1) * codes + (codes + 1) * (pixels // image_shape[-1] * channels)


@pytest.fixture
def linear(monkeypatch):
    """Adds a third architecture, `linear`: a class and an entry."""
    monkeypatch.setitem(networks.NETWORKS, "linear", Linear)
    monkeypatch.setitem(catalogue.NETWORKS, "linear", catalogue.Network("no hidden layer", "hidden_units", False, True,
                                                                        count_linear))


class Dropped(Linear):
    """With a layer that is to behave otherwise in training, which this model does not tell it."""

    def _encoded(self, layers, images):
        return keras.layers.Dropout(0.5, seed=1)(super()._encoded(layers, images))


class Normalised(Linear):
    """Likewise."""

    def _decoded(self, layers, codes):
        return super()._decoded(layers, keras.layers.BatchNormalization()(codes))


@pytest.mark.parametrize("network, part", [(Dropped, "encoder"), (Normalised, "decoder")])
def test_layers_that_would_do_nothing_are_refused(linear, monkeypatch, network, part):
    monkeypatch.setitem(networks.NETWORKS, "linear", network)
    with pytest.raises(ConfigError, match=f"no state besides trained weights in its {part} .*Dropout or BatchNorm"):
        model.build(Config(architecture="linear", image_size=8), SHAPE, 300)


def test_experiments_take_the_width_that_the_catalogue_names(linear):
    scale = experiments.SCALES["smoke"]
    found = experiments.product(scale, [{"architecture": "linear", "num_layers": 1}], [scale.small])
    assert {config.hidden_units for config in found} == {scale.mlp["hidden_units"]}


def test_a_third_architecture_is_a_class_and_an_entry(tmp_path, linear):
    config = Config(architecture="linear", image_size=8, likelihood="discretized_logistic")
    vae = model.build(config, SHAPE, 300)
    assert [weight.shape for weight in vae.trainable_variables] == [(192, 10), (10,), (192, 10), (10,), (10, 384),
                                                                    (384,)]
    assert catalogue.num_parameters(config, SHAPE) == sum(weight.numpy().size for weight in vae.trainable_variables)
    vae.save(tmp_path / "model.keras")
    loaded, images = model.load(tmp_path / "model.keras", config), np.full((2, *SHAPE), 0.25, np.float32)
    np.testing.assert_array_equal(loaded(images), vae(images))
    with pytest.raises(ConfigError, match="channels must be left at 64 with architecture=linear"):
        config.replace(channels=3)
