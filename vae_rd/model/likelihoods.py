"""Likelihoods p(x|z) of pixels that are independent given the code: what the decoder's output means.

Each is a Keras layer, because it may own weights. Its `distribution` has event [height, width, channels], so that
`log_prob` is [batch], nats per image; `sample` draws targets as the model would.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_rd.catalogue import LIKELIHOOD_SCALE, NORMAL_SCALE

ENTROPY_BLOCK = 4096  # images per block: 12.6 million pixels, 50 MB of float32
MIN_LOGISTIC_SCALE = 1e-4  # 1/40 of a grey level: the level at the mean has probability 1 in float32
SERIES_BELOW = 0.1  # |logit / 2| below which the continuous Bernoulli's functions are Taylor series, exact to float64


class Likelihood(keras.layers.Layer):
    """A likelihood; a subclass says which distribution of an image the decoder's output stands for.

    `vae_rd.catalogue` says how many parameters per pixel the decoder returns, and whether it is a density.
    """

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """p(x|z) for the decoder's output [..., height, width, channels * parameters per pixel]: batch [...]."""
        return tfd.Independent(self._pixels(parameters), 3)

    def picture(self, parameters: tf.Tensor) -> tf.Tensor:
        """The mean [..., height, width, channels], cut to [0, 1]: what to draw."""
        return tf.clip_by_value(self.distribution(parameters).mean(), 0, 1)

    @staticmethod
    def floor(images: np.ndarray) -> np.ndarray | None:
        """Lowest distortion that any parameters reach on uint8 images [num, ...]: [num] nats, or None if unbounded."""
        return None

    def reported(self) -> dict[str, float]:
        """Numbers of its own for results.json and the tables, by name, such as a learned scale; most have none."""
        return {}

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        """The distribution of single pixels, batch [..., height, width, channels]."""
        raise NotImplementedError


class Bernoulli(Likelihood):
    """The paper's: parameters are logits, and grey targets count as probabilities (no density; a cross-entropy)."""

    @staticmethod
    def floor(images: np.ndarray) -> np.ndarray:
        """The entropy of the pixels: see `entropy_floor`."""
        return entropy_floor(images)

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        return BernoulliPixel(parameters, dtype=parameters.dtype)  # else grey NumPy values are cut to 0


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's formula normalised to a density on [0, 1] (Loaiza-Ganem and Cunningham 2019).

        log p(x) = x * logit - log((exp(logit) - 1) / logit)
    """

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        return ContinuousBernoulliPixel(parameters, dtype=parameters.dtype)


class Normal(Likelihood):
    """N(mean, 0.1^2): the decoder returns means, not bounded to [0, 1].

    The scale is not a setting: with a fixed scale s, beta has the same optimum as beta * (s / 0.1)^2 has with 0.1.
    """

    @staticmethod
    def floor(images: np.ndarray) -> np.ndarray:
        """The distortion at mean = image: pixels * log(scale * sqrt(2 pi)), below zero."""
        return np.full(len(images), np.prod(images.shape[1:]) * (math.log(NORMAL_SCALE) + 0.5 * math.log(2 * math.pi)))

    def reported(self) -> dict[str, float]:
        """The fixed scale."""
        return {LIKELIHOOD_SCALE: NORMAL_SCALE}

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        return tfd.Normal(parameters, tf.constant(NORMAL_SCALE, parameters.dtype))


class NormalLearnedScale(Likelihood):
    """N(mean, scale^2) with one scale for all pixels, learned: at its optimum scale^2 is the mean squared error.

    The objective weighs squared errors by 1 / (2 scale^2), so the scale and beta are confounded: means and codes are
    those of `Normal` at beta * (scale / 0.1)^2, and the scale is learned. No floor: a perfect reconstruction with scale
    0 has distortion -infinity.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.log_scale = self.add_weight(name="log_scale", shape=(), initializer=_constant(math.log(NORMAL_SCALE)))

    def reported(self) -> dict[str, float]:
        """The learned scale."""
        return {LIKELIHOOD_SCALE: math.exp(float(self.log_scale.numpy()))}

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        return tfd.Normal(parameters, tf.exp(tf.convert_to_tensor(self.log_scale)))


class DiscretizedLogistic(Likelihood):
    """Probabilities of the 256 grey levels k / 255: a logistic distribution, cut at half-levels (Kingma et al. 2016).

    The decoder returns means, then log scales in units of 0.1 (its last axis holds the channels of both).
    """

    @staticmethod
    def floor(images: np.ndarray) -> np.ndarray:
        """Zero: probabilities are at most 1."""
        return np.zeros(len(images))

    def _pixels(self, parameters: tf.Tensor) -> tfd.Distribution:
        means, log_scales = tf.split(parameters, 2, axis=-1)
        return DiscretizedLogisticPixel(means, MIN_LOGISTIC_SCALE + NORMAL_SCALE * tf.exp(log_scales))


LIKELIHOODS = {"bernoulli": Bernoulli, "continuous_bernoulli": ContinuousBernoulli, "normal": Normal,
               "normal_learned_scale": NormalLearnedScale, "discretized_logistic": DiscretizedLogistic}


