"""The Python interface on tiny data: train, open, measure, table, drawings; and its refusals, by their words."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import matplotlib.axes
import numpy as np
import pandas as pd
import pytest

import vae_rd
from data_gen import generate
from vae_rd.analysis import tables
from vae_rd.config import Config, ConfigError
from vae_rd.measures import MEASURES
from vae_rd.storage import runs

BETAS = (0.1, 1.0)
CONFIGS = [Config(split="cd_300", image_size=8, hidden_units=16, batch_size=32, train_steps=40, beta=beta)
           for beta in BETAS]


@pytest.fixture(scope="module")
def opened(data_dir, tmp_path_factory):
    """Two trained runs, as `train` returned them; `information` is measured."""
    folder = tmp_path_factory.mktemp("api") / "runs"
    found = vae_rd.train(CONFIGS, data_dir=data_dir, runs_dir=folder, progress=False)
    for run in found:
        vae_rd.measure(run, ["information"], query_images=50, progress=False)
    return found


@pytest.fixture
def table(opened):
    return vae_rd.load_runs(opened[0].run.path.parent)


def test_import_is_light_and_lists_what_it_offers():
    script = ("import sys, vae_rd; heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules);"
              "assert not heavy, heavy; print(*dir(vae_rd))")
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(vae_rd.__all__) <= set(printed) and len(set(printed)) == len(printed)
    with pytest.raises(AttributeError, match="no attribute 'plot'; it offers Config, train, open_run"):
        _ = vae_rd.plot
    assert all(getattr(vae_rd, name).__doc__ for name in vae_rd.__all__)


@pytest.mark.slow
def test_train_returns_finished_runs_in_order_whose_repr_is_short(opened):
    assert [run.config for run in opened] == CONFIGS
    for run in opened:
        lines = repr(run).splitlines()
        assert len(lines) == 4 and len(repr(run)) < 400
        assert run.config.run_name in lines[0] and "step 40" in lines[1] and "300 images" in lines[3]


def test_finished_runs_are_not_trained_again(opened, data_dir, monkeypatch):
    from vae_rd.training import train_and_measure

    def refuse(*arguments, **settings):
        raise AssertionError("trained again")
    monkeypatch.setattr(train_and_measure, "train_and_measure", refuse)
    again = vae_rd.train(CONFIGS[::-1], data_dir=data_dir, runs_dir=opened[0].run.path.parent, progress=False)
    assert [run.config.beta for run in again] == [1.0, 0.1]
    with pytest.raises(AssertionError, match="trained again"):
        vae_rd.train(CONFIGS[0].replace(seed=1), data_dir=data_dir, runs_dir=opened[0].run.path.parent, progress=False)


def test_columns_are_the_same_whatever_has_finished(opened, data_dir, monkeypatch):
    """Two of five have finished; the others train as they would have in a first call: beside those of their column."""
    from vae_rd.sweeps import columns
    from vae_rd.training import train_and_measure
    monkeypatch.setattr(columns, "SEQUENTIAL_MEMBERS", 3)
    monkeypatch.setattr(generate, "ensure", lambda *arguments, **options: None)
    trained = []
    monkeypatch.setattr(train_and_measure, "train_and_measure", lambda column, **settings: trained.append(column))
    others = [CONFIGS[0].replace(beta=beta) for beta in (2.0, 3.0, 4.0)]
    with pytest.raises(runs.RunError):  # nothing was trained, so nothing can be opened
        vae_rd.train([*CONFIGS, *others], data_dir=data_dir, runs_dir=opened[0].run.path.parent, progress=False)
    assert trained == [others[:1], others[1:]]


@pytest.mark.slow
def test_missing_data_are_made(tmp_path):
    config = Config(split="cd_40", image_size=8, hidden_units=4, batch_size=8, train_steps=2)
    run, = vae_rd.train(config, data_dir=tmp_path / "data", runs_dir=tmp_path / "runs", progress=False)
    assert (config.data.path(tmp_path / "data") / "info.json").is_file()
    assert run.run.path == tmp_path / "runs" / config.run_name and len(run.partition("train").index) == 40


@pytest.mark.slow
def test_a_diverged_run_is_named(opened, data_dir, tmp_path):
    config = CONFIGS[0].replace(learning_rate=1e30)
    with pytest.raises(runs.RunError, match=f"{config.run_name} diverged. Try a lower learning rate"):
        vae_rd.train(config, data_dir=data_dir, runs_dir=tmp_path, progress=False)
    first = runs.run_dir(tmp_path, config).results.stat().st_mtime_ns
    for retry in (False, True):
        with pytest.raises(runs.RunError, match="retry=True repeats"):
            vae_rd.train(config, data_dir=data_dir, runs_dir=tmp_path, retry=retry, progress=False)
        assert (runs.run_dir(tmp_path, config).results.stat().st_mtime_ns > first) == retry


def test_measure_returns_what_is_recorded(opened, data_dir, monkeypatch):
    run = opened[0]
    recorded = run.run.read_measures()["last"]["information"]
    monkeypatch.setitem(MEASURES, "information", dataclasses.replace(MEASURES["information"], function=None))
    found = vae_rd.measure(run.run.path, "information", data_dir=data_dir, query_images=50, progress=False)
    assert found == {"information": recorded} and recorded["settings"]["query_images"] == 50
    parts = recorded["train"]
    rate = run.per_example("train")["rate"][run.rows("train", 50)].mean()
    assert parts["mutual_information"] + parts["marginal_kl"] == pytest.approx(rate, abs=0.3)  # another noise sample


def test_the_table_is_that_of_the_files(opened, table):
    assert list(table.columns[:3]) == ["run", "status", "note"]
    assert set(tables.CONFIG_COLUMNS) <= set(table.columns) and "mutual_information" in table
    last = table[table["checkpoint"] == "last"].set_index(["beta", "partition"])
    for run in opened:
        for partition in run.partitions:
            row, values = last.loc[(run.config.beta, partition)], run.per_example(partition)
            assert row["num_images"] == len(values["rate"]) == 300
            for name in ("rate", "distortion"):
                assert row[name] == pytest.approx(values[name].mean(), rel=1e-6)
            assert row["elbo"] == pytest.approx(-row["rate"] - row["distortion"])
            assert row["objective"] == pytest.approx(row["distortion"] + run.config.beta * row["rate"])


def _drawn(axes, count):
    """The points of every curve with so many of them."""
    return [np.asarray(line.get_xydata(), float) for line in axes.lines if len(line.get_xdata()) == count]


def _rows(table, partition, *columns):
    rows = table[(table["checkpoint"] == "last") & (table["partition"] == partition)].sort_values("beta")
    return rows[list(columns)].to_numpy(float)


def test_plot_rd_draws_the_table(table):
    axes = vae_rd.plot_rd(table)
    assert isinstance(axes, matplotlib.axes.Axes)
    curves = _drawn(axes, 2)
    for partition in ("train", "test"):
        expected = _rows(table, partition, "rate", "distortion")
        assert any(np.allclose(np.sort(curve, 0), np.sort(expected, 0)) for curve in curves), partition


def test_plot_against_beta_draws_the_table_on_the_axes_it_is_given(table):
    from matplotlib.figure import Figure
    axes = Figure().add_subplot()
    assert vae_rd.plot_against_beta(table, "mutual_information", axes, partition="train") is axes
    curve, = _drawn(axes, 2)
    np.testing.assert_allclose(curve, _rows(table, "train", "beta", "mutual_information"))


@pytest.mark.slow
def test_opening_and_training_where_tensorflow_runs_already(data_dir, opened, tmp_path):
    """As in a notebook: it is too late to set threads, and that is no reason to fail."""
    script = f"""
