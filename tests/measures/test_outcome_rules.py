"""Measures of a user's own: an Outcome that cannot be recorded whole is refused in words, and nothing is written."""

import dataclasses
import json
import math

import numpy as np
import pytest

from tests.measures.exact_run import ExactRun, exact_run  # noqa: F401  a fixture
from vae_rd import measures
from vae_rd.analysis import tables
from vae_rd.config import ConfigError
from vae_rd.measures import outcome_rules
from vae_rd.measures.distortion import MEAN_SQUARED_ERROR
from vae_rd.measures.measure import Measure, Outcome, Settings, setting
from vae_rd.storage import files, runs

IMAGES = 400  # in each partition
COLUMN, VALUE = "the name of a column of every run", "the name of a value of every run"


@pytest.fixture
def measured(exact_run, monkeypatch):
    """A function that measures the run by a measure `own`, or of another name, which returns this outcome."""
    def measured(outcome, name="own", **declared):
        made = Measure(name, lambda run, settings: outcome, "a measure of the user's", **declared)
        monkeypatch.setitem(measures.MEASURES, name, made)
        measures.measure_run(ExactRun.of(exact_run), [name], progress=False, overwrite=True)
        return exact_run.read_measures()["last"][name]
    return measured


def contents(run):
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path != run.lock}


@pytest.mark.parametrize("outcome, words", [
    (None, "its function must return an Outcome .got None"),
    ({"test": {"mine": 1.0}}, "its function must return an Outcome .got .'test'"),
    (Outcome({"test": {"mine": np.zeros(3)}}), r"scalar mine of test must be a number .got array.*Try a mean"),
    (Outcome({"test": {"mine": "far"}}), "scalar mine of test must be a number .got 'far'"),
    (Outcome({"test": {"mine": True}}), "scalar mine of test must be a number .got True"),
    (Outcome({"mine": 1.0}), "scalars must be of train or test or run .got 'mine'.. Try scalars="),
    (Outcome({"tset": {"mine": 1.0}}), "scalars must be of train or test or run .got 'tset'"),
    (Outcome({"test": 1.0}), "scalars of test must be a dict .got 1.0"),
    (Outcome(None), "scalars must be a dict .got None"),
    (Outcome({"test": {"rate": 1.0}}), f"scalar rate of test must have a name of its own .got {COLUMN}.. Rename it"),
    (Outcome({"run": {"beta": 1.0}}), f"scalar beta of run .*{COLUMN}"),
    (Outcome(per_example={"test": {"mine": np.zeros(7)}}),
     r"per_example mine of test must be numbers for each of its 400 images .got float64 of shape .7,.*Try run.spread"),
    (Outcome(per_example={"test": {"mine": 1.0}}), r"per_example mine of test must be numbers .*of shape .."),
    (Outcome(per_example={"test": {"mine": ["a"] * IMAGES}}), "per_example mine of test must be numbers"),
    (Outcome(per_example={"run": {"mine": np.zeros(IMAGES)}}), "per_example must be of train or test .got 'run'"),
    (Outcome(per_example={"test": {"distortion": np.zeros(IMAGES)}}),
     f"per_example distortion of test must have a name of its own .got {VALUE}"),
    (Outcome(arrays={"mine": {"texts": np.array([None])}}), "array texts of mine must be of numbers or text"),
    (Outcome(pictures={"mine": 1}), "picture mine must be a Matplotlib figure .got 1"),
    (Outcome({"test": {"q_0.9": 1.0}}), "scalar q_0.9 of test must have as its name a text without a point .*Rename"),
    (Outcome(arrays={"per_example_test": {"index": np.zeros(3)}}), "arrays per_example_test must be named by letters"),
    (Outcome(arrays={"per_example_test": {}}), "arrays per_example_test must be named by letters"),
    (Outcome(arrays=None), "arrays must be a dict .got None"),
    (Outcome({"test": {1: 1.0}}), "scalar 1 of test must have as its name a text"),
    (Outcome(arrays={5: {"index": np.zeros(3)}}), "arrays 5 must be named by letters"),
    (Outcome(arrays={"../mine": {"index": np.zeros(3)}}), "arrays ../mine must be named by letters"),
    (Outcome(pictures={"per_example_test": 1}), "picture per_example_test must be named by letters")])
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(measured, exact_run, outcome, words):
    scalars = {"train": {"fine": 1.0}}
    if isinstance(outcome, Outcome):  # with a part that could be written
        outcome = outcome._replace(per_example={"train": {"fine": np.ones(IMAGES)}, **outcome.per_example},
                                   scalars=scalars if outcome.scalars == {} else outcome.scalars)
    before = contents(exact_run)
    with pytest.raises(runs.RunError, match=f"own cannot be measured of .*: {words}"):
        measured(outcome)
    assert contents(exact_run) == before
    assert measured(Outcome(scalars))["train"] == scalars["train"], "the run is as it was"


