"""The training command: killed, stopped, refused and continued, as whole processes."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import commands
from tests.conftest import IMAGE_SIZE
from tests.fabricate import fabricate_run
from tests.outcomes import differences, leftovers, outcome
from vae_rd.config import Config
from vae_rd.storage import checkpoints, files, runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = f"tetrominoes-size{IMAGE_SIZE}"


def only_run(tmp_path, folder="runs"):
    """The one run in a folder of runs."""
    run, = runs.find_runs(tmp_path / folder)
    return run


def refused(command, *words):
    """Waits for a command that must fail by words and no traceback."""
    command.wait()
    assert command.status == 1, command.text
    assert "Traceback" not in command.text
    for word in words:
        assert word in command.text
    return command


def steps_in(run):
    """The last evaluated step of a run that another process writes; -1 for none."""
    return max((row["step"] for row in run.read_history()), default=-1)


# Killed and stopped


def die_at_rename(number, after):
    """Has this process killed just before, or just after, the n-th file it would put in place."""
    original, count = pathlib.Path.replace, [0]

    def replace(self, target):
        count[0] += 1
        if count[0] == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, target)
        if count[0] == number and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    pathlib.Path.replace = replace


@pytest.mark.slow
def test_a_run_killed_at_every_kind_of_file_ends_as_if_it_had_not_been(train, tmp_path):
    """Files in order: config; best weights, history, checkpoint of each evaluation; values, model, results."""
    flags = ["--architecture=cnn", "--eval_every=20"]
    assert train(*flags, f"--runs_dir={tmp_path / 'whole'}").wait().status == 0
    moments = [(1, False), (2, True), (3, False), (3, True), (1, True), (2, True), (3, False), (4, False), (6, True),
               (7, False), (8, False)]
    for number, after in moments:
        killed = train(*flags, before=functools.partial(die_at_rename, number, after)).wait()
        assert killed.status == -signal.SIGKILL, (number, after, killed.text)
    assert only_run(tmp_path).status() == "unfinished"
    assert train(*flags).wait().status == 0
    assert differences(outcome(only_run(tmp_path)), outcome(only_run(tmp_path, "whole"))) == []
    assert leftovers(only_run(tmp_path)) == []


def die_between_checkpoints(number):
    """Has this process killed when it has put n checkpoints of members in place."""
    original, count = pathlib.Path.replace, [0]

    def replace(self, target):
        result = original(self, target)
        count[0] += pathlib.Path(target).name == "last.npz"
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    pathlib.Path.replace = replace


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--beta=0.1,1"], ["--seed=0,1"]])
def test_a_column_killed_between_the_checkpoints_of_its_members_stays_one(train, tmp_path, flags):
    """The member that was saved goes back to where the other stands: at the first save, in between and at the last."""
    flags = [*flags, "--eval_every=20"]
    assert train(*flags, f"--runs_dir={tmp_path / 'whole'}").wait().status == 0
    for number in (1, 5, 2, 4, 2):  # from the third on the first of them is the one that is put back
        killed = train(*flags, before=functools.partial(die_between_checkpoints, number)).wait()
        assert killed.status == -signal.SIGKILL, (number, killed.text)
        assert len({checkpoints.resume(run, 40).progress.step if run.last_checkpoint.is_file() else -1
                    for run in runs.find_runs(tmp_path / "runs")}) == 2
    assert train(*flags).wait().status == 0
    whole, found = (runs.find_runs(tmp_path / name) for name in ("whole", "runs"))
    assert len(found) == 2
    for run, expected in zip(found, whole):
        assert differences(outcome(run), outcome(expected)) == []
        assert leftovers(run) == [] and not run.previous_checkpoint.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_member_that_diverged_at_once_keeps_its_slot_after_a_kill(train, tmp_path, number):
    """Killed after each checkpoint up to that of the first evaluation, in which the second member ends."""
    flags = ["--beta=1,1e38"]
    undisturbed = train(*flags, f"--runs_dir={tmp_path / 'whole'}").wait()
    killed = train(*flags, before=functools.partial(die_between_checkpoints, number)).wait()
    assert killed.status == -signal.SIGKILL, killed.text
    assert train(*flags).wait().status == undisturbed.status
    whole, found = (runs.find_runs(tmp_path / name) for name in ("whole", "runs"))
    assert sorted(run.status() for run in whole) == ["diverged", "finished"]
    for run, expected in zip(found, whole):
        assert differences(outcome(run), outcome(expected)) == []
        assert leftovers(run) == [] and not run.previous_checkpoint.exists()


@pytest.mark.slow
def test_a_column_killed_and_stopped_in_between_ends_as_if_it_had_not_been(train, tmp_path):
    flags = ["--beta=0.1,1", "--train_steps=3000", "--eval_every=300", "--eval_images=50"]
    assert train(*flags, f"--runs_dir={tmp_path / 'whole'}").wait().status == 0
    for step, number in ((300, signal.SIGKILL), (900, signal.SIGTERM), (1800, signal.SIGINT)):
        command = train(*flags)
        command.until(lambda: len(runs.find_runs(tmp_path / "runs")) == 2)
        found = runs.find_runs(tmp_path / "runs")
        command.until(lambda: min(map(steps_in, found)) >= step)
        time.sleep(0.02)
        command.signal(number).wait()
        expected = {signal.SIGKILL: -9, signal.SIGTERM: 85, signal.SIGINT: 130}[number]
        assert command.status == expected, command.text
        if number != signal.SIGKILL:
            assert f"stopped by {number.name}; the same command continues" in command.text
            assert "Traceback" not in command.text
    assert {run.status() for run in found} == {"unfinished"}
    assert train(*flags).wait().status == 0
    for run, whole in zip(runs.find_runs(tmp_path / "runs"), runs.find_runs(tmp_path / "whole"), strict=True):
        assert differences(outcome(run), outcome(whole)) == []
        assert run.read_results()["wall_seconds"] > 0


@pytest.mark.slow
def test_the_real_command_stops_on_sigterm_and_goes_on(data_dir, tmp_path):
    flags = ["--split=cd_300", f"--image_size={IMAGE_SIZE}", "--hidden_units=16", "--train_steps=20000",
             "--eval_every=200", f"--data_dir={data_dir}", f"--runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, "-m", "vae_rd.main", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (found := runs.find_runs(tmp_path / "runs")) or steps_in(found[0]) < 200:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 85, errors
    assert "the same command continues" in errors and "Traceback" not in errors
    assert 200 <= files.read_arrays(found[0].last_checkpoint)["progress.step"] < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("rank, status", [(1, 1), (0, -signal.SIGTERM)])
def test_a_worker_that_srun_ends_before_it_trains_does_not_look_killed(tmp_path, rank, status):
    """Slurm's script would take all back to the queue, though the chief has said what is wrong."""
    waits = "generate.ensure = lambda *of_the_data, **options: wait()" if rank == 0 else "main.time.sleep = wait"
    program = ("import sys\n"
               "from data_gen import generate\n"
               "from vae_rd import cli, main\n"
               "def wait(*seconds):\n"
               "    print('waiting', flush=True)\n"
               "    sys.stdin.read()\n"
               f"{waits}\n"
               "cli.run(main.main)\n")
    flags = [f"--data_dir={tmp_path}", f"--runs_dir={tmp_path}", "--strategy=multi_worker", "--split=cd_300"]
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": rank}}
    with subprocess.Popen([sys.executable, "-c", program, *flags], cwd=ROOT, stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, env=os.environ | {"TF_CONFIG": json.dumps(cluster)}) as process:
        try:
            while process.stdout.readline() not in ("waiting\n", ""):
                pass
            process.terminate()
            assert process.wait(timeout=60) == status
        finally:
            process.kill()


