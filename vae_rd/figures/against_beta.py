"""Against beta: information (figure 8), log p(x) with its reliability, memorisation; a table in, a Figure out."""

import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_rd.analysis import naming, quantities
from vae_rd.analysis.tables import TableError
from vae_rd.figures import beta_axes, curve_names, rd_axes, restarts, style
from vae_rd.figures.labels import Labeller
from vae_rd.measures.registry import is_share

NETWORK = ("architecture", "num_layers")  # fields that name a network
BATCH_SIZE = "information.minibatch"  # columns of the settings that a measure was made with
IMAGES, AIS_IMAGES = "log_marginal.query_images", "annealed.query_images"
LINEAR_UP_TO = 10.0  # the axis of what may be 0 and may be hundreds of nats, as the marginal KL
TICKS = (-1000, -100, -10, -5, 0, 5, 10, 20, 50, 100, 200, 500, 1000)  # of such an axis
_BAND = "where the mutual information must lie: max(0, log N \N{MINUS SIGN} D) to R"
_FLAGGED: dict[str, Any] = {**style.FIRST_LINE, "markerfacecolor": "white"}


def information_figure(curves: pd.DataFrame) -> Figure:
    """Figure 8: mutual information (above) and marginal KL (below) against beta, a column per network.

    Solid: exact. Dashed: the minibatch estimate, which cannot tell more than log B of B images where it averages over
    their batch alone; B is the size that was used, and has no line where it is not below N. The band is
    max(0, H - D) <= I <= R with H = log N; on grey images H - D is negative and bounds nothing. For a density H - D is
    no bound, and there is no band.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    train = curves[curves["partition"] == "train"]
    networks = list(train.groupby(["architecture", "num_layers"], sort=False))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(2, len(networks), "row", train["beta"])
        bounded = not rd_axes.has_density(train)
        caps = [_caps(points) for _, points in networks]
        for (information, marginal), ((architecture, layers), points), levels in zip(grid.T, networks, caps):
            points = points.sort_values("beta")
            information.set_title(naming.describe({"architecture": architecture, "num_layers": layers}))
            if bounded:
                _draw_bounds(information, points)
            for level in levels:
                information.axhline(level, color=style.QUIET, **style.GUIDE)
            for axes, name, colour in ((information, quantities.MUTUAL_INFORMATION, style.COLOURS[0]),
                                       (marginal, quantities.MARGINAL_KL, style.COLOURS[1])):
                beta_axes.draw(axes, points, name + quantities.MINIBATCH, colour, **style.SECOND_LINE, markersize=5.5)
                beta_axes.draw(axes, points, name, colour)
        _, high = _range(train, [quantities.MUTUAL_INFORMATION, quantities.MUTUAL_INFORMATION + quantities.MINIBATCH])
        grid[0, 0].set_ylim(0, 1.18 * max(high, *(level for levels in caps for level in levels)))
        _make_logarithmic_above(grid[1, 0], *_range(
            train, [quantities.MARGINAL_KL, quantities.MARGINAL_KL + quantities.MINIBATCH]))
        grid[0, 0].set_ylabel("mutual information\n(nats per image)")
        grid[1, 0].set_ylabel(f"marginal KL (nats per\nimage; log above {LINEAR_UP_TO:g})")
        batch = restarts.span(np.minimum(train[BATCH_SIZE], train["num_train"])) if BATCH_SIZE in train else ""
        beta_axes.key(figure, [("exact", style.FIRST_LINE),
                               (f"estimate from minibatches{batch and f' of {batch}'}", style.SECOND_LINE)],
                      restarts.words(train, quantities.MUTUAL_INFORMATION),
                      band=_BAND if bounded else "")
        beta_axes.finish(figure, grid)
        for axes, levels in zip(grid[0], caps):
            beta_axes.write_on_lines(axes, levels)
    return figure


def log_px_figure(curves: pd.DataFrame) -> Figure:
    """log p(x) and ELBO of test images against beta, a panel per split; hollow where log p(x) cannot be trusted.

    The dotted line is the ceiling of log p(x), minus the floor of the distortion, where there is one: that of grey
    targets, or of a density whose mean is the image. The number of images that a mean is of stands in the key, or
    beside the points where they differ.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    test = curves[curves["partition"] == "test"]
    splits = list(test.groupby("split", sort=False))
    networks = list(test.groupby(["architecture", "num_layers"], sort=False).groups)
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(1, len(splits), True, test["beta"])
        for axes, (split, rows) in zip(grid[0], splits):
            axes.set_title(naming.describe({"split": split}))
            for network, colour in zip(networks, style.COLOURS):
                points = rows[(rows["architecture"] == network[0]) & (rows["num_layers"] == network[1])]
                points = points.sort_values("beta")
                beta_axes.draw(axes, points, quantities.LOG_PX, colour)
                beta_axes.draw(axes, points, "elbo", colour, linestyle=(0, (1, 1.2)), marker=None)
                flagged = points[~(points[f"{quantities.UNRELIABLE}_mean"] <= quantities.TRUSTED)]
                axes.plot(flagged["beta"], flagged[f"{quantities.LOG_PX}_mean"], "o", color=colour,
                          markerfacecolor="white", markersize=4.2, zorder=4)
                beta_axes.draw(axes, points, quantities.LOG_PX_AIS, colour, linestyle="none", marker="x", markersize=5,
                               zorder=5)
            if floor := rd_axes.floor_of(rows):
                axes.axhline(-floor.level, color="black", **style.GUIDE)
        grid[0, 0].set_ylabel("test log p(x) (nats per image)")
        kinds = [(f"log p(x), importance sampling{_images(test, IMAGES)}", style.FIRST_LINE),
                 ("not to be trusted", {**_FLAGGED, "linestyle": "none"}),
                 (f"log p(x), AIS{_images(test, AIS_IMAGES)}", {"linestyle": "none", "marker": "x"}),
                 ("ELBO (all images)", {"linestyle": (0, (1, 1.2))})]
        found = restarts.words(test, quantities.LOG_PX, quantities.LOG_PX_AIS)
        bound = restarts.words(test, "elbo")
        beta_axes.key(figure, [*_named(networks), *kinds],
                      found if found == bound else f"log p(x): {found}\nELBO: {bound}")
        beta_axes.finish(figure, grid)
        for axes, (_, rows) in zip(grid[0], splits):
            if floor := rd_axes.floor_of(rows):
                targets = "a perfect reconstruction" if floor.is_density else "grey targets"
                ceiling = rd_axes.with_minus(f"{-floor.level:.1f}")
                beta_axes.write_on_lines(axes, {-floor.level: f"ceiling of {targets} {ceiling}"})
            if IMAGES in test and test[IMAGES].nunique() > 1:
                _write_counts(axes, rows)
    return figure


