"""Run directories and tables with known, plausible numbers: what tests of the study read instead of trained runs."""

import dataclasses
import math
import os
import zlib

import numpy as np
import pandas as pd

from vae_rd.analysis import tables
from vae_rd.config import Config, split_size
from vae_rd.storage import ending
from vae_rd.storage.runs import FINISHED, METRICS, PARTITIONS, RunDir, run_dir

# Nats per image: what the distortion of a perfect model would be about, and the floor that is recorded.
LEVELS = {"bernoulli": 49.0, "continuous_bernoulli": -3400.0, "normal": -4250.6, "normal_learned_scale": -6000.0,
          "discretized_logistic": 5500.0}
FLOORS = {"bernoulli": 49.0, "normal": -4250.6, "discretized_logistic": 0.0}  # NaN for the others, which have none
AMPLITUDE, SCALE = 220.0, 8.0  # of the training curve: distortion = level + AMPLITUDE * exp(-rate / SCALE)


def training_point(config: Config) -> tuple[float, float]:
    """Rate and distortion where the curve's slope is -beta: the minimum of distortion + beta * rate."""
    scale = SCALE * {1: 1.0, 3: 0.8}.get(config.num_layers, 0.9)
    rate = scale * math.log(AMPLITUDE / (scale * max(config.beta, 1e-4)))
    return rate, LEVELS[config.likelihood] + (12.0 if config.num_layers == 1 else 6.0) + scale * config.beta


def test_gap(config: Config) -> float:
    """By how much test images are worse: grows as beta falls with 1 layer (so the test curve is U-shaped)."""
    size = split_size(config.split) or 16384
    size = size if config.split.startswith("cv") or config.split == "checkerboard" else 81920
    strength = max(0.0, math.log(81920 / size)) * (9.0 if config.num_layers == 1 else 4.0)
    shape = -math.log10(max(config.beta, 1e-4)) / 3 + 0.7 if config.num_layers == 1 else 0.6
    return strength * max(0.1, shape) + 0.4


test_gap.__test__ = False  # not for pytest


def metrics(config: Config, partition: str, spread: float = 0.4) -> dict[str, float]:
    """The metrics of one partition, with a restart's noise drawn from the run's earlier name, so that it stays."""
    random = np.random.default_rng(zlib.crc32(f"{config.earlier_run_name} {partition[:4]}".encode()))
    rate, distortion = training_point(config)
    if partition != "train":
        rate, distortion = rate + 0.2, distortion + test_gap(config)
    rate, distortion = np.array([rate, distortion]) + spread * random.standard_normal(2)
    floor = FLOORS.get(config.likelihood, math.nan)
    return dict(zip(METRICS, (rate, distortion, -rate - distortion, distortion + config.beta * rate, 10.0, floor)))


def fabricate_run(runs_dir: str | os.PathLike, config: Config, status: str = FINISHED, num_images: int = 1000,
                  measures: dict | None = None, history: list[dict] | None = None, **changes: float) -> RunDir:
    """Writes one run directory in the form that training writes; `changes` replaces metrics of every partition.

    Rows of `history` need only say what differs from the run's metrics; by default there are two evaluations.
    """
    run = run_dir(runs_dir, config)
    run.path.mkdir(parents=True)
    run.config.write_text(config.to_json())
    block = {name: {"num_images": num_images, **metrics(config, name), **changes} for name in PARTITIONS}
    rows = history or [{"step": step, "partition": name} for step in (0, config.train_steps // 2)
                       for name in PARTITIONS]
    run.write_history([{"step": row["step"], "partition": row["partition"],
                        **{name: block[row["partition"]][name] for name in ("num_images", *METRICS)},
                        "wall_seconds": 0.01 * row["step"], **row} for row in rows])
    if status == FINISHED:
        ending.end(run, {"status": FINISHED, "step": config.train_steps, **block,
                         "best": {"step": config.train_steps // 2, **block}, "wall_seconds": 60.0,
                         "steps_per_second": 90.0, "num_train": num_images, "num_test": num_images,
                         "versions": dict.fromkeys(tables.VERSIONS, "0.1.9")})
    elif status == "diverged":
        ending.end(run, {"status": status, "step": 70, "diverged": {"step": 70, "quantity": "rate"}})
    if measures:
        run.write_measures(measures)
    return run


def fabricate_table(configs: list[Config], point) -> pd.DataFrame:
    """A table of runs as `tables.collect` returns it, with `point(config, partition, checkpoint)` as the values."""
    rows = [{"run": config.run_name, "status": FINISHED, "note": "", **dataclasses.asdict(config),
             "partition": partition, "checkpoint": checkpoint, "step": config.train_steps, "num_images": 1000,
             "num_train": split_size(config.split) or 81920, **point(config, partition, checkpoint)}
            for config in configs for partition in PARTITIONS for checkpoint in ("last", "best")]
    return pd.DataFrame(rows)
