"""The sweep command, end to end at the smoke scale: parts, failures, status, retry, figures."""

import contextlib
import errno
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from tests import commands
from tests.fabricate import fabricate_run
from vae_rd.config import ConfigError
from vae_rd.storage import ending, runs
from vae_rd.sweeps import reports, running, states
from vae_rd.sweeps.cost import cost, duration
from vae_rd.sweeps.experiments import experiment
from vae_rd.sweeps.sweep import Sweep

CONFIGS = experiment("early_stopping", "smoke").configs


def sweep(folder, *flags, module="sweep"):
    """Runs the command on `folder`; returns the finished process."""
    command = [sys.executable, "-m", f"vae_rd.{module}", "--experiment=early_stopping", "--scale=smoke",
               f"--runs_dir={folder / 'runs'}", *flags]
    if module == "sweep":
        command.append(f"--data_dir={folder / 'data'}")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in two parts, in which one run cannot be trained: its directory holds another run's Config."""
    folder = tmp_path_factory.mktemp("sweep")
    broken = runs.run_dir(folder / "runs", CONFIGS[1])
    broken.path.mkdir(parents=True)
    broken.config.write_text(CONFIGS[0].to_json())
    first = sweep(folder, "--task=0", "--num_tasks=2", "--workers=2")
    second = sweep(folder, "--task=1", "--num_tasks=2")
    return folder, first, second


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others(swept):
    folder, first, second = swept
    assert (first.returncode, second.returncode) == (1, 0), first.stdout + first.stderr + second.stdout + second.stderr
    states = [runs.run_dir(folder / "runs", config).status() for config in CONFIGS]
    assert states == [runs.UNFINISHED if number == 1 else runs.FINISHED for number in range(len(CONFIGS))]
    assert "1 failed" in first.stdout and "must be the Config of this run" in first.stdout
    assert "failure.log" in first.stdout and "logs/" in first.stdout
    assert "runs in" in first.stdout and "GB on disk" in first.stdout  # what it costs, before it starts


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_retry_takes_the_failed_one(swept, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(swept[0] / "runs", folder / "runs")
    (folder / "data").symlink_to(swept[0] / "data")
    before = {config: runs.run_dir(folder / "runs", config).results.stat().st_mtime_ns for config in CONFIGS
              if config != CONFIGS[1]}
    again = sweep(folder)
    assert again.returncode == 1 and "nothing is left to do" in again.stdout and "1 failed" in again.stdout
    runs.run_dir(folder / "runs", CONFIGS[1]).config.write_text(CONFIGS[1].to_json())
    retried = sweep(folder, "--retry")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert all(runs.run_dir(folder / "runs", config).status() == runs.FINISHED for config in CONFIGS)
    assert before == {config: runs.run_dir(folder / "runs", config).results.stat().st_mtime_ns for config in before}
    drawn = sweep(folder, f"--out_dir={folder / 'figures'}", module="export")
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert list((folder / "figures").glob("*.png")) and list((folder / "figures").glob("*.pdf"))


@pytest.mark.slow
def test_status_counts_what_is_there(swept):
    told = sweep(swept[0], "--status").stdout
    assert f"{len(CONFIGS)} runs: 1 failed, {len(CONFIGS) - 1} finished" in told
    assert CONFIGS[1].run_name in told


@pytest.fixture
def failing(monkeypatch):
    """failing(error): the sizes of the columns that are trained from then on, each of which fails with the error."""
    from vae_rd.training import train_and_measure

    def begin(error):
        sizes = []

        def train(configs, **options):
            sizes.append(len(configs))
            raise error
        monkeypatch.setattr(train_and_measure, "train_and_measure", train)
        return sizes
    return begin


def test_members_of_a_column_that_fails_go_on_one_by_one_and_say_why(tmp_path, failing, capfd):
    sweep, sizes = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path), failing(MemoryError("no room"))
    assert not running._finish(sweep, CONFIGS[:3], False)
    assert sizes == [3, 1, 1, 1]
    assert capfd.readouterr().err.count("MemoryError: no room") == 4
    state = sweep.state(CONFIGS[0])  # though it has nothing but this failure
    assert state.status == states.FAILED and state.trouble.startswith("MemoryError: no room (see ")
    assert CONFIGS[0] not in sweep.pending({CONFIGS[0]: state})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_members_fault(tmp_path, failing, number):
    """Nor are its runs marked as failed: the same command continues once there is room."""
    sweep, sizes = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path), failing(OSError(number, "full"))
    with pytest.raises(OSError, match="full"):
        running._finish(sweep, CONFIGS[:3], False)
    assert sizes == [3] and sweep.pending(sweep.states(CONFIGS[:3])) == list(CONFIGS[:3])


