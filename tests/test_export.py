"""The export command: files and printed table of a folder of runs, and its refusals."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests import commands
from tests.fabricate import fabricate_run
from vae_rd.config import Config
from vae_rd.sweeps import experiments

ROOT = pathlib.Path(__file__).parents[1]
SMALL = Config(split="cd_8k", train_steps=100)


def export(*flags: str) -> subprocess.CompletedProcess:
    return commands.run("vae_rd.export", *flags)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for split in ("cd_8k", "cv_16k"):
        for beta in (0.1, 1.0, 5.0):
            for seed in range(2):
                fabricate_run(folder, SMALL.replace(split=split, beta=beta, seed=seed))
    fabricate_run(folder, SMALL.replace(beta=9.0), status="unfinished")
    return folder


def test_tables_figure_and_text(runs_dir, tmp_path):
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rd.pdf", "rd.png", "rd_curves.csv", "runs.csv"]
    assert (tmp_path / "rd.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "rd.pdf").read_bytes()[:4] == b"%PDF"
    assert "beta9-" in done.stdout and "unfinished" in done.stdout and "train distortion" in done.stdout
    assert len(pd.read_csv(tmp_path / "rd_curves.csv").query("partition == 'test' and checkpoint == 'last'")) == 6


@pytest.mark.slow
def test_what_a_killed_export_left_is_removed_and_nothing_else(runs_dir, tmp_path):
    """What is fresh may be another export's that is still writing."""
    old, users, fresh = (tmp_path / name for name in (".vae_rd-rd-1234.png", ".env.settings.local", ".vae_rd-rd-5.png"))
    for path in (old, users, fresh):
        path.write_text("half")
    for path in (old, users):
        os.utime(path, (time.time() - 3600,) * 2)
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path}")
    assert done.returncode == 0 and not old.exists() and users.exists() and fresh.exists()


def test_runs_evaluated_on_subsets_and_on_everything_are_drawn_together(tmp_path):
    for config in (SMALL, SMALL.replace(eval_images=2048), SMALL.replace(eval_every=50)):
        for beta in (0.1, 1.0):
            fabricate_run(tmp_path / "runs", config.replace(beta=beta))
    done = export(f"--runs_dir={tmp_path / 'runs'}", f"--out_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "cd_8k" in line]
    assert len(lines) == 6 and not any(" - " in line for line in lines)
    table = pd.read_csv(tmp_path / "runs.csv", dtype={"eval_images": str})
    assert set(table["eval_images"]) == {"all", "2048"} and set(table["eval_every"]) == {5, 50}


def test_where_and_checkpoint_narrow_what_is_drawn(runs_dir, tmp_path):
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path}", "--where=split=cv_16k,beta=0.1,beta=1",
                  "--checkpoint=best", "--facet=split")
    assert done.returncode == 0, done.stderr
    assert "cd_8k" not in done.stdout and "test_compare distortion" in done.stdout
    assert set(pd.read_csv(tmp_path / "runs.csv")["beta"]) == {0.1, 1.0}


def test_an_experiment_is_drawn_from_what_has_finished(tmp_path):
    configs = experiments.experiment("figure3", "smoke").configs
    for config in configs[:-1]:
        fabricate_run(tmp_path / "runs", config)
    done = export(f"--runs_dir={tmp_path / 'runs'}", f"--out_dir={tmp_path}", "--experiment=figure3", "--rate_axis=log")
    assert done.returncode == 0, done.stderr
    assert "figure3 at scale smoke: 11 of 12 runs finished" in done.stdout
    assert f"missing: {configs[-1].run_name}" in done.stdout
    assert {"figure3.png", "figure3.pdf", "figure3.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_likelihoods_are_drawn_apart_unless_that_is_refused(tmp_path):
    for likelihood in ("bernoulli", "normal"):
        for beta in (0.1, 1.0):
            fabricate_run(tmp_path / "runs", SMALL.replace(likelihood=likelihood, beta=beta))
    apart, together = (export(f"--runs_dir={tmp_path / 'runs'}", f"--out_dir={tmp_path}", *flags)
                       for flags in ((), ("--facet=split",)))
    assert apart.returncode == 0, apart.stderr
    assert together.returncode == 1 and "must be of one likelihood" in together.stderr
    assert "Traceback" not in together.stderr


def wide(scale):
    return experiments.product(scale, [experiments.ONE_LAYER], [scale.small], hidden_units=99)


def add_wide():
    experiments.EXPERIMENTS["wide"] = experiments.Entry("wide", wide)


def test_an_added_experiment_is_exported(tmp_path):
    """An entry of its own, put in by a program that then exports: no other file knows of it."""
    for config in wide(experiments.SCALES["smoke"]):
        fabricate_run(tmp_path, config)
    done = commands.run("vae_rd.export", f"--runs_dir={tmp_path}", f"--out_dir={tmp_path}", "--experiment=wide",
                        before=add_wide)
    assert done.returncode == 0, done.stderr
    assert "wide at scale smoke: 3 of 3 runs finished" in done.stdout and (tmp_path / "wide.png").is_file()


def test_claims_and_gaps_write_their_tables(runs_dir, tmp_path):
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path}", "--claims", "--gaps", "--scale=paper")
    assert done.returncode == 0, done.stderr
    assert "C1: not enough runs" in done.stdout and "too few restarts at every beta" in done.stdout
    assert set(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == {"not enough runs"}
    assert list(pd.read_csv(tmp_path / "gaps.csv").columns) == ["run", "checkpoint", "gap", "low", "high"]
    assert "left out: 12 finished runs without values per image" in done.stdout


@pytest.mark.parametrize("flag, words", [
    ("--experiment=figure9", "experiment must be one of these (got 'figure9'): figure1"),
    ("--experiment=figure1", "data_gen.main --preview"),
    ("--experiment=figure6", "none of its 48 runs at scale laptop has finished. Train them with"),
    ("--where=split=cv_82k", "no run has split=cv_82k. Try one of cd_8k, cv_16k"),
    ("--where=split=random", "split must be of one of these kinds"),
    ("--facet=colour", "facet must be one or more of dataset"),
    ("--where=partition=test_select", "curves must have points of partition train or test (got none"),
    ("--runs_dir=nowhere", "nowhere holds no finished run"), ("figure3", "is not a flag")])
def test_refusals_in_one_line(runs_dir, tmp_path, flag, words):
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path}", flag)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert flag != "--runs_dir=nowhere" or not list(tmp_path.iterdir())


