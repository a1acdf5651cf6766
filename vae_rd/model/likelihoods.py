"""Likelihoods p(x|z): what the decoder's output means."""

import numpy as np

ENTROPY_BLOCK = 4096  # images per block: 12.6 million pixels, 50 MB of float32


def entropy_floor(images: np.ndarray) -> np.ndarray:
    """Lowest distortion that any likelihood of independent Bernoulli pixels can reach, [num], nats per image.

    The sum over pixels of -x log x - (1 - x) log(1 - x): zero for black and white images, not for grey ones.
    """
    grey = np.arange(1, 255) / 255
    table = np.zeros(256, np.float32)
    table[1:255] = -grey * np.log(grey) - (1 - grey) * np.log1p(-grey)
    blocks = [table[images[start:start + ENTROPY_BLOCK]].sum((1, 2, 3), dtype=np.float64)
              for start in range(0, len(images), ENTROPY_BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0)
