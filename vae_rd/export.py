"""Tables and figures from finished runs: `python -m vae_rd.export --runs_dir=runs --out_dir=figures`.

Writes runs.csv (every run), rd_curves.csv (mean, spread and interval over restarts), rd.png and rd.pdf (the
rate-distortion curves), and prints the rate-distortion table. With --experiment=figure3 it draws that figure of the
paper from the runs of that experiment, with --claims it tests the paper's claims, with --gaps it adds an interval over
images to each run's generalisation gap; --page writes pages to explore in a browser. --publish=results copies the small
files of finished runs to results/runs and makes all their tables and figures; --from=results makes them again from what
was published. Reads config.json, history.csv, results.json, measures.json and the arrays beside them, never event
files, and needs no TensorFlow.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from vae_rd import cli
from vae_rd.config import ConfigError
from vae_rd.storage import published
from vae_rd.storage.files import FileError, remove_abandoned, whole_file, write_text
from vae_rd.storage.runs import CHECKPOINT_NAMES
from vae_rd.sweeps import experiments

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_FACETS = ("dataset", "split", "likelihood")  # a panel for each combination, unless told otherwise
_RUNS_DIR, _IMPORT = cli.runs_dir(), cli.modules()
_OUT_DIR = flags.DEFINE_string("out_dir", "figures", "folder to write tables and figures to")
_WHERE = flags.DEFINE_list("where", [], "keep the runs that meet all conditions column=value (columns of runs.csv, as "
                           "in split=cv_16k,num_layers=3); several values of one column are alternatives")
_FACET = flags.DEFINE_list("facet", list(_FACETS), "a panel for each combination of these columns")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", CHECKPOINT_NAMES, "state of the runs to draw: after the last "
                                "step, or early-stopped (its test curve is over the half that did not select)")
_RATE_AXIS = flags.DEFINE_enum("rate_axis", "auto", ("auto", "linear", "log"), "scale of the rate axis; auto: log "
                               "where the rates span too much to be read")
_EXPERIMENT = flags.DEFINE_list("experiment", [], f"draw these instead: {', '.join(experiments.names())}")
_SCALE = flags.DEFINE_enum("scale", None, list(experiments.SCALES), "scale of --experiment and --claims (default: "
                           "the one with the most finished runs)")
_CLAIMS = flags.DEFINE_bool("claims", False, "test the paper's claims instead, and write claims.csv")
_GAPS = flags.DEFINE_bool("gaps", False, "also write gaps.csv: each run's test minus training distortion with its 95% "
                          "interval over images")
_PAGE = flags.DEFINE_bool("page", False, "write pages to explore in a browser instead: one HTML file for each of "
                          "--experiment (default: for every experiment that has finished runs), named after it; with "
                          "--checkpoint=best of the early-stopped weights, as <experiment>_best.html")
_PUBLISH = flags.DEFINE_string("publish", None, "copy the small files of finished runs to <publish>/runs, and make the "
                               "tables, figures and verdicts of all runs there, in <publish>")
_FROM = flags.DEFINE_string("from", None, "rebuild the tables, figures and verdicts from the runs in <from>/runs")


# The ways to export, the first that is given first, with the flags that each of them heeds.
_HEEDED = {"publish": {"runs_dir", "where", "scale"}, "from": {"scale"},
           "page": {"runs_dir", "out_dir", "where", "scale", "experiment", "checkpoint", "gaps"},
           "claims": {"runs_dir", "out_dir", "where", "scale", "gaps"},
           "experiment": {"runs_dir", "out_dir", "where", "scale", "rate_axis", "gaps"}}


def main(argv: list[str]) -> None:
    """Reads the flags and exports."""
    with cli.failures_in_words(argv):
        cli.import_modules(_IMPORT.value)
        _refuse_ignored()
        results = pathlib.Path(_PUBLISH.value or _FROM.value or _OUT_DIR.value)
        for folder in (results, results / published.RUNS, results / "figures"):
            remove_abandoned(folder)
        if results_dir := _results_folder():
            export_results(results_dir, _SCALE.value)
            return
        from vae_rd.analysis.tables import collect, where
        for name in _EXPERIMENT.value:
            experiments.experiment(name)  # refuses unknown names before any work
        runs_dir, out_dir = pathlib.Path(_RUNS_DIR.value), pathlib.Path(_OUT_DIR.value)
        everything = collect(runs_dir)
        table = where(everything, _WHERE.value)
        _print_remarks(table)
        if _PAGE.value:
            export_pages(table, runs_dir, out_dir, _EXPERIMENT.value, _SCALE.value, _CHECKPOINT.value, everything)
        elif _CLAIMS.value:
            export_claims(table, runs_dir, out_dir, _SCALE.value)
        elif _EXPERIMENT.value:
            from vae_rd.figures.drawings import fullest_scale
            for name in _EXPERIMENT.value:
                wanted = experiments.experiment(name, _SCALE.value or fullest_scale(table, name))
                export_experiment(table, wanted, runs_dir, out_dir, _RATE_AXIS.value)
        else:
            export_curves(table, runs_dir, out_dir, _FACET.value, _CHECKPOINT.value, _RATE_AXIS.value)
        if _GAPS.value:
            export_gaps(table, runs_dir, out_dir)


def _print_remarks(table: "pd.DataFrame") -> None:
    """Names the runs that are left out, and those of which something is to be said."""
    from vae_rd.analysis.tables import left_out, remarks
    for line in left_out(table):
        print(f"left out: {line}")
    for line in remarks(table):
        print(f"note: {line}")


def _results_folder() -> str | None:
    """The folder that --publish or --from names, after publishing runs to it; None if neither flag is given."""
    if not _PUBLISH.value:
        return _FROM.value
    from vae_rd.analysis.tables import collect, where
    names = set(where(collect(_RUNS_DIR.value), _WHERE.value)["run"]) if _WHERE.value else None
    done = published.publish(_RUNS_DIR.value, _PUBLISH.value, names)
    for name in done.changed:
        print(f"published: {name}")
    for name, reason in done.left_out.items():
        print(f"left out: {name}: {reason}")
    return _PUBLISH.value


def _refuse_ignored() -> None:
    """Refuses flags that would change nothing beside the way to export that was chosen."""
    given = [name for name in sorted({"facet", *_HEEDED}.union(*_HEEDED.values()))
             if flags.FLAGS[name].present and flags.FLAGS[name].value]
    mode = next((name for name in _HEEDED if name in given), None)
    if mode is None and "scale" in given:
        raise ConfigError(f"scale must be given with one of {', '.join(f'--{name}' for name in _HEEDED)} (got none of "
                          "them): plain tables and curves are of all runs.")
    ignored = [name for name in given if mode and name != mode and name not in _HEEDED[mode]]
    if ignored:
        raise ConfigError(f"{ignored[0]} must not be given with --{mode}, where it changes nothing. Leave it out, or "
                          f"give it in a command without --{mode}.")


def export_curves(table: "pd.DataFrame", runs_dir: str | os.PathLike, out_dir: str | os.PathLike,
                  facet: Sequence[str] = _FACETS, checkpoint: str = "last", rate_axis: str = "auto") -> None:
    """Writes the tables of all runs and their curves in one figure; prints the curves.

    Args:
        table: what `tables.collect` returned.
        runs_dir: the folder it was collected from.
        out_dir: gets runs.csv, rd_curves.csv, rd.png and rd.pdf.
        facet: columns whose combinations get a panel each.
        checkpoint: `last`, or `best`: early-stopped.
        rate_axis: linear, log or auto.

    Raises:
        TableError: for an unknown column, several likelihoods in a panel, or if no run has finished.
    """
    from vae_rd.analysis import tables
    from vae_rd.figures import drawings, rd_curves
    unknown = [name for name in facet if name not in tables.POINT_COLUMNS]
    if unknown:
        raise tables.TableError(f"facet must be one or more of {', '.join(tables.POINT_COLUMNS)} "
                                f"(got {', '.join(unknown)}).")
    out = pathlib.Path(out_dir)
    points = _write_tables(table, runs_dir, out)
    partitions = ("train", "test" if checkpoint == "last" else "test_compare")
    chosen = points[points["checkpoint"] == checkpoint]
    print(tables.as_text(chosen, partitions))
    figure = rd_curves.rd_figure(chosen, facet, partitions=partitions, rate_axis=rate_axis)
    drawings.mark_smoke(figure, chosen)
    _write_figure(figure, out, "rd")
    print(f"{tables.finished(table)['run'].nunique()} finished runs; see {out / 'rd.png'}, {out / 'rd.pdf'}, "
          f"{out / 'rd_curves.csv'} and {out / 'runs.csv'}")


def _write_tables(table: "pd.DataFrame", runs_dir: str | os.PathLike, out: pathlib.Path) -> "pd.DataFrame":
    """Writes runs.csv, if there are runs, and rd_curves.csv; returns the curves. Raises TableError without any."""
    from vae_rd.analysis import tables
    points = tables.in_order(tables.curves(table))
    if not table.empty:
        write_text(out / "runs.csv", tables.csv_text(table))
    if points.empty:
        raise tables.TableError(f"{runs_dir} holds no finished run, so there is no curve to draw. Train some with "
                                "vae_rd.main or vae_rd.sweep, or name another folder with --runs_dir.")
    write_text(out / "rd_curves.csv", tables.csv_text(points))
    return points


def export_experiment(table: "pd.DataFrame", wanted: experiments.Experiment, runs_dir: str | os.PathLike,
                      out_dir: str | os.PathLike, rate_axis: str = "auto") -> None:
    """Writes the figures of one experiment, as its entry says; prints what is missing for the rest of it.

    Args:
        table: what `tables.collect` returned.
        wanted: the experiment.
        runs_dir: the folder it was collected from.
        out_dir: gets the figures, as .png and .pdf, <name>.csv and any further tables.
        rate_axis: linear, log or auto.

    Raises:
        TableError: if none of its runs has finished.
    """
    from vae_rd.analysis import tables
    from vae_rd.figures import drawings
    drawn = drawings.draw(table, wanted, runs_dir, rate_axis)
    lacking = drawings.missing(table, wanted)
    total, out = len(wanted.configs), pathlib.Path(out_dir)
    print(f"{wanted.name} at scale {wanted.scale}: {total - len(lacking)} of {total} runs finished")
    for line in [*(f"missing: {run}" for run in lacking), *drawn.notes]:
        print(line)
    for stem, figure in drawn.figures.items():
        _write_figure(figure, out, stem)
        print(f"see {out / stem}.png and .pdf")
    for stem, values in {**({wanted.name: drawn.curves} if drawn.figures else {}), **drawn.tables}.items():
        write_text(out / f"{stem}.csv", tables.csv_text(values))


def export_results(results_dir: str | os.PathLike, scale: str | None = None) -> None:
    """Makes the tables, figures and verdicts of published runs.

    Args:
        results_dir: holds `runs`; gets runs.csv, rd_curves.csv, rd_table.txt and claims.csv, in `figures` an overview
            of the curves and the figures of every experiment, as far as its parts are complete
            (`drawings.complete_parts`). What it has of a README.md and of pages to explore (figure3.html) is made anew:
            of the first the tables.
        scale: of the experiments; None: of each the one with the most finished runs.

    Raises:
        TableError: if no run has finished.
        FileError: at the end, for figures and tables that could not be made because a run's files are damaged.
    """
    from vae_rd.analysis import readme_tables, tables
    from vae_rd.figures import drawings
    results = pathlib.Path(results_dir)
    runs_dir, figures_dir = results / published.RUNS, results / "figures"
    table = tables.collect(runs_dir)
    _print_remarks(table)
    points = _write_tables(table, runs_dir, results)
    last = points[points["checkpoint"] == "last"]
    write_text(results / "rd_table.txt", tables.as_text(last) + "\n")
    _write_figure(drawings.overview(last), figures_dir, "rd")
    damaged = []
    for name in experiments.names():
        asked = experiments.experiment(name, scale or drawings.fullest_scale(table, name))
        wanted = drawings.complete_parts(table, asked)
        begun = tables.finished_names(table, set(asked.configs) - set(wanted.configs))
        if begun:
            print(f"{name} at scale {asked.scale}: {len(begun)} finished runs of parts that have only begun are not "
                  "drawn")
        if wanted.configs:
            try:
                export_experiment(table, wanted, runs_dir, figures_dir)
            except FileError as error:
                damaged.append(f"{name} is not drawn: {error}")
                continue
            if (results / f"{name}.html").is_file():
                rows = table["run"].isin(set(tables.finished_names(table, wanted.configs).values()))
                export_pages(table[rows], runs_dir, results, [name], wanted.scale, all_runs=table)
    judged = export_claims(table, runs_dir, results, scale)
    readme = results / "README.md"
    if readme.is_file():
        try:
            text = readme_tables.fill(readme.read_text(encoding="utf-8"), table, points, judged, runs_dir)
            write_text(readme, text)
        except FileError as error:
            damaged.append(f"{readme} has its earlier tables: {error}")
    if damaged:
        raise FileError("\n".join(damaged))


def export_pages(table: "pd.DataFrame", runs_dir: str | os.PathLike, out_dir: str | os.PathLike,
                 names: Sequence[str] = (), scale: str | None = None, checkpoint: str = "last",
                 all_runs: "pd.DataFrame | None" = None) -> None:
    """Writes a page to explore in a browser for each experiment; arguments as `page.pages` takes them."""
    from vae_rd.figures import page
    for name, text in page.pages(table, runs_dir, names, scale, checkpoint, all_runs):
        path = pathlib.Path(out_dir) / f"{name}{'' if checkpoint == 'last' else f'_{checkpoint}'}.html"
        write_text(path, text)
        print(f"see {path}")


def export_claims(table: "pd.DataFrame", runs_dir: str | os.PathLike, out_dir: str | os.PathLike,
                  scale: str | None = None) -> "pd.DataFrame":
    """Writes claims.csv, the verdicts on the paper's claims, and prints them; `scale` as in `export_results`.

    Returns:
        The claims table.
    """
    from vae_rd.analysis import paired, verdicts
    from vae_rd.figures import drawings
    scale = scale or drawings.fullest_scale(table, *experiments.names())
    judged = verdicts.evaluate(table, scale, paired.images_of(runs_dir))
    path = pathlib.Path(out_dir) / "claims.csv"
    write_text(path, judged.to_csv(index=False))
    print(f"claims on the runs of scale {scale}")
    print(verdicts.as_text(judged))
    print(f"see {path}")
    return judged


def export_gaps(table: "pd.DataFrame", runs_dir: str | os.PathLike, out_dir: str | os.PathLike) -> None:
    """Writes gaps.csv: the generalisation gap of each run with its interval over images."""
    from vae_rd.analysis import tables
    path, gaps = pathlib.Path(out_dir) / "gaps.csv", tables.gaps(table, runs_dir)
    write_text(path, tables.csv_text(gaps))
    lacking = tables.finished(table)["run"].nunique() - gaps["run"].nunique()
    print(f"see {path}")
    if lacking:
        print(f"left out: {lacking} finished runs without values per image, as published runs are")


def _write_figure(figure: "Figure", out_dir: pathlib.Path, stem: str) -> None:
    from vae_rd.figures import style
    for suffix in (".png", ".pdf"):
        with whole_file(out_dir / f"{stem}{suffix}") as beside:
            figure.savefig(beside, dpi=style.DPI, metadata={"CreationDate": None} if suffix == ".pdf" else None)


if __name__ == "__main__":
    cli.run(main)
