"""The table of runs and the table of curves: every number from its file, means and intervals against SciPy."""

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.fabricate import fabricate_run, metrics
from vae_rd.analysis import tables
from vae_rd.config import Config
from vae_rd.datasets import random_streams
from vae_rd.storage import ending, runs
from vae_rd.storage.runs import METRICS, PARTITIONS

SMALL = Config(split="cd_8k", train_steps=100)


@pytest.fixture
def runs_dir(tmp_path):
    for beta in (0.1, 1.0):
        for seed in range(3):
            fabricate_run(tmp_path, SMALL.replace(beta=beta, seed=seed))
    return tmp_path


def test_one_row_per_run_partition_and_checkpoint(runs_dir):
    table = tables.collect(runs_dir)
    assert len(table) == 6 * len(PARTITIONS) * 2
    assert not table.duplicated(["run", "partition", "checkpoint"]).any()
    row = table[(table.beta == 0.1) & (table.seed == 2) & (table.partition == "test") & (table.checkpoint == "last")]
    expected = metrics(SMALL.replace(beta=0.1, seed=2), "test")
    assert row[list(METRICS)].iloc[0].to_dict() == pytest.approx(expected)
    assert row["step"].item() == 100 and row["run"].item() == SMALL.replace(beta=0.1, seed=2).run_name


def test_versions_are_those_that_the_run_was_trained_with(tmp_path):
    fabricate_run(tmp_path, SMALL)
    without = fabricate_run(tmp_path, SMALL.replace(seed=1))
    ending.end(without, {**json.loads(without.results.read_text()), "versions": {}})
    table = tables.collect(tmp_path).set_index("seed")
    assert set(table.loc[0, "vae_rd_version"]) == {"0.1.9"} and table.loc[1, "vae_rd_version"].isna().all()
    assert "vae_rd_version_mean" not in tables.curves(table.reset_index())


def test_histories_are_of_the_same_images_throughout(tmp_path):
    fabricate_run(tmp_path, SMALL, history=[
        {"step": step, "partition": name, "num_images": count, "rate": 1.0 * step}
        for step, count in ((0, 10), (50, 10), (100, 99)) for name in PARTITIONS])
    fabricate_run(tmp_path, SMALL.replace(seed=1), status="diverged")
    histories = tables.histories(tables.collect(tmp_path), tmp_path)
    assert histories[["partition", "step", "num_images", "rate", "beta"]].values.tolist() == [
        ["train", 50, 10, 50.0, 1.0], ["test", 50, 10, 50.0, 1.0]]


def test_best_has_its_own_step_and_numbers(tmp_path):
    run = fabricate_run(tmp_path, SMALL)
    results = json.loads(run.results.read_text())
    results["best"]["test"]["distortion"] = 1.5
    run.results.unlink()
    ending.end(run, results)
    test = tables.collect(tmp_path).query("partition == 'test'").set_index("checkpoint")
    assert test.loc["best", "distortion"] == 1.5 and test.loc["best", "step"] == 50
    assert test.loc["last", "distortion"] != 1.5 and test.loc["last", "step"] == 100


def test_measures_go_to_their_partition_and_checkpoint(tmp_path):
    fabricate_run(tmp_path, SMALL, measures={"best": {"information": {
        "train": {"mutual_information": 6.5}, "test": {"mutual_information": None},
        "run": {"code_scale": 0.1}, "settings": {"batch": 512}}}})
    rows = tables.collect(tmp_path).set_index(["checkpoint", "partition"])
    assert rows.loc[("best", "train"), "mutual_information"] == 6.5
    assert np.isnan(rows.loc[("best", "test"), "mutual_information"])
    assert np.isnan(rows.loc[("last", "train"), "mutual_information"])
    assert rows.loc[("best", "test"), "code_scale"] == 0.1
    assert "batch" not in rows.columns


