"""Counts the kernels that a GPU would launch for one step of a column, from the compiled program: a prediction."""

import collections
import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tests.benchmarks.contest import FAILED, Row
from tests.benchmarks.material import BETAS, Material
from tests.benchmarks.training import step_flops
from vae_rd.training.column import Column

MEMBERS = (1, 4, 12)
# A fraction of the width compiles in a fraction of the time and has the same products, and as many
# kernels to within 2 (compared for 1 and 4 members).
SMALL = {"mlp": {"image_size": 16, "hidden_units": 64}, "cnn": {"image_size": 16, "channels": 16}}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}  # instructions that launch nothing
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = .*?[\])}] ([a-z][a-z0-9-]*)\(", re.MULTILINE)


class Kernels(NamedTuple):
    """Instructions of one training step, optimizer included, that would each be a kernel."""

    products: int  # matrix products
    convolutions: int
    fusions: int
    others: int  # copies, sorts, loops and what else was not fused

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def count(text: str) -> Kernels:
    """Kernels in the entry computation of a compiled HLO module, given as text."""
    kinds = collections.Counter(_INSTRUCTION.findall(text[text.index("\nENTRY "):]))
    others = sum(number for kind, number in kinds.items() if kind not in _FREE | {"dot", "convolution", "fusion"})
    return Kernels(kinds["dot"], kinds["convolution"], kinds["fusion"], others)


def count_step(configs, image_shape: tuple[int, int, int], stacked: bool) -> Kernels:
    """Kernels of a column's whole step: gradients of all members, and Adam."""
    column = Column(configs, np.zeros((1, *image_shape), np.uint8), strategy=tf.distribute.get_strategy(), jit=True,
                    stacked=stacked)
    shared = column.shared
    images = tf.zeros([len(column.seeds), shared.batch_size, *image_shape], tf.uint8)
    noise = tf.zeros([len(column.seeds), shared.batch_size, shared.latent_dim])
    program = column._update.experimental_get_compiler_ir(images, noise)
    text = program(stage="optimized_hlo", device_name="/device:CPU:0")  # else it draws a number to find the device
    if not _takes_images(text):
        raise ValueError("the images are constants of the compiled program, so it is compiled again for every batch: "
                         "some operation on them wants a shape that is known only when the program runs")
    return count(text)


def _takes_images(text: str) -> bool:
    """Whether uint8 images are among the arguments of a compiled HLO module."""
    return "u8[" in re.search(r"entry_computation_layout=\{\((.*?)\)->", text)[1]


def prediction(material: Material, repeats: int, report) -> list[Row]:
    """Kernels per step of columns of 1, 4 and 12, unrolled and stacked, against as many single runs."""
    rows = []
    for network, forms in (("mlp1", (False, True)), ("cnn1", (False,))):  # convolutions have no stacked form
        config = material.config(network)
        small = config.replace(**SMALL[config.architecture])
        work = step_flops(material.column(network).template, config.batch_size) / 1e9
        traffic = 2 * sum(value.nbytes for value in material.column(network).state().values()) / 1e6
        single = None
        for stacked in forms:
            for members in MEMBERS if material.sizes.references else MEMBERS[:2]:
                form = "stacked" if stacked else "unrolled"
                report(f"{network}, {members} members, {form}")
                label, shape = f"{network}: column of {members}, {form}", (small.image_size, small.image_size, 3)
                try:
                    kernels = count_step([small.replace(beta=beta) for beta in BETAS[:members]], shape, stacked)
                except ValueError as error:
                    rows.append(Row(label, "kernels/step", note=f"{FAILED}: {error}"))
                    continue
                single = single or kernels
                rows.append(Row(label, "kernels/step", (kernels.total,), f"{members} single runs",
                                (members * single.total,), note=_note(kernels, members * work, members * traffic)))
    return rows


def _note(kernels: Kernels, gigaflops: float, megabytes: float) -> str:
    return (f"PREDICTION: {kernels.products} products, {kernels.convolutions} convolutions, {kernels.fusions} fusions, "
            f"{kernels.others} others; {gigaflops:.1f} GFLOP, {megabytes:.0f} MB of weights and moments in and out")
