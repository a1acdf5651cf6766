"""The command that measures finished runs: flags, refusals, messages; one bad run stops no other."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from tests import commands
from tests.trained_runs import trained  # noqa: F401  a fixture
from vae_rd import measures
from vae_rd.config import Config, ConfigError
from vae_rd.storage import ending, runs


def _copy(run, path):
    return runs.RunDir(pathlib.Path(shutil.copytree(run.path, path)))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the MLP's run."""
    return _copy(trained[0], tmp_path / "good")


@pytest.fixture(scope="module")
def evaluate():
    """The module; its flags stand until it is loaded anew."""
    with commands.imported("vae_rd.evaluate") as module:
        yield module


def _evaluate(tmp_path, *flags):
    return commands.start("vae_rd.evaluate", [*flags, "--noprogress"], tmp_path / "output.txt").wait()


def test_a_quick_measure_that_a_module_adds_is_made_unless_others_are_named(evaluate, monkeypatch):
    known = evaluate.quick_measures()
    monkeypatch.setitem(measures.MEASURES, "mine", measures.MEASURES["information"])
    assert evaluate.quick_measures() == [*known, "mine"] and "information" in known and "annealed" not in known


@pytest.mark.slow
def test_the_command_measures_what_it_can_and_names_the_rest(run, data_dir, tmp_path):
    bad = {name: _copy(run, tmp_path / name.replace(" ", "_"))
           for name in ("unfinished", "without model", "other data", "busy")}
    bad["unfinished"].results.unlink()
    bad["without model"].model.unlink()
    other = bad["other data"].read_results()
    bad["other data"].results.unlink()
    ending.end(bad["other data"], other | {"content_sha256": {"train": "0" * 64, "test": "0" * 64}})
    paths = ",".join(str(one.path) for one in (*bad.values(), run)) + f",{tmp_path / 'nowhere'}"
    with runs.locked(bad["busy"]):
        command = _evaluate(tmp_path, f"--run={paths}", f"--data_dir={data_dir}", "--measures=neighbours")
    assert command.status == 1 and "Traceback" not in command.text, command.text
    for words in ("unfinished must be a finished run (it is unfinished)", "without_model has no final model",
                  "other_data was trained on (its", "busy is in use by host", "nowhere must be a run directory",
                  f"{run.path}: measured"):
        assert words in command.text
    assert list(run.read_measures()["last"]) == ["neighbours"]
    assert not any(one.measures.exists() for one in bad.values())
    assert (data_dir / "tetrominoes-size8" / "cd_300" / "neighbours.npz").is_file(), "kept with the data"