def test_measures_of_an_earlier_step_do_not_count(tmp_path):
    for seed, step in ((0, SMALL.train_steps), (1, 7)):
        fabricate_run(tmp_path, SMALL.replace(seed=seed), measures={"last": {"information": {
            "train": {"mutual_information": 6.5, "mutual_information_se": 0.1}, "settings": {"step": step}}}})
    table = tables.collect(tmp_path)
    train = table.query("partition == 'train' and checkpoint == 'last'").set_index("seed")
    assert train.loc[0, "mutual_information"] == 6.5 and np.isnan(train.loc[1, "mutual_information"])
    points = tables.curves(table)
    assert "mutual_information_mean" in points and "mutual_information_se_mean" not in points


def test_runs_without_results_are_named_and_left_out(runs_dir):
    fabricate_run(runs_dir, SMALL.replace(beta=3.0), status="unfinished")
    fabricate_run(runs_dir, SMALL.replace(beta=5.0), status="diverged")
    fabricate_run(runs_dir, SMALL.replace(beta=7.0)).results.write_text('{"status": "fin')
    fabricate_run(runs_dir, SMALL.replace(beta=8.0), status="unfinished").history.write_text("step,partition\nx,y\n")
    table = tables.collect(runs_dir)
    lines = "\n".join(tables.left_out(table))
    assert "beta3-" in lines and "unfinished, evaluated up to step 50 of 100" in lines
    assert "beta5-" in lines and "diverged, rate not finite at step 70" in lines
    assert "beta7-" in lines and "unreadable" in lines
    (runs_dir / "damaged").mkdir()
    (runs_dir / "damaged" / "config.json").write_text("{")  # has no field of Config; those of others stay whole
    with_it = tables.collect(runs_dir)
    assert (with_it["status"] == "unreadable").sum() == (table["status"] == "unreadable").sum() + 1
    assert tables.csv_text(tables.finished(with_it)) == tables.csv_text(tables.finished(table))
    assert "beta8-" in lines and "history.csv" in lines
    assert sorted(tables.curves(table)["beta"].unique()) == [0.1, 1.0]


def test_a_config_of_a_newer_version_is_named_not_fatal(runs_dir):
    run = fabricate_run(runs_dir, SMALL.replace(beta=9.0), status="unfinished")
    run.config.write_text(json.dumps({"new_field": 1}))
    assert "got new_field" in "".join(tables.left_out(tables.collect(runs_dir)))


def test_runs_that_saw_other_images_are_named(runs_dir):
    """Those of the same data set and split only; a run of an earlier version does not say what it saw."""
    earlier = fabricate_run(runs_dir, SMALL.replace(beta=2.0))
    for beta, train in ((3.0, "a"), (4.0, "a"), (5.0, "b")):
        for split in ("cd_8k", "cv_16k"):
            run = fabricate_run(runs_dir, SMALL.replace(beta=beta, split=split))
            content = {"train": train if split == "cd_8k" else "c", "test": "d"}
            ending.end(run, json.loads(run.results.read_text()) | {"content_sha256": content})
    table = tables.collect(runs_dir)
    other = SMALL.replace(beta=5.0).run_name
    assert tables.remarks(table) == [
        f"{other}: trained on other images than 2 of the 3 runs of tetrominoes/cd_8k"]
    assert "content" not in table and earlier.path.name in set(table["run"])


def test_points_of_restarts_by_several_versions_are_counted(tmp_path):
    for seed in (0, 1):
        run = fabricate_run(tmp_path, SMALL.replace(seed=seed))
        ending.end(run, json.loads(run.results.read_text()) | {"versions": {"vae_rd": f"0.{seed}.0"}})
    fabricate_run(tmp_path, SMALL.replace(beta=5.0))
    assert tables.remarks(tables.collect(tmp_path)) == [
        "points that average restarts of different versions of vae_rd: 1 (see vae_rd_version in runs.csv)"]