import tensorflow as tf
import vae_rd
tf.zeros([])
run = vae_rd.open_run({str(opened[0].run.path)!r}, {str(data_dir)!r})
run.codes("test")
print(repr(vae_rd.train(run.config.replace(train_steps=5), data_dir={str(data_dir)!r}, runs_dir={str(tmp_path)!r})[0]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0 and "step 5" in ended.stdout, ended.stderr


def test_refusals_in_words(opened, table, tmp_path):
    for wrong in ([{"beta": 1}], ["beta=1"]):
        with pytest.raises(ConfigError, match="configs must be a Config or several"):
            vae_rd.train(wrong, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match="tensorfloat32 for all configs or for none"):
        vae_rd.train([CONFIGS[0], CONFIGS[0].replace(precision="tensorfloat32")], runs_dir=tmp_path)
    with pytest.raises(tables.TableError, match="runs_dir must be a folder of runs"):
        vae_rd.load_runs(tmp_path)
    with pytest.raises(tables.TableError, match="that the runs have of test images .got 'entropy'.*distortion"):
        vae_rd.plot_against_beta(table, "entropy")
    with pytest.raises(tables.TableError, match="hue must be columns among num_train, dataset, .*got layers"):
        vae_rd.plot_rd(table, hue=["layers"])
    two = [table, table.assign(num_layers=3)]
    with pytest.raises(tables.TableError, match=r"hue must name .* .got split, and they differ in num_layers too"):
        vae_rd.plot_rd(pd.concat(two), hue=["split"])
    with pytest.raises(tables.TableError, match="partition validation .*got .*test of last"):
        vae_rd.plot_against_beta(table, "rate", partition="validation")
    with pytest.raises(tables.TableError, match="no finished run"):
        vae_rd.plot_rd(table.assign(status="unfinished"))
    with pytest.raises(runs.RunError, match="measures must be among .*got entropy"):
        vae_rd.measure(opened[0], ["entropy"])
    with pytest.raises(runs.RunError, match="measures must be among .*got entropy"):
        vae_rd.measure(opened[0], ["entropy", "neighbours"], minibatch=64)
    with pytest.raises(ConfigError, match="settings must be among .*with the measures information .got samples"):
        vae_rd.measure(opened[0], ["information"], samples=3)
    with pytest.raises(ConfigError, match="query_images must be a whole number .got '3'.."):
        vae_rd.measure(opened[0], ["information"], query_images="3", overwrite=True)
    assert isinstance(table, pd.DataFrame)


@pytest.mark.slow
def test_snippets_of_the_page_run(data_dir, opened, tmp_path, monkeypatch):
    """Every snippet of docs/python.md but the module, which tests/test_imports.py runs; and its names are all."""
    page = (pathlib.Path(vae_rd.__file__).parents[1] / "docs/python.md").read_text()
    (tmp_path / "data").symlink_to(data_dir)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "my_parts" not in page[:page.index(code)]:
            exec(compile(code, "docs/python.md", "exec"), names)
    assert names["reconstructions"].shape == names["images"].shape == (8, 8, 8, 3)
    assert len(names["test_rows"]) == 2 and (tmp_path / "rd.png").is_file()
    described = set(re.findall(r"^\| `(\w+)\(", page, re.MULTILINE))
    assert described == set(vae_rd.__all__)
    columns = set(re.findall(r"`(\w+)`", page[page.index("| columns |"):page.index("## Your own")]))
    leading = set(tables.RUN_COLUMNS) - set(tables.CONFIG_COLUMNS)
    assert leading <= columns
