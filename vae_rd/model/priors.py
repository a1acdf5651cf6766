"""Priors p(z): layers that own their parameters and build a distribution over codes when they are asked for one.

A distribution built in `__init__` would hold copies that get no gradient; built in the method, from weights, it does.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_rd.catalogue import COMPONENTS, COUPLING_UNITS, COUPLINGS, EXEMPLARS, PSEUDO_INPUTS

NEAREST_TO_BOUND = 0.01  # of a pseudo-input's pixels initially: nearer to 0 or 1 a sigmoid has hardly a gradient
MAX_LOG_SCALE = 2.0  # of one coupling of the flow; two of them act on each dimension


class Prior(keras.layers.Layer):
    """A prior; a subclass adds its weights and builds the distribution.

    Args:
        latent_dim: of the codes.
        image_shape: (height, width, channels), for a prior that is made of images.
        posterior: images -> q(z|x), for the same.
        num_train: training images, for a prior that keeps some of them.
        seed: the run's; of the initial weights.
    """

    def __init__(self, latent_dim: int, *, image_shape: tuple[int, int, int] | None = None,
                 posterior: Callable[[tf.Tensor], tfd.Distribution] | None = None, num_train: int = 1, seed: int = 0,
                 **kwargs: Any):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        self._seeds = iter(np.random.SeedSequence([seed, 2]).generate_state(100))

    def distribution(self) -> tfd.Distribution:
        """`tfd.Distribution` over codes, event [latent_dim], batch []."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution(). See docs/extending.md.")

    def leaving_out(self, images: tf.Tensor) -> tfd.Distribution:
        """The prior of the codes of some images [batch, ...]: batch [batch] where it depends on them, else []."""
        return self.distribution()

    def adapt(self, images: np.ndarray) -> None:
        """Keeps, or starts from, some of the training images [num, height, width, channels] uint8."""

    def add_normal(self, name: str, shape: tuple[int, ...], stddev: float = 1.0) -> keras.Variable:
        """A weight that starts from N(0, stddev^2), drawn with a seed of its own that follows from the run's."""
        seed = int(next(self._seeds) % 2**31)
        return self.add_weight(name=name, shape=shape,
                               initializer=keras.initializers.RandomNormal(stddev=stddev, seed=seed))


class StandardNormal(Prior):
    """The paper's prior, N(0, I)."""

    def distribution(self) -> tfd.Distribution:
        """N(0, I)."""
        zeros = tf.zeros([self.latent_dim], self.variable_dtype)
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)


class LearnedNormal(Prior):
    """A diagonal Gaussian whose mean and scales are learned; N(0, I) initially."""

    def __init__(self, latent_dim: int, **kwargs: Any):
        super().__init__(latent_dim, **kwargs)
        self.mean = self.add_weight(name="mean", shape=(latent_dim,), initializer="zeros")
        self.log_scale = self.add_weight(name="log_scale", shape=(latent_dim,), initializer="zeros")

    def distribution(self) -> tfd.Distribution:
        """N(mean, scale^2)."""
        return tfd.Independent(tfd.Normal(tf.convert_to_tensor(self.mean), tf.exp(self.log_scale)), 1)


class GaussianMixture(Prior):
    """A mixture of diagonal Gaussians whose weights, means and scales are learned."""

    def __init__(self, latent_dim: int, *, num_components: int = COMPONENTS, **kwargs: Any):
        super().__init__(latent_dim, **kwargs)
        shape = (num_components, latent_dim)
        self.means = self.add_normal("means", shape)
        self.log_scales = self.add_weight(name="log_scales", shape=shape, initializer="zeros")
        self.logits = self.add_weight(name="logits", shape=(num_components,), initializer="zeros")

    def distribution(self) -> tfd.Distribution:
        """The mixture."""
        means, scales, logits = (tf.convert_to_tensor(weight)
                                 for weight in (self.means, tf.exp(self.log_scales), self.logits))
        return tfd.MixtureSameFamily(tfd.Categorical(logits), tfd.Independent(tfd.Normal(means, scales), 1))