def samples_figure(curves: pd.DataFrame) -> Figure:
    """log p(x) of test images against the number of importance samples, a panel per network and a line per beta.

    A line that still rises at its right end has not converged; one that is flat need not have, and is hollow where the
    images are flagged. Numbers of samples that fewer restarts have than another are left out: a line that changed its
    restarts on the way would rise or fall for that. The smallest training set that was measured is drawn.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
    """
    pattern = re.compile(rf"{quantities.LOG_PX_SAMPLES}([0-9]+)_mean")
    sizes = sorted(int(found[1]) for found in map(pattern.fullmatch, curves.columns) if found)
    test = curves[curves["partition"] == "test"].dropna(
        subset=[f"{quantities.LOG_PX_SAMPLES}{size}_mean" for size in sizes], how="all")  # what was not measured
    test = test[test["num_train"] == test["num_train"].min()]
    restarts_of = test[[f"{quantities.LOG_PX_SAMPLES}{size}_n" for size in sizes]].max(axis=1)
    networks = list(test.groupby(["split", *NETWORK], sort=False))
    betas = sorted(test["beta"].unique())
    colours = style.ordered_colours(len(betas))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(1, len(networks), True, pd.Series(sizes))
        for axes, (network, points) in zip(grid[0], networks):
            axes.set(title=naming.describe(dict(zip(("split", *NETWORK), network))),
                     xlabel="importance samples per image")
            for beta, colour in zip(betas, colours):
                rows = points[points["beta"] == beta]
                means = pd.Series({size: rows[f"{quantities.LOG_PX_SAMPLES}{size}_mean"].mean() for size in sizes
                                   if (rows[f"{quantities.LOG_PX_SAMPLES}{size}_n"] == restarts_of[rows.index]).all()})
                means = means.dropna()  # runs may have been measured with other numbers of samples
                trusted = (rows[f"{quantities.UNRELIABLE}_mean"] <= quantities.TRUSTED).all()
                axes.plot(means.index, means, color=colour, markersize=3, **style.FIRST_LINE if trusted else _FLAGGED)
        images = f"\nmean of {restarts.span(test[IMAGES])} images" if IMAGES in test else ""
        grid[0, 0].set_ylabel(f"test log p(x) (nats per image){images}")
        beta_axes.key(figure, [*((f"\u03b2 = {beta:g}", {"color": colour}) for beta, colour in zip(betas, colours)),
                               ("not to be trusted", {**_FLAGGED, "linestyle": "none"})],
                      f"restarts: {restarts.span(restarts_of)}")
        beta_axes.finish(figure, grid)
    return figure


