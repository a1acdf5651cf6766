"""The figures of each experiment from whatever runs have finished, and what is missing for the rest."""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vae_rd.analysis import matched_rate, naming, quantities, tables
from vae_rd.analysis.tables import TableError, curves, finished_names
from vae_rd.catalogue import LIKELIHOOD_SCALE
from vae_rd.config import STACKABLE_FIELDS, Config
from vae_rd.figures import against_beta, against_rate, against_step, curve_names, distances, learned_scale
from vae_rd.figures.rd_curves import FACET, rd_figure
from vae_rd.storage.runs import RunDir
from vae_rd.sweeps.experiments import DEFAULT_SCALE, SCALES, Experiment, experiment

# Figures by prior: the quantities with their labels, and the images that they are means of.
PARTS_BY_PRIOR: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "information": ({quantities.MUTUAL_INFORMATION: "mutual information\n(nats per image)",
                     quantities.MARGINAL_KL: "marginal KL to\nthe run's own prior\n(nats; log above 10)"}, ("train",)),
    "gap": ({quantities.GAP: "gap in the objective,\ntest minus train\n(nats per image)",
             quantities.GAP_ENCODER: "the encoder's part\n(nats per image)",
             quantities.GAP_DECODER: "the rest\n(nats per image)"}, ("test",)),
    "refitted": ({quantities.RATE_SAVED + quantities.MIXTURE: "rate saved by a\nrefitted mixture\n(nats; log above 10)",
                  quantities.RATE_SAVED + quantities.KERNEL: "rate saved by a\nrefitted kernel\n(nats; log above 10)"},
                 ("test", "train"))}
WIDE = (quantities.MARGINAL_KL, quantities.RATE_SAVED + quantities.MIXTURE, quantities.RATE_SAVED + quantities.KERNEL)
LEAST_BETAS = 3  # of a curve; one of fewer has only begun, and is not published in a figure
OWN_FIGURES = ("prior", "likelihood", "conditioning", "rate_terms", "latent_dim")  # fields in which experiments differ
# Share of test images: memorised minus the control, at the posterior's mean and at a sample from it.
MEMORISED_BEYOND, MEMORISED_BEYOND_SAMPLED = "memorised_beyond_control", "memorised_sampled_beyond_control"


class Material(NamedTuple):
    """What a figure is made from: the rows of one experiment's finished runs."""

    experiment: Experiment
    table: pd.DataFrame
    curves: pd.DataFrame  # sorted: panels and curves come in this order
    runs_dir: pathlib.Path
    rate_axis: str = "auto"

    def checkpoint(self, name: str = "last") -> pd.DataFrame:
        """The curve points of one checkpoint."""
        return self.curves[self.curves["checkpoint"] == name]


class Drawn(NamedTuple):
    """Figures by file name without suffix, what could not be drawn, in words, and the points behind the figures."""

    figures: dict[str, Figure]
    notes: list[str]
    curves: pd.DataFrame = pd.DataFrame()
    tables: dict[str, pd.DataFrame] = {}  # further ones by file name without suffix


def fullest_scale(table: pd.DataFrame, *names: str) -> str:
    """The scale at which most runs of some experiments have finished; if none has, the one that a sweep takes."""
    counts = {scale: sum(len(finished_names(table, experiment(name, scale).configs)) for name in names)
              for scale in reversed(SCALES)}
    return max(counts, key=lambda scale: counts[scale]) if any(counts.values()) else DEFAULT_SCALE


def missing(table: pd.DataFrame, wanted: Experiment) -> list[str]:
    """Names of an experiment's runs that have not finished."""
    there = finished_names(table, wanted.configs)
    return [config.run_name for config in wanted.configs if config not in there]


def complete_parts(table: pd.DataFrame, wanted: Experiment) -> Experiment:
    """The experiment without the Configs of parts in which a curve has finished runs of fewer than LEAST_BETAS betas.

    If its entry has `complete_by`, each value of that field is a part; else the whole is one.
    """
    def part(config: Config) -> str:
        return getattr(config, wanted.complete_by) if wanted.complete_by else ""

    def betas_of_curves(configs: Iterable[Config]) -> dict[tuple, set[float]]:
        betas: dict[tuple, set[float]] = {}
        for config in configs:
            betas.setdefault(config.without(*STACKABLE_FIELDS), set()).add(config.beta)
        return betas

    there, asked = betas_of_curves(finished_names(table, wanted.configs)), betas_of_curves(wanted.configs)
    begun = {curve for curve, betas in asked.items() if len(there.get(curve, ())) < min(LEAST_BETAS, len(betas))}
    left_out = {part(config) for config in wanted.configs if config.without(*STACKABLE_FIELDS) in begun}
    return wanted._replace(configs=tuple(config for config in wanted.configs if part(config) not in left_out))