def test_curve_points_against_scipy(runs_dir):
    table = tables.collect(runs_dir)
    chosen = table.query("partition == 'test' and checkpoint == 'last' and beta == 0.1")["distortion"].to_numpy()
    point = tables.curves(table).query("partition == 'test' and checkpoint == 'last' and beta == 0.1").iloc[0]
    low, high = scipy.stats.t.interval(0.95, 2, chosen.mean(), scipy.stats.sem(chosen))
    assert point["distortion_n"] == 3 and point["num_train"] == 1000
    np.testing.assert_allclose([point[f"distortion_{name}"] for name in ("mean", "std", "low", "high")],
                               [chosen.mean(), chosen.std(ddof=1), low, high], rtol=1e-12)


def test_one_restart_has_no_spread(tmp_path):
    fabricate_run(tmp_path, SMALL)
    point = tables.curves(tables.collect(tmp_path)).iloc[0]
    assert point["rate_n"] == 1 and np.isnan([point["rate_std"], point["rate_low"], point["rate_high"]]).all()


def test_runs_that_differ_in_anything_but_the_seed_are_not_averaged(tmp_path):
    for steps in (100, 200):
        fabricate_run(tmp_path, SMALL.replace(train_steps=steps))
    assert (tables.curves(tables.collect(tmp_path))["rate_n"] == 1).all()


def test_a_measure_that_some_restarts_lack_counts_those_that_have_it(runs_dir):
    fabricate_run(runs_dir, SMALL.replace(beta=1.0, seed=9),
                  measures={"last": {"information": {"train": {"mutual_information": 6.0}}}})
    point = tables.curves(tables.collect(runs_dir)).query("beta == 1 and partition == 'train' and checkpoint == 'last'")
    assert point["mutual_information_n"].item() == 1 and point["rate_n"].item() == 4


def test_where(runs_dir):
    fabricate_run(runs_dir, Config(split="cv_16k", train_steps=100))
    table = tables.collect(runs_dir)
    assert set(tables.where(table, ["split=cd_8192"])["split"]) == {"cd_8k"}
    assert set(tables.where(table, ["split=cd_8k", "split=cv_16k", "beta=1"])["split"]) == {"cd_8k", "cv_16k"}
    assert set(tables.where(table, ["beta=0.1"])["beta"]) == {0.1}


@pytest.mark.parametrize("condition, words", [
    ("split", "must be column=value"), ("spilt=cv_16k", "the columns are run, status"),
    ("split=cv_16k", "no run has split=cv_16k. Try one of cd_8k"), ("beta=small", "must be a number"),
    ("beta=7", "Try one of 0.1, 1.0")])
def test_where_refuses_by_name(runs_dir, condition, words):
    with pytest.raises(tables.TableError, match=words):
        tables.where(tables.collect(runs_dir), [condition])


def test_an_empty_folder_is_an_empty_table(tmp_path):
    table = tables.collect(tmp_path / "nothing")
    assert table.empty and tables.curves(table).empty and tables.left_out(table) == []


def test_csv_keeps_every_number(runs_dir, tmp_path):
    table = tables.collect(runs_dir)
    table.to_csv(tmp_path / "runs.csv", index=False)
    again = pd.read_csv(tmp_path / "runs.csv")
    np.testing.assert_array_equal(again["rate"], table["rate"])
    assert list(again.columns) == list(table.columns)


def test_text_has_a_line_per_beta_and_names_both_partitions(runs_dir):
    fabricate_run(runs_dir, SMALL.replace(beta=5.0))
    points = tables.curves(tables.collect(runs_dir)).query("checkpoint == 'last'")
    header, *lines = tables.as_text(points).splitlines()
    assert len(lines) == 3 and "train distortion" in header and "test rate" in header
    mean = points.query("beta == 1 and partition == 'test'")["distortion_mean"].item()
    assert f"{mean:.2f} \u00b1" in lines[1] and "\u00b1" not in lines[2]