@pytest.fixture(params=["the folder", "results.json", "failure.log"])
def stale(request, monkeypatch):
    """stale(config): a context within which the file system does not answer for a run, as one over a network may."""
    fails = {"the folder": (runs, "run_dir"), "results.json": (runs.RunDir, "read_results"),
             "failure.log": (pathlib.Path, "read_text")}[request.param]

    @contextlib.contextmanager
    def within(config):
        real = getattr(*fails)

        def call(*arguments, **options):
            if config == arguments[-1] or config.run_name in str(getattr(arguments[0], "path", arguments[0])):
                raise OSError(errno.ESTALE, "stale")
            return real(*arguments, **options)
        with monkeypatch.context() as patch:
            patch.setattr(*fails, call)
            yield
    return within


def test_a_bar_that_cannot_read_a_run_goes_on(tmp_path, stale):
    """An error there would stop all workers."""
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path)
    fabricate_run(tmp_path, CONFIGS[0], status="unfinished")
    with running._Bar(sweep, sweep.states(CONFIGS[:2])) as bar:
        fabricate_run(tmp_path, CONFIGS[1], status="unfinished")
        with stale(CONFIGS[0]):
            bar.update()
        assert [(state.status, state.share) for state in bar._states.values()] == [(runs.UNFINISHED, 0.5)] * 2


def test_a_run_that_cannot_be_read_is_named_and_tried_by_a_worker(tmp_path, stale, monkeypatch, capsys):
    """Left out without a word, it would be missing at the end of a job that ended with 0."""
    from vae_rd.training import devices, train_and_measure
    trained = []
    monkeypatch.setattr(devices, "configure", lambda precision: None)  # which comes before TensorFlow's first use
    monkeypatch.setattr(train_and_measure, "train_and_measure", lambda configs, **options: trained.append(configs))
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path)
    with stale(CONFIGS[0]):
        found = sweep.states(CONFIGS[:2])
        assert sweep.pending(found) == list(CONFIGS[:2])
        assert any(line.startswith(f"  {CONFIGS[0].run_name}: unreadable, [Errno ") for line in reports.status(sweep))
        assert running.run_column(sweep, 0) == 1
        assert CONFIGS[0] not in trained[0] and len(trained[0]) == len(sweep.columns[0]) - 1
        assert "unreadable" in capsys.readouterr().out
        assert running._end(sweep, {}, None, set()) == 1
    assert running.run_column(sweep, 0) == 0 and CONFIGS[0] in trained[1]


@pytest.mark.parametrize("statuses, received, status, words", [
    ({0: 0, 1: 1}, None, 1, "column 1 ended with status 1"),
    ({0: 1, 1: -9}, None, 137, "column 1 was killed by signal 9"),  # to be tried again, whatever failed beside it
    ({0: 0, 1: 85}, None, 85, "a worker was stopped by a signal; the same command continues"),
    ({0: 1, 1: 85}, signal.SIGTERM, 85, "stopped by a signal; the same command continues"),
    ({0: 130}, signal.SIGINT, 130, "stopped by a signal"),
    ({0: 0, 1: 0}, None, 0, "other processes work on the runs that remain")])
