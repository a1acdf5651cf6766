"""Several devices and several workers give what one gives; a worker that is lost ends the others, and all can go on."""

import json
import pathlib
import pickle
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests import commands
from tests.conftest import IMAGE_SIZE, training
from tests.outcomes import differences, outcome
from tests.ports import free_ports
from tests.test_main import steps_in
from vae_rd.config import Config
from vae_rd.datasets import splits
from vae_rd.storage import files, runs
from vae_rd.training import devices, loop, signals
from vae_rd.training.column import Column

TINY = Config(split="cd_300", image_size=IMAGE_SIZE, hidden_units=16, latent_dim=4, batch_size=32, learning_rate=3e-3)
CNN = Config(split="cd_300", image_size=IMAGE_SIZE, architecture="cnn", channels=4, latent_dim=4, batch_size=32,
             learning_rate=3e-3)


def distance(one, other):
    """The largest difference of two states, as a share of each tensor's norm."""
    assert list(one) == list(other)
    return max(np.linalg.norm(one[name] - other[name]) / max(np.linalg.norm(other[name]), 1e-30) for name in one)


# Devices of one machine


def states_by_devices(config, steps, counts, jit, folder, out):
    """Trains a column of two on 1, 2, ... logical CPUs; writes {devices: (state, trace, rate, distortion)}."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * max(counts))
    split, found = splits.load(folder), {}
    for count in counts:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)]) if count > 1 \
            else tf.distribute.get_strategy()
        assert strategy.num_replicas_in_sync == count
        column = Column([config, config.replace(beta=0.1, seed=2)], split.train.images, strategy=strategy, jit=jit,
                        stacked=False)
        trace = column.train(0, steps)
        evaluated = column.evaluate(split.test)
        found[count] = column.state(), trace, evaluated.rate, evaluated.distortion
    pathlib.Path(out).write_bytes(pickle.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("config, steps, counts, jit, tolerance", [
    (TINY.replace(precision="float64"), 100, (1, 2), True, 1e-9),
    (TINY.replace(precision="float64"), 100, (1, 4), False, 1e-9),
    (TINY.replace(precision="float64", prior="mixture", binarization="dynamic", num_layers=2), 100, (1, 2), False,
     1e-9),
    (TINY.replace(precision="float64", prior="exemplar"), 20, (1, 2), True, 1e-9),
    (TINY, 10, (1, 2), True, 1e-5),
    (CNN.replace(precision="float64"), 100, (1, 2), False, 1e-9)])
def test_logical_devices_give_what_one_gives(tmp_path, data_dir, config, steps, counts, jit, tolerance):
    folder = data_dir / f"tetrominoes-size{IMAGE_SIZE}" / "cd_300"
    done = commands.Command(states_by_devices, config, steps, counts, jit, folder, tmp_path / "states",
                            output=tmp_path / "output.txt").wait()
    assert done.status == 0, done.text
    found = pickle.loads((tmp_path / "states").read_bytes())
    state, *numbers = found[1]
    for count in counts[1:]:
        assert distance(found[count][0], state) < tolerance
        for value, expected in zip(found[count][1:], numbers):
            np.testing.assert_allclose(value, expected, rtol=10 * tolerance, atol=tolerance)


def refuse_on_devices(batch_size, rate_terms, folder):
    """Tries to place a column on 4 logical CPUs; prints the refusal."""
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                               [tf.config.LogicalDeviceConfiguration()] * 4)
    config = TINY.replace(batch_size=batch_size, rate_terms=rate_terms)
    placement = devices.place(config, "mirrored", jit=False)
    try:
        Column([config], splits.load(folder).train.images, strategy=placement.strategy, jit=False, stacked=False)
    except ValueError as error:
        print(error)


@pytest.mark.parametrize("batch_size, rate_terms, words", [
    (30, "both", "batch_size=30 is not divisible by 4 replicas: choose a multiple, or fewer devices"),
    (32, "marginal_kl", "compares all images of a batch, but each of the 4 replicas sees only its part: train it "
                        "on one device")])
def test_what_cannot_be_split_is_refused(tmp_path, data_dir, batch_size, rate_terms, words):
    folder = data_dir / f"tetrominoes-size{IMAGE_SIZE}" / "cd_300"
    done = commands.Command(refuse_on_devices, batch_size, rate_terms, folder, output=tmp_path / "output.txt").wait()
    assert words in done.text


# Workers


FLAGS = ["--beta=0.1,1", "--precision=float64", "--train_steps=100", "--eval_every=10", "--num_threads=1"]


def start_workers(train, runs_dir, *flags):
    """Starts the command as two workers on this machine."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    return [train(f"--runs_dir={runs_dir}", *flags, TF_CONFIG=json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": index}})) for index in range(2)]


