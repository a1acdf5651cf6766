"""The figures of each experiment from whatever runs have finished, and what is missing for the rest."""

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vae_rd.analysis import matched_rate, naming, quantities
from vae_rd.analysis.tables import TableError, curves, folders
from vae_rd.catalogue import LIKELIHOOD_SCALE, LIKELIHOODS
from vae_rd.config import STACKABLE_FIELDS, Config
from vae_rd.figures import against_beta, against_rate, curve_names, distances, learned_scale
from vae_rd.figures.rd_curves import rd_figure
from vae_rd.storage.runs import RunDir
from vae_rd.sweeps.experiments import DEFAULT_SCALE, OTHER_DATASETS, SCALES, Experiment, experiment

# Figures by prior: the quantities with their labels, and the images that they are means of.
PARTS_BY_PRIOR: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "information": ({quantities.MUTUAL_INFORMATION: "mutual information\n(nats per image)",
                     quantities.MARGINAL_KL: "marginal KL to\nthe run's own prior\n(nats per image)"}, ("train",)),
    "gap": ({quantities.GAP: "gap in the objective,\ntest minus train\n(nats per image)",
             quantities.GAP_ENCODER: "the encoder's part\n(nats per image)",
             quantities.GAP_DECODER: "the decoder's part\n(nats per image)"}, ("test",)),
    "refitted": ({quantities.RATE_SAVED + quantities.MIXTURE: "rate saved by a\nrefitted mixture\n(nats per image)",
                  quantities.RATE_SAVED + quantities.KERNEL: "rate saved by a\nrefitted kernel\n(nats per image)"},
                 ("test", "train"))}
MEMORISED_BEYOND = "memorised_beyond_control"  # share of test images: memorised minus the control


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
    counts = {scale: sum(len(folders(table, experiment(name, scale).configs)) for name in names)
              for scale in reversed(SCALES)}
    return max(counts, key=lambda scale: counts[scale]) if any(counts.values()) else DEFAULT_SCALE


def missing(table: pd.DataFrame, wanted: Experiment) -> list[str]:
    """Names of an experiment's runs that have not finished."""
    there = folders(table, wanted.configs)
    return [config.run_name for config in wanted.configs if config not in there]


def has_every_curve(table: pd.DataFrame, wanted: Experiment) -> bool:
    """Whether each of an experiment's curves, that is its Configs without beta and seed, has a finished run."""
    begun, all_curves = ({config.without(*STACKABLE_FIELDS) for config in configs}
                         for configs in (folders(table, wanted.configs), wanted.configs))
    return bool(begun) and begun == all_curves


def in_order(points: pd.DataFrame) -> pd.DataFrame:
    """Sorted by data set, split (by size), architecture, likelihood and layers, as panels are to be read."""
    datasets, likelihoods = ({name: index for index, name in enumerate(names)}
                             for names in (OTHER_DATASETS, LIKELIHOODS))
    keys = pd.DataFrame({"dataset": points["dataset"].map(lambda name: datasets.get(name, -1)),
                         "split": points["split"].map(naming.split_order), "mlp": points["architecture"] != "mlp",
                         "likelihood": points["likelihood"].map(lambda name: likelihoods.get(name, len(likelihoods))),
                         "layers": points["num_layers"], "beta": points["beta"]})
    return points.loc[keys.sort_values(list(keys)).index]


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
    rows = table[table["run"].isin(set(folders(table, wanted.configs).values()))]
    if rows.empty:
        raise TableError(f"{wanted.name}: none of its {len(wanted.configs)} runs at scale {wanted.scale} has finished. "
                         f"Train them with {wanted.command}.")
    material = Material(wanted, rows, in_order(curves(rows)), pathlib.Path(runs_dir), rate_axis)
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
    """Curves of one training over those of a training for each beta; the key says what the trainings took."""
    drawn = _rd(material, material.checkpoint(), **material.experiment.layout, remarks=_training_seconds(material))
    return drawn._replace(notes=_training_seconds(material))


