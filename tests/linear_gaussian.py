"""A linear-Gaussian VAE (probabilistic PCA), of which rate, distortion, posterior and log p(x) are known exactly."""

import numpy as np
import scipy.stats


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(z W + b, noise^2 I), as `tfd` objects in float64 and in closed form.

    Args:
        latent_dim, pixels: sizes.
        noise: standard deviation of the likelihood.
        scale, centre: of W and b, and the mean of b.
        seed: of W and b.
    """

    def __init__(self, latent_dim: int = 3, pixels: int = 8, noise: float = 0.3, scale: float = 1.0,
                 centre: float = 0.0, seed: int = 0):
        rng = np.random.default_rng(seed)
        orthogonal = np.linalg.qr(rng.normal(size=(pixels, latent_dim)))[0].T
        self.weights = scale * np.linspace(1, 2, latent_dim)[:, None] * orthogonal  # so the posterior is diagonal
        self.offset, self.noise, self.latent_dim = centre + scale * rng.normal(size=pixels), noise, latent_dim

    def prior(self):
        """p(z)."""
        import tensorflow_probability as tfp
        return tfp.distributions.MultivariateNormalDiag(np.zeros(self.latent_dim), np.ones(self.latent_dim))

    def likelihood(self, codes):
        """p(x|z) for codes [..., latent_dim]."""
        import tensorflow as tf
        import tensorflow_probability as tfp
        mean = tf.tensordot(codes, tf.constant(self.weights), 1) + self.offset
        return tfp.distributions.Independent(tfp.distributions.Normal(mean, np.float64(self.noise)), 1)

    def images(self, count: int, seed: int = 1) -> np.ndarray:
        """Images [count, pixels] from the model."""
        rng = np.random.default_rng(seed)
        codes = rng.normal(size=(count, self.latent_dim))
        return codes @ self.weights + self.offset + self.noise * rng.normal(size=(count, len(self.offset)))

    def posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations [n, latent_dim] of the exact posterior."""
        precision = 1 + np.square(self.weights).sum(1) / self.noise**2
        means = (images - self.offset) @ self.weights.T / self.noise**2 / precision
        return means, np.broadcast_to(1 / np.sqrt(precision), means.shape).copy()

    def log_px(self, images: np.ndarray) -> np.ndarray:
        """log p(x), [n]."""
        covariance = self.weights.T @ self.weights + self.noise**2 * np.eye(len(self.offset))
        return np.atleast_1d(scipy.stats.multivariate_normal(self.offset, covariance).logpdf(images))
