"""Fixtures that several files of tests share: tiny data, and the starting of training processes."""

import contextlib
import os
import pathlib
import signal
import sys

import pytest

from data_gen import generate
from tests import commands
from vae_rd import cli
from vae_rd.config import DataSpec

os.environ["TF_CPP_MIN_LOG_LEVEL"] = cli.QUIET  # as the commands set it
# A suite that is started in the background has Ctrl-C ignored, and so would every process that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
IMAGE_SIZE = 8  # Tetrominoes drawn at a quarter of their size: 192 pixels, so that a step takes less than a millisecond


LONGEST = ("test_kills.py", "test_slurm.py", "test_main.py")


def pytest_collection_modifyitems(items):
    """The files with the longest tests come first: at the end one of two processes would be alone with them."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def seeded():
    """Training switches determinism on for its process, which from then on refuses draws without any seed."""
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """A folder of data sets with 8 x 8 Tetrominoes: `cd_300` (300 training and 300 test images) and `cd_40`."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("cd_300", "cd_40"):
        generate.generate(folder, DataSpec("tetrominoes", name, image_size=IMAGE_SIZE), num_workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def split(data_dir):
    """The split in `data_dir`, loaded."""
    from vae_rd.datasets import splits
    return splits.load(data_dir / f"tetrominoes-size{IMAGE_SIZE}" / "cd_300")


@pytest.fixture(scope="module")
def kept_columns():
    """Columns that differ in nothing that is traced share one, its state set back: most of a tiny training is tracing.

    For modules that train the same few Configs again and again in this process; what a new process does is shown where
    there is one (`test_main.py`, `test_kills.py`).
    """
    from vae_rd.training import column, loop
    made: dict[tuple, tuple[column.Column, dict]] = {}

    def make(configs, images, *, strategy, jit, stacked):
        if configs[0].conditioning == "beta":  # its end cannot be set back: see Column.set_weights
            return column.Column(configs, images, strategy=strategy, jit=jit, stacked=stacked)
        traced = tuple(config.without("train_steps", "eval_every", "eval_images") for config in configs)
        key = (traced, images.tobytes(), jit, stacked)
        if key not in made:
            new = column.Column(configs, images, strategy=strategy, jit=jit, stacked=stacked)
            made[key] = new, new.state()
        kept, start = made[key]
        kept.configs, kept.shared = configs, configs[0]
        kept.restore(start)
        return kept
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Column", make)
        yield


@contextlib.contextmanager
def training(data_dir, folder):
    """start("--beta=1", ...) starts vae_rd.main on tiny data, runs_dir `folder / "runs"`; none outlives the block."""
    started = []

    def start(*flags, before=None, **environment):
        names = {flag.partition("=")[0] for flag in flags}
        usual = {"--split": "cd_300", "--image_size": IMAGE_SIZE, "--hidden_units": 16, "--batch_size": 32,
                 "--train_steps": 40, "--data_dir": data_dir, "--runs_dir": folder / "runs"}
        if "--architecture=cnn" in flags:
            usual["--channels"] = usual.pop("--hidden_units") // 4
        flags = [*(f"{name}={value}" for name, value in usual.items() if name not in names), "--noprogress", *flags]
        output = folder / f"output{len(started)}.txt"
        started.append(commands.start("vae_rd.main", flags, output, before, **environment))
        return started[-1]
    try:
        yield start
    finally:
        for command in started:
            command.process.kill()
            command.process.join()


@pytest.fixture
def train(data_dir, tmp_path):
    """Starts training processes in the test's own folder: see `training`."""
    with training(data_dir, tmp_path) as start:
        yield start
