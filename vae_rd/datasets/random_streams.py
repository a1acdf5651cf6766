"""Seeded, stateless random streams: batches, evaluation noise and subsets, the selecting half, binarization."""

import functools

import numpy as np

_STREAMS = {"batches": 1, "evaluation_noise": 2, "evaluation_subset": 3, "select_half": 4, "binarization": 5}


def random(purpose: str, *key: int) -> np.random.Generator:
    """The stateless random stream of a purpose: the same (purpose, key) gives the same numbers.

    Args:
        purpose: a name in the table of streams.
        key: up to two whole numbers.
    """
    first, second = (*key, 0, 0)[:2]
    return np.random.Generator(np.random.Philox(key=[first, second], counter=[0, 0, 0, _STREAMS[purpose]]))


def batch_indices(num_images: int, batch_size: int, seed: int, first_step: int, num_steps: int) -> np.ndarray:
    """Rows of the training set in batches [num_steps, batch_size] int32: a continuous stream of seeded permutations.

    Position p of the stream is element p % num_images of permutation p // num_images, so any step can be reached
    directly, no image is dropped and every image is seen once in each pass.
    """
    positions = np.arange(first_step * batch_size, (first_step + num_steps) * batch_size)
    passes, places = np.divmod(positions, num_images)
    rows = np.empty(len(positions), np.int32)
    for number in range(passes[0], passes[-1] + 1):
        here = passes == number
        rows[here] = _permutation(num_images, seed, number)[places[here]]
    return rows.reshape(num_steps, batch_size)


@functools.lru_cache(maxsize=16)  # a column holds one permutation per distinct seed
def _permutation(num_images: int, seed: int, number: int) -> np.ndarray:
    return random("batches", seed, number).permutation(num_images).astype(np.int32)


def evaluation_noise(index: np.ndarray, latent_dim: int, sample: int = 0) -> np.ndarray:
    """The noise [num, latent_dim] of a posterior sample, keyed by the image index; sample 0 is every evaluation's."""
    shape = int(index.max()) + 1, latent_dim
    return random("evaluation_noise", latent_dim, sample).standard_normal(shape, np.float32)[index]


def evaluation_subset(index: np.ndarray, size: int | None) -> np.ndarray:
    """Rows (ascending) of the fixed seeded subset of at most `size` images; all of them for None."""
    if size is None or size >= len(index):
        return np.arange(len(index))
    return np.sort(_ranking("evaluation_subset", index)[:size])


def select_half(index: np.ndarray) -> np.ndarray:
    """Which test images [num] belong to the fixed seeded half that selects the best evaluation (early stopping)."""
    selected = np.zeros(len(index), bool)
    selected[_ranking("select_half", index)[:len(index) // 2]] = True
    return selected


def _ranking(purpose: str, index: np.ndarray) -> np.ndarray:
    keys = random(purpose).random(int(index.max()) + 1)
    return np.argsort(keys[index], kind="stable")
