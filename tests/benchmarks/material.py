"""What the benchmarks run on: sizes, data and columns, made once each."""

import dataclasses
import functools
import pathlib

import numpy as np

from vae_rd.config import Config, DataSpec

BETAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0, 10.0)  # 12 members, as many as a curve has


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    shape: dict  # fields of Config that the networks share
    units: dict  # by architecture, fields of Config that set their width
    steps: dict  # by network: training steps in one repetition, about half a second
    members: int  # of a column
    split: str  # loaded, evaluated and searched
    first_step_split: str
    generated_split: str  # made by the generator
    largest_split: str  # held in memory
    queries: int  # of the nearest neighbour search
    codes: int  # of the aggregate density
    product: int  # side of the matrices whose product measures the peak
    megabytes: int  # of each array that measures the memory bandwidth
    references: bool  # measure JAX too
    repeats: int


FULL = Sizes({}, {"mlp": {}, "cnn": {}}, {"mlp1": 45, "mlp3": 30, "cnn1": 30, "cnn3": 10}, 12, "cd_16k", "cd_8k",
             "default", "cv_82k", 4096, 16384, 2048, 256, True, 5)
TINY = Sizes({"image_size": 8, "batch_size": 16}, {"mlp": {"hidden_units": 8}, "cnn": {"channels": 2}},
             dict.fromkeys(("mlp1", "mlp3", "cnn1", "cnn3"), 2), 2, "cd_40", "cd_40", "cd_40", "cd_80", 16, 64, 64, 1,
             False, 1)


class Material:
    """Data and columns of one size, in a folder that the caller removes."""

    def __init__(self, sizes: Sizes, folder: pathlib.Path):
        self.sizes, self.folder = sizes, folder

    def config(self, network: str, **changes) -> Config:
        """The Config of a network by its short name: mlp1, mlp3, cnn1 or cnn3."""
        architecture, num_layers = network[:3], int(network[3:])
        return Config(architecture=architecture, num_layers=num_layers, split=self.sizes.split, **self.sizes.shape,
                      **self.sizes.units[architecture], **changes)

    def generate(self, split: str, data_dir: str = "data", overwrite: bool = False) -> pathlib.Path:
        """A split on disk, its folder."""
        from data_gen import generate
        return generate.generate(self.folder / data_dir,
                                 DataSpec("tetrominoes", split, image_size=self.config("mlp1").image_size),
                                 overwrite=overwrite, progress=False)

    @functools.cached_property
    def split(self):
        """The loaded split, a `vae_rd.datasets.splits.Split`."""
        from vae_rd.datasets import splits
        return splits.load(self.generate(self.sizes.split))

    @functools.lru_cache(maxsize=8)
    def column(self, network: str, members: int = 1):
        """The column that the training program would make of the network, on what it would choose."""
        config = self.config(network)
        configs = [config.replace(beta=beta) for beta in BETAS[:members]] if members > 1 else [config]
        return placed(configs, self.split.train.images)

    def network_weights(self, column) -> list[np.ndarray]:
        """Kernels and biases of a column's first member, as they stand."""
        state = column.state()
        return [state[name][0] for name in column.weight_names if name.startswith(("encoder", "decoder"))]


def placed(configs: list[Config], images: np.ndarray):
    """The column of some Configs on training images, where and as the training program would run it."""
    from vae_rd.training import devices
    from vae_rd.training.column import Column
    placement = devices.place(configs[0])
    return Column(configs, images, strategy=placement.strategy, jit=placement.jit, stacked=placement.stacked)


class Steps:
    """Trains on, some steps at a time; each call returns milliseconds per step."""

    def __init__(self, train, num_steps: int):
        self._train, self._num_steps, self._next = train, num_steps, 0

    def __call__(self) -> float:
        from tests.benchmarks.contest import timed
        seconds = timed(lambda: self._train(self._next, self._num_steps))
        self._next += self._num_steps
        return 1000 * seconds / self._num_steps
