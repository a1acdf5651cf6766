"""A finished run of a linear-Gaussian VAE, of which the measures' numbers are known exactly."""

import types

import numpy as np
import pytest

from tests.linear_gaussian import LinearGaussian
from vae_rd import config
from vae_rd.datasets import splits
from vae_rd.measures import finished_run
from vae_rd.storage import files, runs


@pytest.fixture
def exact_run(tmp_path):
    """The directory of a finished run, for `ExactRun.of`."""
    run = runs.RunDir(tmp_path / "exact")
    run.path.mkdir()
    block = dict.fromkeys(("rate", "distortion", "elbo", "objective"), 0.0)
    files.write_json(run.results, {"status": "finished", "step": 1, "train": block, "test": block})
    return run


class ExactVae:
    """A linear-Gaussian VAE whose encoder is `narrow` times as wide as the exact posterior."""

    variable_dtype = "float64"

    def __init__(self, narrow=1.0):
        self.model, self.narrow = LinearGaussian(3, 12, noise=0.05, scale=0.08, centre=0.5), narrow

    def prior(self):
        """N(0, I)."""
        import tensorflow_probability as tfp
        return tfp.distributions.Independent(tfp.distributions.Normal(np.zeros(3), np.ones(3)), 1)

    def likelihood(self, codes):
        """The model's likelihood, over pictures."""
        import tensorflow_probability as tfp
        return tfp.distributions.Independent(
            tfp.distributions.Normal(self.picture(codes), np.float64(self.model.noise)), 3)

    def picture(self, codes):
        """Its mean."""
        import tensorflow as tf
        mean = tf.tensordot(codes, tf.constant(self.model.weights), 1) + self.model.offset
        return tf.reshape(mean, tf.concat([tf.shape(codes)[:-1], [2, 2, 3]], 0))

    def posterior(self, images):
        """The encoder."""
        import tensorflow_probability as tfp
        means, stddevs = self.model.posterior(np.asarray(images).reshape(len(images), -1))
        return tfp.distributions.Independent(tfp.distributions.Normal(means, self.narrow * stddevs), 1)


class ExactRun(finished_run.FinishedRun):
    """A finished run of such a VAE, on images that it has drawn."""

    @classmethod
    def of(cls, run, narrow=1.0, num_images=400):
        """The run with its directory."""
        vae, shape = ExactVae(narrow), (2, 2, 3)
        images = np.round(255 * np.clip(vae.model.images(2 * num_images), 0, 1)).astype(np.uint8).reshape(-1, *shape)
        index, factors = np.arange(2 * num_images), np.zeros((2 * num_images, 0), np.float32)
        parts = {name: splits.Partition(images[start::2], index[start::2], factors[start::2])
                 for start, name in enumerate(("train", "test"))}
        return cls(run, config.Config(split="default", latent_dim=3), "last", vae, types.SimpleNamespace(**parts))

    @property
    def model(self):
        """The closed forms."""
        return self.vae.model

    def flat(self, partition):
        """Images [n, pixels] in [0, 1]."""
        return getattr(self.split, partition).images.reshape(-1, 12) / 255

    def rates(self, partition):
        """KL of the encoder to the prior, in closed form."""
        means, stddevs = self.posteriors(partition)
        return 0.5 * (means**2 + stddevs**2 - 1 - 2 * np.log(stddevs)).sum(1)

    def per_example(self, partition):
        """As after training."""
        return {"index": getattr(self.split, partition).index, "rate": self.rates(partition)}
