"""The model: networks, priors, likelihoods and the VAE that joins them.

Builds and loads it, and registers its classes.
"""

import inspect
import math
import os
import zipfile

import keras

from vae_rd import catalogue, schema
from vae_rd.config import Config, ConfigError
from vae_rd.model.vae import VAE
from vae_rd.storage.contents import RUN_COLUMNS
from vae_rd.storage.files import FileError
from vae_rd.storage.manifest import END_AGAIN

_ARGUMENTS = set(inspect.signature(VAE).parameters) - {"kwargs"}  # fields of Config, but for image_shape, num_train


def build(config: Config, image_shape: tuple[int, int, int], num_train: int) -> VAE:
    """The freshly initialised model of a Config.

    Raises:
        ConfigError: if the parts have other weights than the catalogue says of them, the networks have other state than
            trained weights, or the likelihood reports what tables cannot take.
    """
    vae = VAE(image_shape=image_shape, num_train=num_train,
              **{name: getattr(config, name) for name in _ARGUMENTS - {"image_shape", "num_train"}})
    for part in (vae.encoder, vae.decoder):
        if state := [variable.path for variable in part.non_trainable_variables]:
            raise ConfigError(f"architecture must have no state besides trained weights in its {part.name} (got "
                              f"{', '.join(state)}): layers that behave otherwise in training, such as Dropout or "
                              "BatchNormalization, would do nothing here. Try LayerNormalization, or constants.")
    counted = catalogue.num_parameters(config, image_shape)
    trained = sum(math.prod(weight.shape) for weight in vae.named_weights().values())
    if counted != trained:
        raise ConfigError("num_parameters in vae_rd.catalogue must count the trained weights of "
                          f"{config.architecture}, {config.prior} and {config.likelihood} (got {counted}, the model "
                          f"has {trained}). Make weights with add_weight: a tf.Variable is not trained.")
    for name, value in vae.likelihood_layer.reported().items():
        if (name.removesuffix("_se") in (*RUN_COLUMNS, "mean_squared_error") or "." in name
                or not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise ConfigError(f"reported() of the likelihood {config.likelihood} must return a number (float) by a "
                              "name without a point that no run has yet (got "
                              f"{name!r}: {value!r}). Try another name, or float(value).")
    return vae


def load(path: str | os.PathLike, config: Config | None = None) -> VAE:
    """A model saved by a finished run.

    Args:
        path: of model.keras.
        config: of the run; None: any.

    Raises:
        FileError: if the file is damaged, holds anything but our model (nothing in it is run), or the model of another
            Config.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            saved = schema.parse(archive.read("config.json"))
    except Exception as error:  # zipfile raises a dozen kinds for damaged bytes
        raise _damaged(path, error) from error
    arguments = saved.get("config")
    if (saved.get("registered_name") != "vae_rd>VAE" or not isinstance(arguments, dict)
            or not set(arguments) <= _ARGUMENTS):
        raise FileError(f"{path} must hold a model of vae_rd (got {saved.get('class_name')!r}). None of its code was "
                        f"run. Move it away; {END_AGAIN}.")
    other = {name: value for name, value in arguments.items() if config and value != getattr(config, name, value)}
    if other:
        raise FileError(f"{path} must be the model of this run, with "
                        f"{_words({name: getattr(config, name) for name in other})} (got {_words(other)}): it belongs "
                        f"to another run. Put the original back, or {END_AGAIN}.")
    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # of Keras, h5py and zipfile
        raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike, error: Exception) -> FileError:
    return FileError(f"{path} is damaged ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): "
                     f"{END_AGAIN}.")


def _words(values: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