def test_published_results_without_runs_are_refused_in_one_line(tmp_path):
    (tmp_path / "results" / "runs").mkdir(parents=True)
    done = export(f"--from={tmp_path / 'results'}")
    assert done.returncode == 1 and "holds no finished run" in done.stderr and "Traceback" not in done.stderr
    done = export(f"--from={tmp_path / 'results'}", "--claims")
    assert done.returncode == 1 and "claims must not be given with --from, where it changes nothing" in done.stderr


@pytest.mark.slow
def test_a_damaged_published_run_keeps_no_other_figure_from_being_made(tmp_path):
    configs = experiments.experiment("convergence", "smoke").configs
    found = [fabricate_run(tmp_path / "runs", config) for config in configs]
    gone = fabricate_run(tmp_path / "runs", configs[0].replace(seed=9), status="diverged")
    done = export(f"--runs_dir={tmp_path / 'runs'}", f"--publish={tmp_path / 'results'}")
    assert done.returncode == 0, done.stderr
    assert f"left out: {gone.path.name}: it diverged" in done.stdout
    figures = {path.name for path in (tmp_path / "results" / "figures").iterdir()}
    assert "convergence.png" in figures and len(figures) > 4
    (tmp_path / "results" / "README.md").write_text("<!-- table: convergence -->\n<!-- end -->\n")
    (tmp_path / "results" / "runs" / found[0].path.name / "history.csv").write_text("cut")
    shutil.rmtree(tmp_path / "results" / "figures")
    done = export(f"--from={tmp_path / 'results'}")
    assert done.returncode == 1 and "convergence is not drawn: " in done.stderr and "Traceback" not in done.stderr
    assert "README.md has its earlier tables: " in done.stderr
    assert f"note: {found[0].path.name}: history.csv must have" in done.stdout
    left = {path.name for path in (tmp_path / "results" / "figures").iterdir()}
    assert left == {name for name in figures if not name.startswith("convergence")}
    assert (tmp_path / "results" / "claims.csv").is_file()


@pytest.mark.parametrize("mode, ignored", [
    ("--experiment=figure3", "--facet=num_layers"), ("--claims", "--checkpoint=best"), ("--page", "--rate_axis=log"),
    ("--publish={folder}", "--experiment=figure3"), ("--page", "--claims")])
def test_a_flag_that_would_change_nothing_is_refused(runs_dir, tmp_path, mode, ignored):
    done = export(f"--runs_dir={runs_dir}", mode.format(folder=tmp_path / "results"), ignored)
    name, way = (flag.removeprefix("--").partition("=")[0] for flag in (ignored, mode))
    assert done.returncode == 1 and f"{name} must not be given with --{way}, where it changes nothing" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(runs_dir, tmp_path):
    (tmp_path / "file").write_text("")
    done = export(f"--runs_dir={runs_dir}", f"--out_dir={tmp_path / 'file'}")
    assert done.returncode == 1 and "file" in done.stderr and "Traceback" not in done.stderr


def test_help_is_quick_and_nothing_loads_tensorflow(runs_dir, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    shown = subprocess.run([sys.executable, "-m", "vae_rd.export", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "--facet" in shown.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2  # 0.4 s on a quiet machine
    code = ("import sys; from vae_rd import export; export.flags.FLAGS(['export', '--runs_dir', sys.argv[1], "
            "'--out_dir', sys.argv[2]]); export.main(['export']); sys.exit('tensorflow' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, str(runs_dir), str(tmp_path)], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
