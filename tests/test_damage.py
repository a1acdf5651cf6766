"""Files of a run that are cut, flipped, emptied, deleted, replaced by a folder or by another run's: none is silent.

Each is refused in words that name the file, noted beside numbers that are still right, or healed to the same bits; and
the remedies that are printed are followed here, to the end.
"""

import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest

from tests.fabricate import fabricate_run
from tests.outcomes import differences, outcome
from vae_rd import model
from vae_rd.analysis import tables
from vae_rd.config import Config, ConfigError
from vae_rd.measures import finished_run
from vae_rd.storage import checkpoints, files, runs
from vae_rd.training import loop, preparation, signals, train_and_measure

OWN = Config(split="cd_300", image_size=8, hidden_units=16, latent_dim=4, batch_size=32, train_steps=40, eval_every=20,
             beta=0.1)
OTHER = OWN.replace(beta=1.0, seed=3)
WANTED = [train_and_measure.Wanted("last", "information"), train_and_measure.Wanted("last", "neighbours")]
REFUSED = (files.FileError, ConfigError)
pytestmark = pytest.mark.usefixtures("kept_columns")


def train(folder, data_dir, *configs, wanted=()):
    """The training command."""
    train_and_measure.train_and_measure(list(configs), runs_dir=folder, data_dir=data_dir, jit=False, progress=False,
                             wanted=dict.fromkeys(configs, wanted))


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A folder with two runs that were trained together and measured."""
    folder = tmp_path_factory.mktemp("finished")
    train(folder, data_dir, OWN, OTHER, wanted=WANTED)
    return folder


@pytest.fixture(scope="module")
def unfinished(data_dir, tmp_path_factory):
    """A folder with the same two runs, stopped after 30 steps."""
    folder = tmp_path_factory.mktemp("unfinished")
    go_on = loop.Training._train_chunk

    def stop(self, bar):
        self.steps_per_call = 10
        go_on(self, bar)
        self.request.number = signal.SIGTERM if self.step == 30 else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "_train_chunk", stop)
        with pytest.raises(signals.Interrupted):
            train(folder, data_dir, OWN, OTHER)
    return folder


def copied(folder, tmp_path):
    """Own and other run in a copy of the folder."""
    shutil.copytree(folder, tmp_path / "runs")
    return [runs.run_dir(tmp_path / "runs", config) for config in (OWN, OTHER)]


def best(run):
    path, = run.checkpoints.glob("best-*.npz")
    return path


FILES = {"config.json": lambda run: run.config, "history.csv": lambda run: run.history,
         "last.npz": lambda run: run.last_checkpoint, "best-": best}
ENDED = {"results.json": lambda run: run.results, "measures.json": lambda run: run.measures,
         "manifest.json": lambda run: run.manifest_file, "model.keras": lambda run: run.model,
         "per_example_train.npz": lambda run: run.per_example("train"),
         "per_example_test.npz": lambda run: run.per_example("test"),
         "per_example_train_best.npz": lambda run: run.per_example("train", "best"),
         "per_example_test_best.npz": lambda run: run.per_example("test", "best"),
         "reconstruction.npz": lambda run: run.arrays("reconstruction")}


def flip(path):
    """Another digit where there is one, so that JSON and CSV stay what they are; else another byte."""
    content = bytearray(path.read_bytes())
    digits = [place for place in range(len(content) // 2, len(content)) if content[place] in b"12345678"]
    place = digits[0] if path.suffix in (".json", ".csv") else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)


def to_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {"cut": lambda path, foreign: path.write_bytes(path.read_bytes()[:-7]),
          "flip": lambda path, foreign: flip(path),
          "empty": lambda path, foreign: path.write_bytes(b""),
          "delete": lambda path, foreign: path.unlink(),
          "directory": lambda path, foreign: to_folder(path),
          "foreign": lambda path, foreign: shutil.copy(foreign, path)}


def words(errors: list, read, *arguments):
    """Calls, and keeps the words of a refusal."""
    try:
        return read(*arguments)
    except REFUSED as error:
        errors.append(str(error))


def read_all(run):
    """All that export, figures and evaluate read of a finished run, and their words against it."""
    table, errors = tables.collect(run.path.parent), []
    errors += tables.left_out(table) + tables.remarks(table)
    for partition in ("train", "test"):
        for checkpoint in runs.CHECKPOINT_NAMES:
            words(errors, run.read_arrays, run.per_example(partition, checkpoint))
    words(errors, run.read_history)
    words(errors, run.read_arrays, run.arrays("reconstruction"))
    words(errors, run.check_model)
    words(errors, lambda: checkpoints.load_best(run, run.read_results()["best"]["step"]))
    words(errors, checkpoints.copy, run, runs.RunDir(run.path.parent.parent / "continued"))
    return table, errors


def test_nothing_is_said_of_a_whole_run(finished, tmp_path):
    table, errors = read_all(copied(finished, tmp_path)[0])
    assert errors == [] and len(table) == 16 and (table["note"] == "").all()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [*FILES, *ENDED])
def test_a_damaged_file_of_a_finished_run_is_named_and_gives_no_number(finished, tmp_path, name, damage):
    run, other = copied(finished, tmp_path)
    whole = tables.collect(run.path.parent)
    path, foreign = ((FILES | ENDED)[name](one) for one in (run, other))
    DAMAGE[damage](path, foreign)
    if name == "results.json" and damage == "delete":  # that is a run to be ended again
        assert "unfinished" in "".join(tables.left_out(tables.collect(run.path.parent)))
        return
    table, errors = read_all(run)
    assert any(name in error for error in errors), errors
    rows = tables.finished(table)
    for row in rows.to_dict("records"):
        before, = whole[(whole["run"] == row["run"]) & (whole["partition"] == row["partition"])
                        & (whole["checkpoint"] == row["checkpoint"])].to_dict("records")
        same = {column for column in before if before[column] == row[column] or before[column] != before[column]}
        if row["run"] == other.path.name or name != "measures.json":
            assert set(before) - same <= {"note"}
        else:  # deleted: its columns are empty, and the note says why
            assert all(np.isnan(row[column]) for column in set(before) - same - {"note"}) and name in row["note"]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_an_unfinished_run_is_refused_or_healed(unfinished, tmp_path, name, damage):
    run, other = copied(unfinished, tmp_path)
    whole = preparation.prepare(OWN, run, retry=False)
    config = run.config.read_bytes()
    path, foreign = (FILES[name](one) for one in (run, other))
    DAMAGE[damage](path, foreign)
    errors = []
    member = words(errors, preparation.prepare, OWN, run, False)
    if (name, damage) == ("last.npz", "delete"):
        assert member.progress == checkpoints.START and member.state is None and member.history == []
    elif name == "history.csv" and damage != "directory" or (name, damage) == ("config.json", "delete"):
        assert (member.progress, member.history) == (whole.progress, whole.history)
        assert member.state.keys() == whole.state.keys()
        assert all(np.array_equal(member.state[weight], whole.state[weight]) for weight in whole.state)
        assert run.config.read_bytes() == config
    else:
        assert name in errors[0] and ("remove" in errors[0] or "move it" in errors[0].lower())


def test_checkpoints_of_earlier_versions_are_read_and_their_history_is_not_lost_silently(unfinished, tmp_path):
    run, other = copied(unfinished, tmp_path)
    for one in (run, other):
        arrays = files.read_arrays(one.last_checkpoint)
        files.write_arrays(one.last_checkpoint, {name: value for name, value in arrays.items() if "bound." not in name})
    resumed = checkpoints.resume(run, OWN.train_steps)
    assert resumed.progress.step == 30 and {row["step"] for row in resumed.history} == {0, 20}
    run.history.unlink()
    with pytest.raises(runs.RunError, match="history.csv is missing, or not that of last.npz.*remove the folder"):
        checkpoints.resume(run, OWN.train_steps)


def test_runs_that_ended_before_there_were_manifests_are_read_and_named(tmp_path):
    for seed in range(7):
        run = fabricate_run(tmp_path, OWN.replace(seed=seed))
        unsealed(run)
    table = tables.collect(tmp_path)
    assert len(tables.finished(table)) == 56 and len(tables.remarks(table)) == 1
    assert "7 of 7 finished runs are unsealed" in tables.remarks(table)[0]
    foreign = fabricate_run(tmp_path / "else", OTHER)
    shutil.copy(foreign.config, run.config)  # no manifest, but the folder's name
    line, = tables.left_out(tables.collect(tmp_path))
    assert "config.json must be the Config of this run" in line


def unsealed(run):
    """Takes away what earlier versions did not write."""
    run.manifest_file.unlink()
    content = json.loads(run.results.read_text())
    files.write_json(run.results, {name: value for name, value in content.items() if name != "run"})


WRONG = {
    "results": ["{}", '{"status": "finished"}', '{"status": 3}', '{"train": 5}', "[" * 1000 + "]" * 1000, "NaN",
                lambda text: text.replace('"distortion": ', '"distortion": "far", "was": ', 1),
                lambda text: text.replace('"train": {', '"train": 5, "was": {', 1)],
    "measures": ['{"last": []}', '{"last": {"information": 5}}', '{"last": {"information": {"train": {"mi": "high"}}}}',
                 '{"last": {"information": {"settings": 3}}}', "[" * 100_000],
    "config": ["{}", "[1]", "[" * 100_000, '{"beta": []}']}


def test_wrong_json_stops_no_other_run_and_is_named(tmp_path):
    cases = [(kind, wrong) for kind, all_wrong in WRONG.items() for wrong in all_wrong]
    for seed, (kind, wrong) in enumerate(cases, 1):
        run = fabricate_run(tmp_path, OWN.replace(seed=seed), measures={"last": {}})
        unsealed(run)
        path = getattr(run, kind)
        path.write_text(wrong(path.read_text()) if callable(wrong) else wrong)
    good = fabricate_run(tmp_path, OWN)
    table = tables.collect(tmp_path)
    assert set(tables.finished(table)["run"]) == {good.path.name}
    lines = tables.left_out(table)
    for seed, (kind, _) in enumerate(cases, 1):
        line, = [line for line in lines if OWN.replace(seed=seed).run_name in line]
        assert f"{kind}.json" in line


def test_a_name_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    run = fabricate_run(tmp_path, OWN)
    for name in ("=cmd()", "+1", "-1", "@x", "<script>"):
        shutil.copytree(run.path, tmp_path / name)
    text = tables.csv_text(tables.collect(tmp_path))
    starts = {line.partition(",")[0] for line in text.splitlines()}
    assert {"'=cmd()", "'+1", "'-1", "'@x", "'<script>", run.path.name} <= starts
    assert not starts & {"=cmd()", "+1", "-1", "@x", "<script>"}


# Models


def test_a_foreign_model_is_not_run_and_said_to_be_none_of_ours(finished, tmp_path, monkeypatch):
    import keras
    touched = tmp_path / "touched"
    monkeypatch.setenv("TOUCHED", str(touched))
    layers = [keras.Input((2,)), keras.layers.Lambda(lambda codes: (os.system("touch $TOUCHED"), codes)[1])]
    keras.Sequential(layers).save(tmp_path / "evil.keras")
    assert touched.exists()  # by the layer, when the model was built
    touched.unlink()
    with pytest.raises(files.FileError, match="must hold a model of vae_rd .got 'Sequential'.. None of its"):
        model.load(tmp_path / "evil.keras")
    assert not touched.exists()
    with pytest.raises(files.FileError, match="must be the model of this run, with .*beta=0.1.*got .*beta=1.0"):
        model.load(runs.run_dir(finished, OTHER).model, OWN)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_model_is_said_to_be_damaged(finished, tmp_path, damage):
    run, other = copied(finished, tmp_path)
    DAMAGE[damage](run.model, other.model)
    with pytest.raises(files.FileError, match="model.keras is damaged .*: remove results.json and run the same"):
        model.load(run.model)


# The remedies, followed


def measured(run):
    """measures.json without the seconds that each took."""
    return {checkpoint: {name: {part: value for part, value in entry.items() if part != "seconds"}
                         for name, entry in block.items()} for checkpoint, block in run.read_measures().items()}


def test_a_run_that_is_ended_again_keeps_its_measures(finished, tmp_path, data_dir):
    run, _ = copied(finished, tmp_path)
    before, measures = outcome(run), run.measures.read_bytes()
    run.model.write_bytes(b"")
    with pytest.raises(files.FileError, match="model.keras does not match manifest.json: .*another run.*remove "
                                              "results.json and run the same training command"):
        finished_run.open_run(run.path, data_dir)
    run.results.unlink()
    train(run.path.parent, data_dir, OWN)
    assert differences(outcome(run), before) == [] and run.measures.read_bytes() == measures
    assert read_all(run)[1] == []


@pytest.mark.slow
def test_what_cannot_be_kept_is_measured_again(finished, tmp_path, data_dir):
    """The history, the manifest, and values per image with the measures' columns are lost; one remedy mends all."""
    run, other = copied(finished, tmp_path)
    before, measures = outcome(run), measured(run)
    for path, damage in ((run.history, "flip"), (run.manifest_file, "empty"), (run.per_example("test"), "flip"),
                         (run.per_example("train", "best"), "foreign")):
        DAMAGE[damage](path, other.path / path.name)
    assert all("remove results.json and run the same training command" in error for error in read_all(run)[1])
    run.results.unlink()
    train(run.path.parent, data_dir, OWN)
    assert run.read_measures() == {}, "their columns are gone"
    train(run.path.parent, data_dir, OWN, wanted=WANTED)
    assert differences(outcome(run), before) == [] and measured(run) == measures
    assert read_all(run)[1] == []


