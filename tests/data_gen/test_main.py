"""The generator as a command: its words, its speed of starting, and what survives kill -9 and company."""

import functools
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from tests import commands
from vae_rd.datasets import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "data_gen.main"]


def _run(*flags, cwd=ROOT):
    return commands.run("data_gen.main", *flags, before=functools.partial(_enter, cwd))


def _enter(folder):
    """As `python -m` finds modules where it is started."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))


def _start(*flags):
    return subprocess.Popen([*COMMAND, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def _written(data_dir):
    return list(data_dir.glob("tetrominoes/.*.unfinished/*.gz"))


def _processes_of_group(group):
    """Living processes of a process group, zombies left out."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
def test_a_data_set_of_the_users_own_is_made_by_several_processes(tmp_path):
    """The one that docs/extending.md writes, with the line that puts it into the table; no bar with --noprogress."""
    page = (ROOT / "docs/extending.md").read_text()
    code = re.search(r"here `squares.py`:\n```python\n(.*?)```", page[page.index("## A data set"):], re.DOTALL).group(1)
    (tmp_path / "my_data.py").write_text(
        f"{code}\n\nfrom data_gen.builders import DATASETS\nDATASETS['squares'] = Squares\n")
    flags = ["--dataset=squares", "--split=cd_60", f"--data_dir={tmp_path}", "--num_shards=2", "--num_workers=2"]
    done = _run("--import=my_data", "--noprogress", *flags, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    info = records.read_info(tmp_path / "squares" / "cd_60")
    assert (info.num_train, info.num_total, info.factor_names) == (60, 120, ("side", "height", "colour"))
    refused = _run(*flags, cwd=tmp_path)
    assert refused.returncode == 1 and "dataset must be one of tetrominoes" in refused.stderr


def test_makes_a_split_and_says_where(tmp_path):
    done = _run("--dataset=tetrominoes", "--split=cd_40", f"--data_dir={tmp_path}", "--seed=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path}/tetrominoes/cd_40 is complete."
    assert "100%" in done.stderr  # the progress bar
    assert records.read_info(tmp_path / "tetrominoes" / "cd_40").num_train == 40


def test_default_flags_write_to_data(tmp_path):
    assert _run("--split=cd_9", cwd=tmp_path).returncode == 0
    assert (tmp_path / "data" / "tetrominoes" / "cd_9" / "info.json").is_file()


def test_help_is_quick_and_without_tensorflow(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2  # 0.4 s on a quiet machine
    for flag in ("--split", "--data_dir", "--num_shards", "--num_workers", "overwrite", "--preview", "--raw_dir"):
        assert flag in done.stdout
    program = "import sys, data_gen.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert "numpy" in loaded and not {"tensorflow", "keras", "matplotlib", "h5py"} & set(loaded)


@pytest.mark.parametrize("flags, words", [
    (["--split=halves"], "split must be of one of these kinds (got 'halves'): default"),
    (["--dataset=cats"], "dataset must be one of tetrominoes"),
    (["--split=cv_200000"], "split must be at most cv_163839 with dataset=tetrominoes, which has 163840 images"),
    (["--split=official"], "not distributed in partitions"),
    (["--split=cd_5", "--num_shards=6"], "num_shards must be from 1 to the 5 images"),
    (["--split=cd_5", "cd_7"], "'cd_7' is not a flag. Write --name=value"),
    (["--split=cd_5", "--num_shards=0"], "num_shards"),
    (["--split=cd_5", "--seed=-1"], "seed"),
    (["--splitt=cd_5"], "--splitt is not a flag. Did you mean --split?"),
    (["--split=cd_5", "--data_dir=/proc/nothing"], "/proc/nothing")])
def test_bad_input_is_refused_in_words(tmp_path, flags, words):
    done = _run(*flags, cwd=tmp_path)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_unwritable_folder_is_named(tmp_path):
    """A file where the folder should be: refused for root too, whom permissions do not stop."""
    (tmp_path / "data").write_text("a file")
    done = _run("--split=cd_5", f"--data_dir={tmp_path}/data")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "has a file in its path where a folder should be" in done.stderr and f"{tmp_path}/data" in done.stderr


@pytest.mark.slow
def test_full_disk_in_a_worker_process_is_one_line(tmp_path):
    """A limit on file sizes stands for the full disk: writing fails in the worker, with an OSError."""
    program = ("import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
               "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.argv[0] = 'data_gen.main'; "
               "runpy.run_module('data_gen.main', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", program, "--split=cd_8k", f"--data_dir={tmp_path}", "--num_workers=2"],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "error: " in done.stderr and "File too large" in done.stderr and "Make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "tetrominoes").iterdir()] == [".cd_8k.lock"]


def test_damaged_split_is_named(tmp_path):
    _run("--split=cd_5", f"--data_dir={tmp_path}")
    (tmp_path / "tetrominoes" / "cd_5" / "info.json").write_text("{")
    done = _run("--split=cd_5", f"--data_dir={tmp_path}")
    assert done.returncode != 0 and "info.json is damaged" in done.stderr and "Traceback" not in done.stderr
    assert _run("--split=cd_5", f"--data_dir={tmp_path}", "--overwrite").returncode == 0


@pytest.mark.slow
def test_kill_9_in_mid_generation_leaves_nothing_that_looks_finished(tmp_path):
    process = _start("--split=cd_16k", f"--data_dir={tmp_path}", "--num_workers=2")
    _wait_for(lambda: _written(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "tetrominoes" / "cd_16k").exists()
    assert list((tmp_path / "tetrominoes").glob(".cd_16k.*.unfinished"))
    _wait_for(lambda: not _processes_of_group(process.pid), 20)  # the workers end with their parent
    assert _run("--split=cd_16k", f"--data_dir={tmp_path}", "--num_workers=2").returncode == 0
    folder = tmp_path / "tetrominoes" / "cd_16k"
    records.check_files(folder, records.read_info(folder))
    assert not list((tmp_path / "tetrominoes").glob(".cd_16k.*.unfinished"))


@pytest.mark.slow
def test_ctrl_c_cleans_up(tmp_path):
    process = _start("--split=cd_16k", f"--data_dir={tmp_path}", "--num_workers=2")
    _wait_for(lambda: _written(tmp_path))
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to the workers as well
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "interrupted" in errors and "Traceback" not in errors
    assert [path.name for path in (tmp_path / "tetrominoes").iterdir()] == [".cd_16k.lock"]


@pytest.mark.slow
def test_two_processes_make_the_same_split_at_once(tmp_path):
    flags = ("--split=cd_16k", f"--data_dir={tmp_path}", "--num_workers=1")
    first = _start(*flags)
    _wait_for(lambda: list(tmp_path.glob("tetrominoes/.cd_16k.*.unfinished")))
    second = _start(*flags)
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert "waiting for it" in outputs[1][0] and "is complete" in outputs[1][0]
    assert "images/s" not in outputs[1][1]  # it drew nothing
    folder = tmp_path / "tetrominoes" / "cd_16k"
    records.check_files(folder, records.read_info(folder))
    assert not list(tmp_path.glob("tetrominoes/.*.unfinished"))


def test_all_makes_every_possible_split(tmp_path):
    """With a toy set of 120 images, for which no size of the paper is possible."""
    program = ("import sys; from absl import app; from data_gen import generate, main; "
               "from tests.data_gen.test_dataset import Squares; "
               "generate.DATASETS['squares'] = Squares; sys.argv[0] = 'main'; app.run(main.main)")
    done = subprocess.run([sys.executable, "-c", program, "--dataset=squares", "--split=all", f"--data_dir={tmp_path}"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "squares").glob("[!.]*")) == ["checkerboard", "default"]


@pytest.mark.slow
def test_default_split_takes_at_most_25_seconds_of_two_cores(tmp_path):
    """Processor time, which company on the machine does not change: about 11 s of the 50 that two cores have."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*COMMAND, "--split=default", f"--data_dir={tmp_path}", "--num_workers=2"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 50


def test_a_script_without_main_guard_can_generate_a_small_split(tmp_path):
    (tmp_path / "script.py").write_text("from data_gen.generate import generate\nfrom vae_rd.config import DataSpec\n"
                                        "print(generate('d', DataSpec('tetrominoes', 'cd_20'), progress=False))\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "d/tetrominoes/cd_20", done.stderr
