"""Texts inside a plot, each put where it covers neither a curve nor another text."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

STEP = 2.0  # pixels between the points that stand for a line
MARKER = 3.5  # radius of a marker with its edge, in points
AROUND = np.array([(1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0),
                   (0.5, 1), (-0.5, -1), (0.5, -1), (-0.5, 1)])


class Labeller:
    """Places texts on one Axes whose limits and layout are final.

    Args:
        axes: the Axes.
    """

    def __init__(self, axes: Axes):
        self._axes = axes
        canvas = axes.figure.canvas
        self._renderer = (canvas if hasattr(canvas, "get_renderer") else FigureCanvasAgg(canvas.figure)).get_renderer()
        self._area = axes.get_window_extent(self._renderer)
        self._taken = np.empty((0, 2))
        self._joints = np.empty((0, 2))  # points of texts and of the lines to them, which no such line may cross
        self.point = axes.figure.dpi / 72  # 1/72 inch, in pixels

    def pixels(self, points: npt.ArrayLike) -> np.ndarray:
        """Data coordinates [n, 2] as pixels."""
        return self._axes.transData.transform(np.asarray(points, float).reshape(-1, 2))

    def avoid(self, points: npt.ArrayLike) -> None:
        """Keeps texts off the line through these points [n, 2], in data coordinates, and off its markers."""
        corners = self.pixels(points)
        markers = (corners[:, None] + self.point * MARKER * AROUND).reshape(-1, 2)
        self._taken = np.concatenate([self._taken, _along(corners), markers])

    def beside(self, points: npt.ArrayLike, text: str, size: float) -> list[tuple[float, float]]:
        """Centres (x, y), in pixels, for a text of this size (points) beside the points [n, 2]; near ones first."""
        half = self._half(text, size)
        return [tuple(point + self.point * direction * (half + distance))
                for distance, point, direction in itertools.product((3, 6, 10, 14), self.pixels(points), AROUND)]

    def broken(self, text: str, size: float) -> str:
        """The text, with a line for each of its parts between commas if it is too wide for the axes."""
        return text.replace(", ", ",\n") if 2 * self.point * self._half(text, size)[0] > self._area.width else text

    def _half(self, text: str, size: float) -> np.ndarray:
        """Half of a text's width and height, about, in points: letters are 0.6 as wide as high."""
        lines = text.split("\n")
        return np.array([0.3 * size * max(map(len, lines)), 0.6 * size * len(lines)])

    def nearer(self, own: Sequence[np.ndarray], others: Sequence[np.ndarray], places: Sequence[tuple[float, float]]
               ) -> list[tuple[float, float]]:
        """The places, those first that are clearly nearer to a line of their own [n, 2] than to any other."""
        def distance(lines: Sequence[np.ndarray]) -> np.ndarray:  # of each place to the nearest of some lines
            between = [_along(self.pixels(line))[:, np.newaxis] - np.array(places) for line in lines]
            return np.min([np.hypot(*np.moveaxis(one, -1, 0)).min(axis=0) for one in between], axis=0, initial=np.inf)

        to_own, to_other = distance(own), distance(others)
        doubt = np.where(to_other > 1.5 * to_own, 0, 1 + np.maximum(0, to_own - to_other) // (6 * self.point))
        return [places[index] for index in np.argsort(doubt, kind="stable")]

    def place(self, text: str, places: Sequence[tuple[float, float]], angles: Sequence[float] = (),
              required: bool = False, about: np.ndarray | None = None, crossing: bool = False, **looks: Any) -> bool:
        """Writes the text at the first place that is free.

        Args:
            text: what to write.
            places: (x, y) of its centre in pixels, best first.
            angles: of the text at each place, degrees; upright if empty.
            required: write it at the least bad place if none is free; otherwise it is left out.
            about: the point (pixels) that the text is about; a thin line joins them.
            crossing: that line may cross curves; it never crosses texts, nor the lines to them.
            **looks: properties of the text.

        Returns:
            Whether the text was written.
        """
        artist = self._axes.text(0, 0, text, ha="center", va="center", rotation_mode="anchor", **looks)
        box = artist.get_window_extent(self._renderer)
        half = np.array([box.width, box.height]) / 2 + 0.5 * self.point
        least, best = np.inf, (np.zeros(2), 0.0)
        for place, angle in zip(map(np.array, places), angles or [0.0] * len(places)):
            cost = self._cost(place, half, angle)
            if about is not None and cost == 0:
                cost = self._crossings(_leader(about, place, half), self._joints if crossing else self._taken)
            if cost < least:
                least, best = cost, (place, angle)
            if cost == 0:
                break
        if not np.isfinite(least) or least and not required:
            artist.remove()
            return False
        place, angle = best
        x, y = self._axes.transData.inverted().transform(place)
        artist.set_position((x, y))
        artist.set_rotation(angle)
        filled = _grid(place, half, angle)
        if about is not None:
            line = _leader(about, place, half)
            self._axes.plot(*self._axes.transData.inverted().transform(line).T, color=artist.get_color(),
                            linewidth=0.4, zorder=2, scalex=False, scaley=False)
            filled = np.concatenate([filled, _along(line)])
        self._taken = np.concatenate([self._taken, filled])
        self._joints = np.concatenate([self._joints, filled])
        return True

    def _crossings(self, leader: np.ndarray, obstacles: np.ndarray) -> float:
        """Number of points of a line to a text, beyond the marker where it begins, that lie on obstacles."""
        line = _along(leader)
        line = line[np.hypot(*(line - leader[0]).T) > 2 * MARKER * self.point]
        between = np.abs(obstacles[:, np.newaxis] - line).max(axis=-1, initial=0)
        return float((between.min(axis=0, initial=np.inf) < STEP).sum())

    def _cost(self, centre: np.ndarray, half: np.ndarray, angle: float) -> float:
        """Number of points that a text of these half sizes would cover; infinite outside the axes."""
        reach = np.abs(_rotation(angle)) @ half  # of the rotated box, along x and y
        if (centre - reach < self._area.min).any() or (centre + reach > self._area.max).any():
            return np.inf
        inside = np.abs((self._taken - centre) @ _rotation(angle)) <= half
        return float(inside.all(axis=1).sum())


def _leader(point: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The ends [2, 2] of the line from a point to the edge of a box, upright, of these half sizes."""
    return np.stack([point, centre + np.clip(point - centre, -half, half)])


def _rotation(angle: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cos, -sin], [sin, cos]])


def _along(line: np.ndarray) -> np.ndarray:
    """Points every STEP pixels along a line [n, 2]."""
    line = line[np.isfinite(line).all(axis=1)]
    if len(line) < 2:
        return line
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0, lengths[-1], int(lengths[-1] / STEP) + 2)
    return np.stack([np.interp(at, lengths, line[:, axis]) for axis in range(2)], axis=1)


def _grid(centre: np.ndarray, half: np.ndarray, angle: float) -> np.ndarray:
    """Points that fill a rotated box."""
    counts = np.maximum(2, (2 * half / (2 * STEP)).astype(int) + 1)
    offsets = np.stack(np.meshgrid(*(np.linspace(-h, h, n) for h, n in zip(half, counts))), axis=-1).reshape(-1, 2)
    return centre + offsets @ _rotation(angle).T