# Ended, continued, shared


def without_tensorflow(tmp_path):
    """An environment in which importing TensorFlow fails."""
    (tmp_path / "broken").mkdir(exist_ok=True)
    (tmp_path / "broken" / "tensorflow.py").write_text("raise ImportError('TensorFlow is not to be loaded')")
    return os.environ | {"PYTHONPATH": f"{tmp_path / 'broken'}:{ROOT}"}


@pytest.mark.slow
def test_a_finished_run_is_recognised_without_loading_tensorflow(train, tmp_path, data_dir):
    first = train("--beta=2").wait()
    run = only_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    flags = ["--beta=2", "--split=cd_300", f"--image_size={IMAGE_SIZE}", "--hidden_units=16", "--batch_size=32",
             "--train_steps=40", f"--data_dir={data_dir}", f"--runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, "-m", "vae_rd.main"]
    again = subprocess.run([*command, *flags], cwd=tmp_path, env=without_tensorflow(tmp_path), capture_output=True,
                           text=True)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    table = first.text.splitlines()[-2:]
    assert again.stdout.splitlines() == table
    results = run.read_results()
    numbers = [f"{results[partition][name]:.2f}" for partition in ("train", "test") for name in ("rate", "distortion")]
    assert table[1].split() == [run.path.name, "finished", *numbers]
    fresh = subprocess.run([*command, *flags, "--seed=1"], cwd=tmp_path, env=without_tensorflow(tmp_path),
                           capture_output=True, text=True)
    assert "TensorFlow is not to be loaded" in fresh.stderr  # the control: with something to do it would be


@pytest.mark.slow
def test_missing_data_are_made_first_and_nothing_else(train, tmp_path):
    command = train("--split=cd_250", f"--data_dir={tmp_path / 'data'}", "--train_steps=5").wait()
    assert command.status == 0, command.text
    assert f"{tmp_path / 'data' / FOLDER / 'cd_250'} is missing: it is generated first." in command.text
    assert only_run(tmp_path).read_results()["num_train"] == 250


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_steps(train, tmp_path):
    train("--eval_every=20").wait()
    short = only_run(tmp_path)
    flags = ["--eval_every=20", "--train_steps=70"]
    assert train(*flags, f"--continue_from={short.path}").wait().status == 0
    assert train(*flags, f"--runs_dir={tmp_path / 'direct'}").wait().status == 0
    longer, = [run for run in runs.find_runs(tmp_path / "runs") if run != short]
    assert differences(outcome(longer), outcome(only_run(tmp_path, "direct"))) == []
    refused(train("--beta=3", "--train_steps=80", f"--continue_from={short.path}"), "may differ from the Config")
    refused(train("--train_steps=80", "--seed=0,1", f"--continue_from={short.path}"),
            "continues one run: give one beta")
    refused(train("--train_steps=80", f"--continue_from={tmp_path / 'none'}"), "none must be a finished run")


def stop_when_waiting():
    """Has this process end, with words, when it would wait for another."""
    def sleep(seconds):
        sys.exit("it waits")
    time.sleep = sleep


def second_worker():
    """The environment of the second of two workers; the first never comes."""
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
                                     "task": {"type": "worker", "index": 1}})}