def overview(points: pd.DataFrame) -> Figure:
    """The curves (rows of `tables.curves`) of the paper's kind of run, by data set, split, architecture and steps.

    Other priors, likelihoods and the like have experiments with figures of their own; here they are drawn only where
    there is nothing else. So are curves of fewer than LEAST_BETAS betas.
    """
    default = Config()
    usual = np.logical_and.reduce([points[field] == getattr(default, field) for field in OWN_FIGURES])
    fields = [points[name] for name in tables.POINT_COLUMNS if name not in ("beta", "partition")]
    begun = points.groupby(fields, dropna=False)["beta"].transform("nunique") < LEAST_BETAS
    chosen = next(rows for rows in (points[usual & ~begun], points[usual], points) if len(rows))
    figure = rd_figure(chosen, (*FACET, "architecture", "train_steps"))
    mark_smoke(figure, chosen)
    return figure


def draw(table: pd.DataFrame, wanted: Experiment, runs_dir: str | os.PathLike, rate_axis: str = "auto") -> Drawn:
    """The figures of one experiment.

    Args:
        table: what `tables.collect` returned.
        wanted: the experiment.
        runs_dir: where its run directories are: values per image and pictures are read from them.
        rate_axis: linear, log or auto.

    Raises:
        TableError: if the experiment has no runs, or none of them has finished.
    """
    if not wanted.configs:
        raise TableError(f"{wanted.name}: {wanted.text}.")
    rows = table[table["run"].isin(set(finished_names(table, wanted.configs).values()))]
    if rows.empty:
        raise TableError(f"{wanted.name}: none of its {len(wanted.configs)} runs at scale {wanted.scale} has finished. "
                         f"Train them with {wanted.command}.")
    material = Material(wanted, rows, tables.in_order(curves(rows)), pathlib.Path(runs_dir), rate_axis)
    drawn = DRAWINGS[wanted.drawing](material)
    for figure in drawn.figures.values():
        mark_smoke(figure, material.curves)
    return drawn._replace(curves=material.curves)


def mark_smoke(figure: Figure, points: pd.DataFrame) -> None:
    """Writes across a figure that it is at smoke scale, if some of its points (rows of `curves`) are of such runs."""
    steps = SCALES["smoke"].base.train_steps
    if (points["train_steps"] <= steps).any():
        figure.text(0.5, 0.55, f"smoke scale: {steps} steps, no result", rotation=20, ha="center", va="center",
                    fontsize=4.2 * figure.get_figwidth(), color="0.5", alpha=0.22, zorder=10)


def rd_curves(material: Material) -> Drawn:
    """The RD plane in the experiment's own layout; panels by the kind of split come with constant volume first."""
    layout = material.experiment.layout
    columns = {*layout.get("facet", ()), *(layout.get("hue") or ())}
    points = material.curves if "checkpoint" in columns else material.checkpoint()
    if "kind" in columns:
        points = points.assign(kind=points["split"].str.partition("_")[0])
        points = points[["kind", *points.columns.drop("kind")]].sort_values(
            ["kind", "num_layers"], ascending=[False, True], kind="stable")
    return _rd(material, points, **layout)


def _rd(material: Material, points: pd.DataFrame, **layout: Any) -> Drawn:
    return Drawn({material.experiment.name: rd_figure(points, across=2, rate_axis=material.rate_axis, **layout)}, [])


def curves_with_reconstructions(material: Material) -> Drawn:
    """Figure 3: a panel per split and network, with the reconstructions of one test image at each beta above it."""
    points = material.checkpoint()
    split = points["split"].map(naming.split_order)
    points = points.iloc[np.lexsort((points["num_layers"], [-size for _, size in split]))]  # the large set first
    strips = {key: strip for key in points.groupby(["split", "num_layers"]).groups
              if (strip := _reconstructions(material, *key))}
    drawn = _rd(material, points, facet=("split", "num_layers"), hue=(), pictures=strips)
    notes = [] if strips else [_unmeasured(material, "reconstructions")]
    return drawn._replace(notes=notes)


