"""The kernels that a GPU would launch for one step of a column, with their bytes and operations: a prediction.

They are read from the program that XLA compiles for CPUs, optimizer included.
"""

import collections
import math
import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tests.benchmarks.contest import FAILED, Row
from tests.benchmarks.material import BETAS, Material
from vae_rd.training.column import Column

MEMBERS = (1, 4, 12)
LAUNCH, BANDWIDTH, PEAK = 3e-6, 4.8e12, 67e12  # an H200's: seconds per kernel, bytes/s, float32 operations/s; assumed
# A fraction of the width compiles in a fraction of the time and has the same products, and as many kernels to within
# 2 (compared for 1 and 4 members); its bytes and operations are not the protocol's, so they are not shown.
SMALL = {"mlp": {"image_size": 16, "hidden_units": 64}, "cnn": {"image_size": 16, "channels": 16}}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}  # instructions that launch nothing
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%?\S+) = (.*?[\])}]) ([a-z][a-z0-9-]*)\((.*)$", re.MULTILINE)
_SHAPE = re.compile(r"([a-z]+)([0-9]*)\[([0-9,]*)\]")


class Kernel(NamedTuple):
    """One instruction of the entry computation that would be a kernel."""

    kind: str  # dot, convolution, fusion, sort, ...
    bytes: int  # of its operands and its result
    operations: int  # of a matrix product; 0 for all others


class Kernels(NamedTuple):
    """How many kernels of each kind one training step has."""

    products: int  # matrix products
    convolutions: int
    fusions: int
    others: int  # copies, sorts, loops and what else was not fused

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def read(text: str) -> list[Kernel]:
    """Kernels in the entry computation of a compiled HLO module, given as text."""
    found, shapes = [], {}
    for name, shape, kind, rest in _INSTRUCTION.findall(text[text.index("\nENTRY "):]):
        shapes[name] = shape
        operands = [shapes[operand] for operand in re.findall(r"%[\w.-]+", rest) if operand in shapes]
        if kind not in _FREE:
            size = sum(map(_bytes, [shape, *operands]))
            found.append(Kernel(kind, size, _product(shape, operands[0], rest) if kind == "dot" else 0))
    return found


def count(kernels: list[Kernel]) -> Kernels:
    """Kernels by kind."""
    kinds = collections.Counter(kernel.kind for kernel in kernels)
    named = [kinds.pop(kind, 0) for kind in ("dot", "convolution", "fusion")]
    return Kernels(*named, kinds.total())


def predicted_seconds(kernels: list[Kernel]) -> float:
    """One step on the assumed GPU: each kernel takes its launch, its bytes or its operations, whichever is longest."""
    return sum(max(LAUNCH, kernel.bytes / BANDWIDTH, kernel.operations / PEAK) for kernel in kernels)


def of_step(configs, image_shape: tuple[int, int, int], stacked: bool) -> list[Kernel]:
    """Kernels of a compiled step, gradients and Adam: of all members if stacked, of one where they take turns."""
    column = Column(configs, np.zeros((1, *image_shape), np.uint8), strategy=tf.distribute.get_strategy(), jit=True,
                    stacked=stacked)
    shared = column.shared
    images = tf.zeros([len(column.seeds), shared.batch_size, *image_shape], tf.uint8)
    noise = tf.zeros([len(column.seeds), shared.batch_size, shared.latent_dim])
    rows = tf.zeros(noise.shape[:2], tf.int32)
    beta = column.beta if stacked else column.beta[:1]
    program = column._update.experimental_get_compiler_ir(rows, images, noise, beta)
    text = program(stage="optimized_hlo", device_name="/device:CPU:0")  # else it draws a number to find the device
    if not _takes_images(text):
        raise ValueError("the images are constants of the compiled program, so it is compiled again for every batch: "
                         "some operation on them wants a shape that is known only when the program runs")
    return read(text)


def _takes_images(text: str) -> bool:
    """Whether uint8 images are among the arguments of a compiled HLO module."""
    return "u8[" in re.search(r"entry_computation_layout=\{\((.*?)\)->", text)[1]


def _bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, from its HLO shape."""
    return sum((int(bits or 8) // 8) * math.prod(int(side) for side in sides.split(",") if side)
               for _, bits, sides in _SHAPE.findall(shape))


def _product(shape: str, left: str, rest: str) -> int:
    """Operations of a matrix product: 2 for each multiplication and addition."""
    sides = [int(side) for side in _SHAPE.search(left)[3].split(",") if side]
    contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", rest)[1]
    inner = math.prod(sides[int(place)] for place in contracted.split(",") if place)
    return 2 * inner * math.prod(int(side) for side in _SHAPE.search(shape)[3].split(",") if side)


def prediction(material: Material, repeats: int, report) -> list[Row]:
    """Kernels per step of stacked columns of 1, 4 and 12, against as many single runs, and of one run of a CNN."""
    rows = []
    for network, stacked in (("mlp1", True), ("cnn1", False)):  # convolutions have no stacked form
        config = material.config(network)
        if not stacked:
            config = config.replace(**SMALL[config.architecture])
        single = None
        for members in (MEMBERS if material.sizes.references else MEMBERS[:2]) if stacked else MEMBERS[:1]:
            label = f"{network}: " + (f"column of {members}, stacked" if stacked else "one member, by turns")
            report(label)
            shape = (config.image_size, config.image_size, 3)
            try:
                kernels = of_step([config.replace(beta=beta) for beta in BETAS[:members]], shape, stacked)
            except ValueError as error:
                rows.append(Row(label, "kernels/step", note=f"{FAILED}: {error}"))
                continue
            single = single or len(kernels)
            rows.append(Row(label, "kernels/step", (len(kernels),), f"{members} single runs", (members * single,),
                            note=_note(kernels, members, whole=stacked)))
    return rows


def _note(kernels: list[Kernel], members: int, whole: bool) -> str:
    kinds = count(kernels)
    text = (f"PREDICTION: {kinds.products} products, {kinds.convolutions} convolutions, {kinds.fusions} fusions, "
            f"{kinds.others} others")
    if not whole:
        return text
    sizes = sorted(kernel.bytes for kernel in kernels)
    bound = sum(max(kernel.bytes / BANDWIDTH, kernel.operations / PEAK) < LAUNCH for kernel in kernels)
    seconds = predicted_seconds(kernels)
    return (f"{text}; {sum(kernel.operations for kernel in kernels) / 1e9:.2f} GFLOP in products, "
            f"{sum(sizes) / 1e6:.0f} MB in and out, {sizes[len(sizes) // 2] / 1e3:.0f} kB in the median kernel; "
            f"{bound} are shorter than a launch; "
            f"{1e3 * seconds:.2f} ms on an H200, {members / seconds:,.0f} member steps/s")