def measures_figure(curves: pd.DataFrame, measures: dict[str, str], partitions: Sequence[str] = ("test",),
                    facet: str = "split", hue: Sequence[str] = NETWORK, differences: Sequence[str] = (),
                    wide: Sequence[str] = ()) -> Figure:
    """Any measures against beta: a row per measure, a column per value of `facet`, a curve per value of `hue`.

    The curves are set apart a little along beta, so that no marker hides another.

    Args:
        curves: rows of `tables.curves` for one checkpoint.
        measures: label of the y axis by column; those that no run has are left out, and so are points without any.
        partitions: of which images; those after the first are dashed.
        facet: a field of Config.
        hue: fields of Config that name a curve.
        differences: measures that have a line at 0.
        wide: measures whose axis is logarithmic above LINEAR_UP_TO nats, because curves of all sizes are compared.
    """
    measures = {name: label for name, label in measures.items() if f"{name}_mean" in curves}
    known = curves[[f"{name}_mean" for name in measures]].notna().any(axis=1)
    rows = curves[curves["partition"].isin(partitions) & known]
    panels = list(rows.groupby(facet, sort=False))
    looks = curve_names.looks(rows, list(hue))
    with matplotlib.rc_context(style.STYLE):
        figure, grid = beta_axes.grid(len(measures), len(panels), "row", rows["beta"])
        for column, (value, chosen) in enumerate(panels):
            grid[0, column].set_title(naming.describe({facet: value}))
            for axes, name in zip(grid[:, column], measures):
                for (key, (_, colour, marker)), shift in zip(looks.items(), beta_axes.shifts(len(looks), rows["beta"])):
                    points = curve_names.rows(chosen, list(hue), key).sort_values("beta")
                    for partition, line in zip(partitions, (style.FIRST_LINE, style.SECOND_LINE)):
                        beta_axes.draw(axes, points[points["partition"] == partition], name, colour, shift,
                                       **{**line, "marker": marker})
        for row, (name, label) in zip(grid, measures.items()):
            row[0].set_ylabel(label)
            if is_share(name):
                row[0].set_ylim(-0.04, 1.04)
            if name in wide:
                _make_logarithmic_above(row[0], *_range(rows, [name]))
            for axes in row if name in differences else ():
                axes.axhline(0, color=style.QUIET, **style.GUIDE)
        lines = [(label, {"color": colour, "marker": marker}) for label, colour, marker in looks.values()]
        if len(partitions) > 1:
            lines += [(naming.PARTITIONS[partition], line)
                      for partition, line in zip(partitions, (style.FIRST_LINE, style.SECOND_LINE))]
        beta_axes.key(figure, lines, restarts.words(rows, *measures), apart=len(looks) > 1)
        beta_axes.finish(figure, grid)
    return figure


def _make_logarithmic_above(axes: Axes, low: float, high: float) -> None:
    """Makes the y axis, and all that share it, logarithmic beyond LINEAR_UP_TO, for values from low to high."""
    axes.set_yscale("symlog", linthresh=LINEAR_UP_TO)
    axes.set_ylim(min(-0.5, 1.3 * low), max(1, 1.6 * high))
    axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda y, _: rd_axes.with_minus(f"{y:g}")))


