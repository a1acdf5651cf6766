"""The rate-distortion plane: curves, iso-ELBO diagonals, the distortion's floor and the star at beta = 1."""

from typing import NamedTuple

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from vae_rd.catalogue import LIKELIHOODS
from vae_rd.figures import restarts, style
from vae_rd.figures.labels import Labeller

STAR_BETA = 1.0
TOGETHER = 8.0  # points (1/72 inch) of a marker's size: what lies so near has one label of a beta
MOST_WITH_BETAS = 4  # curves that have all their betas beside them; of more, the first and the last have,
APART = 24.0  # and the others where no label of the same beta is so near (points),
MANY = 12  # unless they are more than this: to find the places would take minutes
SAME_FLOOR = 1.0  # nats by which curves' floors may differ and still be drawn as one line


class Floor(NamedTuple):
    """The lowest distortion that the likelihood and the targets allow, whatever the model."""

    level: float  # nats per image; of several sets of images the lowest
    highest: float
    is_density: bool

    @property
    def text(self) -> str:
        """Its name and level, or levels where they differ."""
        name = "perfect reconstruction" if self.is_density else "entropy floor"
        levels = dict.fromkeys(with_minus(f"{level:.1f}") for level in (self.level, self.highest))
        return f"{name} {' to '.join(levels)}"


class Series(NamedTuple):
    """One curve's points over beta (rows of the curves table), and how to draw them."""

    points: pd.DataFrame
    partition: str
    label: str
    colour: ColorType
    marker: str

    @property
    def line(self) -> np.ndarray:
        """Rate and distortion, [points, 2]."""
        return self.points[["rate_mean", "distortion_mean"]].to_numpy(float)


def draw_series(axes: Axes, series: Series) -> None:
    """One curve, with bars over restarts, and a white star at beta = 1."""
    points = series.points
    line = style.SECOND_LINE if series.partition == "train" else style.FIRST_LINE
    rate, distortion = series.line.T
    axes.errorbar(rate, distortion, xerr=restarts.bars(points, "rate"), yerr=restarts.bars(points, "distortion"),
                  color=series.colour, elinewidth=0.7, zorder=3, **{**line, "marker": series.marker})
    draw_star(axes, points, "distortion", series.colour)


def draw_star(axes: Axes, points: pd.DataFrame, quantity: str, colour: ColorType) -> None:
    """A white star where beta = 1, on a curve of some quantity against the rate."""
    star = points[points["beta"] == STAR_BETA]
    axes.plot(star["rate_mean"], star[f"{quantity}_mean"], linestyle="none", marker="*", markersize=8.5,
              markerfacecolor="white", markeredgecolor=colour, markeredgewidth=0.9, zorder=4)


def star_handle() -> Line2D:
    """The star in a legend."""
    return Line2D([], [], linestyle="none", marker="*", markersize=8, markerfacecolor="white", markeredgecolor="0.25",
                  label=f"\u03b2 = {STAR_BETA:g}")


def draw_diagonals(axes: Axes, labeller: Labeller, least: float = 0.0) -> None:
    """Lines of constant ELBO = -(distortion + rate), with their values where there is room; bent on a log rate axis.

    Args:
        axes: with final limits.
        labeller: of these axes.
        least: smallest distortion + rate of the curves; far below it no lines are drawn.
    """
    limits, logarithmic = axes.get_xlim(), axes.get_xscale() == "log"
    rates = (np.geomspace if logarithmic else np.linspace)(*limits, 200)
    for level in elbo_levels(limits, axes.get_ylim(), logarithmic, least):
        line = np.stack([rates, level - rates], axis=1)
        axes.plot(*line.T, color=style.QUIET, linewidth=0.4, alpha=0.55, zorder=0, scalex=False, scaley=False)
        pixels = labeller.pixels(line)[::-1]  # from the right end, where curves are rare
        slopes = -np.gradient(pixels, axis=0)
        angles = np.degrees(np.arctan2(slopes[:, 1], slopes[:, 0]))
        above = 4.0 * np.stack([-np.sin(np.radians(angles)), np.cos(np.radians(angles))], axis=1)
        labeller.place(elbo_text(level), [tuple(place) for place in pixels + above], list(angles), color=style.QUIET,
                       fontsize=5)


def elbo_text(level: float) -> str:
    """The ELBO where distortion + rate is at this level.

    >>> elbo_text(-3000.0)
    'ELBO 3000'
    """
    return f"ELBO {with_minus(f'{0 - level:g}')}"


