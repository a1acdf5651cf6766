"""How a sweep is divided: which runs train together as a column, how many fit, and which a task of an array gets."""

import functools
import itertools
import os
import re
import sys
from collections.abc import Hashable

from vae_rd.catalogue import EVALUATION_BATCH, LIKELIHOODS, NETWORKS
from vae_rd.config import STACKABLE_FIELDS, Config
from vae_rd.sweeps.cost import cost, images_and_channels, num_parameters
from vae_rd.training import gpus

SEQUENTIAL_MEMBERS = 6  # where members take turns: more would gain nothing, end late, and leave workers uneven shares
GPU_MEMBERS = 60  # the paper's 12 betas x 5 restarts
MEMORY_COPIES = 9  # of a member's weights at the peak: weights, gradients, Adam's two, each twice, and one to save
NUMBERS_PER_CODE_VALUE = 4  # per latent dimension of an evaluated image: posterior mean and scale, each with a copy
GPU_GIBIBYTES = 8  # assumed of a GPU that does not say how much memory it has
MEMORY_SHARE = 0.5  # of what there is, free or not: so that columns are the same in every call


def into_columns(configs: list[Config], size: int | None = None, min_columns: int = 1, sharing: int = 1
                 ) -> list[list[Config]]:
    """Cuts Configs into columns: those that differ in STACKABLE_FIELDS only, in order, at most `size` together.

    Runs that share one training (conditioning=beta) are one column, however many they are.

    Args:
        configs: of a whole part, whatever has finished: so that a column is the same in every call.
        size: members at most; None: as many as memory allows.
        min_columns: columns that there should be, one for each worker: none has more than its share of the runs, except
            runs that share one training.
        sharing: workers that share the memory of a GPU, or of the machine: see `workers_sharing`.
    """
    groups: dict[Hashable, list[Config]] = {}
    for config in configs:
        conditioned = config.conditioning == "beta"
        groups.setdefault(config.training_key if conditioned else config.without(*STACKABLE_FIELDS), []).append(config)
    cut = []
    share = -(-len(configs) // min_columns)
    for group in groups.values():
        conditioned = group[0].conditioning == "beta"
        limit = len(group) if conditioned else min(size or members_that_fit(group[0], sharing), share)
        cut += [group[start:start + limit] for start in range(0, len(group), limit)]
    return cut


def part(configs: list[Config], task: int, num_tasks: int) -> list[Config]:
    """The runs of one task of `num_tasks`: a contiguous range of about equal cost; a shared training is never cut.

    It depends on nothing but the arguments, so the tasks of an array are disjoint and complete on any nodes.
    """
    trainings: dict[Hashable, list[Config]] = {}
    for config in configs:
        trainings.setdefault(config.training_key, []).append(config)
    costs = [cost(members).hours for members in trainings.values()]
    middles = [end - hours / 2 for end, hours in zip(itertools.accumulate(costs), costs)]
    return [config for members, middle in zip(trainings.values(), middles) for config in members
            if int(middle / sum(costs) * num_tasks) == task]


def workers_sharing(workers: int) -> int:
    """How many of these workers share one GPU; where there is no GPU, all of them share the memory of this machine."""
    return -(-workers // max(1, num_gpus()))


def members_that_fit(config: Config, sharing: int = 1) -> int:
    """Members that fit into a worker's part of the memory of its GPU, or of this machine without one; at least one."""
    on_gpu = num_gpus() > 0
    memory = _gpu_bytes() if on_gpu else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = int(MEMORY_SHARE * memory / sharing / member_bytes(config))
    most = GPU_MEMBERS if on_gpu and NETWORKS[config.architecture].stackable else SEQUENTIAL_MEMBERS
    return max(1, min(most, fitting))


def member_bytes(config: Config) -> int:
    """Estimated peak memory of one more member, in bytes; the data and the framework come on top."""
    images, _ = images_and_channels(config)
    numbers = (MEMORY_COPIES * num_parameters(config) + NUMBERS_PER_CODE_VALUE * config.latent_dim * images
               + _activations(config))
    return (8 if config.precision == "float64" else 4) * numbers


def num_gpus() -> int:
    """How many GPUs this process may use."""
    return len(gpus.visible())


def _activations(config: Config) -> int:
    """Numbers in one batch, of evaluation or training, whichever is larger.

    Twice images and parameters of the likelihood, and four times hidden layers.
    """
    pixels, channels = config.image_size**2, images_and_channels(config)[1]
    network = NETWORKS[config.architecture]
    width, layers = getattr(config, network.width), range(1, config.num_layers + 1)
    hidden = sum(width * pixels // 4**layer if network.halves else width for layer in layers)
    values = (2 + 2 * LIKELIHOODS[config.likelihood].per_pixel) * channels * pixels
    return max(EVALUATION_BATCH, config.batch_size) * (values + 4 * hidden)


@functools.cache
def _gpu_bytes() -> int:
    """Memory in bytes of the smallest GPU, or MIG part, by nvidia-smi; else GPU_GIBIBYTES, with a warning.

    The smallest of all, not of those that this process sees: a worker sees its own only.
    """
    if any(name.startswith("MIG-") for name in gpus.visible()):  # lines "  MIG 1g.10gb  Device  0: (UUID: MIG-...)"
        sizes = re.findall(r"^\s+MIG \S*\.(\d+)gb\b", gpus.nvidia_smi("-L"), re.MULTILINE)
        megabytes = [1024 * int(size) for size in sizes]
    else:
        answer = gpus.nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits").split()
        megabytes = [int(text) for text in answer if text.isdigit()]  # "[N/A]" where memory is shared with the machine
    if not megabytes:
        print(f"nvidia-smi does not say how much memory the GPU has: {GPU_GIBIBYTES} GiB are assumed. To set "
              "the number of runs in a column, give --column_size.", file=sys.stderr)
    return min(megabytes) * 2**20 if megabytes else GPU_GIBIBYTES * 2**30
