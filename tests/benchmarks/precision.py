"""What the precisions cost and change: a step's time, and rate and distortion after the same short training."""

import numpy as np

from tests.benchmarks.contest import Row, alone, compare, measure
from tests.benchmarks.material import Material, Steps, placed
from vae_rd.config import Config
from vae_rd.sweeps import experiments
from vae_rd.training.column import Column

PRECISIONS = ("float32", "tensorfloat32", "bfloat16")  # float64 draws other noise: another restart, not comparable
SEEDS = (0, 1, 2)  # of the short trainings; their spread says whether a change matters
PROTOCOL_STEPS = 1000


def precision(material: Material, repeats: int, report) -> list[Row]:
    """Speed against float32 at the protocol's size; final test rate and distortion at the smoke scale and beyond."""
    rows = []
    for network in ("mlp1", "cnn1") if material.sizes.references else ("mlp1",):
        config = material.config(network)
        steps = {name: Steps(_column([config.replace(precision=name)], material).train, material.sizes.steps[network])
                 for name in PRECISIONS}
        figures = measure(steps, repeats, report)
        rows += [compare(f"{network}: step in {name}", "ms", figures, name, "float32") for name in PRECISIONS[1:]]
    smoke = experiments.SCALES["smoke"]
    small = smoke.base.replace(split=material.sizes.split, **smoke.mlp)
    rows += _changes("smoke scale", small, small.train_steps, material, report)
    if material.sizes.references:
        rows += _changes("protocol's size", material.config("mlp1"), PROTOCOL_STEPS, material, report)
    return rows


def _changes(label: str, config: Config, num_steps: int, material: Material, report) -> list[Row]:
    """Rows of test rate and distortion after a training in each precision, paired by seed with float32's."""
    final = {}
    for name in PRECISIONS:
        report(f"{label} in {name}")
        column = _column([config.replace(precision=name, seed=seed) for seed in SEEDS], material, config.image_size)
        column.train(0, num_steps)
        evaluated = column.evaluate(_sized(material.split.test, config.image_size))
        final[name] = {"rate": evaluated.rate.mean(1, dtype=np.float64),
                       "distortion": evaluated.distortion.mean(1, dtype=np.float64)}
    rows = []
    for name in PRECISIONS[1:]:
        for quantity, values in final[name].items():
            exact = final["float32"][quantity]
            rows.append(alone(f"{label}, {num_steps} steps: {quantity}, {name}", "nats", list(values - exact),
                              note=f"change from float32's {exact.mean():.2f}, whose restarts differ by "
                                   f"{exact.std(ddof=1):.2f} (standard deviation)"))
    return rows


def _column(configs: list[Config], material: Material, image_size: int | None = None) -> Column:
    return placed(configs, _sized(material.split.train, image_size or configs[0].image_size).images)


def _sized(partition, image_size: int):
    """The partition, images of twice the size averaged."""
    images = partition.images
    factor = images.shape[1] // image_size
    if factor > 1:
        blocks = images.reshape(len(images), image_size, factor, image_size, factor, -1)
        images = np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
    return partition._replace(images=images)
