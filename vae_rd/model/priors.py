"""Priors p(z): layers that own their parameters and build a TFP distribution when called.

A distribution built in `__init__` would hold copies that get no gradient; built in the method, from weights, it does.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

NUM_COMPONENTS = 16


class StandardNormal(keras.layers.Layer):
    """The paper's prior, N(0, I)."""

    def __init__(self, latent_dim, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim

    def distribution(self):
        """`tfd.Distribution` over codes, event [latent_dim]."""
        zeros = tf.zeros([self.latent_dim], self.variable_dtype)
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)


class GaussianMixture(keras.layers.Layer):
    """A mixture of 16 diagonal Gaussians whose weights, means and scales are learned."""

    def __init__(self, latent_dim, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        shape = (NUM_COMPONENTS, latent_dim)
        seed = int(np.random.SeedSequence([seed, 2]).generate_state(1)[0] % 2**31)
        self.means = self.add_weight(name="means", shape=shape,
                                     initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed))
        self.log_scales = self.add_weight(name="log_scales", shape=shape, initializer="zeros")
        self.logits = self.add_weight(name="logits", shape=(NUM_COMPONENTS,), initializer="zeros")

    def distribution(self):
        """`tfd.Distribution` over codes, event [latent_dim]."""
        means, scales, logits = (tf.convert_to_tensor(weight)
                                 for weight in (self.means, tf.exp(self.log_scales), self.logits))
        return tfd.MixtureSameFamily(tfd.Categorical(logits), tfd.Independent(tfd.Normal(means, scales), 1))


PRIORS = {"standard_normal": StandardNormal, "mixture": GaussianMixture}
