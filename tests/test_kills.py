"""kill -9 at random moments: every program, started again until it is done, leaves the bits of one that nothing hit.

Each program is killed KILLS times at moments that a seeded generator draws over the time that it takes undisturbed,
its import of TensorFlow left out: `tests.commands` forks it from a process that has imported all and run nothing. A
program that ends before its moment is compared with the undisturbed one and begins anew elsewhere, so that all kills
hit.
"""

import fnmatch
import functools
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests import commands
from tests.outcomes import differences, leftovers, outcome
from vae_rd.config import Config
from vae_rd.storage import files, runs

KILLS = 10
IN_THE_ENDING = 3  # further kills between the first values per image and results.json
CONFIG = Config(split="cd_300", image_size=8, hidden_units=16, latent_dim=4, batch_size=32, train_steps=400,
                eval_every=100)


class Program(NamedTuple):
    """A command line, what must be in its folder before it starts, and what it leaves there to be compared."""

    module: str
    flags: Callable[[pathlib.Path, pathlib.Path], list[str]]  # of its folder and of the data
    found: Callable[[pathlib.Path], dict[str, Any]]
    needs_runs: bool = False  # finished ones, and their data
    before: Callable[[], None] | None = None  # called in its process first
    done: str = ""  # what it prints when nothing is left: a sweep leaves alone what a worker of a killed one still has


def training_flags(beta, folder, data_dir):
    fields = {name: getattr(CONFIG, name) for name in CONFIG.non_default if name != "beta"}
    return [*(f"--{name}={value}" for name, value in fields.items()), f"--beta={beta}", "--jit=off",
            f"--data_dir={data_dir}", f"--runs_dir={folder / 'runs'}", "--noprogress"]


def trained(folder):
    """Every run's arrays, numbers, measures (without their seconds) and pictures; nothing half-written is there."""
    found = {f"{path.name}: {name}": value for path in (folder / "data").rglob("neighbours.npz")
             for name, value in files.read_arrays(path).items()}
    for run in runs.find_runs(folder / "runs"):
        assert leftovers(run) == []
        parts = outcome(run) | {path.name: path.read_bytes() for path in run.path.glob("*.png")}
        for checkpoint, block in run.read_measures().items():
            parts |= {f"{checkpoint} {name}": entry | {"seconds": 0} for name, entry in block.items()}
        found |= {f"{run.path.name}: {name}": value for name, value in parts.items()}
    return found


def written(name, left, folder):
    """Bytes of every file in a folder of its folder, apart from those with these names, which may be left there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / name).rglob("*"))
            if path.is_file() and not fnmatch.fnmatch(path.name, left)}


def sweep_of_one():
    """Gives the sweep an experiment of one run, and has it fork its workers where it would start them anew."""
    from absl import flags

    import vae_rd.cli  # noqa: F401  defines flags of absl, which stay
    from vae_rd.sweeps import experiments, workers
    experiments.EXPERIMENTS["kills"] = experiments.Entry("killed", lambda scale: [CONFIG], ("information",))
    stay = {*flags.FLAGS, "help", "helpfull", "helpshort", "helpxml"}
    workers.POLL_SECONDS = 0.02

    def fork(task, resources):
        task.log.parent.mkdir(parents=True, exist_ok=True)
        return Forked(lambda: (workers._settle(resources), run_module(task, stay)))
    workers._start = fork


def run_module(task, stay):
    """A worker's command, in a fork of the sweep: its flags are not yet defined, its signals not handled."""
    from absl import flags
    with task.log.open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    for name in set(flags.FLAGS) - stay:
        delattr(flags.FLAGS, name)
    commands._run_module(task.command[2], task.command[3:], None)


class Forked:
    """What the pool needs of subprocess.Popen, of a forked process."""

    def __init__(self, target):
        self.returncode = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                target()
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            finally:
                os._exit(status)

    def poll(self):
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG) != (0, 0):
            self.returncode = 0
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def sweep_flags(folder, data_dir):
    return ["--experiment=kills", "--scale=smoke", f"--data_dir={folder / 'data'}", f"--runs_dir={folder / 'runs'}",
            "--noprogress"]


def evaluation_flags(folder, data_dir):
    return [f"--run={runs.find_runs(folder / 'runs')[0].path}", f"--data_dir={folder / 'data'}", "--noprogress",
            "--query_images=40", "--measures=information,neighbours,pictures"]