def test_the_exit_status_says_whether_to_come_back(tmp_path, capsys, statuses, received, status, words):
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path, column_size=1)
    assert running._end(sweep, statuses, received, set()) == status
    assert words in capsys.readouterr().out


def test_members_are_retried_once_where_their_column_fails(tmp_path, monkeypatch):
    """They go on one by one: one that diverged in this call is not retried in it, one that did before is, as asked."""
    from vae_rd.training import train_and_measure
    told = []

    def fail(configs, **settings):
        told.append((*configs, settings["retry"]))
        if len(configs) > 1:
            shutil.rmtree(again.path)
            for config in CONFIGS[1:3]:
                fabricate_run(tmp_path, config, status="diverged")
            raise MemoryError("no room")
    monkeypatch.setattr(train_and_measure, "train_and_measure", fail)
    fabricate_run(tmp_path, CONFIGS[0], status="diverged")
    again = fabricate_run(tmp_path, CONFIGS[2], status="diverged")
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path, retry=True)
    assert running._finish(sweep, CONFIGS[:3], sweep.retry)
    assert told == [(*CONFIGS[:3], True), (CONFIGS[0], True), (CONFIGS[1], False), (CONFIGS[2], False)]


def test_an_error_of_the_file_system_is_not_kept_against_a_run(tmp_path, failing):
    """It may pass: the same command tries the run again."""
    sweep, sizes = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path), failing(OSError(errno.ESTALE, "stale"))
    assert not running._finish(sweep, CONFIGS[:2], False)
    assert sizes == [2, 1, 1] and sweep.pending(sweep.states(CONFIGS[:2])) == list(CONFIGS[:2])


def test_a_log_that_cannot_be_read_hides_nothing_at_the_end(tmp_path, monkeypatch, capsys):
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path, column_size=1)
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path, **options: (_ for _ in ()).throw(OSError("stale")))
    assert running._end(sweep, {0: -9}, None, set()) == 137
    assert "column 0 was killed by signal 9: stale" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_stops_no_other_member(tmp_path, failing, monkeypatch):
    from vae_rd.training import train_and_measure
    sweep, sizes = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path), failing(MemoryError("no room"))
    monkeypatch.setattr(train_and_measure, "record_failure",
                        lambda run, error: (_ for _ in ()).throw(PermissionError("not yours")))
    assert not running._finish(sweep, CONFIGS[:3], False)
    assert sizes == [3, 1, 1, 1]


def test_a_finished_run_whose_measure_failed_is_named_and_left_to_retry(tmp_path):
    config = experiment("figure8", "smoke").configs[0]
    run = fabricate_run(tmp_path / "runs", config)
    told = sweep(tmp_path, "--experiment=figure8", "--status").stdout
    assert "1 finished" in told and "1 finished runs are still to be measured" in told
    run.failure.write_text("Traceback\nMemoryError: no room")
    told = sweep(tmp_path, "--experiment=figure8", "--status").stdout
    assert "1 failed" in told and f"{config.run_name}: failed, MemoryError: no room" in told


def test_a_measure_of_another_version_is_one_still_to_be_made(tmp_path):
    """As `evaluate` sees it; so a sweep trains nothing of such a run, and measures it again."""
    sweep = Sweep(["log_likelihood"], scale="smoke", runs_dir=tmp_path)
    config = sweep.configs[0]
    run = fabricate_run(tmp_path, config)
    for name, version, left in (("annealed", {}, [config]), ("annealed", {"version": 2}, []),
                                ("log_marginal", {"version": 2}, [config]), ("log_marginal", {}, [])):
        made = {"annealed": {"settings": {"version": 2}}, "log_marginal": {"settings": {}}, "gallery": {"settings": {}}}
        run.write_measures({"last": made | {name: {"settings": version}}})
        assert sweep.pending(sweep.states([config])) == left, (name, version)
    made["annealed"]["settings"] = {"step": config.train_steps}
    run.write_measures({"last": made})
    assert "1 finished runs are still to be measured" in list(reports.status(sweep))[2]