@pytest.mark.slow
def test_of_several_workers_the_chief_alone_begins_a_continued_run(train, tmp_path):
    train("--train_steps=5").wait()
    short = only_run(tmp_path)
    worker = train("--train_steps=9", f"--continue_from={short.path}", before=stop_when_waiting, **second_worker())
    assert "it waits" in worker.wait().text
    assert only_run(tmp_path) == short


@pytest.mark.slow
def test_tasks_that_train_on_their_own_wait_for_nobody(train, tmp_path):
    command = train("--strategy=one_device", "--split=cd_60", f"--data_dir={tmp_path / 'data'}", "--train_steps=5",
                    before=stop_when_waiting, **second_worker())
    assert command.wait().status == 0, command.text
    assert only_run(tmp_path).status() == "finished"


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused(train, tmp_path):
    first = train("--train_steps=200000")
    first.until(lambda: runs.find_runs(tmp_path / "runs"))
    run = only_run(tmp_path)
    first.until(lambda: steps_in(run) >= 0)
    refused(train("--train_steps=200000"), f"is in use by host {os.uname().nodename}, process {first.process.pid}",
            "Only one process can work on a run: wait for that one, or stop it")
    refused(train("--train_steps=200000", "--beta=0.3,1"), "is in use by")  # also as one of a column
    assert first.process.is_alive()
    first.signal(signal.SIGTERM).wait()
    assert first.status == 85