def become_nobody():
    """Takes the rights of root from this process, after what its program imports is loaded."""
    import vae_rd.cli
    import vae_rd.measures.record  # noqa: F401
    os.setgid(65534)
    os.setuid(65534)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_run_of_another_user_is_refused_for_the_permission_and_not_called_damaged(run, data_dir, tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are closed to others
        theirs = pathlib.Path(folder)
        there = _copy(run, theirs / "run")
        shutil.copytree(data_dir, theirs / "data")
        for path in (theirs, *theirs.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
        command = commands.start("vae_rd.evaluate", [f"--run={there.path}", f"--data_dir={theirs / 'data'}",
                                                     "--measures=neighbours", "--noprogress"],
                                 tmp_path / "output.txt", become_nobody).wait()
        assert command.status == 1 and "Traceback" not in command.text, command.text
        assert f"{there.lock} cannot be written (Permission denied)" in command.text
        assert "Copy it to a place of your own" in command.text and "damaged" not in command.text
        assert before == {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_user_without_utf_8_measures_a_run_whose_path_needs_it(run, data_dir, tmp_path):
    path = run.path.rename(tmp_path / "gemessen für später")
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-m", "vae_rd.evaluate", f"--run={path}", f"--data_dir={data_dir}",
                           "--measures=information", "--noprogress"], capture_output=True, env=os.environ | plain)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(f"{path}: measured") in done.stdout
    assert "information" in runs.RunDir(path).read_measures()["last"]
    assert [file for file in runs.RunDir(path).event_files() if file.name.endswith(".measures")]


@pytest.mark.parametrize("flags, words", [
    (["--run=x", "--measures=mi"], "measures must be among information"),
    ([], "no run is named"),
    (["--run=x", "extra"], "'extra' is not a flag"),
    (["--run=x", "--measures=log_marginal", "--num_samples=0"], "num_samples must be 1 or more (got 0)"),
    (["--run=x", "--checkpoint=first"], "checkpoint must be one of last, best")])
def test_bad_flags_are_refused_with_a_message(tmp_path, flags, words):
    command = _evaluate(tmp_path, *flags)
    assert command.status == 1 and words in command.text and "Traceback" not in command.text


def test_a_path_may_hold_commas(evaluate, tmp_path):
    """Where a directory of that very name exists; --run may be given again and again."""
    (tmp_path / "a,b").mkdir()
    assert evaluate.separate([f"{tmp_path}/a,b", "runs/c,runs/d", "runs/c"]) == [f"{tmp_path}/a,b", "runs/c", "runs/d"]
    assert evaluate.separate(["x,", ""]) == ["x"]
    many = [f"runs/{number:0200}" for number in range(40)]  # longer than a path may be
    assert evaluate.separate([",".join(many)]) == many
    command = _evaluate(tmp_path, f"--run={tmp_path}/a,b", f"--run={tmp_path}/c,{tmp_path}/d")
    assert command.status == 1
    for name in ("a,b", "c", "d"):
        assert f"error: {tmp_path}/{name} must be a run directory" in command.text


def test_runs_whose_data_are_missing_are_named_each(evaluate, tmp_path):
    """Their error names the data set, which several share."""
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.mkdir()
        runs.RunDir(path).config.write_text(Config(split="cd_7").to_json())
    failures = evaluate.measure_runs(map(str, paths), ["information"], {}, data_dir=tmp_path / "nowhere")
    assert [str(path) in failure for path, failure in zip(paths, failures, strict=True)] == [True, True]
    assert all("nowhere" in failure for failure in failures)


def test_a_run_that_the_file_system_does_not_give_keeps_no_other_from_being_measured(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.RunDir, "read_config", lambda run: (_ for _ in ()).throw(OSError("stale")))
    failures = evaluate.measure_runs(["one", "two"], ["information"], {}, data_dir=tmp_path)
    assert failures == ["error: one: stale", "error: two: stale"]


def test_each_measure_gets_the_settings_that_it_has(evaluate):
    settings = evaluate.settings_by_measure({"num_samples": 7, "query_images": None, "ais_steps": 20})
    assert settings["log_marginal"] == {"num_samples": 7, "query_images": None}
    assert settings["annealed"] == {"num_samples": 7, "query_images": None, "ais_steps": 20}
    assert settings["neighbours"] == {} and set(settings) == set(measures.MEASURES)
    assert measures.MEASURES["annealed"].settings_with(settings["annealed"]).query_images == 16


def test_a_setting_that_no_chosen_measure_has_is_refused(evaluate):
    words = "settings must be among ais_chains, .*with the measures annealed, neighbours .got posterior_samples"
    with pytest.raises(ConfigError, match=words):
        evaluate.settings_by_measure({"num_samples": 7, "posterior_samples": 3}, ["annealed", "neighbours"])


def test_flags_follow_from_the_measures(evaluate):
    """One for each setting by name; its text says the default where all agree."""
    from absl import flags
    fields = {field.name: field for one in measures.MEASURES.values() for field in dataclasses.fields(one.settings)}
    assert set(evaluate._SETTINGS) == set(fields)
    for name, field in fields.items():
        default = "each measure's own number" if name == "query_images" else repr(field.default)
        assert flags.FLAGS[name].default is None and f"(default: {default})" in flags.FLAGS[name].help
        assert field.metadata["text"] in flags.FLAGS[name].help


@pytest.mark.slow
def test_the_command_takes_settings_and_all(run, data_dir, tmp_path):
    command = _evaluate(tmp_path, f"--run={run.path}", f"--data_dir={data_dir}", "--measures=all", "--query_images=6",
                        "--num_samples=30", "--ais_steps=16", "--ais_chains=2", "--checkpoint=best")
    assert command.status == 0, command.text
    assert run.read_measures()["best"]["annealed"]["settings"] | {"step": 0} == {
        "step": 0, "query_images": 6, "num_samples": 30, "widen": 1.0, "ais_chains": 2, "ais_steps": 16, "version": 2}


def test_help_names_every_measure_and_loads_no_framework():
    code = ("import sys, runpy\nsys.argv = ['evaluate', '--help']\n"
            "try: runpy.run_module('vae_rd.evaluate', run_name='__main__')\n"
            "except SystemExit: pass\nassert not {'tensorflow', 'keras', 'matplotlib', 'scipy'} & set(sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert found.returncode == 0, found.stderr
    assert all(f"{name}:" in found.stdout for name in measures.MEASURES)
