"""The training step, what surrounds it, and columns: against JAX, the bare step and single runs."""

import contextlib
import importlib
import io

import numpy as np
import tensorflow as tf

from tests.benchmarks import machine
from tests.benchmarks.contest import Contestant, Figures, Row, alone, compare, measure, timed
from tests.benchmarks.material import Material, Steps
from vae_rd.datasets import random_streams
from vae_rd.storage import checkpoints, runs
from vae_rd.training import devices, loop, preparation, signals
from vae_rd.training.column import EVALUATION_BATCH
from vae_rd.training.evaluation import Evaluator

REFERENCES = {"JAX": "plain_jax"}
LIMITS = {"mlp1": {"JAX": 1.0}, "mlp3": {"JAX": 1.0}}
PEAK_SHARE = {"cnn3": 0.5}
ROOFLINE = dict.fromkeys(("mlp1", "mlp3"), 4 / 3)  # the machine allows at most a quarter less time than they take
ADAM_BYTES = 8 * 4  # per weight: weight, gradient and two moments, read and written
OVERHEAD, UPKEEP = 1.03, 0.05
COLUMN_LIMITS = {"mlp1": 1.05, "cnn1": 1.15}
PAPER_STEPS, PAPER_IMAGES, PAPER_EVALUATIONS = 257_000, 163_840, 22  # 21 on the way, one of the best weights
CHECKPOINT_SECONDS = 300  # between checkpoints; each evaluation saves one too


def steps(network: str, material: Material, repeats: int, report) -> list[Row]:
    """One step of a network in the program's own loop: input, noise, metrics, progress bar and all."""
    column, sizes = material.column(network), material.sizes
    number, product = sizes.steps[network], machine.Product(sizes.product)
    references = {name: _reference(module, column, material, network) for name, module in REFERENCES.items()
                  if sizes.references}
    figures = measure({"loop": Loop(material, network),
                       "bare compiled step": Steps(_bare(column, material.split.train.images), number),
                       **references, "matrix product": product, "memory": machine.Bandwidth(sizes.megabytes)},
                      repeats, report)
    figures["roofline"] = [roofline(column, *peaks) for peaks in zip(figures["matrix product"], figures["memory"])]
    flops = step_flops(column.template, column.shared.batch_size)
    figures["achieved"] = [flops / milliseconds / 1e6 for milliseconds in figures["loop"]]
    label = f"{network}: training step"
    return [*(compare(label, "ms", figures, "loop", name, limit=LIMITS.get(network, {}).get(name))
              for name in references),
            compare(label, "ms", figures, "loop", "bare compiled step",
                    limit=OVERHEAD if network == "mlp1" else None),
            compare(label, "ms", figures, "loop", "roofline", limit=ROOFLINE.get(network)),
            compare(f"{network}: arithmetic of the step", "GFLOP/s", figures, "achieved", "matrix product",
                    limit=PEAK_SHARE.get(network), at_least=True)]


def column(network: str, material: Material, repeats: int, report) -> list[Row]:
    """A column against as many single runs: a training step, and evaluation."""
    members, number = material.sizes.members, material.sizes.steps[network]
    single, many = material.column(network), material.column(network, members)
    train_single = Steps(single.train, number)
    evaluated = material.split.test
    reference = f"{members} single runs"
    longer = loop.TURNS_SECONDS / loop.CHUNK_SECONDS if many.num_turns > 1 else 1  # as the program's loop calls it
    training = measure({"column": Steps(many.train, max(1, int(longer * number / members))),
                        reference: lambda: members * train_single()}, repeats, report)
    evaluation = measure({"column": lambda: 1000 * timed(lambda: many.evaluate(evaluated)),
                          reference: lambda: 1000 * members * timed(lambda: single.evaluate(evaluated))},
                         repeats, report)
    limit = COLUMN_LIMITS[network]
    label = f"{network}: column of {members}"
    return [compare(f"{label}, training step", "ms", training, "column", reference, limit=limit),
            compare(f"{label}, evaluation", "ms", evaluation, "column", reference, limit=limit)]


def evaluation(material: Material, repeats: int, report) -> list[Row]:
    """Evaluating images against the bare forward pass of the same networks."""
    rows = []
    for network in ("mlp1", "mlp3", "cnn1", "cnn3"):
        single, partition = material.column(network), material.split.test
        figures = measure({"Column.evaluate": lambda: len(partition.index) / timed(lambda: single.evaluate(partition)),
                           "bare forward pass": _forward(single, partition.images)}, repeats, report)
        rows.append(compare(f"{network}: evaluation", "images/s", figures, "Column.evaluate", "bare forward pass",
                            limit=0.8, at_least=True))
    return rows