class VampPrior(Prior):
    """The mean posterior of learned pseudo-inputs, 1/K sum_k q(z|u_k) (Tomczak and Welling 2018, eq. 9).

    The pseudo-inputs are sigmoids of the weights, so that they stay in [0, 1], as images do, without a gradient that
    vanishes at the ends of a clipped range. They start as training images, each restart from its own: as noise they
    would hardly have moved in a few thousand steps.
    """

    def __init__(self, latent_dim: int, *, image_shape: tuple[int, int, int],
                 posterior: Callable[[tf.Tensor], tfd.Distribution], **kwargs: Any):
        super().__init__(latent_dim, **kwargs)
        self._posterior = posterior  # called, not kept as a part: the encoder's weights stay the encoder's
        self.pseudo_logits = self.add_normal("pseudo_logits", (PSEUDO_INPUTS, *image_shape))
        self._rows_seed = int(next(self._seeds))

    def adapt(self, images: np.ndarray) -> None:
        """Starts from some of the training images."""
        rows = np.random.default_rng(self._rows_seed).permutation(len(images))[:PSEUDO_INPUTS]
        pixels = np.clip(images[np.resize(rows, PSEUDO_INPUTS)] / 255, NEAREST_TO_BOUND, 1 - NEAREST_TO_BOUND)
        self.pseudo_logits.assign(np.log(pixels / (1 - pixels)))

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """[K, height, width, channels] in [0, 1]."""
        return tf.sigmoid(tf.convert_to_tensor(self.pseudo_logits))

    def distribution(self) -> tfd.Distribution:
        """The mixture; it encodes the pseudo-inputs once."""
        weights = tfd.Categorical(tf.zeros(self.pseudo_logits.shape[:1], self.variable_dtype))
        return tfd.MixtureSameFamily(weights, self._posterior(self.pseudo_inputs))