def test_every_number_and_nothing_else_is_recorded(measured, exact_run):
    """NumPy's too; what is not finite is not known."""
    found = measured(Outcome({"test": {"whole": np.int64(3), "single": np.float32(0.5), "array": np.array(2.0),
                                       "nan": math.nan, "inf": math.inf, "none": None}, "run": {"mine": 1}},
                             {"test": {"flags": np.ones(IMAGES, bool), "pairs": np.zeros((IMAGES, 2))}}))
    assert found["test"] == {"whole": 3, "single": 0.5, "array": 2.0, "nan": None, "inf": None, "none": None}
    assert {"flags", "pairs"} <= set(files.read_arrays(exact_run.per_example("test")))


def test_an_interrupted_repetition_leaves_no_old_record(measured, exact_run, monkeypatch):
    """It would stand beside values per image of the new settings."""
    measured(Outcome({"test": {"mine": 1.0}}, {name: {"values": np.zeros(IMAGES)} for name in ("train", "test")}))
    original, written = runs.RunDir.write_arrays, []

    def write(self, path, arrays):
        if written:
            raise KeyboardInterrupt
        written.append(original(self, path, arrays))
    monkeypatch.setattr(runs.RunDir, "write_arrays", write)
    with pytest.raises(KeyboardInterrupt):
        measured(Outcome({"test": {"mine": 2.0}}, {name: {"values": np.ones(IMAGES)} for name in ("train", "test")}))
    assert "own" not in exact_run.read_measures()["last"]


def test_no_column_of_the_table_is_a_scalar(exact_run):
    opened = ExactRun.of(exact_run)
    for name in (*tables.RUN_COLUMNS, *exact_run.read_results()["test"]):
        with pytest.raises(ValueError, match=f"scalar {name} of train .*{COLUMN}"):
            outcome_rules.check(Outcome({"train": {name: 1.0}}), "own", opened)


def test_numbers_of_the_results_are_no_scalars(measured, exact_run):
    """Those of this run; `distortion` has the squared error all the same, for runs of earlier versions."""
    block = {**exact_run.read_results()["test"], MEAN_SQUARED_ERROR: 0.1, "likelihood_scale": 0.2}
    files.write_json(exact_run.results, {"status": "finished", "step": 1, "train": block, "test": block})
    for name in (MEAN_SQUARED_ERROR, "likelihood_scale"):
        with pytest.raises(runs.RunError, match=f"scalar {name} of test .*{COLUMN}"):
            measured(Outcome({"test": {name: 1.0}}))
    assert measured(Outcome({"test": {MEAN_SQUARED_ERROR: 0.1}}), "distortion")["test"] == {MEAN_SQUARED_ERROR: 0.1}