def _training_seconds(material: Material) -> list[str]:
    """For each number of layers, the seconds of training that a curve took in one training and in one for each beta.

    A run counts with its share of its column's seconds, and only where its beta and seed were trained both ways.
    """
    lines = []
    for layers, rows in material.table.drop_duplicates("run").groupby("num_layers"):
        one, separate = (dict(zip(zip(group["beta"], group["seed"]), group["run"])) for group in
                         (rows[rows["conditioning"] == name] for name in ("beta", "none")))
        points = sorted(set(one) & set(separate))
        seconds = [sum(_share_of_training(RunDir(material.runs_dir / runs[point])) for point in points)
                   for runs in (one, separate)]
        if points and min(seconds) > 0:
            seeds, betas = (len({point[position] for point in points}) for position in (1, 0))
            lines.append(f"{naming.describe({'num_layers': layers})}: {seconds[0] / seeds:,.0f} s of steps in one "
                         f"training, {seconds[1] / seeds:,.0f} s in one for each of {betas} "
                         f"\N{GREEK SMALL LETTER BETA} ({seconds[0] / seconds[1]:.2f} times as long)")
    return lines


def _share_of_training(run: RunDir) -> float:
    """Seconds of training, of a column divided evenly among its members; 0 where they are not known."""
    results = run.read_results() or {}
    pace = results.get("steps_per_second")
    return results["step"] / pace / len(results.get("column") or [run.path.name]) if pace else 0.0


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
    points = material.checkpoint()
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


def memorisation(material: Material) -> Drawn:
    """Memorised images beyond the control, those nearer to the weighted mean, and its perplexity, against beta."""
    lacking = _lacking(material, quantities.MEMORISED_AT_MEAN_CONTROL)
    if lacking:
        return Drawn({}, lacking)
    labels = {MEMORISED_BEYOND: "memorised \N{MINUS SIGN} control\n(share of images)",
              quantities.AVERAGED_AT_MEAN: "nearer to the\nweighted mean\n(share of images)",
              quantities.PERPLEXITY_AT_MEAN: "perplexity of\nthe weights"}
    table = material.table
    beyond = table[quantities.MEMORISED_AT_MEAN] - table[quantities.MEMORISED_AT_MEAN_CONTROL]
    points = in_order(curves(table[table["checkpoint"] == "last"].assign(**{MEMORISED_BEYOND: beyond})))
    figure = against_beta.measures_figure(points, labels, differences=[MEMORISED_BEYOND])
    strips = f"the strips of images are {RunDir(material.runs_dir / '<run>').picture('memorisation')}"
    return Drawn({material.experiment.name: figure}, [strips])


def priors(material: Material) -> Drawn:
    """Test curves by prior; distortion at matched rate; both parts of the rate; the gap split; what refitting saves."""
    name, points = material.experiment.name, material.checkpoint()
    matched = matched_rate.differences(material.table[material.table["checkpoint"] == "last"], "prior", Config().prior)
    drawn = rd_curves(material)._replace(tables={f"{name}_matched_rate": matched})
    drawn.figures[f"{name}_matched_rate"] = against_rate.matched_figure(
        matched, curve_names.looks(points, ["prior"]), "prior", Config().prior)
    for part, (labels, partitions) in PARTS_BY_PRIOR.items():
        lacking = [line for column in labels for line in _lacking(material, column)]
        if lacking:
            drawn.notes.extend(lacking)
        else:
            drawn.figures[f"{name}_{part}"] = against_beta.measures_figure(
                points, labels, partitions, facet="num_layers", hue=("prior",), differences=list(labels))
    return drawn


def likelihoods(material: Material) -> Drawn:
    """A plane for each likelihood, as their distortions do not compare; squared error, which does; learned scales."""
    name, points, drawn = material.experiment.name, material.checkpoint(), rd_curves(material)
    no_errors, no_scales = (_lacking(material, column) for column in (quantities.MEAN_SQUARED_ERROR, LIKELIHOOD_SCALE))
    if not no_errors:
        drawn.figures[f"{name}_squared_error"] = against_rate.squared_error_figure(points)
    if not no_scales:
        last = learned_scale.with_effective_beta(material.table[material.table["checkpoint"] == "last"])
        drawn.figures[f"{name}_scale"] = learned_scale.scale_figure(
            curves(last), curve_names.looks(points, ["likelihood"]))
    return drawn._replace(notes=[*no_errors, *no_scales])


def _lacking(material: Material, column: str) -> list[str]:
    has = column in material.table and material.table[column].notna().any()
    return [] if has else [_unmeasured(material, column)]


def _unmeasured(material: Material, what: str) -> str:
    return f"no run has {what}; made by {material.experiment.command}"


# By the names that the entries of sweeps/experiments.py use.
DRAWINGS: dict[str, Callable[[Material], Drawn]] = {drawing.__name__: drawing for drawing in (
    rd_curves, curves_with_reconstructions, one_training, information, log_px, nearest_distances, memorisation, priors,
    likelihoods)}
