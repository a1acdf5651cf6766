"""What the bars of a figure stand for: the standard deviation over restarts; with two restarts, both values."""

import numpy as np
import pandas as pd


def bars(points: pd.DataFrame, quantity: str) -> np.ndarray:
    """Half the length of each point's bar [points]: 0 with one restart, half the distance of two, else the deviation.

    Args:
        points: rows of `tables.curves`.
        quantity: with columns `_std` (ddof=1) and `_n`.
    """
    deviation, count = (points[f"{quantity}_{part}"].to_numpy(float) for part in ("std", "n"))
    return np.nan_to_num(np.where(count == 2, deviation / np.sqrt(2), deviation))


def words(points: pd.DataFrame, quantity: str = "rate") -> str:
    """What the bars of these points are.

    >>> words(pd.DataFrame({"rate_n": [3, 5, 1]}))
    'bars: standard deviation of 3 to 5 restarts; without: 1 restart'
    >>> words(pd.DataFrame({"rate_n": [2, 2]}))
    'bars: both values of 2 restarts'
    """
    counts = points[f"{quantity}_n"]
    many, pairs, single = counts[counts > 2], (counts == 2).any(), (counts == 1).any()
    if not len(many) and not pairs:
        return "1 restart, no bars"
    text = "bars: both values of 2 restarts"
    if len(many):
        least, most = int(many.min()), int(many.max())
        text = (f"bars: standard deviation of {most if least == most else f'{least} to {most}'} restarts"
                + (", or both values of 2" if pairs else ""))
    return text + ("; without: 1 restart" if single else "")