def test_two_measures_have_no_scalar_of_one_name(measured, monkeypatch):
    """Neither one that the other declares, nor one that it has recorded; a measure may repeat its own."""
    for name, other in (("mutual_information", "information"), ("memorised", "memorisation")):
        with pytest.raises(runs.RunError, match=f"scalar {name} of test .*the name of a scalar of {other}.. Rename"):
            measured(Outcome({"test": {name: 1.0}}))
    for _ in range(2):
        measured(Outcome({"test": {"mine": 1.0}}), "earlier")
    for outcome in (Outcome({"train": {"mine": 2.0}}), Outcome(per_example={"test": {"mine": np.ones(IMAGES)}})):
        with pytest.raises(runs.RunError, match="mine of .*the name of a scalar of earlier"):
            measured(outcome)
    values = Outcome(per_example={"test": {"distances": np.ones(IMAGES)}}, arrays={"strip": {"values": np.ones(2)}})
    measured(values, "another")
    with pytest.raises(runs.RunError, match="distances of test .*the name of a value per image of another"):
        measured(values._replace(arrays={}))
    with pytest.raises(runs.RunError, match="arrays strip must have .*the name of a file of another"):
        measured(values._replace(per_example={}))
    measured(values, "another")
    monkeypatch.delitem(measures.MEASURES, "earlier")  # it was renamed
    assert measured(Outcome({"train": {"mine": 2.0}}))["train"] == {"mine": 2.0}


def test_values_per_image_that_a_measure_no_longer_returns_are_gone(measured, exact_run):
    for names in (("old", "kept"), ("kept",)):
        found = measured(Outcome(per_example={"test": dict.fromkeys(names, np.ones(IMAGES))}))
    assert found["values"] == ["kept"]
    assert {"kept", "index", "rate"} <= set(there := files.read_arrays(exact_run.per_example("test")))
    assert "old" not in there


def test_outcomes_share_nothing():
    with pytest.raises(TypeError):
        Outcome().scalars["test"] = {"mine": 1.0}


def test_settings_without_the_decorator_are_refused():
    class Mine(Settings):
        power: float = setting(2.0, "power")
    with pytest.raises(ConfigError, match=r"settings of measure own must be a dataclass \(got Mine, where power is no"):
        Measure("own", lambda run, settings: Outcome(), "a measure of the user's", Mine)


@pytest.mark.parametrize("kind, default, words", [
    (float, 2.0, "must be made by setting()"),
    (float, dataclasses.field(), "must be made by setting()"),
    (str, setting("mean", "how"), "must be a whole number (got 'mean')"),
    (bool, setting(True, "whether"), "must be a whole number (got True)"),
    (int, setting(0.5, "share", least=0), "must be a whole number (got 0.5)"),
    (float, setting(0.5, "share"), "must be 1 or more (got 0.5)")])
def test_a_setting_that_could_not_be_a_flag_is_refused_when_the_measure_is_made(kind, default, words):
    settings = dataclasses.make_dataclass("Mine", [("power", kind, default)], bases=(Settings,), frozen=True)
    with pytest.raises(ConfigError) as refused:
        Measure("own", lambda run, settings: Outcome(), "a measure of the user's", settings)
    assert str(refused.value).startswith(f"setting power of measure own {words}. Try `power: float = setting(2.0, ")


def test_numbers_of_numpy_are_settings_and_are_recorded_as_python_s():
    own = Measure("own", lambda run, settings: Outcome(), "a measure", dataclasses.make_dataclass(
        "Mine", [("power", float, setting(0.5, "power", least=0)), ("count", int, setting(2, "count"))],
        bases=(Settings,), frozen=True))
    found = own.record(own.settings_with({"power": np.float32(0.25), "count": np.int64(3)}))
    assert json.dumps(found) == '{"power": 0.25, "count": 3}'


@pytest.mark.parametrize("kind", [float, "float", float | None, "float | None"])
def test_a_setting_that_is_a_fraction(kind):
    settings = dataclasses.make_dataclass("Mine", [("power", kind, setting(0.5, "power", least=0))], bases=(Settings,),
                                          frozen=True)
    own = Measure("own", lambda run, settings: Outcome(), "a measure of the user's", settings)
    assert own.settings_with({"power": 0.25}) == settings(0.25) != own.settings_with({}) == settings(0.5)