@pytest.mark.slow
def test_a_run_that_diverges_is_reported_and_tried_again_only_if_asked(train, tmp_path):
    command = train("--beta=1,1e38").wait()
    assert command.status == 0 and "Traceback" not in command.text
    assert "not finite at step" in command.text and "the run ends as diverged" in command.text
    assert [line.split()[1] for line in command.text.splitlines()[-2:]] == ["finished", "diverged"]
    lost, = [run for run in runs.find_runs(tmp_path / "runs") if run.read_config().beta == 1e38]
    written = lost.results.stat().st_mtime_ns
    train("--beta=1,1e38").wait()
    assert lost.results.stat().st_mtime_ns == written
    train("--beta=1,1e38", "--retry").wait()
    assert lost.results.stat().st_mtime_ns > written and lost.status() == "diverged"


# Refused


def test_the_parts_take_plain_arguments(tmp_path):
    """What the flags are turned into, and which runs of it are left."""
    with commands.imported("vae_rd.main") as main:
        values = dataclasses.asdict(Config(split="cd_8k")) | {"beta": ["0.1", "1"], "seed": ["3"]}
        column = main.configs(values)
        assert column == [Config(split="cd_8k", beta=beta, seed=3) for beta in (0.1, 1.0)]
        fabricate_run(tmp_path, column[0], measures={"last": {"information": {}}})
        assert main.pending(column, tmp_path) == main.pending(column, tmp_path, ["information"]) == column[1:]
        assert main.pending(column, tmp_path, ["pictures"]) == column
        runs.run_dir(tmp_path, column[0]).write_measures({"last": {"annealed": {"settings": {"step": 1}}}})
        assert main.pending(column, tmp_path, ["annealed"]) == column  # made by the first version
        lines = list(main.report(column, tmp_path))
        assert column[0].run_name in lines[1] and "finished" in lines[1] and "missing" in lines[2] and "-" in lines[2]


@pytest.mark.parametrize("flags, words", [
    (["--split=cv_9k"], ["one of these kinds (got 'cv_9k')", "default", "checkerboard", "cv_<size>", "8k, 16k"]),
    (["--dataset=tetris"], ["dataset must be one of", "got 'tetris'", "tetrominoes", "mnist"]),
    (["--architecture=rnn"], ["architecture must be one of mlp, cnn"]),
    (["--beta=-1"], ["beta must be a finite number, 0 or more"]),
    (["--beta=1,nan"], ["beta must be a finite number"]),
    (["--beta=one"], ["beta must be a number, or several separated by commas"]),
    (["--beta="], ["beta", "must be a number"]),
    (["--seed=1.5"], ["seed must be a whole number"]),
    (["--batch_size=0"], ["batch_size must be a whole number, 1 or more"]),
    (["--split=cv_200000"], ["cv_200000", "163840"]),
    (["--split=official"], ["official"]),
    (["--beta", "1", "2"], ["'2' is not a flag"]),
    (["--measures=luck"], ["measures must be among", "or all (got luck)"]),
    (["--strategy=multi_worker"], ["needs TF_CONFIG with several workers"]),
    (["--betas=1"], ["--betas is not a flag. Did you mean --beta?"]),
    (["--train_steps=many"], ["train_steps must be a whole number (got 'many')"]),
])
def test_bad_flags_are_refused_and_nothing_is_written(train, tmp_path, flags, words):
    refused(train(*flags), *words)
    assert not list((tmp_path / "runs").glob("*"))


def damage_missing(folder, shard):
    shard.unlink()


def damage_cut(folder, shard):
    shard.write_bytes(shard.read_bytes()[:-100])


def damage_flip(folder, shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def damage_foreign(folder, shard):
    shutil.copy(shard, folder / "train-00001-of-00002.tfrecord.gz")


def damage_swapped(folder, shard):
    other = folder.parent / "cd_40" / shard.name
    shutil.copy(other, shard)


def damage_info(folder, shard):
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps(info | {"num_train": 299}))


def damage_no_info(folder, shard):
    (folder / "info.json").write_text('{"dataset": ')


@pytest.mark.parametrize("damage, words", [
    (damage_missing, ["train-00000-of-00001.tfrecord.gz", "missing"]),
    (damage_cut, ["train-00000", "cut short or damaged"]),
    (damage_flip, ["train-00000", "sha256"]), (damage_foreign, ["train-00001-of-00002", "does not list"]),
    (damage_swapped, ["train-00000", "bytes, as info.json says"]),
    (damage_info, ["info.json is damaged", "its sha256 is not"]),
    (damage_no_info, ["info.json is damaged"])])
