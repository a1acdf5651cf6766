"""Published results: small files only, whole, and the same tables as from the runs themselves."""

import pandas as pd

from tests.fabricate import fabricate_run
from vae_rd.analysis import tables
from vae_rd.config import Config
from vae_rd.storage import published, runs


def test_tables_from_published_files_equal_those_from_the_runs(tmp_path):
    for beta in (0.1, 1.0):
        fabricate_run(tmp_path / "runs", Config(beta=beta), measures={"last": {}})
    unfinished = fabricate_run(tmp_path / "runs", Config(beta=2.0), status=runs.UNFINISHED)
    copied = published.publish(tmp_path / "runs", tmp_path / "results")
    assert sorted(copied) == sorted(Config(beta=beta).run_name for beta in (0.1, 1.0))
    original = tables.collect(tmp_path / "runs")
    original = original[original["run"] != unfinished.path.name].reset_index(drop=True)
    again = tables.collect(tmp_path / "results" / "runs")
    pd.testing.assert_frame_equal(again.drop(columns="note"), original.drop(columns="note"))
    assert set(again["note"]) == {""}, "published runs are sealed, whatever they were before"


def test_only_small_files_travel_and_only_changed_runs_again(tmp_path):
    run = fabricate_run(tmp_path / "runs", Config())
    run.model.write_bytes(b"large")
    published.publish(tmp_path / "runs", tmp_path / "results")
    copy = tmp_path / "results" / "runs" / run.path.name
    small = {"config.json", "history.csv", "results.json", "measures.json", "manifest.json"}
    assert {path.name for path in copy.iterdir()} <= small
    assert published.publish(tmp_path / "runs", tmp_path / "results") == []
    run.measures.write_text('{"last": {}}\n')
    assert published.publish(tmp_path / "runs", tmp_path / "results") == [run.path.name]
    assert (copy / "measures.json").read_text() == '{"last": {}}\n'
    assert not list(copy.parent.glob(".published-*"))
