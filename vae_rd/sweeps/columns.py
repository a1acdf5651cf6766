"""Pieces of a sweep: which runs train together as a column, how many fit, and what a task of an array takes."""

import functools
import itertools
import os
import subprocess
import sys

from vae_rd.catalogue import NETWORKS
from vae_rd.config import STACKABLE_FIELDS, Config
from vae_rd.sweeps.cost import cost, num_parameters
from vae_rd.training import gpus

CPU_MEMBERS = 12  # more gain nothing where members run one after the other, and the program takes longer to compile
GPU_MEMBERS = 60  # the paper's 12 betas x 5 restarts
COPIES = 9  # of a member's weights at the peak: weights, gradients, Adam's two, each with a copy in flight, one to save
FLOATS_PER_IMAGE = 4  # per latent dimension of an evaluated image: posterior mean and scale, each with a copy
GPU_GIBIBYTES = 8  # assumed of a GPU that does not say how much memory it has
MEMORY_SHARE = 0.5  # of what there is, free or not: so that columns are the same in every call


def columns(configs: list[Config], size: int | None = None, at_least: int = 1) -> list[list[Config]]:
    """Cuts Configs into columns: those that differ in STACKABLE_FIELDS only, in order, at most `size` together.

    Args:
        configs: of a whole piece, whatever has finished: so that a column is the same in every call.
        size: members at most; None: as many as memory allows.
        at_least: workers that want a column each; the columns are cut finer for them.
    """
    defaults = {name: Config.__dataclass_fields__[name].default for name in STACKABLE_FIELDS}
    groups: dict[Config, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.replace(**defaults), []).append(config)
    cut = []
    share = -(-len(configs) // at_least)
    for shared, group in groups.items():
        limit = min(size or column_size(shared), share)
        cut += [group[start:start + limit] for start in range(0, len(group), limit)]
    return cut


def piece(configs: list[Config], task: int, num_tasks: int) -> list[Config]:
    """The part of task number `task` out of `num_tasks`: neighbours, of about equal expected cost.

    It depends on nothing but the arguments, so the tasks of an array are disjoint and complete on any nodes.
    """
    costs = [cost([config]).hours for config in configs]
    middles = [end - own / 2 for end, own in zip(itertools.accumulate(costs), costs)]
    return [config for config, middle in zip(configs, middles) if int(middle / sum(costs) * num_tasks) == task]


def column_size(config: Config) -> int:
    """Members that fit into the memory of the GPU, or of this machine if it has none; at least one."""
    on_gpu = num_gpus() > 0
    memory = _gpu_bytes() if on_gpu else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = int(MEMORY_SHARE * memory / member_bytes(config))
    return max(1, min(GPU_MEMBERS if on_gpu else CPU_MEMBERS, fitting))


def member_bytes(config: Config) -> int:
    """Estimated peak memory of one more member, in bytes; the data and the framework come on top."""
    weights = 4 * num_parameters(config) * (2 if config.precision == "float64" else 1)
    return COPIES * weights + 4 * FLOATS_PER_IMAGE * config.latent_dim * 163_840 + _activation_bytes(config)


def num_gpus() -> int:
    """How many GPUs this process may use."""
    return len(gpus.visible())


def _activation_bytes(config: Config) -> int:
    """Of one evaluation batch of 1,024 images, which is wider than a training batch: images, logits, hidden layers."""
    pixels = config.image_size**2
    network = NETWORKS[config.architecture]
    width, layers = getattr(config, network.width), range(1, config.num_layers + 1)
    hidden = sum(width * pixels // 4**layer if network.halves else width for layer in layers)
    return 4 * 1024 * (4 * 3 * pixels + 4 * hidden)


@functools.cache
def _gpu_bytes() -> int:
    """Memory of the smallest GPU, as nvidia-smi says; where it does not, what is assumed is printed."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    except OSError:  # it is not installed, as in many containers
        answer = []
    megabytes = [int(text) for text in answer if text.isdigit()]  # "[N/A]" where memory is shared with the machine
    if not megabytes:
        print(f"nvidia-smi does not say how much memory the GPU has: {GPU_GIBIBYTES} GiB are assumed. With another "
              "number of runs in a column, give it: --column_size.", file=sys.stderr)
    return min(megabytes) * 2**20 if megabytes else GPU_GIBIBYTES * 2**30