def wait_for_step(workers, runs_dir, step):
    """Waits until the chief has evaluated a step; returns the runs."""
    workers[0].until(lambda: (found := runs.find_runs(runs_dir)) and steps_in(found[-1]) >= step)
    return runs.find_runs(runs_dir)


def check_ended(workers, status):
    """Waits for both workers, which must end with this status."""
    found = [worker.wait().status for worker in workers]
    assert found == [status] * len(workers), "\n".join(worker.text for worker in workers)


@pytest.fixture(scope="module")
def by_two_workers(data_dir, tmp_path_factory):
    """The two runs of FLAGS, trained by two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("workers")
    with training(data_dir, folder) as train:
        check_ended(start_workers(train, folder / "runs", *FLAGS), 0)
    return runs.find_runs(folder / "runs")


@pytest.mark.slow
def test_two_workers_give_what_one_gives(by_two_workers, train, tmp_path):
    assert train(*FLAGS, f"--runs_dir={tmp_path}").wait().status == 0
    for run, single in zip(by_two_workers, runs.find_runs(tmp_path), strict=True):
        pair = [{name: value for name, value in files.read_arrays(one.last_checkpoint).items() if "coder" in name}
                for one in (run, single)]
        assert len(pair[0]) == 30 and distance(*pair) < 1e-9
        assert run.read_results()["machine"]["replicas"] == 2
        for row, expected in zip(run.read_history(), single.read_history(), strict=True):
            assert row["step"] == expected["step"]
            assert row["objective"] == pytest.approx(expected["objective"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_ends_the_other_and_both_can_go_on(train, tmp_path, by_two_workers, lost):
    workers = start_workers(train, tmp_path, *FLAGS)
    found = wait_for_step(workers, tmp_path, 10)
    workers[lost].signal(signal.SIGKILL)
    killed, other = time.monotonic(), workers[1 - lost]
    assert other.wait().status == 1, other.text
    assert time.monotonic() - killed < 120
    assert "another worker of this training was lost" in other.text
    assert "continues from the last checkpoint" in other.text
    assert "Traceback" not in other.text
    assert {run.status() for run in found} == {"unfinished"}
    if lost == 1:
        check_ended(start_workers(train, tmp_path, *FLAGS), 0)
        for run, whole in zip(found, by_two_workers, strict=True):
            assert differences(outcome(run), outcome(whole)) == []


@pytest.mark.slow
def test_both_workers_stop_when_one_is_asked_to(train, tmp_path):
    workers = start_workers(train, tmp_path, "--train_steps=100000", "--eval_every=50")
    found = wait_for_step(workers, tmp_path, 50)
    workers[1].signal(signal.SIGUSR1)  # not the chief
    check_ended(workers, 85)
    assert files.read_arrays(found[0].last_checkpoint)["progress.step"] >= 50


class Exchanges:
    """Stands in for a strategy: counts the sums over workers, and loses the other worker after the first."""

    def __init__(self):
        self.done = 0

    def run(self, function):
        return function()

    def reduce(self, operation, parts, axis):
        self.done += 1
        if self.done > 1:
            raise tf.errors.UnavailableError(None, None, "the other worker has left")
        return parts


@pytest.mark.parametrize("asked, step, active, exchanges", [
    (None, 10, True, 1), (signal.SIGUSR1, 10, True, 2), (None, 100, True, 2), (None, 10, False, 2)])
def test_a_worker_that_leaves_after_all_have_agreed_to_stop_is_not_lost(monkeypatch, asked, step, active, exchanges):
    monkeypatch.setattr(loop, "_several_workers", lambda strategy: True)
    training = object.__new__(loop.Training)
    training.placement = devices.Placement(Exchanges(), chief=True, jit=False, stacked=False)
    training.members, training.step, training.config = [SimpleNamespace(active=active)], step, Config(train_steps=100)
    training.request = signals.Request()
    training.request.number = asked
    assert training._agree_on_stopping() == bool(asked)
    assert training.placement.strategy.done == exchanges
