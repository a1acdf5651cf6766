"""What runs are expected to cost: steps, parameters, hours and bytes, from plain arithmetic and measured step times."""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data_gen.builders import DATASETS
from vae_rd import catalogue
from vae_rd.catalogue import NETWORKS, PRIORS
from vae_rd.config import Config

# Milliseconds per optimizer step at the protocol's sizes (32x32x3 images, batch 128), on 2 quiet cores (Zen 5).
STEP_MS = {("mlp", 1): 11.0, ("mlp", 3): 16.0, ("cnn", 1): 16.0, ("cnn", 3): 55.0}
EVALUATION_SHARE = 1 / 3  # time to evaluate an image, as a share of training on it: no backward pass, no Adam
# Of a step's time per image, for an image that a prior has encoded besides the batch. Steps of MLPs took 1.6 to 2.1
# times as long with exemplar's 256, 1.5 to 2.0 times with vamp's 128, which are trained as well, and 1.05 with others.
ENCODER_SHARE = 1 / 2
# Milliseconds that a likelihood adds to such a step beyond what its weights do. Steps were taken in turns on two busy
# cores; as shares of Bernoulli's those of the discretized logistic took 1.77 (1-layer MLP), 1.39 (3 layers) and 1.35 to
# 1.64 (CNN), of the continuous Bernoulli 1.05, 0.94 and 1.20 to 1.33. CNNs run without XLA, which fuses the formulas.
LIKELIHOOD_MS = {("mlp", "discretized_logistic"): 2.0, ("cnn", "discretized_logistic"): 8.0,
                 ("cnn", "continuous_bernoulli"): 4.0}
DISK_COPIES = 5  # of the weights in a run directory: model.keras, best, and last with Adam's two slots
BYTES_PER_IMAGE = 2 * 32  # of per-example values, for last and best


class Cost(NamedTuple):
    """What a set of runs is expected to take; start-up and measures come on top."""

    runs: int
    hours: float  # on 2 CPU cores
    gigabytes: float  # of run directories


def cost(configs: Iterable[Config]) -> Cost:
    """Expected hours and disk of some runs: steps times the measured step time, evaluations, and the files written."""
    configs = list(configs)
    size = sum(4 * DISK_COPIES * num_parameters(config) + BYTES_PER_IMAGE * images_and_channels(config)[0]
               for config in configs)
    return Cost(len(configs), sum(expected_seconds(configs)) / 3600, size / 1e9)


def expected_seconds(configs: Sequence[Config]) -> list[float]:
    """Expected seconds of each run: its evaluations, and its share of a training that several runs share."""
    runs = collections.Counter(config.training_key for config in configs if config.conditioning == "beta")
    return [step_seconds(config) * config.train_steps / runs.get(config.training_key, 1)
            + (image_seconds(config) + likelihood_seconds(config)) * EVALUATION_SHARE * _images_evaluated(config)
            for config in configs]


def step_seconds(config: Config) -> float:
    """Expected seconds per optimizer step on 2 cores, with the images that the prior has encoded besides the batch."""
    encoded = ENCODER_SHARE * PRIORS[config.prior].encoded_images
    return image_seconds(config) * (config.batch_size + encoded) + likelihood_seconds(config) * config.batch_size


def image_seconds(config: Config) -> float:
    """Expected seconds per image of a step: measured ones, scaled by parameters; convolutions by area and channels."""
    network, like = NETWORKS[config.architecture], _measured_architecture(config)
    protocol = Config(architecture=like, num_layers=min(config.num_layers, 3))
    one, three = (STEP_MS[like, layers] for layers in (1, 3))
    milliseconds = one + (three - one) / 2 * (protocol.num_layers - 1)
    if like == "mlp":
        share = num_parameters(config) / num_parameters(protocol)
    else:
        share = (config.image_size / 32) ** 2 * getattr(config, network.width) / protocol.channels
    return milliseconds / 1000 * share / protocol.batch_size


def likelihood_seconds(config: Config) -> float:
    """Expected seconds per image that the likelihood adds to those of the network, by the values in an image."""
    milliseconds = LIKELIHOOD_MS.get((_measured_architecture(config), config.likelihood), 0.0)
    share = (config.image_size / 32) ** 2 * images_and_channels(config)[1] / 3
    return milliseconds / 1000 * share / Config().batch_size


def _measured_architecture(config: Config) -> str:
    """One without measurements counts as a cnn if its layers halve the image, else as an mlp."""
    return "cnn" if NETWORKS[config.architecture].halves else "mlp"


def num_parameters(config: Config) -> int:
    """How many weights a model of the run's images has."""
    shape = config.image_size, config.image_size, images_and_channels(config)[1]
    return catalogue.num_parameters(config, shape)


def _images_evaluated(config: Config) -> int:
    """Images evaluated over a run: some in between, then whole partitions for the last weights and for the best."""
    total = images_and_channels(config)[0]
    before = -(-config.train_steps // config.evaluation_interval)
    return 2 * total + before * min(total, 2 * (config.eval_images or total))


def images_and_channels(config: Config) -> tuple[int, int]:
    """How many images, and channels, the full data set has; one that has no builder counts as Tetrominoes."""
    builder = DATASETS.get(config.dataset, DATASETS["tetrominoes"])
    return builder.num_images, builder.channels


def duration(hours: float) -> str:
    """Hours as text, in minutes where they are less than one.

    >>> duration(0.25), duration(30)
    ('about 15 minutes', 'about 30.0 hours')
    """
    if hours < 1 / 60:
        return "less than a minute"
    return f"about {60 * hours:.0f} minutes" if 60 * hours < 59.5 else f"about {hours:,.1f} hours"
