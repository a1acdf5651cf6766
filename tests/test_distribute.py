"""Several devices and several workers give what one gives; a worker that is lost ends the others, and all can go on."""

import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import commands
from tests.conftest import IMAGE_SIZE
from tests.outcomes import differences, outcome
from tests.test_main import steps_in
from vae_rd import runs
from vae_rd.config import Config

ROOT = pathlib.Path(__file__).resolve().parents[1]
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
    import tensorflow as tf

    from vae_rd import data
    from vae_rd.training.column import Column
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * max(counts))
    split, found = data.load(folder), {}
    for count in counts:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)]) if count > 1 \
            else tf.distribute.get_strategy()
        assert strategy.num_replicas_in_sync == count
        column = Column([config, config.replace(beta=0.1, seed=2)], split.train.images, strategy=strategy, jit=jit, stacked=False)
        trace = column.train(column.batches(0, steps), tf.constant(0)).numpy()
        evaluated = column.evaluate(split.test)
        found[count] = column.state(), trace, evaluated.rate, evaluated.distortion
    pathlib.Path(out).write_bytes(pickle.dumps(found))


@pytest.mark.parametrize("config, steps, counts, jit, tolerance", [
    (TINY.replace(precision="float64"), 100, (1, 2), True, 1e-9), (TINY.replace(precision="float64"), 100, (1, 4), False, 1e-9),
    (TINY.replace(precision="float64", prior="mixture", binarization="dynamic", num_layers=2), 100, (1, 2), False, 1e-9),
    (TINY, 10, (1, 2), True, 1e-5), (CNN.replace(precision="float64"), 100, (1, 2), False, 1e-9)])
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
    import tensorflow as tf

    from vae_rd import data
    from vae_rd.training.column import Column
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                               [tf.config.LogicalDeviceConfiguration()] * 4)
    from vae_rd.training import devices
    config = TINY.replace(batch_size=batch_size, rate_terms=rate_terms)
    placement = devices.place(config, "mirrored", jit=False)
    try:
        Column([config], data.load(folder).train.images, strategy=placement.strategy, jit=False, stacked=False)
    except ValueError as error:
        print(error)


@pytest.mark.parametrize("batch_size, rate_terms, words", [
    (30, "both", "batch_size=30 does not divide over 4 replicas: choose a multiple, or fewer devices"),
    (32, "marginal_kl", "compares all images of a batch, which 4 replicas do not hold together: train it on one device")])
def test_what_cannot_be_split_is_refused(tmp_path, data_dir, batch_size, rate_terms, words):
    folder = data_dir / f"tetrominoes-size{IMAGE_SIZE}" / "cd_300"
    done = commands.Command(refuse_on_devices, batch_size, rate_terms, folder, output=tmp_path / "output.txt").wait()
    assert words in done.text


# Workers


@pytest.fixture
def workers(data_dir, tmp_path):
    """workers(runs_dir, "--beta=1", ...) starts the real command as two workers on this machine; returns both."""
    started = []

    def start(runs_dir, *flags):
        cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}
        pair = []
        for index in range(2):
            usual = ["--split=cd_300", f"--image_size={IMAGE_SIZE}", "--hidden_units=16", "--batch_size=32",
                     f"--data_dir={data_dir}", f"--runs_dir={runs_dir}", "--noprogress", "--num_threads=1"]
            output = (tmp_path / f"worker{len(started)}.txt").open("w+")
            environment = os.environ | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
                                        "TF_CPP_MIN_LOG_LEVEL": "3"}
            pair.append(subprocess.Popen([sys.executable, "-m", "vae_rd.main", *usual, *flags], cwd=ROOT, env=environment,
                                         stdout=output, stderr=output))
            pair[-1].output = output.name
            started.append(pair[-1])
        return pair
    yield start
    for process in started:
        process.kill()
        process.wait()


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ended(pair, seconds=120):
    """Exit statuses of both workers, and what they printed."""
    deadline = time.monotonic() + seconds
    statuses = [process.wait(max(0.1, deadline - time.monotonic())) for process in pair]
    return statuses, "\n".join(pathlib.Path(process.output).read_text() for process in pair)


def weights(run):
    """The final weights of a run."""
    return {name: value for name, value in runs.read_arrays(run.last_checkpoint).items() if "coder" in name}


@pytest.mark.slow
@pytest.mark.parametrize("precision, steps, tolerance", [("float64", 100, 1e-9), ("float32", 10, 1e-5)])
def test_two_workers_give_what_one_gives(workers, train, tmp_path, precision, steps, tolerance):
    flags = ["--beta=0.1,1", f"--precision={precision}", f"--train_steps={steps}", f"--eval_every={steps // 2}"]
    statuses, text = ended(workers(tmp_path / "workers", *flags))
    assert statuses == [0, 0], text
    assert train(*flags).wait().status == 0
    for run, single in zip(runs.find_runs(tmp_path / "workers"), runs.find_runs(tmp_path / "runs"), strict=True):
        assert distance(weights(run), weights(single)) < tolerance
        assert run.read_results()["machine"]["replicas"] == 2
        for row, expected in zip(run.read_history(), single.read_history(), strict=True):
            assert row["step"] == expected["step"] and row["objective"] == pytest.approx(expected["objective"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_ends_the_other_and_both_can_go_on(workers, tmp_path, lost):
    flags = ["--train_steps=600", "--eval_every=100", "--precision=float64"]
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    if lost == 0:
        statuses, text = ended(workers(whole, *flags))
        assert statuses == [0, 0], text
    pair = workers(interrupted, *flags)
    deadline = time.monotonic() + 120
    while not (found := runs.find_runs(interrupted)) or steps_in(found[0]) < 100:
        assert time.monotonic() < deadline and pair[0].poll() is None, pathlib.Path(pair[0].output).read_text()
        time.sleep(0.01)
    pair[lost].kill()
    killed = time.monotonic()
    status = pair[1 - lost].wait(60)
    text = pathlib.Path(pair[1 - lost].output).read_text()
    assert time.monotonic() - killed < 30 and status == 1, text
    assert "another worker of this training was lost" in text and "continues from the last checkpoint" in text
    assert "Traceback" not in text
    assert found[0].status() == "unfinished"
    statuses, text = ended(workers(interrupted, *flags))
    assert statuses == [0, 0], text
    if lost == 0:
        assert differences(outcome(runs.find_runs(interrupted)[0]), outcome(runs.find_runs(whole)[0])) == []


@pytest.mark.slow
def test_both_workers_stop_when_one_is_asked_to(workers, tmp_path):
    pair = workers(tmp_path / "runs", "--train_steps=100000", "--eval_every=500")
    deadline = time.monotonic() + 120
    while not (found := runs.find_runs(tmp_path / "runs")) or steps_in(found[0]) < 500:
        assert time.monotonic() < deadline and pair[0].poll() is None, pathlib.Path(pair[0].output).read_text()
        time.sleep(0.02)
    pair[1].send_signal(signal.SIGUSR1)  # not the chief
    statuses, text = ended(pair, 60)
    assert statuses == [85, 85], text
    assert runs.read_arrays(found[0].last_checkpoint)["progress.step"] >= 500
