"""The run directory: files whole or not at all, damage named, one process at a time."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from vae_rd.config import Config, ConfigError
from vae_rd.storage import ending, files, runs

HOLDER = """
import os, pathlib, sys, time
from vae_rd.storage import runs
with runs.locked(runs.RunDir(pathlib.Path(sys.argv[1]))):
    print("locked", flush=True)
    time.sleep(60)
"""
ROW = {"step": 10, "partition": "train", "num_images": 300, "rate": 1 / 3, "distortion": 1e-17, "elbo": -2.5e10,
       "objective": 0.1 + 0.2, "active_units": 7, "entropy_floor": 49.0, "wall_seconds": 1.5}
BLOCK = {"num_images": 300, "rate": 6.0, "distortion": 60.0, "elbo": -66.0, "objective": 66.0}
RESULTS = {"status": "finished", "step": 10, "train": BLOCK, "test": BLOCK}


@pytest.fixture
def run(tmp_path):
    """An unfinished run directory."""
    made = runs.run_dir(tmp_path, Config())
    files.write_text(made.config, Config().to_json())
    return made


def test_the_directory_is_named_by_the_config(tmp_path):
    assert runs.run_dir(tmp_path, Config(beta=0.5)).path == tmp_path / Config(beta=0.5).run_name


def test_a_run_under_its_earlier_name_stays_where_it_is(tmp_path):
    config = Config(prior="mixture", latent_dim=5)
    old = runs.RunDir(tmp_path / config.earlier_run_name)
    files.write_text(old.config, config.to_json())
    assert runs.run_dir(tmp_path, config) == old and old.read_config() == config
    ending.end(old, RESULTS)
    assert runs.run_dir(tmp_path, config).status() == "finished"
    (tmp_path / config.run_name).mkdir()
    assert runs.run_dir(tmp_path, config).path.name == config.run_name  # of two, today's


def test_no_two_files_have_one_name():
    run = runs.RunDir(pathlib.Path("run"))
    paths = [run.config, run.history, run.results, run.model, run.measures, run.checkpoints, run.last_checkpoint,
             run.failure, run.lock, run.best_weights(1), run.best_weights(12), run.picture("strip"),
             *(run.per_example(partition, checkpoint)
               for partition in ("train", "test") for checkpoint in ("last", "best"))]
    assert len(set(paths)) == len(paths)


def test_the_status_follows_the_files(run, tmp_path):
    assert runs.run_dir(tmp_path, Config(beta=2.0)).status() == "missing"
    assert run.status() == "unfinished"
    ending.end(run, {"status": "diverged", "step": 3, "diverged": {"step": 4, "quantity": "rate"}})
    assert run.status() == "diverged"
    run.results.unlink()
    assert run.status() == "unfinished"
    ending.end(run, RESULTS)
    assert run.status() == "finished"


def test_runs_are_found_by_their_config(run, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    assert runs.find_runs(tmp_path) == [run]
    assert runs.find_runs(tmp_path / "none") == []


def test_a_folder_that_cannot_be_searched_may_be_a_run(tmp_path, monkeypatch):
    """It is named as unreadable; passed over, a run would be missing from tables without a word."""
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(pathlib.Path, "lstat", lambda path: (_ for _ in ()).throw(PermissionError("not yours")))
    assert [found.path.name for found in runs.find_runs(tmp_path)] == ["closed"]


def test_a_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(runs.RunError, match="must be a run directory .it has no config.json.. Try a folder"):
        runs.RunDir(tmp_path).read_config()


@pytest.mark.parametrize("text", ["", '{"beta": 1.0', "[1]", '{"beta": "high"}', '{"depth": 3}', "\xff\x00"])
def test_a_damaged_config_is_named(run, text):
    run.config.write_text(text)
    with pytest.raises((runs.RunError, ConfigError), match="config.json"):
        run.read_config()


@pytest.mark.parametrize("file, read", [("results", "read_results"), ("measures", "read_measures")])
@pytest.mark.parametrize("text", ["", '{"status": ', "\xff\x00", "[]"])
def test_damaged_json_is_named(run, file, read, text):
    getattr(run, file).write_text(text)
    with pytest.raises(runs.RunError, match=f"{file}.json"):
        getattr(run, read)()


@pytest.mark.parametrize("text", ["step,partition\n1,train\n", "", "step,partition,num_images,rate\n\xff\x00,,,\n"])
def test_a_damaged_history_is_named(run, text):
    run.write_history([ROW])
    run.history.write_text(text)
    with pytest.raises(runs.RunError, match="history.csv"):
        run.read_history()


def test_the_history_is_the_same_text_after_reading_and_writing(run):
    rows = [ROW, ROW | {"step": 20, "partition": "test", "rate": 5e-324, "active_units": 0, "wall_seconds": 0.0}]
    run.write_history(rows)
    text = run.history.read_text()
    assert run.read_history() == rows
    run.write_history(run.read_history())
    assert run.history.read_text() == text
    assert text.splitlines()[0] == ("step,partition,num_images,rate,distortion,elbo,objective,active_units,"
                                    "entropy_floor,wall_seconds")


def test_json_has_no_nan_and_plain_numbers(run):
    files.write_json(run.failure, {"a": float("nan"), "b": [np.float32(0.5), np.inf], "c": np.arange(2),
                                   3: np.int64(4)})
    assert json.loads(run.failure.read_text()) == {"a": None, "b": [0.5, None], "c": [0, 1], "3": 4}


def test_a_failed_write_leaves_the_old_file_alone(run):
    files.write_text(run.failure, "old")
    with pytest.raises(ZeroDivisionError), files.whole_file(run.failure) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert run.failure.read_text() == "old"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "failure.log"]


def test_what_a_killed_process_left_half_written_is_removed(run):
    run.checkpoints.mkdir()
    for path in (run.last_checkpoint, run.model, run.best_weights(3)):
        with pytest.raises(ZeroDivisionError), files.whole_file(path) as beside:
            os.link(beside, kept := beside.with_name(beside.name + "x"))
            raise ZeroDivisionError
        kept.rename(beside)
    theirs = [".env.settings.local", ".git.backup12.d", ".notes"]
    for name in theirs:
        (run.path / name).write_text("mine")
    assert len(list(run.path.rglob(".*"))) == 6
    with runs.locked(run):
        assert sorted(path.name for path in run.path.rglob(".*")) == theirs
    assert run.config.is_file()


def test_folders_that_a_killed_process_left_are_removed(run):
    folder = pathlib.Path(tempfile.mkdtemp(dir=run.path, prefix=files.UNFINISHED))
    (folder / "events.out.tfevents.1.host.measures").write_text("half")
    (run.path / ".events").mkdir()
    with runs.locked(run):
        assert [path.name for path in run.path.rglob(".*")] == [".events"]


def test_files_can_be_read_by_others(run):
    mask = os.umask(0o027)
    try:
        files.write_text(run.failure, "words")
    finally:
        os.umask(mask)
    assert run.failure.stat().st_mode & 0o777 == 0o640


def test_arrays_come_back_and_objects_are_refused(run):
    arrays = {"weights": np.arange(6.0).reshape(2, 3), "progress.step": np.asarray(3), "names": np.array(["a", "bc"])}
    files.write_arrays(run.last_checkpoint, arrays)
    back = files.read_arrays(run.last_checkpoint)
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[name], arrays[name]) and back[name].dtype == arrays[name].dtype for name in arrays)
    with pytest.raises(ValueError):
        files.write_arrays(run.last_checkpoint, {"objects": np.array([{}], object)})
    assert list(files.read_arrays(run.last_checkpoint)) == list(arrays)


def test_a_pickle_is_not_loaded(run):
    np.savez(run.path / "evil.npz", objects=np.array([{}], object))
    with pytest.raises(files.FileError, match="evil.npz cannot be read.*damaged, or was not written by vae_rd"):
        files.read_arrays(run.path / "evil.npz")
    with pytest.raises(files.FileError, match="evil.npz cannot be read.*not written by vae_rd: leave it alone.$"):
        files.read_arrays(run.path / "evil.npz", "leave it alone")


def test_no_damaged_byte_goes_unnoticed_or_ends_in_another_error(run):
    """Every byte of a small checkpoint turned over, and every length: arrays come back right, or RunError names it.

    A damaged table of contents can hide an array (zip protects contents only): who reads checks the names.
    """
    arrays = {"weights": np.arange(6.0), "names": np.array(["a"])}
    path = run.path / "small.npz"
    files.write_arrays(path, arrays)
    whole = path.read_bytes()
    damaged = [whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:] for place in range(len(whole))]
    noticed = 0
    for content in [*damaged, *(whole[:length] for length in range(0, len(whole), 7))]:
        path.write_bytes(content)
        try:
            back = files.read_arrays(path)
            assert all(np.array_equal(value, arrays[name]) for name, value in back.items())
        except files.FileError as error:
            noticed += "small.npz" in str(error)
    assert noticed > len(whole) / 3


def test_a_second_process_is_refused_until_the_first_is_gone(run):
    with subprocess.Popen([sys.executable, "-c", HOLDER, run.path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(runs.RunError) as caught, runs.locked(run):
            pass
        assert f"is in use by host {os.uname().nodename}, process {holder.pid}" in str(caught.value)
        assert "wait for that one, or stop it" in str(caught.value)
        holder.send_signal(signal.SIGKILL)
    with runs.locked(run):  # nothing stale stays after kill -9
        assert str(os.getpid()) in run.lock.read_text()


def test_a_lock_that_is_a_link_or_a_folder_is_refused(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    run.lock.symlink_to(tmp_path / "mine.txt")
    with pytest.raises(runs.RunError, match="lock must be a file .it is a symbolic link.. Remove it"), runs.locked(run):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
    run.lock.unlink()
    run.lock.mkdir()
    with pytest.raises(runs.RunError, match="lock must be a file .it is a folder.. Remove it"), runs.locked(run):
        pass


def test_a_file_system_without_locks_is_named_with_what_to_do(run, monkeypatch):
    def no_locks(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    words = "lock cannot be locked .No locks available.*another file system, or mount"
    with pytest.raises(runs.RunError, match=words), runs.locked(run):
        pass


def test_without_permission_the_words_are_of_permission(run, monkeypatch):
    def denied(path, flags, mode):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr(os, "open", denied)
    words = "cannot be written .Permission denied.*Copy it to a place of your"
    with pytest.raises(runs.RunError, match=words), runs.locked(run):
        pass


def test_pictures_go_with_the_measures_that_a_new_end_forgets(run):
    """Trained again with other values: what measures left beside theirs is of the model before."""
    values = {"index": np.arange(3), "distortion": np.ones(3)}

    def ended(distortion):
        ending.write_values(run, "test", "last", values | {"distortion": distortion * np.ones(3)})
        ending.end(run, RESULTS)
    ended(1.0)
    run.write_measures({"last": {}})
    run.write_arrays(run.arrays("gallery"), {"values": np.ones(2)})
    run.picture("samples").write_bytes(b"picture")
    ended(1.0)
    kept = run.arrays("gallery"), run.picture("samples"), run.measures
    assert all(path.is_file() for path in kept)
    ended(2.0)
    assert not any(path.exists() for path in kept)


def test_writing_between_two_seals_is_never_contradicted(run, monkeypatch):
    """Killed before or after the file gets its name, before or after the manifest forgets the old one."""
    ending.end(run, RESULTS)
    run.write_measures({"last": {}})
    one, two = ({"last": {"neighbours": {"seconds": seconds, "settings": {}}}} for seconds in (1.0, 2.0))
    run.write_measures(one)
    replace, done = pathlib.Path.replace, []

    def killed(self, target):
        if len(done) == moment:
            raise KeyboardInterrupt
        done.append(replace(self, target))
    monkeypatch.setattr(pathlib.Path, "replace", killed)
    for moment, expected in ((0, one), (1, one), (2, two)):  # noqa: B007 - `killed` reads the moment
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            run.write_measures(two)
        assert run.read_measures() == expected
    monkeypatch.undo()
    run.write_measures(two)
    assert len(json.loads(run.manifest_file.read_text())["files"]["measures.json"]) == 1