@pytest.mark.slow
def test_a_run_without_its_checkpoints_starts_from_nothing(finished, tmp_path, data_dir):
    run, _ = copied(finished, tmp_path)
    before = outcome(run)
    DAMAGE["empty"](run.last_checkpoint, None)
    DAMAGE["directory"](best(run), None)
    run.results.unlink()
    with pytest.raises(files.FileError, match="last.npz cannot be read.*remove the folder checkpoints, and resul"):
        train(run.path.parent, data_dir, OWN)
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(runs.run_dir(run.path.parent, OTHER).path)  # trained anew with its column, else alone
    train(run.path.parent, data_dir, OWN, OTHER)
    assert differences(outcome(run), before) == []


def test_a_run_whose_config_is_gone_gets_it_back(finished, tmp_path, data_dir):
    run, other = copied(finished, tmp_path)
    before = outcome(run), run.config.read_bytes()
    shutil.copy(other.config, run.config)
    line, = tables.left_out(tables.collect(run.path.parent))
    assert "config.json" in line and "move it and results.json away, and run the same training command" in line
    run.config.unlink()
    line, = tables.left_out(tables.collect(run.path.parent))
    assert "has no config.json, though the run has ended" in line and "remove results.json" in line
    run.results.unlink()
    train(run.path.parent, data_dir, OWN)
    assert differences(outcome(run), before[0]) == [] and run.config.read_bytes() == before[1]


@pytest.mark.slow
def test_killed_anywhere_in_its_ending_a_run_ends_the_same(finished, tmp_path, data_dir, monkeypatch):
    """After the first values per image, after the model, and between manifest and results."""
    run, _ = copied(finished, tmp_path)
    before, measures = outcome(run), run.measures.read_bytes()
    run.results.unlink()
    replace, renamed = pathlib.Path.replace, []

    def kill(self, target):
        if pathlib.Path(target) == victim:
            raise KeyboardInterrupt
        renamed.append(pathlib.Path(target).name)
        return replace(self, target)
    for victim in (run.per_example("test"), run.manifest_file, run.results):  # noqa: B007 - `kill` reads it
        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, "replace", kill)
            with pytest.raises(KeyboardInterrupt):
                train(run.path.parent, data_dir, OWN)
        assert run.status() == "unfinished"
    assert {"per_example_train.npz", "model.keras", "manifest.json"} <= set(renamed)
    train(run.path.parent, data_dir, OWN)
    assert differences(outcome(run), before) == [] and run.measures.read_bytes() == measures
    assert read_all(run)[1] == []
