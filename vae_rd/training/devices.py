"""Where a training runs: devices, replicas, arithmetic and threads; none of it is part of a run's identity."""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import vae_rd
from vae_rd.catalogue import NETWORKS
from vae_rd.config import Config, ConfigError
from vae_rd.storage import runs
from vae_rd.training import cluster, gpus

# Tuned per process, XLA would choose other kernels, and a run that is continued would have other bits.
XLA_FLAGS = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)  # what a lost worker raises


class Placement(NamedTuple):
    """A strategy, and how the column's members are run on it."""

    strategy: tf.distribute.Strategy
    chief: bool  # the one process that evaluates and writes
    jit: bool
    stacked: bool


def configure(precision: str, num_threads: int | None = None) -> None:
    """Sets up arithmetic, determinism, memory growth and threads; before TensorFlow first uses a device.

    Args:
        precision: of the Config; float32 means float32: TensorFloat-32 is off unless it is asked for.
        num_threads: threads per operation; None: every core that this process may use. They change the last bits.

    Raises:
        ConfigError: see `check_gpus`.
    """
    check_gpus()
    if gpus.visible() and XLA_FLAGS not in os.environ.get("XLA_FLAGS", ""):  # first, so that the user's go before them
        os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()
    tf.get_logger().setLevel("WARNING")  # else every collective operation is announced, by every worker
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")
    tf.config.threading.set_intra_op_parallelism_threads(num_threads or len(os.sched_getaffinity(0)))
    tf.config.threading.set_inter_op_parallelism_threads(num_threads or len(os.sched_getaffinity(0)))
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def check_gpus() -> None:
    """Raises ConfigError if this machine has a GPU that TensorFlow cannot use: it would train on the CPU for days."""
    if gpus.present() and gpus.visible() and not tf.config.list_physical_devices("GPU"):
        raise ConfigError(f"TensorFlow must be able to use the GPU of this machine (got none, though the GPUs "
                          f"{', '.join(gpus.visible())} are visible). Try pip install --editable '.[cuda]', or "
                          "CUDA_VISIBLE_DEVICES=-1 to train on the CPU.")


def place(config: Config, strategy: str = "auto", jit: bool | None = None) -> Placement:
    """Chooses the strategy, and per architecture how the step is compiled (measured: see BUILD_NOTES.md).

    Raises:
        ConfigError: for a strategy that this machine or this start cannot serve.
    """
    chosen, network = _strategy(strategy), NETWORKS[config.architecture]
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    if jit is None:
        jit = on_gpu or not network.halves  # on CPU the graph's native convolutions beat XLA's
    return Placement(chosen, cluster.is_chief(strategy), jit, stacked=on_gpu and network.stackable)


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
    """Replaces TensorFlow's error for a lost worker by a message that says what to do."""
    try:
        yield
    except LOST as error:
        if cluster.num_workers() == 1:
            raise
        raise runs.RunError("another worker of this training was lost, so this one ends too. Start the same command on "
                            "all workers again: it continues from the last checkpoint.") from error


def machine() -> dict[str, object]:
    """What the bits of a run depend on besides its Config: threads, devices, and of GPUs model, driver and build."""
    found = {"intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
             "devices": [device.name for device in tf.config.list_logical_devices()]}
    details = [tf.config.experimental.get_device_details(device) for device in tf.config.list_physical_devices("GPU")]
    if not details:
        return found
    build = tf.sysconfig.get_build_info()
    return found | {"gpus": [one.get("device_name") for one in details],
                    "driver": gpus.driver(), "cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")}


def versions() -> dict[str, str]:
    """The packages that a run's numbers depend on."""
    return {"vae_rd": vae_rd.__version__, "tensorflow": tf.__version__, "keras": keras.__version__,
            "tensorflow_probability": tfp.__version__, "numpy": np.__version__}


def _strategy(name: str) -> tf.distribute.Strategy:
    if name not in cluster.STRATEGIES:
        raise ConfigError(f"strategy must be one of {', '.join(cluster.STRATEGIES)} (got {name!r}).")
    several = cluster.num_workers() > 1
    if name == "multi_worker" and not several:
        raise ConfigError("strategy='multi_worker' needs TF_CONFIG with several workers, or a start by srun with "
                          "several tasks (found neither).")
    if several and name in cluster.JOINING:  # before any device is touched, or collectives cannot be set up
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=_resolver())
    on_gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or name == "auto" and len(on_gpus) > 1:
        devices = on_gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()  # TensorFlow's default strategy: one device, no copies


def _resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """The workers by name (TensorFlow's own Slurm resolver needs GPUs, and a node for each worker)."""
    spec = tf.train.ClusterSpec({"worker": cluster.workers()})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type="worker", task_id=cluster.rank(),
                                                                rpc_layer="grpc")
