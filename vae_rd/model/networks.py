"""Encoder and decoder networks: plain Keras models, MLP and CNN, for any number of layers."""

import keras
import numpy as np

KERNEL_SIZE = 4
STRIDE = 2


def build_encoder(*, image_shape, architecture, num_layers, hidden_units, channels, latent_dim, precision, seed):
    """Network from images [batch, height, width, channels] to two [batch, latent_dim]: posterior mean and log scale."""
    layers = _Layers(precision, seed, stream=0)
    images = keras.Input(image_shape, dtype=layers.dtype.variable_dtype)  # else float32: float64 would be rounded here
    hidden = images
    if architecture == "cnn":
        for _ in range(num_layers):
            hidden = layers.make(keras.layers.Conv2D, channels, KERNEL_SIZE, STRIDE, "same", activation="relu")(hidden)
    hidden = keras.layers.Flatten(dtype=layers.dtype)(hidden)
    if architecture == "mlp":
        for _ in range(num_layers):
            hidden = layers.make(keras.layers.Dense, hidden_units, activation="relu")(hidden)
    heads = [layers.make(keras.layers.Dense, latent_dim, name=name)(hidden) for name in ("mean", "log_scale")]
    return keras.Model(images, heads, name="encoder")


def build_decoder(*, image_shape, architecture, num_layers, hidden_units, channels, latent_dim, precision, seed):
    """Network from codes [batch, latent_dim] to Bernoulli logits [batch, height, width, channels]: encoder's mirror."""
    layers = _Layers(precision, seed, stream=1)
    codes = keras.Input((latent_dim,), dtype=layers.dtype.variable_dtype)
    hidden = codes
    if architecture == "cnn":
        height, width = (side // STRIDE**num_layers for side in image_shape[:2])
        hidden = layers.make(keras.layers.Dense, height * width * channels, activation="relu")(hidden)
        hidden = keras.layers.Reshape((height, width, channels), dtype=layers.dtype)(hidden)
        for remaining in reversed(range(num_layers)):
            outputs, activation = (channels, "relu") if remaining else (image_shape[-1], None)
            hidden = layers.make(keras.layers.Conv2DTranspose, outputs, KERNEL_SIZE, STRIDE, "same",
                                 activation=activation)(hidden)
        return keras.Model(codes, hidden, name="decoder")
    for _ in range(num_layers):
        hidden = layers.make(keras.layers.Dense, hidden_units, activation="relu")(hidden)
    logits = layers.make(keras.layers.Dense, int(np.prod(image_shape)), name="logits")(hidden)
    return keras.Model(codes, keras.layers.Reshape(image_shape, dtype=layers.dtype)(logits), name="decoder")


class _Layers:
    """Makes layers of one precision, each with its own initialiser seed: (run's seed, stream, layer number)."""

    def __init__(self, precision, seed, stream):
        policy = {"bfloat16": "mixed_bfloat16", "tensorfloat32": "float32"}.get(precision, precision)
        self.dtype = keras.DTypePolicy(policy)
        self._seeds = iter(np.random.SeedSequence([seed, stream]).generate_state(1000))

    def make(self, layer, *args, **kwargs):
        initializer = keras.initializers.GlorotUniform(seed=int(next(self._seeds) % 2**31))
        return layer(*args, kernel_initializer=initializer, dtype=self.dtype, **kwargs)