class Flow(Prior):
    """RealNVP (Dinh et al. 2017): N(0, I) carried through invertible affine couplings.

    A coupling shifts and scales one half of the code by functions of the other half, and the halves take turns.
    """

    def __init__(self, latent_dim: int, **kwargs: Any):
        super().__init__(latent_dim, **kwargs)
        self.couplings = []
        for layer in range(COUPLINGS):
            kept, moved = self._halves(range(latent_dim), layer)
            sizes = {"inner_kernel": (len(kept), COUPLING_UNITS), "inner_bias": (COUPLING_UNITS,),
                     "outer_kernel": (COUPLING_UNITS, 2 * len(moved)), "outer_bias": (2 * len(moved),)}
            # Near the identity initially; at exactly zero the inner weights would get no gradient.
            stddevs = {"inner_kernel": len(kept)**-0.5, "outer_kernel": 0.01}
            self.couplings.append([
                self.add_normal(name, shape, stddevs[name]) if name in stddevs
                else self.add_weight(name=name, shape=shape, initializer="zeros") for name, shape in sizes.items()])

    def distribution(self) -> tfd.Distribution:
        """p(z) = N(noise; 0, I) |d noise / d z|."""
        return FlowDistribution(self)

    def codes(self, noise: tf.Tensor) -> tf.Tensor:
        """Codes [..., latent_dim] that the noise [..., latent_dim] is carried to."""
        for layer in range(COUPLINGS):
            kept, moved = self._halves(noise, layer)
            shift, log_scale = self._shift_and_log_scale(kept, layer)
            noise = self._joined(kept, moved * tf.exp(log_scale) + shift, layer)
        return noise

    def noise(self, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The inverse of `codes`, and log |d noise / d codes| [...]."""
        log_det = tf.zeros_like(codes[..., 0])
        for layer in reversed(range(COUPLINGS)):
            kept, moved = self._halves(codes, layer)
            shift, log_scale = self._shift_and_log_scale(kept, layer)
            codes = self._joined(kept, (moved - shift) * tf.exp(-log_scale), layer)
            log_det -= tf.reduce_sum(log_scale, -1)
        return codes, log_det

    def _halves(self, values, layer):
        """The part that a coupling keeps, and the part that it moves."""
        cut = self.latent_dim // 2
        first, second = (values[:cut], values[cut:]) if isinstance(values, range) else (values[..., :cut],
                                                                                       values[..., cut:])
        return (second, first) if layer % 2 else (first, second)

    def _joined(self, kept, moved, layer):
        return tf.concat([moved, kept] if layer % 2 else [kept, moved], -1)

    def _shift_and_log_scale(self, kept, layer):
        inner_kernel, inner_bias, outer_kernel, outer_bias = (tf.convert_to_tensor(weight)
                                                              for weight in self.couplings[layer])
        hidden = tf.tanh(tf.matmul(tf.reshape(kept, [-1, kept.shape[-1]]), inner_kernel) + inner_bias)
        output = tf.matmul(hidden, outer_kernel) + outer_bias
        shift, raw = tf.split(tf.reshape(output, tf.concat([tf.shape(kept)[:-1], [output.shape[-1]]], 0)), 2, -1)
        return shift, MAX_LOG_SCALE * tf.tanh(raw / MAX_LOG_SCALE)


class FlowDistribution(tfd.Distribution):
    """The distribution of a `Flow`, with the weights that it has when it is used."""

    def __init__(self, flow):
        self._flow = flow
        super().__init__(flow.variable_dtype, tfd.FULLY_REPARAMETERIZED, validate_args=False, allow_nan_stats=True,
                         parameters={"flow": flow}, name="Flow")

    @property
    def _base(self):
        zeros = tf.zeros([self._flow.latent_dim], self.dtype)
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)

    def _log_prob(self, codes):
        noise, log_det = self._flow.noise(codes)
        return self._base.log_prob(noise) + log_det

    def _sample_n(self, n, seed=None):
        return self._flow.codes(self._base.sample(n, seed=seed))

    def _event_shape(self):
        return tf.TensorShape([self._flow.latent_dim])

    def _event_shape_tensor(self):
        return tf.constant([self._flow.latent_dim])

    def _batch_shape(self):
        return tf.TensorShape([])

    def _batch_shape_tensor(self):
        return tf.constant([], tf.int32)


class Exemplar(Prior):
    """A Gaussian at the code of each of K training images, leave-one-out (Norouzi et al. 2020).

        p(z) = 1/K sum_j N(z; m_j, s^2),    m_j the mean of q(z|x_j);    of image i: 1/(K - 1) sum over j != i

    The images are a seeded subset, the same for all restarts; they are encoded anew in every step, and one scale s is
    learned. An image is known by its pixels, so that copies of it are left out as well, and nothing has to say which
    image is which.
    """

    def __init__(self, latent_dim: int, *, image_shape: tuple[int, int, int],
                 posterior: Callable[[tf.Tensor], tfd.Distribution], num_train: int = 1, **kwargs: Any):
        super().__init__(latent_dim, **kwargs)
        self._posterior = posterior  # called, not kept as a part: the encoder's weights stay the encoder's
        shape = (max(2, min(EXEMPLARS, num_train)), *image_shape)
        drawn = np.random.default_rng(0).integers(0, 256, shape, np.uint8)  # of no use before `adapt`, but a prior
        self.exemplars = self.add_weight(name="exemplars", shape=shape, dtype="uint8", trainable=False,
                                         initializer=lambda shape, dtype: tf.constant(drawn))
        self.log_scale = self.add_weight(name="log_scale", shape=(), initializer="zeros")

    def adapt(self, images: np.ndarray) -> None:
        """Takes its exemplars from the training images."""
        rows = np.random.default_rng(0).permutation(len(images))[:self.exemplars.shape[0]]
        self.exemplars.assign(images[np.sort(rows)])

    def distribution(self) -> tfd.Distribution:
        """The mixture over all exemplars; it encodes them once."""
        return self._mixture(tf.zeros(self.exemplars.shape[:1], self.variable_dtype))

    def leaving_out(self, images: tf.Tensor) -> tfd.Distribution:
        """The mixture for each of images [batch, ...] in [0, 1], without exemplars that equal it: batch [batch]."""
        equal = self._keys(tf.round(255 * images))[:, tf.newaxis] == self._keys(self.exemplars)
        zeros = tf.zeros(tf.shape(equal), self.variable_dtype)
        return self._mixture(tf.where(equal, zeros - np.inf, zeros))

    def _mixture(self, logits):
        means = self._posterior(tf.cast(self.exemplars, self.variable_dtype) / 255).mean()
        scales = tf.exp(tf.convert_to_tensor(self.log_scale)) * tf.ones_like(means)
        return tfd.MixtureSameFamily(tfd.Categorical(logits), tfd.Independent(tfd.Normal(means, scales), 1))

    def _keys(self, images):
        """A whole number for each of images with values from 0 to 255, which two images share by chance in 2**-32."""
        factors = np.random.default_rng(0).integers(-2**31, 2**31, self.exemplars.shape[1:])
        return tf.reduce_sum(tf.cast(images, tf.int32) * tf.constant(factors, tf.int32), [-3, -2, -1])


PRIORS = {"standard_normal": StandardNormal, "learned_normal": LearnedNormal, "mixture": GaussianMixture,
          "vamp": VampPrior, "flow": Flow, "exemplar": Exemplar}