def test_damaged_data_are_named(train, tmp_path, data_dir, damage, words):
    shutil.copytree(data_dir, tmp_path / "data")
    folder = tmp_path / "data" / FOLDER / "cd_300"
    damage(folder, folder / "train-00000-of-00001.tfrecord.gz")
    refused(train(f"--data_dir={tmp_path / 'data'}"), *words)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_original_files_are_looked_for_where_raw_dir_says(train, tmp_path):
    wrong = tmp_path / "originals" / "train-images-idx3-ubyte.gz"
    wrong.parent.mkdir()
    wrong.write_text("")
    refused(train("--dataset=mnist", "--split=official", "--image_size=28", f"--data_dir={tmp_path / 'data'}",
                  f"--raw_dir={wrong.parent}"), f"{wrong} is not the original")


@pytest.mark.slow
def test_the_remedies_for_damaged_arrays_mend_the_run(train, tmp_path):
    """Each remedy is followed to the letter; the run then ends as the undamaged one did."""
    train("--eval_every=20").wait()
    run = only_run(tmp_path)
    whole = outcome(run)
    best, = run.checkpoints.glob("best-*.npz")
    best.write_bytes(b"")
    run.results.unlink()
    refused(train("--eval_every=20"), f"{best} cannot be read", "remove the folder checkpoints, and results.json if it "
                                      "is there, and run the same training command")
    shutil.rmtree(run.checkpoints)
    assert train("--eval_every=20").wait().status == 0
    assert differences(outcome(run), whole) == []
    run.per_example("test").write_bytes(b"")
    with pytest.raises(files.FileError, match="remove results.json and run the same training command"):
        run.read_arrays(run.per_example("test"))
    run.results.unlink()
    assert train("--eval_every=20").wait().status == 0
    assert differences(outcome(run), whole) == []


@pytest.mark.slow
def test_damage_in_a_run_directory_is_named(train, tmp_path):
    train("--train_steps=100000").until(lambda: runs.find_runs(tmp_path / "runs") and steps_in(only_run(tmp_path)) >= 0
                                        ).signal(signal.SIGTERM).wait()
    run = only_run(tmp_path)
    good = {path: path.read_bytes() for path in (run.last_checkpoint, run.config)}
    for path, content, words in ((run.last_checkpoint, good[run.last_checkpoint][:1000],
                                  ["last.npz cannot be read", "remove the folder checkpoints"]),
                                 (run.config, Config().to_json().encode(), ["must be the Config of this run"]),
                                 (run.config, b"{", ["config.json is damaged, or was not written by vae_rd"])):
        path.write_bytes(content)
        refused(train("--train_steps=100000"), *words)
        path.write_bytes(good[path])
    assert files.read_arrays(run.last_checkpoint)["progress.step"] >= 0  # nothing was lost


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(options) mounts a file system of its own at a folder and returns it."""
    mounted = []

    def mount(options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine does not let a test mount a file system: {done.stderr.strip()}")
        mounted.append(folder)
        return folder
    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_runs_dir_that_cannot_be_made_is_named(train, tmp_path):
    (tmp_path / "file").write_text("")
    refused(train(f"--runs_dir={tmp_path / 'file' / 'runs'}"), f"{tmp_path / 'file'}", "name another folder")


def test_a_read_only_disk_is_named(train, small_disk):
    folder = small_disk("ro,size=1m")
    refused(train(f"--runs_dir={folder}"), "Read-only file system", str(folder))
    refused(train(f"--data_dir={folder}"), "Read-only file system", str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64k", "200k", "340k"])
def test_a_full_disk_is_named_and_what_is_written_is_whole(train, small_disk, size):
    """At the first checkpoint, a later one, the final files; with room again, the run ends as if nothing had been."""
    folder = small_disk(f"size={size}")
    flags = [f"--runs_dir={folder}", "--eval_every=20", "--hidden_units=24"]
    command = refused(train(*flags), "No space left on device", "Make room")
    run = runs.find_runs(folder)[0]
    assert run.status() == "unfinished" and leftovers(run) == [], command.text
    subprocess.run(["mount", "-o", "remount,size=10m", folder], check=True)
    assert train(*flags).wait().status == 0
    assert run.status() == "finished" and leftovers(run) == []
    assert [row["step"] for row in run.read_history()[::4]] == [0, 20, 40]
