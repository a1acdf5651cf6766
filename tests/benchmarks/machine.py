"""What the machine can do at most: float32 matrix products and memory bandwidth."""

import concurrent.futures
import os

import numpy as np
import tensorflow as tf

from tests.benchmarks.contest import Row, alone, measure, timed
from tests.benchmarks.material import Material


class Product:
    """TensorFlow's product of two square float32 matrices; each call returns GFLOP/s."""

    def __init__(self, side: int):
        first, second = np.random.default_rng(0).standard_normal((2, side, side), np.float32)
        self._matrices, self._side = (tf.constant(first), tf.constant(second)), side

    def __call__(self) -> float:
        seconds = timed(lambda: [tf.linalg.matmul(*self._matrices) for _ in range(4)][-1].numpy())
        return 4 * 2 * self._side**3 / seconds / 1e9


def peaks(material: Material, repeats: int, report) -> list[Row]:
    """Rows of the peaks; they have no limit."""
    side = material.sizes.product
    first, second = np.random.default_rng(0).standard_normal((2, side, side), np.float32)
    figures = measure({"TensorFlow": Product(side), "bandwidth": Bandwidth(material.sizes.megabytes),
                       "NumPy": lambda: 2 * side**3 / timed(lambda: first @ second) / 1e9}, repeats, report)
    return [alone("matrix product, TensorFlow", "GFLOP/s", figures["TensorFlow"]),
            alone("matrix product, NumPy", "GFLOP/s", figures["NumPy"]),
            alone("memory bandwidth", "GB/s", figures["bandwidth"], note="a + b into c, one array per core")]


class Bandwidth:
    """GB/s of c = a + b on arrays that no cache holds, a part for each core."""

    def __init__(self, megabytes: int):
        self._threads = len(os.sched_getaffinity(0))
        size = megabytes * 2**18
        self._parts = list(zip(*(np.array_split(np.ones(size, np.float32), self._threads) for _ in range(3))))

    def __call__(self) -> float:
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            seconds = timed(lambda: list(pool.map(lambda part: np.add(part[0], part[1], out=part[2]), self._parts)))
        return sum(array.nbytes for part in self._parts for array in part) / seconds / 1e9