class BernoulliPixel(tfd.Bernoulli):
    """TFP's Bernoulli with one softplus in its log_prob instead of two: evaluations take a sixth less time."""

    def _log_prob(self, event):
        """log p(x) = x * logits - log(1 + exp(logits)); rounds at 1e-6 nats per pixel in float32."""
        logits = self.logits_parameter()
        return tf.cast(event, logits.dtype) * logits - tf.nn.softplus(logits)


class ContinuousBernoulliPixel(tfd.ContinuousBernoulli):
    """TFP's continuous Bernoulli, with a density and a mean that hold their precision at small and large logits.

    Pixels that are exactly 0 or 1 drive logits to 10^5, where x * logit and the normaliser would cancel.
    """

    def _log_prob(self, event):
        """log p(x) = log(size / (1 - exp(-size))) - size * distance, with size = |logit|, distance that to the mode."""
        logits = self.logits_parameter()
        event = tf.cast(event, logits.dtype)
        size = tf.where(logits < 0, -logits, logits)  # tf.abs has gradient 0 at 0
        return log_peak(size) - size * tf.where(logits < 0, event, 1 - event)

    def _mean(self):
        return 0.5 + langevin(self.logits_parameter() / 2) / 2


class DiscretizedLogisticPixel(tfd.Logistic):
    """A logistic distribution of which only the nearest grey level k / 255 is seen; all below 0 count as 0."""

    def _log_prob(self, event):
        """log P(k) = log(sigmoid(upper) - sigmoid(lower)), as logs of three factors.

        sigmoid(upper) - sigmoid(lower) = sigmoid(upper) * sigmoid(-lower) * (1 - exp(lower - upper)). The level 0 has
        no lower end and 255 no upper one, so that the 256 probabilities sum to one.
        """
        levels = tf.round(tf.cast(event, self.dtype) * 255)
        lower, upper = (((levels + half) / 255 - self.loc) / self.scale for half in (-0.5, 0.5))
        below = tf.where(levels >= 255, tf.zeros_like(upper), -tf.nn.softplus(-upper))
        above = tf.where(levels <= 0, tf.zeros_like(lower), -tf.nn.softplus(lower))
        inner = (levels > 0) & (levels < 255)
        width = tf.where(inner, tf.math.log(-tf.math.expm1(-1 / (255 * self.scale))), tf.zeros_like(lower))
        return below + above + width

    def _mean(self):
        """The integral of P(x > t) over t from 0 to 1: within half a grey level of the sum over levels.

        It is within 0.02 levels where the scale is a grey level or more; the exact sum has 255 terms per pixel.
        """
        return self.scale * (tf.nn.softplus(self.loc / self.scale) - tf.nn.softplus((self.loc - 1) / self.scale))

    def _sample_n(self, n, seed=None):
        return tf.clip_by_value(tf.round(super()._sample_n(n, seed) * 255) / 255, 0, 1)


def log_peak(size: tf.Tensor) -> tf.Tensor:
    """log(size / (1 - exp(-size))) for size >= 0: the log density of the continuous Bernoulli at its mode."""
    small = size < 2 * SERIES_BELOW
    near, far = tf.where(small, size, tf.zeros_like(size)), tf.where(small, tf.ones_like(size), size)
    u2 = tf.square(near / 2)  # both sides stay finite, and so do their gradients
    series = near / 2 - u2 * (1 / 6 - u2 * (1 / 180 - u2 * (1 / 2835 - u2 / 37800)))  # size / 2 - log(sinh(u) / u)
    return tf.where(small, series, tf.math.log(far) - tf.math.log1p(-tf.exp(-far)))


def langevin(u: tf.Tensor) -> tf.Tensor:
    """coth(u) - 1 / u, the derivative of log(sinh(u) / u): odd, from -1 to 1."""
    small = tf.abs(u) < SERIES_BELOW
    near = tf.where(small, u, tf.zeros_like(u))
    squares = tf.square(near)
    series = near * (1 / 3 - squares * (1 / 45 - squares * (2 / 945 - squares / 4725)))
    far = tf.where(small, tf.ones_like(u), u)
    return tf.where(small, series, 1 / tf.tanh(far) - 1 / far)


def entropy_floor(images: np.ndarray) -> np.ndarray:
    """Lowest distortion that any likelihood of independent Bernoulli pixels can reach, [num], nats per image.

    The sum over pixels of -x log x - (1 - x) log(1 - x): zero for black and white images, not for grey ones.
    """
    grey = np.arange(1, 255) / 255
    table = np.zeros(256, np.float32)
    table[1:255] = -grey * np.log(grey) - (1 - grey) * np.log1p(-grey)
    blocks = [table[images[start:start + ENTROPY_BLOCK]].sum((1, 2, 3), dtype=np.float64)
              for start in range(0, len(images), ENTROPY_BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _constant(value):
    """Keras's own Constant would round to float32."""
    return lambda shape, dtype: tf.fill(shape, tf.constant(value, dtype))