@pytest.mark.parametrize("changes", [{}, {"eval_images": 50}, {"eval_every": 7}])
def test_a_training_counts_once_and_the_other_folder_is_named(runs_dir, changes):
    """A copy of a folder is no further restart, nor is the same training evaluated at other steps or on other images.
    """
    before = tables.curves(tables.collect(runs_dir))
    config = SMALL.replace(beta=1.0, seed=1)
    first = tables.finished_names(tables.collect(runs_dir), [config])[config]
    if changes:
        again = fabricate_run(runs_dir, config.replace(**changes)).path
    else:
        again = runs_dir / f"{first}.copy"
        shutil.copytree(runs_dir / first, again)
    table = tables.collect(runs_dir)
    first, again = sorted((first, again.name))
    assert f"{again}: the same training as {first}, and counted once" in tables.remarks(table)
    after = tables.curves(table)
    assert list(before["rate_n"]) == list(after["rate_n"]) == [3] * len(before)
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.parametrize("measured", [0, 1])
def test_of_two_copies_of_a_training_the_one_with_more_measures_counts(runs_dir, measured):
    before = tables.collect(runs_dir)
    first = tables.finished_names(before, [SMALL.replace(beta=1.0, seed=1)]).popitem()[1]
    shutil.copytree(runs_dir / first, runs_dir / f"{first}.copy")
    name = [first, f"{first}.copy"][measured]
    runs.RunDir(runs_dir / name).write_measures({"last": {"own": {"train": {"my_number": 7.0}}}})
    points = tables.curves(tables.collect(runs_dir))
    points = points.query("beta == 1 and partition == 'train' and checkpoint == 'last'")
    assert points["my_number_mean"].tolist() == [7.0] and points["rate_n"].tolist() == [3]


def test_gaps_are_bootstrapped_over_images(tmp_path):
    run = fabricate_run(tmp_path, SMALL)
    fabricate_run(tmp_path, SMALL.replace(seed=1))  # has no values per image
    random = np.random.default_rng(0)
    for partition, mean in (("train", 60.0), ("test", 63.0)):
        run.write_arrays(run.per_example(partition), {"distortion": mean + random.standard_normal(4000)})
    gaps = tables.gaps(tables.collect(tmp_path), tmp_path)
    assert list(gaps["run"]) == [run.path.name] and list(gaps["checkpoint"]) == ["last"]
    row = gaps.iloc[0]
    half = 1.96 * np.sqrt(2 / 4000)
    assert row["gap"] == pytest.approx(3, abs=0.1)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.15)


def test_the_gap_of_early_stopped_weights_is_on_the_half_that_did_not_select_them(tmp_path):
    run, index = fabricate_run(tmp_path, SMALL), np.arange(4000)
    selecting = random_streams.select_half(index)
    run.write_arrays(run.per_example("train", "best"), {"distortion": np.full(4000, 60.0)})
    run.write_arrays(run.per_example("test", "best"), {"distortion": np.where(selecting, 60.0, 63.0), "index": index})
    gap, = tables.gaps(tables.collect(tmp_path), tmp_path).itertuples(index=False)
    assert (gap.checkpoint, gap.gap, gap.low, gap.high) == ("best", 3, 3, 3)


@pytest.mark.parametrize("known, error", [({}, 0.125), ({"mean_squared_error": 0.5}, np.nan),
                                          ({"mean_squared_error": 0.5, "mean_squared_error_se": 0.25}, 0.25)])
def test_an_error_belongs_to_the_mean_beside_it(tmp_path, known, error):
    """A measure may have seen fewer images than the run's own mean is over."""
    measured = {"mean_squared_error": 0.75, "mean_squared_error_se": 0.125}
    fabricate_run(tmp_path, SMALL, measures={"last": {"distortion": {"test": measured}}}, **known)
    row = tables.collect(tmp_path).query("partition == 'test' and checkpoint == 'last'").iloc[0]
    assert row["mean_squared_error"] == (0.5 if known else 0.75)
    np.testing.assert_equal(row.get("mean_squared_error_se", np.nan), error)


@pytest.mark.slow
def test_two_thousand_runs_are_read_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)  # writing them is not what is timed
    for seed in range(2000):
        fabricate_run(tmp_path, SMALL.replace(seed=seed), measures={"last": {"information": {"train": {"mi": 1.0}}}})
    start = time.process_time()
    points = tables.curves(tables.collect(tmp_path))
    assert time.process_time() - start < 20
    assert (points["rate_n"] == 2000).all()
