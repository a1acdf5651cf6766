"""The networks, priors and likelihoods there are to choose from, with what is known of each without TensorFlow.

Config takes the names from here, and cost estimates the sizes; the classes are in `vae_rd.model`, under the same names.
The batch of evaluations is here as well: the memory estimate needs it too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

KERNEL_SIZE = 4  # of every convolution, whose stride of 2 halves the image
PSEUDO_INPUTS = 128  # of the VampPrior: as many images as a batch, so a step encodes twice as many. Tomczak and Welling
#   2018 take 500, which at our batch size would take most of the step's time.
EXEMPLARS = 256  # training images of the exemplar prior, encoded in every step as the pseudo-inputs are
COMPONENTS = 16  # of the mixture
NORMAL_SCALE = 0.1  # of the normal likelihood, and where learned scales begin
LIKELIHOOD_SCALE = "likelihood_scale"  # what a likelihood with one scale for all images reports it as
EVALUATION_BATCH = 1024  # images that a column is evaluated on at a time
COUPLINGS, COUPLING_UNITS = 4, 64  # layers of the flow, and hidden units in each


class Network(NamedTuple):
    """What is known of an architecture."""

    text: str
    width: str  # the field of Config that sets the width of its layers; those of other architectures stay at default
    halves: bool  # every layer halves the image's sides, which must therefore be multiples of 2**num_layers
    stackable: bool  # a column of it can run as batched products
    num_parameters: Callable[[Any, tuple[int, int, int], int], int]  # (Config, image shape, the decoder's channels)


class Prior(NamedTuple):
    """What is known of a prior p(z)."""

    text: str
    exact_rate: bool  # the rate is the closed-form KL; else log q(z|x) - log p(z) at one posterior sample per image
    num_parameters: Callable[[int, int], int]  # (latent_dim, values in an image)
    min_latent_dim: int = 1
    encoded_images: int = 0  # in every step, besides the batch
    keeps_images: bool = False  # of the training set, which it knows by their pixels

    def has_weights(self, latent_dim: int) -> bool:
        """Whether it is trained."""
        return self.num_parameters(latent_dim, 1) > 0


class Likelihood(NamedTuple):
    """What is known of a likelihood p(x|z)."""

    text: str
    per_pixel: int  # parameters of each pixel and channel that the decoder returns
    is_density: bool  # over real values, so that the distortion may be negative
    num_parameters: int = 0  # learned, besides the decoder's


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _mlp(config: Any, image_shape: tuple[int, int, int], channels: int) -> int:
    height, width, image_channels = image_shape
    pixels, units, codes = height * width, config.hidden_units, config.latent_dim
    return (_dense(pixels * image_channels, units) + 2 * (config.num_layers - 1) * _dense(units, units)
            + 2 * _dense(units, codes) + _dense(codes, units) + _dense(units, pixels * channels))


def _cnn(config: Any, image_shape: tuple[int, int, int], channels: int) -> int:
    height, width, image_channels = image_shape
    maps, kernel, codes = config.channels, KERNEL_SIZE**2, config.latent_dim
    flat = height * width // 4**config.num_layers * maps
    return (_dense(kernel * image_channels, maps) + 2 * (config.num_layers - 1) * _dense(kernel * maps, maps)
            + 2 * _dense(flat, codes) + _dense(codes, flat) + _dense(kernel * maps, channels))


def _flow(latent_dim: int, pixels: int) -> int:
    halves = (latent_dim // 2, latent_dim - latent_dim // 2)
    return sum(_dense(halves[layer % 2], COUPLING_UNITS) + _dense(COUPLING_UNITS, 2 * halves[1 - layer % 2])
               for layer in range(COUPLINGS))


NETWORKS = {
    "mlp": Network("dense layers", "hidden_units", halves=False, stackable=True, num_parameters=_mlp),
    "cnn": Network("strided convolutions", "channels", halves=True, stackable=False, num_parameters=_cnn),
}
PRIORS = {
    "standard_normal": Prior("as in the paper", True, lambda latent_dim, pixels: 0),
    "learned_normal": Prior("a Gaussian with learned mean and scale", True, lambda latent_dim, pixels: 2 * latent_dim),
    "mixture": Prior(f"{COMPONENTS} learned Gaussians", False,
                     lambda latent_dim, pixels: COMPONENTS * (2 * latent_dim + 1)),
    "vamp": Prior(f"the mean posterior of {PSEUDO_INPUTS} learned images", False,
                  lambda latent_dim, pixels: PSEUDO_INPUTS * pixels, encoded_images=PSEUDO_INPUTS),
    "flow": Prior("a RealNVP flow", False, _flow, min_latent_dim=2),
    "exemplar": Prior(f"a Gaussian at the codes of {EXEMPLARS} training images, leave-one-out", False,
                      lambda latent_dim, pixels: 1, encoded_images=EXEMPLARS, keeps_images=True),
}
LIKELIHOODS = {
    "bernoulli": Likelihood("as in the paper", per_pixel=1, is_density=False),
    "continuous_bernoulli": Likelihood("its normalised density on [0, 1]", per_pixel=1, is_density=True),
    "normal": Likelihood(f"of fixed scale {NORMAL_SCALE}", per_pixel=1, is_density=True),
    "normal_learned_scale": Likelihood("one learned scale, which beta changes too", per_pixel=1, is_density=True,
                                       num_parameters=1),
    "discretized_logistic": Likelihood("256 grey levels, a learned scale per pixel", per_pixel=2, is_density=False),
}


def num_parameters(config: Any, image_shape: tuple[int, int, int]) -> int:
    """All trained weights of a model: encoder, decoder, prior and likelihood.

    Args:
        config: a `vae_rd.config.Config`.
        image_shape: (height, width, channels).
    """
    height, width, channels = image_shape
    likelihood, network = LIKELIHOODS[config.likelihood], NETWORKS[config.architecture]
    gates = 4 * config.num_layers * getattr(config, network.width) if config.conditioning == "beta" else 0
    return (network.num_parameters(config, image_shape, channels * likelihood.per_pixel) + gates
            + PRIORS[config.prior].num_parameters(config.latent_dim, height * width * channels)
            + likelihood.num_parameters)


def described(choices: dict[str, Any]) -> str:
    """The names of a table, each with its text: for help.

    >>> described(NETWORKS)
    'mlp (dense layers) or cnn (strided convolutions)'
    """
    words = [f"{name} ({entry.text})" for name, entry in choices.items()]
    return " or ".join([", ".join(words[:-1]), words[-1]])