@pytest.mark.slow
def test_a_run_holds_at_most_twenty_files(swept):
    run = runs.run_dir(swept[0] / "runs", CONFIGS[0])
    assert 10 <= len([path for path in run.path.rglob("*") if path.is_file()]) <= 20


@pytest.mark.slow
def test_two_thousand_runs_are_counted_and_exported_in_seconds(tmp_path):
    import time
    configs = experiment("figure4", "paper").configs
    assert len(configs) > 2000
    for config in configs:
        fabricate_run(tmp_path / "runs", config)
    python = [sys.executable, "-m"]
    for module, flags, limit in (("sweep", ["--experiment=figure4", "--scale=paper", "--status"], 5),
                                 ("export", [f"--out_dir={tmp_path / 'figures'}"], 20)):
        begun = time.monotonic()
        done = subprocess.run([*python, f"vae_rd.{module}", f"--runs_dir={tmp_path / 'runs'}", *flags],
                              capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        assert seconds < 3 * limit  # a shared machine may be slow; BUILD_NOTES.md has measurements
        if module == "sweep":
            assert "2040 finished" in done.stdout


def test_wrong_requests_are_refused_in_words(tmp_path):
    for flags, words in ((["--task=2", "--num_tasks=2"], "task must be from 0 to num_tasks - 1 = 1 (got 2)"),
                         (["--column_size=many"], "column_size must be a whole number, 1 or more, or auto (got"),
                         (["--experiment=figure99"],
                          "experiment must be one of these (got 'figure99'): figure1")):
        refused = commands.run("vae_rd.sweep", "--experiment=early_stopping", "--scale=smoke",
                               f"--runs_dir={tmp_path / 'runs'}", *flags)
        assert refused.returncode == 1 and words in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_listing_needs_neither_data_nor_tensorflow(tmp_path):
    listed = sweep(tmp_path, "--list")
    assert listed.returncode == 0
    assert [line.split()[1] for line in listed.stdout.splitlines()[:len(CONFIGS)]] == [c.run_name for c in CONFIGS]
    program = ("import sys; sys.argv = ['sweep', '--experiment=figure3', '--scale=paper', '--list']\n"
               "import runpy\ntry: runpy.run_module('vae_rd.sweep', run_name='__main__')\nexcept SystemExit: pass\n"
               "print('tensorflow' in sys.modules, 'keras' in sys.modules)")
    heavy = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert heavy.stdout.splitlines()[-1] == "False False"
    assert "240 runs" in heavy.stdout


def test_the_config_of_every_listed_run_is_its_own(tmp_path):
    assert len({json.dumps(config.non_default, sort_keys=True) for config in CONFIGS}) == len(CONFIGS)


def test_a_run_gets_the_measures_of_its_own_experiments_only():
    sweep = Sweep(["early_stopping", "figure8", "log_likelihood"], scale="smoke")
    gallery = ("last", "gallery")
    large = [("last", "log_marginal"), ("last", "annealed"), gallery]
    small = [gallery, ("best", "gallery"), ("last", "information"), *large[:2]]
    assert [(config.split, pairs) for config, pairs in sweep.wanted.items()] == (
        6 * [("cv_500", small)] + 6 * [("cv_4000", large)])


def test_the_time_left_follows_the_pace_of_the_runs_so_far(tmp_path):
    """Three of six runs of one column took 3 x 60 s; three more will take as long, whatever was expected."""
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path, measure=False)
    assert "less than a minute on 2 cores are left" in list(reports.status(sweep))[1]
    for config in CONFIGS[:3]:
        fabricate_run(tmp_path, config)
    hours = [cost([config]).hours for config in CONFIGS]
    seconds = 180 / sum(hours[:3]) * sum(hours[3:])
    assert (f"about {seconds / 60:.0f} minutes are left for one worker, at the pace of the 3 runs so far"
            in list(reports.status(sweep))[1])
    for config in CONFIGS[3:]:
        fabricate_run(tmp_path, config)
    assert list(reports.status(sweep)) == ["6 runs: 6 finished", "100.0% of the training is done"]


