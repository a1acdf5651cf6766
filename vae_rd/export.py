"""Tables and figures from finished runs: `python -m vae_rd.export --runs_dir=runs --out_dir=figures`.

Writes runs.csv (every run), rd_curves.csv (mean, spread and interval over restarts), rd.png and rd.pdf (the
rate-distortion curves), and prints the rate-distortion table. Reads config.json, history.csv, results.json and
measures.json, never event files, and needs no TensorFlow.
"""

import pathlib
import sys

from absl import app, flags

from vae_rd.config import ConfigError
from vae_rd.runs import CHECKPOINT_NAMES, whole_file, write_text

_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs", "Folder with the run directories.")
_OUT_DIR = flags.DEFINE_string("out_dir", "figures", "Folder to write tables and figures to.")
_WHERE = flags.DEFINE_list("where", [], "Keep the runs that meet all conditions column=value (columns of runs.csv, such "
                           "as split=cv_16k,num_layers=3); several values of one column are alternatives.")
_FACET = flags.DEFINE_list("facet", ["dataset", "split"], "A panel for each combination of these columns.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", CHECKPOINT_NAMES, "State of the runs to draw: after the last step, "
                                "or early-stopped (then the test curve is over the half that did not select).")


def main(argv: list[str]) -> None:
    """Reads the flags and exports; a request that cannot be served ends with one line and status 1."""
    if len(argv) > 1:
        sys.exit(f"{argv[1]!r} is not a flag; the flags are shown by --help.")
    from vae_rd.study.tables import TableError
    try:
        _export()
    except (TableError, ConfigError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or _OUT_DIR.value}: {error.strerror}. Name a folder that can be written with --out_dir.")


def _export() -> None:
    from vae_rd.study import plots, tables
    out = pathlib.Path(_OUT_DIR.value)
    table = tables.where(tables.collect(_RUNS_DIR.value), _WHERE.value)
    for line in tables.left_out(table):
        print(f"left out: {line}")
    points = tables.curves(table)
    write_text(out / "runs.csv", table.to_csv(index=False))
    write_text(out / "rd_curves.csv", points.to_csv(index=False))
    if points.empty:
        raise tables.TableError(f"{_RUNS_DIR.value} holds no finished run, so there is no curve to draw. Train some with "
                                "vae_rd.main or vae_rd.sweep, or name another folder with --runs_dir.")
    partitions = ("train", "test" if _CHECKPOINT.value == "last" else "test_compare")
    chosen = points[points["checkpoint"] == _CHECKPOINT.value]
    unknown = [name for name in _FACET.value if name not in tables.POINT_COLUMNS]
    if unknown:
        raise tables.TableError(f"--facet={','.join(unknown)}: must be one or more of {', '.join(tables.POINT_COLUMNS)}.")
    print(tables.as_text(chosen, partitions))
    _write_figure(plots.rd_figure(chosen, _FACET.value, partitions), out, "rd")
    print(f"{tables.finished(table)['run'].nunique()} finished runs; see {out / 'rd.png'}, {out / 'rd.pdf'}, "
          f"{out / 'rd_curves.csv'} and {out / 'runs.csv'}")


def _write_figure(figure, out: pathlib.Path, name: str) -> None:
    for suffix in (".png", ".pdf"):
        with whole_file(out / f"{name}{suffix}") as beside:
            figure.savefig(beside, dpi=300)


def run() -> None:
    """The console entry point."""
    app.run(main)


if __name__ == "__main__":
    run()
