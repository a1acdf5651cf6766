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


def span(values: pd.Series) -> str:
    """Whole numbers in words: the one that they are, or the range of several.

    >>> span(pd.Series([3, 3])), span(pd.Series([100, 2000]))
    ('3', '100 to 2,000')
    """
    least, most = int(values.min()), int(values.max())
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def words(points: pd.DataFrame, *names: str) -> str:
    """What the bars of these points are; of several quantities, of those that are there.

    Args:
        points: rows of `tables.curves`.
        names: of quantities; none: the rate.

    >>> words(pd.DataFrame({"rate_n": [3, 5]})), words(pd.DataFrame({"rate_n": [3, 2, 1]}))
    ('bars: standard deviation (3 to 5 restarts)', 'bars: standard deviation (3 restarts), both values (2), none (1)')
    """
    counts = pd.concat([points.get(f"{name}_n", pd.Series(dtype=float)) for name in names or ("rate",)])
    kinds = []
    if len(many := counts[counts > 2]):
        kinds.append(("standard deviation", span(many)))
    kinds += [(kind, str(count)) for kind, count in (("both values", 2), ("none", 1)) if (counts == count).any()]
    texts = [f"{kind} ({count}{'' if index else ' restarts'})" for index, (kind, count) in enumerate(kinds)]
    return "1 restart, no bars" if kinds == [("none", "1")] else f"bars: {', '.join(texts)}"