def test_a_run_in_training_counts_by_its_steps_and_its_share_of_the_column(tmp_path):
    config = CONFIGS[0]
    run = fabricate_run(tmp_path, config, status="unfinished")  # history up to half of the steps, in 0.01 s each
    state = states.read_state(run, config, members=4)
    assert (state.status, state.share, state.to_train) == ("unfinished", 0.5, 0.5)
    assert state.seconds == pytest.approx(0.01 * 0.5 * config.train_steps / 4)
    ratio, told = states.pace({config: state})
    assert told == 1 and ratio == pytest.approx(state.seconds / (0.5 * 3600 * cost([config]).hours))
    assert states.pace({config: states.State("missing")}) == (1.0, 0)
    other = config.replace(seed=99)  # in training, where its column may be larger than is known
    ended = state._replace(status="finished")
    assert states.pace({config: ended, other: states.State("unfinished", 0.5, 1e6)}) == (ratio, 1)


def test_members_of_a_column_share_its_seconds(tmp_path):
    run = fabricate_run(tmp_path, CONFIGS[0])
    results = json.loads(run.results.read_text())
    ending.end(run, results | {"column": [config.run_name for config in CONFIGS[:3]]})
    assert states.read_state(run, CONFIGS[0]).seconds == results["wall_seconds"] / 3


def test_a_damaged_run_is_a_failed_one_and_named(tmp_path):
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path)
    fabricate_run(tmp_path, CONFIGS[0]).results.write_text("{")
    lines = list(reports.status(sweep))
    assert lines[0] == f"{len(CONFIGS)} runs: 1 failed, {len(CONFIGS) - 1} missing"
    assert f"{CONFIGS[0].run_name}: failed" in lines[-1] and "results.json" in lines[-1]


def test_a_sweep_is_run_from_python_as_by_its_flags(tmp_path, monkeypatch):
    """Without the workers: what they would be told, and that nothing is done where data cannot be had."""
    sweep = Sweep(["early_stopping"], scale="smoke", runs_dir=tmp_path / "runs", data_dir=tmp_path / "data", workers=2,
                  column_size=2, retry=True, progress=False)
    assert [len(column) for column in sweep.columns] == [2, 1, 2, 1]
    assert {"--experiment=early_stopping", "--scale=smoke", "--column_size=2", "--workers=2", "--retry=True",
            "--progress=False", "--column=3"} <= set(sweep.command(3))
    made = []
    monkeypatch.setattr(running.generate, "generate", lambda folder, spec, **options: made.append((folder, spec)))
    monkeypatch.setattr(running.workers.Pool, "run", lambda pool: {0: 0, 1: -9, 2: 0, 3: 0})
    assert running.run(sweep) == 128 + 9
    assert made == [(tmp_path / "data", CONFIGS[0].data)]


def test_what_is_trained_already_costs_nothing_again():
    """A task that comes back to the queue says what is left, not what there was."""
    whole, half, none = (reports.plan(dict.fromkeys(CONFIGS, share), 1) for share in (1.0, 0.5, 0.0))
    hours = cost(CONFIGS).hours
    assert duration(hours) in whole and duration(hours / 2) in half and "less than a minute" in none, (whole, half)


@pytest.mark.parametrize("arguments, words", [
    ({"names": []}, r"experiment must be one or several of figure1.*\(got none\)"),
    ({"scale": "huge"}, "scale must be one of smoke, laptop, tenth, paper .got 'huge'"),
    ({"task": 3, "num_tasks": 3}, r"num_tasks - 1 = 2 \(got 3\)")])
def test_a_sweep_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Sweep(**({"names": ["figure3"]} | arguments))