def one_training(material: Material) -> Drawn:
    """Curves of one training over those of a training for each beta; the key says how many steps that is."""
    remarks = _training_steps(material)
    return _rd(material, material.checkpoint(), **material.experiment.layout, remarks=remarks)._replace(notes=remarks)


def _training_steps(material: Material) -> list[str]:
    """Steps of a curve in one training and in one for each beta that has both, by number of layers if they differ."""
    texts = {}
    for layers, rows in material.table.groupby("num_layers"):
        one, separate = (set(rows.loc[rows["conditioning"] == name, "beta"]) for name in ("beta", "none"))
        if betas := one & separate:
            steps = int(rows["train_steps"].max())
            texts[naming.describe({"num_layers": layers})] = (
                f"one training: {steps:,} steps; a training for each of {len(betas)} \N{GREEK SMALL LETTER BETA}: "
                f"{len(betas)} \N{MULTIPLICATION SIGN} {steps:,}")
    if len(set(texts.values())) == 1:
        return [*texts.values()][:1]
    return [f"{network}: {text}" for network, text in texts.items()]


def _reconstructions(material: Material, split: str, num_layers: int) -> dict[str, np.ndarray]:
    """Input and reconstruction by beta, from the first restart that has them."""
    rows = material.table[(material.table["split"] == split) & (material.table["num_layers"] == num_layers)]
    pictures: dict[str, np.ndarray] = {}
    for row in rows.drop_duplicates("run").sort_values(["beta", "seed"]).itertuples():
        run = RunDir(material.runs_dir / row.run)
        path = run.arrays("reconstruction")
        if f"{row.beta:g}" not in pictures and path.is_file():
            arrays = run.read_arrays(path)
            pictures.setdefault("input", arrays["input"])
            pictures[f"{row.beta:g}"] = arrays["reconstruction"]
    return pictures


def information(material: Material) -> Drawn:
    """Figure 8: mutual information and marginal KL against beta."""
    lacking = _lacking(material, quantities.MUTUAL_INFORMATION)
    if lacking:
        return Drawn({}, lacking)
    return Drawn({material.experiment.name: against_beta.information_figure(material.checkpoint())}, [])


def log_px(material: Material) -> Drawn:
    """log p(x) against beta, and against the number of importance samples."""
    lacking = _lacking(material, quantities.LOG_PX)
    if lacking:
        return Drawn({}, lacking)
    points = _where_measured(material.checkpoint(), quantities.LOG_PX)
    return Drawn({material.experiment.name: against_beta.log_px_figure(points),
                  "log_px_samples": against_beta.samples_figure(points)}, [])


def nearest_distances(material: Material) -> Drawn:
    """Histograms of distances by split, and the gap of the same runs against distance."""
    groups = {}
    for row in material.table[material.table["checkpoint"] == "last"].drop_duplicates("split").itertuples():
        run = RunDir(material.runs_dir / row.run)
        path = run.per_example("test")
        arrays = run.read_arrays(path) if path.is_file() else {}
        if quantities.NEAREST in arrays:
            train = material.table.query("run == @row.run and checkpoint == 'last' and partition == 'train'")
            excess = arrays["distortion"] - arrays["entropy_floor"]
            groups[row.split] = (arrays[quantities.NEAREST], excess,
                                 float((train["distortion"] - train["entropy_floor"]).iloc[0]))
    if not groups:
        return Drawn({}, [_unmeasured(material, quantities.NEAREST)])
    histograms = distances.histogram_figure({split: group[0] for split, group in groups.items()})
    return Drawn({material.experiment.name: histograms, "gap_by_distance": distances.gap_figure(groups)}, [])


def over_steps(material: Material) -> Drawn:
    """Rate and distortion against the training step."""
    histories = tables.histories(material.table, material.runs_dir)
    if histories.empty:
        return Drawn({}, ["no run has a history"])
    name = material.experiment.name
    figure = against_step.steps_figure(tables.in_order(histories), **material.experiment.layout)
    return Drawn({name: figure}, [], tables={f"{name}_history": histories})