def with_minus(number: str) -> str:
    """The text of a number with a minus sign in place of a hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


def elbo_levels(rates: tuple[float, float], distortions: tuple[float, float], logarithmic: bool, least: float = 0.0
                ) -> np.ndarray:
    """Round values of distortion + rate that are met within these limits of the axes, none far below `least`.

    On a log rate axis they lie closer at smaller values, unless the distortion leaves little choice of scale.
    """
    low, high = rates[0] + distortions[0], rates[1] + distortions[1]
    if logarithmic and high > 2 * low > 0:
        levels = np.outer(10.0 ** np.arange(6), (1, 1.25, 1.5, 2, 3, 4, 6, 8)).ravel()
    else:
        levels = np.asarray(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return levels[(levels > max(low, least - 0.3 * abs(least))) & (levels < high)]


def draw_floor(axes: Axes, series: list[Series]) -> None:
    """The level below which the distortion of these curves cannot go, if any; in sight, with room for its name."""
    if floor := _floor(series):
        axes.axhline(floor.level, color="black", **style.GUIDE, zorder=1)
        axes.margins(y=0.07)
        bottom, top = axes.get_ylim()
        below = floor.level - 0.13 * (top - floor.level)
        axes.set_ylim(bottom=min(bottom, below if floor.is_density else max(0, below)), top=top)


def name_floor(axes: Axes, floor: Floor, labeller: Labeller) -> None:
    """The floor's name and value, beside its line."""
    line = [(rate, floor.level) for rate in axes.get_xlim()]
    labeller.avoid(line)
    (left, level), (right, _) = labeller.pixels(line)
    shift = 5 * axes.figure.dpi / 72
    places = [(place, level + side * shift) for side in (-1, 1) for place in np.linspace(right, left, 60)]
    labeller.place(floor.text, places, fontsize=5.5)


def floor_of(points: pd.DataFrame) -> Floor | None:
    """The floor to draw for these rows of `tables.curves`: the one that all of them share, within SAME_FLOOR.

    None where they share none. Curves on different images have different floors (constant density: the smaller the set,
    the more central its images), and one line would say nothing of most of them; nor would any line where some curves
    have no floor. None, too, for a floor of 0: it says only that probabilities are at most 1, and the distortions may
    be thousands of nats above it.
    """
    floors = points["entropy_floor_mean"].to_numpy(float)
    if not floors.any() or not np.ptp(floors) <= SAME_FLOOR:  # of NaN: not
        return None
    return Floor(float(floors.min()), float(floors.max()), has_density(points))


def has_density(points: pd.DataFrame) -> bool:
    """Whether some of these rows of `tables.curves` have a distortion that is minus the log of a density."""
    return any(LIKELIHOODS[name].is_density for name in points["likelihood"].unique())


def _floor(series: list[Series]) -> Floor | None:
    columns = ["likelihood", "entropy_floor_mean"]
    return floor_of(pd.concat([one.points[columns] for one in series])) if series else None


def draw_betas(series: Series, labeller: Labeller, ends: bool, labelled: list[tuple[float, np.ndarray]], apart: float
               ) -> None:
    """The value of beta joined to the two ends of a curve, or to its other points but the star, where there is room.

    Args:
        series: the curve.
        labeller: of the axes.
        ends: which points.
        labelled: beta and pixels of the points, of any curve, that have their beta beside them; grows.
        apart: points (1/72 inch) within which one label of a beta serves all.
    """
    last = len(series.points) - 1
    for index, (beta, at) in enumerate(zip(series.points["beta"], series.line)):
        pixels, = labeller.pixels([at])
        served = any(known == beta and np.hypot(*(pixels - there)) < apart * labeller.point
                     for known, there in labelled)
        starred = beta == STAR_BETA and not ends
        if (index in (0, last)) == ends and not served and not starred:
            text = f"\u03b2 = {beta:g}" if ends else f"{beta:g}"
            places = labeller.beside([at], text, 5.5)
            if any(labeller.place(text, places, about=pixels, crossing=crossing, fontsize=5.5, color=series.colour)
                   for crossing in ((False, True) if ends else (False,))):
                labelled.append((beta, pixels))


def make_logarithmic(axes: Axes) -> None:
    """A logarithmic rate axis, with plain numbers on it."""
    axes.set_xscale("log")
    style.number_log_axis(axes.xaxis)


def finish_plane(axes: Axes, series: list[Series], label_series: bool) -> None:
    """What needs the final limits and layout: diagonals, floor, and labels that cover no curve."""
    labeller = Labeller(axes)
    for one in series:
        labeller.avoid(one.line)
    if floor := _floor(series):
        name_floor(axes, floor, labeller)
    labelled = [one for one in series if one.partition != "train"] or series
    betas: list[tuple[float, np.ndarray]] = []

    def write_betas(ends: bool) -> None:
        ordered = [*labelled[:1], *labelled[:0:-1]]  # the outer curves first
        for index, one in enumerate(ordered if len(ordered) <= MANY else ordered[:2]):
            outer = index < 2 or len(labelled) <= MOST_WITH_BETAS
            draw_betas(one, labeller, ends, betas, apart=TOGETHER if outer else APART)
    write_betas(ends=True)
    for one in labelled if label_series else ():
        others = [other.line for other in series if other.label != one.label]
        same_label = [other.line for other in series if other.label == one.label]
        text = labeller.broken(one.label, 6.5)
        places = labeller.nearer(same_label, others, labeller.beside(one.line[::-1], text, 6.5))
        labeller.place(text, places, color=one.colour, fontsize=6.5, required=True)
    write_betas(ends=False)
    sums = np.concatenate([one.line.sum(axis=1) for one in series]) if series else np.zeros(1)
    draw_diagonals(axes, labeller, np.nanmin(sums))