def upkeep(material: Material, repeats: int, report) -> list[Row]:
    """Evaluations and checkpoints of a run of the paper's length, extrapolated from one of each."""
    single, split = material.column("mlp1"), material.split
    evaluator = Evaluator(split, single.shared)
    run = runs.run_dir(material.folder / "runs", single.shared)
    run.path.mkdir(parents=True, exist_ok=True)
    state = {name: value[0] for name, value in single.state().items()}

    def evaluate():
        for values in evaluator.evaluate(single, whole=True):
            for part in values.values():
                part.metrics()

    figures = measure({"step": Steps(single.train, material.sizes.steps["mlp1"]),
                       "evaluation": lambda: timed(evaluate),
                       "checkpoint": lambda: timed(lambda: checkpoints.save(run, checkpoints.START, state, []))},
                      repeats, report)
    shares = upkeep_share(figures, evaluator.num_images(whole=True))
    return [alone("mlp1: evaluations and checkpoints of a run", "of training", shares, UPKEEP,
                  note=f"extrapolated to {PAPER_STEPS:,} steps and {PAPER_IMAGES:,} images")]


def upkeep_share(figures: Figures, num_images: int) -> list[float]:
    """Seconds for evaluations and checkpoints per second of training, of a run of the paper's length.

    Args:
        figures: milliseconds per `step`, seconds per `evaluation` of `num_images` images and per `checkpoint`.
        num_images: as said.
    """
    shares = []
    for step, evaluate, save in zip(figures["step"], figures["evaluation"], figures["checkpoint"]):
        training = PAPER_STEPS * step / 1000
        saves = PAPER_EVALUATIONS + training / CHECKPOINT_SECONDS
        shares.append((PAPER_EVALUATIONS * evaluate * PAPER_IMAGES / num_images + saves * save) / training)
    return shares


def roofline(column, peak: float, bandwidth: float) -> float:
    """The least milliseconds of a step: products at the peak (GFLOP/s), then Adam's traffic at the bandwidth (GB/s)."""
    flops, traffic = step_cost(column)
    return (flops / peak + traffic / bandwidth) / 1e6


def step_cost(column) -> tuple[int, int]:
    """Operations of the products in one step, and bytes that Adam reads and writes."""
    weights = sum(int(tf.size(weight)) for weight in column.template.trainable_variables)
    return step_flops(column.template, column.shared.batch_size), ADAM_BYTES * weights


def step_flops(vae, batch_size: int) -> int:
    """Operations of the matrix products and convolutions in one step; 2 for each multiplication and addition.

    Each layer costs a product forward and two backward, but the first has no images to differentiate by.
    """
    total = 0
    for network in (vae.encoder, vae.decoder):
        layers = [layer for layer in network.layers if hasattr(layer, "kernel")]
        for place, layer in enumerate(layers):
            small = layer.input if "Transpose" in type(layer).__name__ else layer.output
            forward = 2 * batch_size * int(np.prod(layer.kernel.shape)) * int(np.prod(small.shape[1:-1]))
            total += forward * (2 if network is vae.encoder and place == 0 else 3)
    return total


class Loop:
    """Chunks of the training program's loop; each call returns milliseconds per step."""

    def __init__(self, material: Material, network: str):
        config = material.config(network)
        run = runs.run_dir(material.folder / "loop", config)
        run.path.mkdir(parents=True, exist_ok=True)
        self._training = loop.Training([preparation.prepare(config, run, retry=False)], material.split,
                                       devices.place(config), signals.Request(), show=True)
        self._num_steps = material.sizes.steps[network]

    def __call__(self) -> float:
        self._training.steps_per_call = self._num_steps
        with contextlib.redirect_stderr(io.StringIO()), self._training._bar(self._num_steps, "training", "step") as bar:
            return 1000 * timed(lambda: self._training._train_chunk(bar)) / self._num_steps


def _bare(column, images: np.ndarray):
    """The compiled step alone, in a loop of the graph, on one batch and one noise: no input, nothing brought back."""
    rows = column.batches(0, 1)[0]
    images = tf.constant(images[rows.numpy()])
    noise = tf.zeros([len(column.seeds), column.shared.batch_size, column.shared.latent_dim])

    @tf.function
    def run(number):
        for _ in tf.range(number):
            column._update(rows, images, noise, column.beta)

    return lambda first, number: run(tf.constant(number))


def _reference(module: str, column, material: Material, network: str) -> Contestant | None:
    """The plain training in another framework, from the same weights; None where it is not installed."""
    try:
        plain = importlib.import_module(f"tests.benchmarks.{module}")
    except ImportError:
        return None
    images, config = material.split.train.images, column.shared
    training = plain.Training(material.network_weights(column), images, config)

    def train(first, number):
        rows = random_streams.batch_indices(len(images), config.batch_size, config.seed, first, number)
        return training.train(rows, first)

    return Steps(train, material.sizes.steps[network])


def _forward(column, images: np.ndarray) -> Contestant:
    """Images/s of encoder and decoder alone on resident batches, compiled as evaluation is."""
    vae = column.template
    pixels = tf.constant(images[:EVALUATION_BATCH], vae.variable_dtype) / 255
    noise = tf.ones([len(pixels), vae.latent_dim])

    @tf.function(jit_compile=devices.place(column.shared).jit)
    def forward(pixels):
        mean, log_scale = vae.encoder(pixels)
        return vae.decoder(mean + tf.exp(log_scale) * noise)

    batches = max(1, len(images) // len(pixels))

    def run():
        for _ in range(batches):
            logits = forward(pixels)
        logits[0, 0, 0, 0].numpy()

    return lambda: batches * len(pixels) / timed(run)
