"""Readiness for GPUs, read off the traced programs without one: TensorFlow registers CUDA kernels on any machine."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from vae_rd.config import Config
from vae_rd.training.column import Column

# What the graph's own machinery runs: arguments, results, and integers that steer loops and are wanted on the host.
ON_THE_HOST = {"Placeholder", "Const", "Range", "While", "NoOp"}
COMPILED = "_XlaMustCompile"


def without_gpu_kernel(concrete) -> set[str]:
    """Operations that soft placement would silently run on the CPU, with their types; compiled functions are left out.

    An operation counts as placed on the host on purpose if its device says so.
    """
    graph = concrete.graph.as_graph_def()
    library = {function.signature.name: function for function in graph.library.function}
    waiting, seen, found = [graph.node], set(), set()
    while waiting:
        for node in waiting.pop():
            names = [attribute.func.name for attribute in node.attr.values() if attribute.HasField("func")]
            compiled = node.attr[COMPILED].b or any(library[name].attr[COMPILED].b for name in names)
            if not compiled:
                waiting += [library[name].node_def for name in names if name not in seen]
                seen.update(names)
            if not names and node.op not in ON_THE_HOST and "CPU" not in node.device and not _on_gpu(node):
                found.add(f"{node.op} {_types(node)}")
    return found


def _types(node) -> dict[str, str]:
    return {name: tf.dtypes.as_dtype(value.type).name for name, value in node.attr.items() if value.type}


def _on_gpu(node) -> bool:
    for kernel in kernels.get_registered_kernels_for_op(node.op).kernel:
        fits = all(node.attr[one.name].type in one.allowed_values.list.type for one in kernel.constraint)
        if kernel.device_type in ("GPU", "DEFAULT") and fits:
            return True
    return False


def column(stacked=False, **fields):
    sizes = {"channels": 4} if fields.get("architecture") == "cnn" else {"hidden_units": 8}
    configs = [Config(beta=beta, image_size=8, batch_size=8, **sizes, **fields) for beta in (0.1, 1.0)]
    images = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3), np.uint8)
    return Column(configs, images, strategy=tf.distribute.get_strategy(), jit=True, stacked=stacked)


@pytest.mark.parametrize("fields", [{}, {"architecture": "cnn"}, {"prior": "mixture"}, {"binarization": "dynamic"},
                                    {"rate_terms": "marginal_kl"}, {"conditioning": "beta"}], ids=str)
def test_every_operation_outside_the_compiled_parts_has_a_gpu_kernel(fields):
    """In the training loop; an evaluation is compiled as a whole."""
    made = column(stacked=fields.get("architecture") != "cnn", **fields)
    step = made.program.get_concrete_function()
    assert without_gpu_kernel(step) == set()


def test_an_operation_without_a_gpu_kernel_is_found():
    """What the training images once were: bytes in a tensor, gathered on the CPU in every step."""
    images = tf.zeros([4, 2], tf.uint8)
    gather = tf.function(lambda rows: tf.gather(images, rows)).get_concrete_function(tf.constant([1]))
    assert any(name.startswith("GatherV2") for name in without_gpu_kernel(gather))


@pytest.mark.parametrize("precision, expected", [("float32", True), ("tensorfloat32", False)])
def test_float32_products_ask_for_full_precision(precision, expected):
    """Unless TensorFloat-32 is wanted: the compiled text says it for every product."""
    tf.random.set_seed(0)  # asked for where another test has switched determinism on
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")
        made = column(precision=precision)
        given = (tf.stack([values] * len(made.seeds)) for values in
                 (tf.range(8), tf.zeros([8, 8, 8, 3], tf.uint8), tf.zeros([8, made.shared.latent_dim])))
        text = made._compiled_gradients.experimental_get_compiler_ir(*given, made.beta[:1])(stage="hlo")
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
    products = [line for line in text.splitlines() if " dot(" in line]
    assert products and all(("operand_precision={highest" in line) == expected for line in products)
