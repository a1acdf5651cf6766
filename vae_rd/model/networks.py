"""Encoder and decoder networks: plain Keras models, MLP and CNN, for any number of layers."""

import keras
import numpy as np

from vae_rd.catalogue import KERNEL_SIZE

STRIDE = 2


class Network:
    """Builds the encoder and the decoder of one architecture; a subclass adds the hidden layers of both.

    Args:
        image_shape: (height, width, channels).
        per_pixel: parameters that the likelihood takes of each pixel and channel.
        num_layers: hidden layers in the encoder, and as many in the decoder.
        width: of each hidden layer.
        latent_dim: of the codes.
        precision: as in Config.
        seed: of the initial weights.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], per_pixel: int, num_layers: int, width: int,
                 latent_dim: int, precision: str, seed: int):
        self.image_shape, self.channels = tuple(image_shape), image_shape[-1] * per_pixel
        self.num_layers, self.width, self.latent_dim = num_layers, width, latent_dim
        self._precision, self._seed = precision, seed

    def encoder(self) -> keras.Model:
        """Network from images [batch, height, width, channels] to posterior mean and log scale, [batch, latent_dim]."""
        layers = _Layers(self._precision, self._seed, stream=0)
        images = keras.Input(self.image_shape, dtype=layers.dtype.variable_dtype)  # else float32 rounds float64 here
        hidden = self._encoded(layers, images)
        heads = [layers.make(keras.layers.Dense, self.latent_dim, name=name)(hidden) for name in ("mean", "log_scale")]
        return keras.Model(images, heads, name="encoder")

    def decoder(self) -> keras.Model:
        """Network from codes [batch, latent_dim] to parameters [batch, height, width, channels * per_pixel]."""
        layers = _Layers(self._precision, self._seed, stream=1)
        codes = keras.Input((self.latent_dim,), dtype=layers.dtype.variable_dtype)
        return keras.Model(codes, self._decoded(layers, codes), name="decoder")

    def _encoded(self, layers, images):
        """Images to hidden units [batch, units]."""
        raise NotImplementedError

    def _decoded(self, layers, codes):
        """Codes to the likelihood's parameters."""
        raise NotImplementedError


class Mlp(Network):
    """Dense hidden layers, the decoder the encoder's mirror."""

    def _encoded(self, layers, images):
        return self._dense(layers, keras.layers.Flatten(dtype=layers.dtype)(images))

    def _decoded(self, layers, codes):
        shape = (*self.image_shape[:-1], self.channels)
        hidden = self._dense(layers, codes)  # before the last layer is made: seeds go by the order of making
        parameters = layers.make(keras.layers.Dense, int(np.prod(shape)), name="parameters")(hidden)
        return keras.layers.Reshape(shape, dtype=layers.dtype)(parameters)

    def _dense(self, layers, hidden):
        for _ in range(self.num_layers):
            hidden = layers.make(keras.layers.Dense, self.width, activation="relu")(hidden)
        return hidden


class Cnn(Network):
    """Convolutions that halve the image, the decoder the encoder's mirror."""

    def _encoded(self, layers, images):
        hidden = images
        for _ in range(self.num_layers):
            hidden = layers.make(keras.layers.Conv2D, self.width, KERNEL_SIZE, STRIDE, "same",
                                 activation="relu")(hidden)
        return keras.layers.Flatten(dtype=layers.dtype)(hidden)

    def _decoded(self, layers, codes):
        height, width = (side // STRIDE**self.num_layers for side in self.image_shape[:2])
        hidden = layers.make(keras.layers.Dense, height * width * self.width, activation="relu")(codes)
        hidden = keras.layers.Reshape((height, width, self.width), dtype=layers.dtype)(hidden)
        for remaining in reversed(range(self.num_layers)):
            outputs, activation = (self.width, "relu") if remaining else (self.channels, None)
            hidden = layers.make(keras.layers.Conv2DTranspose, outputs, KERNEL_SIZE, STRIDE, "same",
                                 activation=activation)(hidden)
        return hidden


NETWORKS = {"mlp": Mlp, "cnn": Cnn}


class _Layers:
    """Makes layers of one precision, each with its own initialiser seed: (run's seed, stream, layer number)."""

    def __init__(self, precision, seed, stream):
        policy = {"bfloat16": "mixed_bfloat16", "tensorfloat32": "float32"}.get(precision, precision)
        self.dtype = keras.DTypePolicy(policy)
        self._seeds = iter(np.random.SeedSequence([seed, stream]).generate_state(1000))

    def make(self, layer, *args, **kwargs):
        initializer = keras.initializers.GlorotUniform(seed=int(next(self._seeds) % 2**31))
        return layer(*args, kernel_initializer=initializer, dtype=self.dtype, **kwargs)
