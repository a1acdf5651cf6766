"""Random streams keyed by seed, purpose and position: no global state, and no draw depends on another one."""

import numpy as np


def stream(seed: int, purpose: str, position: int = 0) -> np.random.Generator:
    """A generator of its own for each (seed, purpose, position).

    Args:
        seed: the data seed, 0 to 2**31 - 1.
        purpose: up to 7 ASCII letters, such as `factors`.
        position: for instance the index of an image whose pixels are drawn.
    """
    return np.random.Generator(np.random.Philox(counter=[0, 0, position, 0],
                                                key=[seed, int.from_bytes(purpose.encode(), "big")]))
