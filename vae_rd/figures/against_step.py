"""Against the training step: what more steps would still change; a table in, a Figure out."""

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_rd.analysis import naming
from vae_rd.figures import restarts, style
from vae_rd.figures.against_beta import NETWORK

QUANTITIES = {"distortion": "distortion\n(nats per image)", "rate": "rate\n(nats per image)"}


def steps_figure(histories: pd.DataFrame, partitions: Sequence[str] = ("test", "train"), mark: float | None = None
                 ) -> Figure:
    """Distortion and rate over the training: a column per network, a line per beta and partition, means over restarts.

    Args:
        histories: rows of `tables.histories` of one data set and split.
        partitions: of which images; those after the first are dashed.
        mark: share of the steps at which a vertical line stands.
    """
    networks = list(histories.groupby(list(NETWORK), sort=False))
    betas = sorted(histories["beta"].unique())
    colours = style.ordered_colours(len(betas))
    with matplotlib.rc_context(style.STYLE):
        width = style.COLUMN_WIDTH if len(networks) == 1 else style.TEXT_WIDTH
        figure = style.figure(width, len(QUANTITIES) * 1.6 + 0.5)
        panels = figure.subplots(len(QUANTITIES), len(networks), sharex=True, sharey="row", squeeze=False)
        for column, ((architecture, layers), rows) in zip(panels.T, networks):
            column[0].set_title(naming.describe({"architecture": architecture, "num_layers": layers}))
            column[-1].set_xlabel("training steps")
            for axes, quantity in zip(column, QUANTITIES):
                axes.set(xscale="log", yscale="log" if quantity == "rate" else "linear")
                for beta, colour in zip(betas, colours):
                    for partition, line in zip(partitions, (style.FIRST_LINE, style.SECOND_LINE)):
                        chosen = rows[(rows["beta"] == beta) & (rows["partition"] == partition)]
                        of_runs = chosen.groupby("step")[quantity]
                        means = of_runs.mean()[of_runs.count() == chosen["run"].nunique()]  # steps that all runs have
                        axes.plot(means.index, means, color=colour, **{**line, "marker": None})
                if mark:
                    axes.axvline(mark * rows["train_steps"].max(), color=style.QUIET, **style.GUIDE)
        for row, label in zip(panels, QUANTITIES.values()):
            row[0].set_ylabel(label)
        for axis in (panels[0, 0].xaxis, panels[-1, 0].yaxis):  # the logarithmic ones, which all panels share
            style.number_log_axis(axis)
        handles = [Line2D([], [], color=colour, label=f"\u03b2 = {beta:g}") for beta, colour in zip(betas, colours)]
        handles += [Line2D([], [], label=naming.PARTITIONS[name], color="0.25", **{**line, "marker": None})
                    for name, line in zip(partitions, (style.FIRST_LINE, style.SECOND_LINE))]
        counts = histories.groupby([*NETWORK, "beta"])["run"].nunique()
        several = counts.max() > 1
        handles.append(style.words_only(f"means of {restarts.span(counts)} restarts" if several else "1 restart"))
        if mark:
            handles.append(Line2D([], [], color=style.QUIET, linestyle=style.GUIDE["linestyle"],
                                  label=f"{mark:.0%} of the steps"))
        style.legend_below(figure, handles)
    return figure
