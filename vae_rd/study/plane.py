"""The rate-distortion plane: curves, iso-ELBO diagonals, the entropy floor and the star at beta = 1."""

from typing import NamedTuple

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd

from vae_rd.study import look
from vae_rd.study.labels import Labeller

STAR_BETA = 1.0
TEST_LINE = {"linestyle": "-"}
TRAIN_LINE = {"linestyle": (0, (3, 1.6)), "markerfacecolor": "white", "markeredgewidth": 0.8}


class Series(NamedTuple):
    """One curve's points over beta (rows of the curves table), and how to draw them."""

    points: pd.DataFrame
    partition: str
    label: str
    colour: str
    marker: str

    @property
    def line(self) -> np.ndarray:
        """Rate and distortion, [points, 2]."""
        return self.points[["rate_mean", "distortion_mean"]].to_numpy(float)


def draw_series(axes, series: Series) -> None:
    """One curve, with bars of one standard deviation over restarts, and a white star at beta = 1."""
    points = series.points
    style = TRAIN_LINE if series.partition == "train" else TEST_LINE
    spread = points[["rate_std", "distortion_std"]].fillna(0).to_numpy(float).T
    axes.errorbar(*series.line.T, xerr=spread[0], yerr=spread[1], color=series.colour, marker=series.marker,
                  elinewidth=0.7, zorder=3, **style)
    star = points[points["beta"] == STAR_BETA]
    axes.plot(star["rate_mean"], star["distortion_mean"], linestyle="none", marker="*", markersize=8.5,
              markerfacecolor="white", markeredgecolor=series.colour, markeredgewidth=0.9, zorder=4)


def draw_diagonals(axes, labeller: Labeller) -> None:
    """Lines of constant ELBO = -(distortion + rate), with their values where there is room."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    levels = matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(left + bottom, right + top)
    slope = np.diff(labeller.pixels([(left, top), (left + 1, top - 1)]), axis=0)[0]
    angle = np.degrees(np.arctan2(slope[1], slope[0]))
    for level in levels[(levels > left + bottom) & (levels < right + top)]:
        axes.axline((left, level - left), slope=-1, color=look.QUIET, linewidth=0.4, alpha=0.55, zorder=0)
        rates = np.linspace(min(right, level - bottom), max(left, level - top), 40)
        places = labeller.pixels(np.stack([rates, level - rates], axis=1)) + _above(angle)
        labeller.place(f"ELBO \N{MINUS SIGN}{level:g}", map(tuple, places), angle, color=look.QUIET, fontsize=5)


def draw_floor(axes, floor: float, labeller: Labeller) -> None:
    """The pixel entropy of the targets, below which no distortion can go."""
    axes.axhline(floor, color="black", linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1)
    left, right = axes.get_xlim()
    places = labeller.pixels([(rate, floor) for rate in np.linspace(right, left, 60)])
    labeller.place(f"entropy floor {floor:.1f}", [(x, y - 5 * axes.figure.dpi / 72) for x, y in places], fontsize=5.5)


def entropy_floor(series: list[Series]) -> float:
    """The floor of these curves' distortion, nats per image; 0 for binary targets and where there is no curve."""
    floors = [one.points["entropy_floor_mean"].mean() for one in series]
    return float(np.nanmean(floors)) if np.isfinite(floors).any() else 0.0


def draw_betas(series: Series, labeller: Labeller) -> None:
    """The value of beta beside the first and the last point of a curve."""
    for place in (0, -1):
        point = series.points.iloc[place]
        text = f"\u03b2 = {point['beta']:g}"
        places = labeller.beside([(point["rate_mean"], point["distortion_mean"])], text, 5.5)
        labeller.place(text, places, fontsize=5.5, color=series.colour)


def finish_plane(axes, series: list[Series], label_series: bool) -> None:
    """What needs the final limits and layout: diagonals, floor, and labels that cover no curve."""
    labeller = Labeller(axes)
    for one in series:
        labeller.avoid(one.line)
    floor = entropy_floor(series)
    if floor > 0:
        labeller.avoid([(rate, floor) for rate in axes.get_xlim()])
        draw_floor(axes, floor, labeller)
    labelled = [one for one in series if one.partition != "train"] or series
    for one in labelled if label_series else ():
        places = labeller.beside(one.line[::-1], one.label, 6.5)
        labeller.place(one.label, places, color=one.colour, fontsize=6.5, required=True)
    for one in labelled[:1]:
        draw_betas(one, labeller)
    draw_diagonals(axes, labeller)


def _above(angle: float) -> np.ndarray:
    """A shift, in pixels, from a line at this angle to a text on top of it."""
    return 4.0 * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
