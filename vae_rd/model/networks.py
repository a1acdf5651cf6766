"""Encoder and decoder networks: plain Keras models, MLP and CNN, for any number of layers."""

import keras
import numpy as np

from vae_rd.catalogue import KERNEL_SIZE

STRIDE = 2
LEAST_OPENING = 1e-6  # of the square of a decoder's gate; below, it is closed


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
        conditioning: as in Config; with "beta" both networks take log beta [batch, 1] as a second input.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], per_pixel: int, num_layers: int, width: int,
                 latent_dim: int, precision: str, seed: int, conditioning: str = "none"):
        self.image_shape, self.channels = tuple(image_shape), image_shape[-1] * per_pixel
        self.num_layers, self.width, self.latent_dim = num_layers, width, latent_dim
        self._precision, self._seed, self._conditioned = precision, seed, conditioning == "beta"

    def encoder(self) -> keras.Model:
        """Network from images [batch, height, width, channels] to posterior mean and log scale, [batch, latent_dim]."""
        layers = _Layers(self._precision, self._seed, stream=0, gate=EncoderGate if self._conditioned else None)
        images = keras.Input(self.image_shape, dtype=layers.dtype.variable_dtype)  # else float32 rounds float64 here
        hidden = self._encoded(layers, images)
        heads = [layers.make(keras.layers.Dense, self.latent_dim, name=name)(hidden) for name in ("mean", "log_scale")]
        return keras.Model(layers.inputs(images), heads, name="encoder")

    def decoder(self) -> keras.Model:
        """Network from codes [batch, latent_dim] to parameters [batch, height, width, channels * per_pixel]."""
        layers = _Layers(self._precision, self._seed, stream=1, gate=DecoderGate if self._conditioned else None)
        codes = keras.Input((self.latent_dim,), dtype=layers.dtype.variable_dtype)
        parameters = self._decoded(layers, codes)
        return keras.Model(layers.inputs(codes), parameters, name="decoder")

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
        hidden = self._dense(layers, codes)  # before the last one: seeds follow the order in which layers are made
        parameters = layers.make(keras.layers.Dense, int(np.prod(shape)), name="parameters")(hidden)
        return keras.layers.Reshape(shape, dtype=layers.dtype)(parameters)

    def _dense(self, layers, hidden):
        for _ in range(self.num_layers):
            hidden = layers.gated(layers.make(keras.layers.Dense, self.width, activation="relu")(hidden))
        return hidden


class Cnn(Network):
    """Convolutions that halve the image, the decoder the encoder's mirror."""

    def _encoded(self, layers, images):
        hidden = images
        for _ in range(self.num_layers):
            hidden = layers.gated(layers.make(keras.layers.Conv2D, self.width, KERNEL_SIZE, STRIDE, "same",
                                              activation="relu")(hidden))
        return keras.layers.Flatten(dtype=layers.dtype)(hidden)

    def _decoded(self, layers, codes):
        height, width = (side // STRIDE**self.num_layers for side in self.image_shape[:2])
        hidden = layers.make(keras.layers.Dense, height * width * self.width, activation="relu")(codes)
        hidden = layers.gated(keras.layers.Reshape((height, width, self.width), dtype=layers.dtype)(hidden))
        for remaining in reversed(range(self.num_layers)):
            outputs, activation = (self.width, "relu") if remaining else (self.channels, None)
            hidden = layers.make(keras.layers.Conv2DTranspose, outputs, KERNEL_SIZE, STRIDE, "same",
                                 activation=activation)(hidden)
            hidden = layers.gated(hidden) if remaining else hidden
        return hidden


NETWORKS = {"mlp": Mlp, "cnn": Cnn}


class Gate(keras.layers.Layer):
    """Hidden units times a function of log beta, with a slope and an offset for each unit (or channel).

    After Bae et al. 2023 (Multi-Rate VAE, section 4); a subclass has the function and where its weights begin.
    """

    first_slope, first_offset = 0.0, 0.0

    def __init__(self, dtype: keras.DTypePolicy):
        # Bfloat16 has too few digits for 1 - exp, and Keras casts a layer's weights to its compute type.
        super().__init__(dtype=keras.dtype_policies.get(dtype).variable_dtype, autocast=False)

    def build(self, hidden_shape: tuple, log_beta_shape: tuple) -> None:
        """Makes slope and offset, [units] each."""
        units = (hidden_shape[-1],)
        self.slope = self.add_weight(name="slope", shape=units,
                                     initializer=keras.initializers.Constant(self.first_slope))
        self.offset = self.add_weight(name="offset", shape=units,
                                      initializer=keras.initializers.Constant(self.first_offset))

    def call(self, hidden: keras.KerasTensor, log_beta: keras.KerasTensor) -> keras.KerasTensor:
        """Hidden units [batch, ..., units] at log beta [batch, 1]."""
        gate = self.opening(self.slope * log_beta + self.offset)
        gate = keras.ops.reshape(gate, (-1, *(1,) * (len(hidden.shape) - 2), hidden.shape[-1]))
        return hidden * keras.ops.cast(gate, hidden.dtype)

    def opening(self, score: keras.KerasTensor) -> keras.KerasTensor:
        """The factor in [0, 1] of each unit."""
        raise NotImplementedError


class EncoderGate(Gate):
    """sigmoid(slope * log beta + offset)."""

    first_offset = 2.0

    def opening(self, score: keras.KerasTensor) -> keras.KerasTensor:
        """Between 0 and 1 at every beta."""
        return keras.ops.sigmoid(score)


class DecoderGate(Gate):
    """sqrt(relu(1 - exp(slope * log beta + offset))): closed from some beta on, as the optimal linear decoder's."""

    first_slope, first_offset = 0.1, -2.0

    def opening(self, score: keras.KerasTensor) -> keras.KerasTensor:
        """Gradients are finite everywhere: where it is closed nothing is multiplied by the slope of the root at 0."""
        square = -keras.ops.expm1(keras.ops.minimum(score, 1.0))
        is_open = square > LEAST_OPENING
        return keras.ops.where(is_open, keras.ops.sqrt(keras.ops.where(is_open, square, 1.0)), 0.0)


class _Layers:
    """Makes layers of one precision, each with its own initialiser seed: (run's seed, stream, layer number).

    With a class of gates, `gated` puts one on hidden units; without, it leaves them as they are.
    """

    def __init__(self, precision, seed, stream, gate=None):
        policy = {"bfloat16": "mixed_bfloat16", "tensorfloat32": "float32"}.get(precision, precision)
        self.dtype = keras.DTypePolicy(policy)
        self._seeds = iter(np.random.SeedSequence([seed, stream]).generate_state(1000))
        self._gate = gate
        self._log_beta = keras.Input((1,), dtype=self.dtype.variable_dtype, name="log_beta") if gate else None

    def make(self, layer, *args, **kwargs):
        initializer = keras.initializers.GlorotUniform(seed=int(next(self._seeds) % 2**31))
        return layer(*args, kernel_initializer=initializer, dtype=self.dtype, **kwargs)

    def gated(self, hidden):
        return self._gate(self.dtype)(hidden, self._log_beta) if self._gate else hidden

    def inputs(self, first):
        return [first, self._log_beta] if self._gate else first