def draw_quantity(axes: Axes, curves: pd.DataFrame, quantity: str, hue: Sequence[str] | None = None) -> Axes:
    """One quantity against beta on an Axes of the caller's: means, and bars of one standard deviation over restarts.

    With two restarts a bar reaches from one value to the other.

    Args:
        axes: Matplotlib Axes.
        curves: rows of `tables.curves` for one partition and checkpoint.
        quantity: name of a metric or of a measured number.
        hue: columns that name a curve; by default all fields of Config in which the curves differ.

    Returns:
        The Axes.

    Raises:
        TableError: if no run has the quantity.
    """
    if f"{quantity}_mean" not in curves or curves[f"{quantity}_mean"].isna().all():
        known = ", ".join(name.removesuffix("_mean") for name in curves if name.endswith("_mean")
                          and curves[name].notna().any())
        images = " or ".join(curves["partition"].unique())
        raise TableError(f"quantity must be one that the runs have of {images} images (got {quantity!r}). Try one of "
                         f"{known}, or another partition.")
    with matplotlib.rc_context(style.STYLE):
        names = list(curve_names.differing(curves, ()) if hue is None else hue)
        for key, (label, colour, marker) in curve_names.looks(curves, names).items():
            points = curve_names.rows(curves, names, key).sort_values("beta")
            beta_axes.draw(axes, points, quantity, colour, marker=marker, label=label)
        beta_axes.set_scale(axes, curves["beta"])
        axes.set(xlabel="\u03b2", ylabel=quantity.replace("_", " "))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return axes


def _named(networks: Sequence[tuple[str, int]]) -> list[tuple[str, dict]]:
    """Label and looks of each network's curve."""
    return [(naming.describe({"architecture": name, "num_layers": layers}), {"color": colour, "marker": "o"})
            for (name, layers), colour in zip(networks, style.COLOURS)]


def _caps(points: pd.DataFrame) -> dict[float, str]:
    """What the mutual information cannot exceed: log N; and log B, where the batch is smaller."""
    size = int(points["num_train"].max())
    batch = points.get(BATCH_SIZE, pd.Series(dtype=float)).min()
    caps = {float(np.log(batch)): f"log {batch:.0f} = {np.log(batch):.2f}"} if batch < size else {}
    return caps | {float(np.log(size)): f"log N = {np.log(size):.2f}"}


def _draw_bounds(axes: Axes, points: pd.DataFrame) -> None:
    """The band in which the exact mutual information must lie, if D is of probabilities."""
    entropy = np.log(points["num_train"].to_numpy(float))
    low = np.maximum(0, entropy - points["distortion_mean"].to_numpy(float))
    axes.fill_between(points["beta"], low, points["rate_mean"], color=style.COLOURS[0], alpha=0.10, linewidth=0)


def _images(rows: pd.DataFrame, column: str) -> str:
    """How many images the means are of, in brackets; nothing where it is not known."""
    return f" ({restarts.span(rows[column])} images)" if column in rows and rows[column].notna().any() else ""


def _write_counts(axes: Axes, rows: pd.DataFrame) -> None:
    """The number of images beside each point of log p(x)."""
    labeller = Labeller(axes)
    for line in axes.lines:
        labeller.avoid(np.stack([np.asarray(data, float) for data in line.get_data()], axis=1))
    known = rows[rows[IMAGES].notna()]
    for beta, value, count in zip(known["beta"], known[f"{quantities.LOG_PX}_mean"], known[IMAGES]):
        labeller.place(f"{count:,.0f}", labeller.beside([(beta, value)], f"{count:,.0f}", 5), fontsize=5, color="0.3")


def _range(rows: pd.DataFrame, names: Sequence[str]) -> tuple[float, float]:
    """Least and largest mean of some quantities; 0 and 0 if no run has them."""
    values = np.concatenate([[0.0], *(rows[f"{name}_mean"].dropna() for name in names if f"{name}_mean" in rows)])
    return float(values.min()), float(values.max())
