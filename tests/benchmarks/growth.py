"""How a training step grows: with layers, width, latent size and training images, each against a prediction.

Predicted from the machine's peaks in the same repetition: operations of the products at the matrix-product peak, plus
Adam's traffic at the memory's bandwidth.
"""

import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.contest import Row, compare, measure
from tests.benchmarks.material import Material, Steps, placed
from tests.benchmarks.training import roofline, step_cost
from vae_rd.config import Config
from vae_rd.training.column import Column

FAMILIES = {"num_layers": (1, 2, 3, 4, 5), "hidden_units": (128, 256, 512, 1024, 2048), "latent_dim": (2, 10, 64),
            "training images": (8_192, 32_768, 147_456)}


def growth(material: Material, repeats: int, report) -> list[Row]:
    """Milliseconds per step of MLPs, one thing varied at a time."""
    rows = []
    families = FAMILIES if material.sizes.references else {"num_layers": (1, 2), "training images": (40, 80)}
    for what, values in families.items():
        columns = {f"{what} {value:,}": _column(material, what, value) for value in values}
        peak, bandwidth = machine.Product(material.sizes.product), machine.Bandwidth(material.sizes.megabytes)
        figures = measure({"peak": peak, "bandwidth": bandwidth,
                           **{name: Steps(column.train, material.sizes.steps["mlp3"])
                              for name, column in columns.items()}},
                          repeats, report)
        for name, column in columns.items():
            figures["predicted"] = [roofline(column, *peaks) for peaks in zip(figures["peak"], figures["bandwidth"])]
            flops, traffic = step_cost(column)
            rows.append(compare(f"mlp: {name}", "ms", figures, name, "predicted",
                                note=f"{flops / 1e9:.2f} GFLOP, {traffic / 1e6:.0f} MB of Adam"))
    return rows


def _column(material: Material, what: str, value: int) -> Column:
    config: Config = material.config("mlp1")
    images = material.split.train.images
    if what == "training images":
        images = np.resize(images, (value, *images.shape[1:]))
    else:
        config = config.replace(**{what: value})
    return placed([config], images)
