"""How long loops report how far they have come: to a progress bar, or to nobody."""

from collections.abc import Callable, Iterable

Progress = Callable[..., Iterable]  # called as progress(iterable, desc=text), as tqdm.tqdm is


def silent(iterable: Iterable, desc: str = "") -> Iterable:
    """Reports nothing."""
    return iterable
