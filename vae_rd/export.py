"""Tables and figures from finished runs: `python -m vae_rd.export --runs_dir=runs --out_dir=figures`.

Writes runs.csv (every run), rd_curves.csv (mean, spread and interval over restarts), rd.png and rd.pdf (the
rate-distortion curves), and prints the rate-distortion table. With --experiment=figure3 it draws that figure of the
paper from the runs of that experiment, with --claims it tests the paper's claims, with --gaps it adds an interval over
images to each run's generalisation gap. Reads config.json, history.csv, results.json, measures.json and the arrays
beside them, never event files, and needs no TensorFlow.
"""

import pathlib

from absl import flags

from vae_rd import cli
from vae_rd.storage.files import whole_file, write_text
from vae_rd.storage.runs import CHECKPOINT_NAMES
from vae_rd.sweeps import experiments

_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs", "Folder with the run directories.")
_OUT_DIR = flags.DEFINE_string("out_dir", "figures", "Folder to write tables and figures to.")
_WHERE = flags.DEFINE_list("where", [], "Keep the runs that meet all conditions column=value (columns of runs.csv, as "
                           "in split=cv_16k,num_layers=3); several values of one column are alternatives.")
_FACET = flags.DEFINE_list("facet", ["dataset", "split"], "A panel for each combination of these columns.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", CHECKPOINT_NAMES, "State of the runs to draw: after the last "
                                "step, or early-stopped (its test curve is over the half that did not select).")
_RATE_AXIS = flags.DEFINE_enum("rate_axis", "auto", ("auto", "linear", "log"), "Scale of the rate axis; auto: log "
                               "where the rates span too much to be read.")
_EXPERIMENT = flags.DEFINE_list("experiment", [], f"Draw these instead: {', '.join(experiments.names())}.")
_SCALE = flags.DEFINE_enum("scale", None, list(experiments.SCALES), "Scale of --experiment and --claims (default: "
                           "the one with the most finished runs).")
_CLAIMS = flags.DEFINE_bool("claims", False, "Test the paper's claims instead, and write claims.csv.")
_GAPS = flags.DEFINE_bool("gaps", False, "Also write gaps.csv: each run's test minus training distortion with its 95% "
                          "interval over images (about 2 s a run).")

_PAGE = flags.DEFINE_bool("page", False, "Write pages to explore in a browser instead: one HTML file for each of "
                          "--experiment (default: for every experiment that has finished runs).")


def main(argv: list[str]) -> None:
    """Reads the flags and exports."""
    with cli.opened(argv):
        from vae_rd.analysis.tables import collect, left_out, remarks, where
        for name in _EXPERIMENT.value:
            experiments.experiment(name)  # refuses unknown names before any work
        table = where(collect(_RUNS_DIR.value), _WHERE.value)
        for line in left_out(table):
            print(f"left out: {line}")
        for line in remarks(table):
            print(f"note: {line}")
        if _PAGE.value:
            _write_pages(table)
        elif _CLAIMS.value:
            _test_claims(table)
        elif _EXPERIMENT.value:
            for name in _EXPERIMENT.value:
                _draw_experiment(table, name)
        else:
            _export(table)
        if _GAPS.value:
            _bootstrap_gaps(table)


def _export(table) -> None:
    """The tables of all runs, and their curves in one figure."""
    from vae_rd.analysis import tables
    from vae_rd.figures import paper, rd_curves
    unknown = [name for name in _FACET.value if name not in tables.POINT_COLUMNS]
    if unknown:
        raise tables.TableError(f"--facet={','.join(unknown)}: must be one or more of "
                                f"{', '.join(tables.POINT_COLUMNS)}.")
    points = paper.in_order(tables.curves(table))
    out = _out_dir()
    write_text(out / "runs.csv", tables.csv_text(table))
    write_text(out / "rd_curves.csv", tables.csv_text(points))
    if points.empty:
        raise tables.TableError(f"{_RUNS_DIR.value} holds no finished run, so there is no curve to draw. Train some "
                                "with vae_rd.main or vae_rd.sweep, or name another folder with --runs_dir.")
    partitions = ("train", "test" if _CHECKPOINT.value == "last" else "test_compare")
    chosen = points[points["checkpoint"] == _CHECKPOINT.value]
    print(tables.as_text(chosen, partitions))
    _write_figure(rd_curves.rd_figure(chosen, _FACET.value, partitions=partitions, rate_axis=_RATE_AXIS.value), "rd")
    print(f"{tables.finished(table)['run'].nunique()} finished runs; see {out / 'rd.png'}, {out / 'rd.pdf'}, "
          f"{out / 'rd_curves.csv'} and {out / 'runs.csv'}")


def _draw_experiment(table, name: str) -> None:
    """The figures of one experiment, and what is missing for the rest of it."""
    from vae_rd.figures import paper
    wanted = experiments.experiment(name, _SCALE.value or paper.fullest_scale(table, name))
    drawn = paper.draw(table, wanted, _RUNS_DIR.value, _RATE_AXIS.value)
    lacking = paper.missing(table, wanted)
    total = len(wanted.configs)
    print(f"{name} at scale {wanted.scale}: {total - len(lacking)} of {total} runs finished")
    for line in [*(f"missing: {run}" for run in lacking), *drawn.notes]:
        print(line)
    for stem, figure in drawn.figures.items():
        _write_figure(figure, stem)
        print(f"see {_out_dir() / stem}.png and .pdf")
    write_text(_out_dir() / f"{name}.csv", drawn.curves.to_csv(index=False))


def _write_pages(table) -> None:
    from vae_rd.figures import page
    for name, text in page.pages(table, _RUNS_DIR.value, _EXPERIMENT.value, _SCALE.value):
        write_text(_out_dir() / f"{name}.html", text)
        print(f"see {_out_dir() / name}.html")


def _test_claims(table) -> None:
    from vae_rd.analysis import paired, verdicts
    from vae_rd.figures import paper
    scale = _SCALE.value or paper.fullest_scale(table, *experiments.names())
    judged = verdicts.evaluate(table, scale, paired.images_of(_RUNS_DIR.value))
    write_text(_out_dir() / "claims.csv", judged.to_csv(index=False))
    print(f"claims on the runs of scale {scale}")
    print(verdicts.as_text(judged))
    print(f"see {_out_dir() / 'claims.csv'}")


def _bootstrap_gaps(table) -> None:
    from vae_rd.analysis import tables
    write_text(_out_dir() / "gaps.csv", tables.csv_text(tables.gaps(table, _RUNS_DIR.value)))
    print(f"see {_out_dir() / 'gaps.csv'}")


def _write_figure(figure, stem: str) -> None:
    for suffix in (".png", ".pdf"):
        with whole_file(_out_dir() / f"{stem}{suffix}") as beside:
            figure.savefig(beside, dpi=300)


def _out_dir() -> pathlib.Path:
    return pathlib.Path(_OUT_DIR.value)


if __name__ == "__main__":
    cli.run(main)
