"""Published results: small files only, whole, and the same tables as from the runs themselves."""

import pandas as pd
import pytest

from tests.fabricate import fabricate_run
from vae_rd.analysis import tables
from vae_rd.config import Config
from vae_rd.storage import published, runs


def test_tables_from_published_files_equal_those_from_the_runs(tmp_path):
    for beta in (0.1, 1.0):
        fabricate_run(tmp_path / "runs", Config(beta=beta), measures={"last": {}})
    unfinished = fabricate_run(tmp_path / "runs", Config(beta=2.0), status=runs.UNFINISHED)
    copied = published.publish(tmp_path / "runs", tmp_path / "results")
    assert sorted(copied.changed) == sorted(Config(beta=beta).run_name for beta in (0.1, 1.0))
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
    assert published.publish(tmp_path / "runs", tmp_path / "results") == ([], {})
    run.write_measures({"last": {}})
    assert published.publish(tmp_path / "runs", tmp_path / "results") == ([run.path.name], {})
    assert (copy / "measures.json").read_text() == run.measures.read_text()
    assert not list(copy.parent.glob(".published-*"))


def test_only_runs_as_they_ended_are_published(tmp_path):
    """A file that the manifest does not know is not sealed anew; the other runs are published all the same."""
    measures = {"last": {"information": {"train": {"mutual_information": 7.0}}}}
    changed, cut, lost, good = (fabricate_run(tmp_path / "runs", Config(beta=beta), measures=measures)
                                for beta in (1, 2, 3, 4))
    changed.measures.write_text(changed.measures.read_text().replace("7.0", "9.0"))
    cut.history.write_text("".join(cut.history.read_text().splitlines(keepends=True)[:-1]))
    lost.measures.unlink()
    found = published.publish(tmp_path / "runs", tmp_path / "results")
    assert found.changed == [good.path.name]
    for run, words in ((changed, "measures.json does not match"), (cut, "history.csv does not match"),
                       (lost, "measures.json is missing")):
        assert words in found.left_out.pop(run.path.name)
    assert not found.left_out


def test_a_published_measure_is_never_lost(tmp_path):
    """As by publishing the same run from another machine, where it was not measured."""
    entry = {"train": {"mutual_information": 7.0}}
    rich = fabricate_run(tmp_path / "rich", Config(), measures=dict.fromkeys(("last", "best"), {"information": entry}))
    poor = fabricate_run(tmp_path / "poor", Config(), measures={"last": {"mine": entry}})
    published.publish(tmp_path / "rich", tmp_path / "results")
    reason = published.publish(tmp_path / "poor", tmp_path / "results").left_out[poor.path.name]
    assert "would lose them: information (last), information (best). Make them there too" in reason
    assert (tmp_path / "results" / "runs" / rich.path.name / "measures.json").read_bytes() == rich.measures.read_bytes()


def test_runs_are_not_published_to_their_own_folder(tmp_path):
    """Their models and checkpoints would be gone."""
    run = fabricate_run(tmp_path / "results" / "runs", Config())
    (tmp_path / "link").symlink_to(tmp_path / "results" / "runs")
    for folder in (tmp_path / "results" / "runs", tmp_path / "link"):
        with pytest.raises(runs.RunError, match="must be another folder than the published runs.*--from="):
            published.publish(folder, tmp_path / "results")
    assert run.config.is_file()


@pytest.mark.parametrize("name", ["model.keras", "checkpoints"])
def test_a_run_that_was_trained_where_it_would_be_published_is_kept(tmp_path, name):
    run = fabricate_run(tmp_path / "runs", Config())
    published.publish(tmp_path / "runs", tmp_path / "results")
    copy = tmp_path / "results" / "runs" / run.path.name
    (copy / name).mkdir()
    run.write_measures({"last": {}})
    found = published.publish(tmp_path / "runs", tmp_path / "results")
    assert not found.changed and "has a model or checkpoints" in found.left_out[run.path.name]
    assert (copy / name).is_dir()


def test_a_damaged_copy_is_replaced(tmp_path):
    run = fabricate_run(tmp_path / "runs", Config(), measures={"last": {"information": {"train": {"mi": 7.0}}}})
    published.publish(tmp_path / "runs", tmp_path / "results")
    copy = tmp_path / "results" / "runs" / run.path.name / "measures.json"
    copy.write_text("cut")
    assert published.publish(tmp_path / "runs", tmp_path / "results") == ([run.path.name], {})
    assert copy.read_bytes() == run.measures.read_bytes()


def test_a_copy_without_its_manifest_is_replaced(tmp_path):
    run = fabricate_run(tmp_path / "runs", Config())
    published.publish(tmp_path / "runs", tmp_path / "results")
    copy = runs.RunDir(tmp_path / "results" / "runs" / run.path.name)
    for content in ("{}", None):
        copy.manifest_file.write_text(content) if content else copy.manifest_file.unlink()
        assert published.publish(tmp_path / "runs", tmp_path / "results") == ([run.path.name], {})
        assert copy.read_results() is not None


def test_a_run_that_diverged_is_named(tmp_path):
    run = fabricate_run(tmp_path / "runs", Config(), status=runs.DIVERGED)
    assert published.publish(tmp_path / "runs", tmp_path / "results") == ([], {run.path.name: "it diverged"})


def test_runs_can_be_chosen(tmp_path):
    chosen, _ = (fabricate_run(tmp_path / "runs", Config(beta=beta)) for beta in (1, 2))
    found = published.publish(tmp_path / "runs", tmp_path / "results", {chosen.path.name})
    assert found == ([chosen.path.name], {})