def memorisation(material: Material) -> Drawn:
    """Memorised images beyond the control, those nearer to the weighted mean, and its perplexity, against beta."""
    lacking = _lacking(material, quantities.MEMORISED_AT_MEAN_CONTROL)
    if lacking:
        return Drawn({}, lacking)
    labels = {MEMORISED_BEYOND: "memorised \N{MINUS SIGN} control\n(share of images)",
              MEMORISED_BEYOND_SAMPLED: "the same with\nsampled codes\n(share of images)",
              quantities.AVERAGED_AT_MEAN: "nearer to the\nweighted mean\n(share of images)",
              quantities.PERPLEXITY_AT_MEAN: "perplexity of\nthe weights"}
    table = material.table
    beyond = {MEMORISED_BEYOND: table[quantities.MEMORISED_AT_MEAN] - table[quantities.MEMORISED_AT_MEAN_CONTROL],
              MEMORISED_BEYOND_SAMPLED: table[quantities.MEMORISED] - table[quantities.MEMORISED_CONTROL]}
    points = tables.in_order(curves(table[table["checkpoint"] == "last"].assign(**beyond)))
    points = _where_measured(points, MEMORISED_BEYOND)
    figure = against_beta.measures_figure(points, labels, differences=list(beyond))
    strips = f"the strips of images are {RunDir(material.runs_dir / '<run>').picture('memorisation')}"
    return Drawn({material.experiment.name: figure}, [strips])


def priors(material: Material) -> Drawn:
    """Test curves by prior; distortion at matched rate; both parts of the rate; the gap split; what refitting saves."""
    name, points = material.experiment.name, material.checkpoint()
    matched = matched_rate.differences(material.table[material.table["checkpoint"] == "last"], "prior", Config().prior)
    drawn = rd_curves(material)._replace(tables={f"{name}_matched_rate": matched})
    if matched.empty:
        drawn.notes.append("no prior shares a restart with N(0, I) in which both reach a common rate")
    else:
        drawn.figures[f"{name}_matched_rate"] = against_rate.matched_figure(
            matched, curve_names.looks(points, ["prior"]), "prior", Config().prior)
    for part, (labels, partitions) in PARTS_BY_PRIOR.items():
        lacking = [line for column in labels for line in _lacking(material, column)]
        if lacking:
            drawn.notes.extend(lacking)
        else:
            drawn.figures[f"{name}_{part}"] = against_beta.measures_figure(
                points, labels, partitions, facet="num_layers", hue=("prior",), differences=list(labels),
                wide=WIDE)
    return drawn


def likelihoods(material: Material) -> Drawn:
    """A plane for each likelihood, as their distortions are not comparable; squared error, which is; learned scales."""
    name, points, drawn = material.experiment.name, material.checkpoint(), rd_curves(material)
    no_errors, no_scales = (_lacking(material, column) for column in (quantities.MEAN_SQUARED_ERROR, LIKELIHOOD_SCALE))
    if not no_errors:
        drawn.figures[f"{name}_squared_error"] = against_rate.squared_error_figure(points)
    if not no_scales:
        last = learned_scale.with_effective_beta(material.table[material.table["checkpoint"] == "last"])
        drawn.figures[f"{name}_scale"] = learned_scale.scale_figure(
            curves(last), curve_names.looks(points, ["likelihood"]))
    return drawn._replace(notes=[*no_errors, *no_scales])


def _where_measured(points: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of splits on which some run has a quantity; the panel of another would be empty."""
    return points[points[f"{quantity}_mean"].notna().groupby(points["split"]).transform("any")]


def _lacking(material: Material, column: str) -> list[str]:
    last = material.table[material.table["checkpoint"] == "last"]  # which the drawings show
    return [] if column in last and last[column].notna().any() else [_unmeasured(material, column)]


def _unmeasured(material: Material, what: str) -> str:
    return f"no run has {what} of its final model; made by {material.experiment.command}"


# By the names that the entries of sweeps/experiments.py use.
DRAWINGS: dict[str, Callable[[Material], Drawn]] = {drawing.__name__: drawing for drawing in (
    rd_curves, curves_with_reconstructions, one_training, information, log_px, nearest_distances, memorisation,
    over_steps, priors, likelihoods)}
