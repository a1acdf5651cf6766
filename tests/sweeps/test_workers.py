"""The pool of worker processes, with real processes."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from vae_rd.config import ConfigError
from vae_rd.sweeps import columns, workers
from vae_rd.sweeps.sweep import Sweep
from vae_rd.training import gpus


def _task(tmp_path, number, program):
    return workers.Task([sys.executable, "-c", program], tmp_path / "logs" / f"{number}.log")


def _run(tasks, shares):
    return workers.Pool(tasks, shares, lambda: None)


def test_every_task_runs_and_its_status_and_words_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    tasks = [_task(tmp_path, number, f"print('task', {number}); raise SystemExit({number})") for number in range(5)]
    assert _run(tasks, workers.share_out(2)).run() == {number: number for number in range(5)}
    assert [task.log.read_text().strip() for task in tasks] == [f"task {number}" for number in range(5)]


def test_a_killed_worker_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    tasks = [_task(tmp_path, 0, "import os; os.kill(os.getpid(), 9)"), _task(tmp_path, 1, "pass")]
    assert _run(tasks, workers.share_out(1)).run() == {0: -9, 1: 0}


def test_a_worker_that_cannot_be_started_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    tasks = [_task(tmp_path, number, "import time; time.sleep(0.5)") for number in range(3)]
    tasks[1].log.mkdir(parents=True)
    assert _run(tasks, workers.share_out(2)).run() == {0: 0, 1: 1, 2: 0}
    assert "1 cannot be started: [Errno 21] Is a directory" in capsys.readouterr().out


def test_workers_are_pinned_to_their_cores_and_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    shares = workers.share_out(3)
    assert [resources.gpu for resources in shares] == ["4", "7", "4"]
    program = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['CUDA_VISIBLE_DEVICES'])"
    task = _task(tmp_path, 0, program)
    _run([task], shares[1:2]).run()
    assert task.log.read_text().strip() == f"{sorted(shares[1].cores)} 7"


def test_one_worker_has_one_gpu_unless_it_is_to_have_all(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [resources.gpu for resources in workers.share_out(1)] == ["4"]
    assert [resources.gpu for resources in workers.share_out(1, every_gpu=True)] == [None]


def test_workers_are_told_what_they_cannot_see(monkeypatch):
    """A worker sees one GPU, and would take others to share it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(columns, "_gpu_bytes", lambda: 40 * 2**30)
    outside = Sweep(["figure3"], scale="smoke", workers=6)
    command = outside.command(0)
    assert {"--strategy=auto", "--sharing=3"} <= set(command)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert Sweep(["figure3"], scale="smoke", workers=6, sharing=3).columns == outside.columns
    with pytest.raises(ConfigError, match=r"workers must be 1 with strategy=mirrored, which takes all GPUs \(got 2\)"):
        Sweep(["figure3"], scale="smoke", workers=2, strategy="mirrored")


def test_without_gpus_the_cores_are_shared_out(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})
    monkeypatch.setattr(os, "listdir", lambda path: ["null"])
    monkeypatch.setattr(gpus, "nvidia_smi", lambda *arguments: "")
    assert [resources.cores for resources in workers.share_out(3)] == [(0, 1), (2, 3), (4, 5)]
    assert workers.share_out(1) == [workers.Resources((0, 1, 2, 3, 4, 5, 6, 7), None)]
    assert all(len(resources.cores) == 1 for resources in workers.share_out(20))


@pytest.mark.parametrize("visible, numbers", [(None, ["0", "1"]), ("", []), ("-1", []), ("1, 3", ["1", "3"])])
def test_the_gpus_are_those_that_are_visible(monkeypatch, visible, numbers):
    """CUDA counts those that are there from 0, whatever a container calls their files."""
    monkeypatch.setattr(os, "listdir", lambda path: ["nvidia10", "nvidia0", "nvidiactl", "null"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert columns.num_gpus() == len(numbers)
    assert [resources.gpu for resources in workers.share_out(2)] == (numbers or [None, None])


def test_a_signal_reaches_the_workers_and_no_task_is_begun_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    waiting = ("import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(85))\n"
               "print('ready', flush=True)\ntime.sleep(30)")
    first, second = _task(tmp_path, 0, waiting), _task(tmp_path, 1, "pass")
    crew = _run([first, second], workers.share_out(1))

    def stop_when_ready():
        while not (first.log.is_file() and "ready" in first.log.read_text()):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_ready, daemon=True).start()
    assert crew.run() == {0: 85}
    assert crew.received == signal.SIGTERM
    assert not second.log.exists()


def test_a_signal_that_comes_while_a_worker_is_started_reaches_it_once(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    counting = ("import signal, sys, time\nasked = []\n"
                "signal.signal(signal.SIGTERM, lambda *_: (asked.append(1), print('asked', flush=True)))\n"
                "print('ready', flush=True)\nwhile not asked: time.sleep(0.01)\ntime.sleep(0.3)\nsys.exit(85)")
    task = _task(tmp_path, 0, counting)
    start = workers._start

    def start_and_be_stopped(*arguments):
        process = start(*arguments)
        while not (task.log.is_file() and "ready" in task.log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(workers, "_start", start_and_be_stopped)
    crew = _run([task, _task(tmp_path, 1, "pass")], workers.share_out(2))
    assert crew.run() == {0: 85} and crew.received == signal.SIGTERM
    assert task.log.read_text().split() == ["ready", "asked"]


def test_workers_do_not_outlive_a_pool_that_is_killed(tmp_path):
    program = ("import pathlib, sys\nfrom vae_rd.sweeps import workers\n"
               "worker = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
               "task = workers.Task([sys.executable, '-c', worker], pathlib.Path(sys.argv[1]))\n"
               "workers.Pool([task], workers.share_out(1), lambda: None).run()")
    log = tmp_path / "worker.log"
    process = subprocess.Popen([sys.executable, "-c", program, str(log)])
    deadline = time.monotonic() + 30
    while not (log.is_file() and log.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    worker = pathlib.Path("/proc", log.read_text().strip())
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL
