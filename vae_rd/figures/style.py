"""How figures look: sizes in print, and colours that colour-blind readers can tell apart."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.ticker
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # new in Matplotlib 3.11

# Inches: one column of a two-column page, one and a half (a lone panel with many labels), and both.
COLUMN_WIDTH, MIDDLE_WIDTH, TEXT_WIDTH = 3.35, 5.0, 6.8
LEGEND_HEIGHT = 0.4  # inches that the height of every figure includes: a legend of two rows
DPI = 300
# Okabe and Ito's, the light ones darkened so that texts in them can be read.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#B0508A", "#B37A00", "#3A9BD1")
ORDERED = "viridis"  # colours for an ordered quantity, from its dark end to before its palest
QUIET = "#8A8A8A"  # of guides that help to read and are not results
GUIDE: dict[str, Any] = {"linewidth": 0.7, "linestyle": (0, (1, 1.5))}  # such a line, in any colour
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FIRST_LINE: dict[str, Any] = {"linestyle": "-", "marker": "o"}  # of test sets and of exact measures
SECOND_LINE: dict[str, Any] = {"linestyle": (0, (3, 1.6)), "marker": "o", "markerfacecolor": "white",
                               "markeredgewidth": 0.8}
STYLE: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5, "legend.fontsize": 6.5, "axes.linewidth": 0.6, "lines.linewidth": 1.1,
    "lines.markersize": 3, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5, "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4, "errorbar.capsize": 0, "pdf.fonttype": 42, "savefig.dpi": DPI, "figure.dpi": 100,
}


def figure(width: float, height: float) -> Figure:
    """An empty Figure of this size in inches, with a canvas that can measure texts; pyplot keeps no hold on it."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def number_log_axis(axis: Axis) -> None:
    """Plain numbers on the x or y axis of an Axes, which is logarithmic: see `_RoundNumbers`."""
    axis.set_major_locator(_RoundNumbers())
    axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


class _RoundNumbers(matplotlib.ticker.LogLocator):
    """At 1, 2 and 5 of each decade; over a factor of 200 or more, at powers of ten alone, or texts would overlap."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        self.set_params(subs=(1, 2, 5) if vmax < 200 * vmin else (1,))
        return super().tick_values(vmin, vmax)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below all panels, in as few rows as the width allows; a tall one makes the figure taller."""
    across = len(handles)
    while across:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=across)
        extent = legend.get_window_extent()  # measured from its own texts; nothing is drawn
        width = extent.width / figure.bbox.width
        if across == 1 or width < 1:
            figure.set_figheight(figure.get_figheight() + max(0, extent.height / figure.dpi - LEGEND_HEIGHT))
            break
        legend.remove()
        # A column is as wide as its widest text, so a single row of so many widths needs as many rows at least.
        across = min(across - 1, math.ceil(len(handles) / int(width)))


def words_only(text: str) -> Line2D:
    """A legend entry of words alone."""
    return Line2D([], [], linestyle="none", label=text)


def ordered_colours(count: int) -> list[tuple]:
    """`count` colours for an ordered quantity, dark to light; a few stay dark enough for texts."""
    scale, lightest = matplotlib.colormaps[ORDERED], 0.88 if count > 4 else 0.7
    return [scale(lightest * index / max(1, count - 1)) for index in range(count)]