PROGRAMS = {
    "training": Program("vae_rd.main", functools.partial(training_flags, "0.1"), trained),
    "column": Program("vae_rd.main", functools.partial(training_flags, "0.1,1.0"), trained),
    "sweep": Program("vae_rd.sweep", sweep_flags, trained, before=sweep_of_one, done=" 0 remaining"),
    "evaluate": Program("vae_rd.evaluate", evaluation_flags, trained, needs_runs=True),
    "export": Program("vae_rd.export", lambda folder, data_dir: [
        f"--runs_dir={folder / 'runs'}", f"--out_dir={folder / 'figures'}"],
        functools.partial(written, "figures", f"{files.UNFINISHED}*"), needs_runs=True),
    "data_gen": Program("data_gen.main", lambda folder, data_dir: [
        "--split=cd_3000", f"--data_dir={folder / 'data'}", "--num_shards=3", "--num_workers=2"],
        functools.partial(written, "data", ".*.lock"))}


@pytest.fixture(scope="module")
def two_runs(data_dir, tmp_path_factory):
    """A folder with two runs, finished and not measured."""
    folder = tmp_path_factory.mktemp("two_runs")
    command = commands.start("vae_rd.main", training_flags("0.1,1.0", folder, data_dir), folder / "output.txt").wait()
    assert command.status == 0, command.text
    return folder / "runs"


class Trial:
    """One program that ran undisturbed, and is then started again and again, in one folder until it is done there."""

    def __init__(self, program, data_dir, two_runs, folder):
        self.program, self.data_dir, self.two_runs, self.root = program, data_dir, two_runs, folder
        self.rounds = 0
        self.folder = self.begin()
        begun = time.monotonic()
        command = self.start().wait()
        self.seconds = time.monotonic() - begun
        assert command.status == 0, command.text
        self.whole, self.expected = self.folder, program.found(self.folder)
        assert self.expected
        self.folder = self.begin()

    def begin(self):
        self.rounds += 1
        folder = self.root / str(self.rounds)
        folder.mkdir()
        if self.program.needs_runs:
            shutil.copytree(self.two_runs, folder / "runs")
            shutil.copytree(self.data_dir, folder / "data", ignore=shutil.ignore_patterns("neighbours.npz"))
        return folder

    def start(self, before=None):
        flags, output = self.program.flags(self.folder, self.data_dir), self.folder.with_suffix(".txt")
        return commands.start(self.program.module, flags, output, before or self.program.before)

    def attempt(self, seconds=None, before=None):
        """Starts it and kills it after some seconds; returns whether that hit. If not, it has ended well."""
        command = self.start(before)
        if seconds is not None:
            command.process.join(seconds)
            command.process.kill()
        if command.wait().status == -signal.SIGKILL:
            return True
        assert command.status == 0, command.text
        if self.program.done not in command.text:
            return self.attempt()
        assert differences(self.program.found(self.folder), self.expected) == []
        self.folder = self.begin()
        return False


@pytest.fixture(scope="module")
def trial(data_dir, two_runs, tmp_path_factory):
    """trial(name) gives the Trial of a program, the same one to every test."""
    return functools.cache(lambda name: Trial(PROGRAMS[name], data_dir, two_runs, tmp_path_factory.mktemp(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_ten_kills_at_random_change_no_bit(trial, name):
    trial = trial(name)
    random = np.random.default_rng([15, list(PROGRAMS).index(name)])
    hits = 0
    while hits < KILLS:
        hits += trial.attempt(random.uniform(0, trial.seconds))
    trial.attempt()


def die_after_first_values(seconds):
    """Has this process killed some time after its first file of values per image is in place."""
    original, waiting = pathlib.Path.replace, [True]

    def replace(self, target):
        result = original(self, target)
        if waiting and pathlib.Path(target).name.startswith("per_example"):
            waiting.clear()
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        return result
    pathlib.Path.replace = replace


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training", "column"])
def test_kills_between_the_first_values_per_image_and_the_results_change_no_bit(trial, name):
    trial = trial(name)
    found = runs.find_runs(trial.whole / "runs")
    first = min(path.stat().st_mtime for run in found for path in run.path.glob("per_example*"))
    window = max(run.results.stat().st_mtime for run in found) - first
    random = np.random.default_rng([15, len(PROGRAMS) + list(PROGRAMS).index(name)])
    hits = 0
    for _ in range(10 * IN_THE_ENDING):
        killed = trial.attempt(before=functools.partial(die_after_first_values, random.uniform(0, window)))
        if killed and not all(run.results.exists() for run in runs.find_runs(trial.folder / "runs")):
            assert any(run.path.glob("per_example*") for run in runs.find_runs(trial.folder / "runs"))
            hits += 1
        else:  # too late: this machine is faster now than when the window was measured
            window *= 0.7
        if hits == IN_THE_ENDING:
            break
    assert hits == IN_THE_ENDING
    trial.attempt()
