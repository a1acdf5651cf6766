"""The model: networks, priors and the VAE that joins them; importing it registers the classes a saved model names."""

import os

import keras

from vae_rd.config import Config
from vae_rd.model.vae import VAE


def build(config: Config, image_shape: tuple[int, int, int], num_train: int) -> VAE:
    """The freshly initialised model of a Config."""
    return VAE(image_shape=image_shape, num_train=num_train,
               **{name: getattr(config, name) for name in ("architecture", "num_layers", "hidden_units", "channels",
                                                           "latent_dim", "prior", "beta", "rate_terms", "precision",
                                                           "seed")})


def load(path: str | os.PathLike) -> VAE:
    """A model saved by a finished run."""
    return keras.models.load_model(path, safe_mode=True, compile=False)
