"""Columns and parts of a sweep: complete, disjoint, the same everywhere."""

import pytest

from vae_rd.config import STACKABLE_FIELDS, Config
from vae_rd.sweeps import columns
from vae_rd.sweeps.cost import cost
from vae_rd.sweeps.experiments import experiment
from vae_rd.training import gpus


def forget():
    """What nvidia-smi said is kept for a whole process."""
    columns._gpu_bytes.cache_clear()
    gpus.nvidia_smi.cache_clear()


def _shared(config):
    return config.replace(**{name: getattr(Config(), name) for name in STACKABLE_FIELDS})


@pytest.mark.parametrize("size", [1, 2, 5, 12, 1000])
def test_columns_hold_every_run_once_and_differ_in_stackable_fields_only(size):
    configs = list(experiment("figure6", "laptop").configs)
    cut = columns.into_columns(configs, size)
    assert sorted(config.run_name for column in cut for config in column) == sorted(c.run_name for c in configs)
    assert all(len(column) <= size and len({_shared(config) for config in column}) == 1 for column in cut)


def test_columns_are_cut_finer_for_several_workers():
    configs = [Config(beta=beta) for beta in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert [len(column) for column in columns.into_columns(configs, 12, min_columns=2)] == [3, 2]
    assert [len(column) for column in columns.into_columns(configs, 12)] == [5]


@pytest.mark.parametrize("size, min_columns", [(None, 1), (2, 1), (None, 8)])
def test_a_training_that_is_several_runs_is_one_column(size, min_columns):
    configs = list(experiment("one_training", "laptop").configs)
    cut = columns.into_columns(configs, size, min_columns)
    assert sorted(config.run_name for column in cut for config in column) == sorted(c.run_name for c in configs)
    shared = [column for column in cut if column[0].conditioning == "beta"]
    assert [len(column) for column in shared] == [6] * 6  # 6 betas; 2 networks x 3 restarts
    assert all(len({config.training_key for config in column}) == 1 for column in shared)


@pytest.mark.parametrize("num_tasks", [2, 7, 40])
def test_no_training_is_cut_between_parts(num_tasks):
    configs = list(experiment("one_training", "laptop").configs)
    cut = [columns.part(configs, task, num_tasks) for task in range(num_tasks)]
    assert sorted(config.run_name for part in cut for config in part) == sorted(c.run_name for c in configs)
    trainings = [{config.training_key for config in part} for part in cut]
    assert sum(map(len, trainings)) == len({config.training_key for config in configs}) == 36 + 6


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7, pytest.param(64, marks=pytest.mark.slow),
                                       pytest.param(500, marks=pytest.mark.slow)])
def test_parts_are_disjoint_and_complete_for_any_number_of_tasks(num_tasks):
    configs = list(experiment("figure4", "laptop").configs)
    cut = [columns.part(configs, task, num_tasks) for task in range(num_tasks)]
    assert [config for part in cut for config in part] == configs


def test_parts_cost_about_the_same():
    configs = list(experiment("figure6", "paper").configs)  # cnn and mlp: a run costs from 0.8 to 4 hours
    hours = [cost(columns.part(configs, task, 8)).hours for task in range(8)]
    dearest = max(cost([config]).hours for config in configs)
    assert max(hours) - min(hours) <= 2 * dearest


def test_a_column_fits_into_memory(monkeypatch):
    monkeypatch.setattr(columns, "num_gpus", lambda: 0)
    wide = Config(hidden_units=8192, num_layers=5)
    assert 1 <= columns.members_that_fit(wide) < columns.members_that_fit(Config()) <= columns.SEQUENTIAL_MEMBERS
    monkeypatch.setattr(columns, "num_gpus", lambda: 1)
    monkeypatch.setattr(columns, "_gpu_bytes", lambda: 80 * 2**30)
    assert columns.members_that_fit(Config()) == columns.GPU_MEMBERS


def test_visible_gpus_are_counted_without_tensorflow(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert columns.num_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert columns.num_gpus() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert columns.num_gpus() == 0


@pytest.mark.parametrize("answer, gibibytes, assumed", [
    ("81920\n40960\n", 40, False), ("[N/A]\n", 8, True), ("", 8, True), ("[N/A]\n24576\n", 24, False)])
def test_the_memory_of_a_gpu_is_asked_for_or_assumed(tmp_path, monkeypatch, capsys, answer, gibibytes, assumed):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    forget()
    assert columns._gpu_bytes() == gibibytes * 2**30
    assert ("8 GiB are assumed" in capsys.readouterr().err) == assumed


def test_of_a_gpu_that_is_cut_into_parts_the_smallest_part_counts(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("""#!/bin/sh
[ "$1" = -L ] || { echo 81920; exit; }
echo "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c89852c)"
echo "  MIG 3g.40gb     Device  0: (UUID: MIG-c7384736)"
echo "  MIG 1g.10gb     Device  1: (UUID: MIG-a28ad590)"
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    for visible, gibibytes in (("MIG-c7384736", 10), ("MIG-a28ad590,MIG-c7384736", 10), ("0", 80)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        forget()
        assert columns._gpu_bytes() == gibibytes * 2**30
    forget()


def test_workers_that_share_a_gpu_share_its_memory_and_members_without_a_batched_form_are_few(monkeypatch):
    monkeypatch.setattr(columns, "num_gpus", lambda: 2)
    monkeypatch.setattr(columns, "_gpu_bytes", lambda: 60 * columns.member_bytes(Config()))
    sizes = [columns.members_that_fit(Config(), columns.workers_sharing(workers)) for workers in (1, 2, 3, 4, 5, 6)]
    assert sizes == [30, 30, 15, 15, 10, 10]
    monkeypatch.setattr(columns, "_gpu_bytes", lambda: 2**50)
    assert columns.members_that_fit(Config()) == columns.GPU_MEMBERS
    assert columns.members_that_fit(Config(architecture="cnn")) == columns.SEQUENTIAL_MEMBERS


def test_a_gpu_without_nvidia_smi_still_gets_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    forget()
    assert 1 <= columns.members_that_fit(Config()) <= columns.GPU_MEMBERS
    assert "nvidia-smi does not say" in capsys.readouterr().err
    forget()


def test_the_estimate_takes_the_batch_of_evaluations_and_the_images_of_the_data_set():
    from vae_rd.training import column
    assert columns.EVALUATION_BATCH == column.EVALUATION_BATCH
    large, small = (columns.member_bytes(Config(dataset=name, split="cv_8k")) for name in ("dsprites", "mnist"))
    assert large > small


def test_the_estimate_counts_every_parameter_of_a_pixel(monkeypatch):
    monkeypatch.setattr(columns, "num_parameters", lambda config: 0)
    one, two = (columns.member_bytes(Config(likelihood=name)) for name in ("normal", "discretized_logistic"))
    assert two - one == 4 * 1024 * 2 * 3072
    assert one == columns.member_bytes(Config())


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized_logistic"])
def test_the_memory_estimate_covers_the_measured_peak(likelihood):
    """The peak of 4 members more, measured from outside, against the estimate."""
    import subprocess
    import sys
    # VmHWM, not ru_maxrss: a child that is started by a large process begins with that one's maximum.
    program = ("import sys, numpy as np, tensorflow as tf\n"
               "from vae_rd.datasets.splits import Partition\n"
               "from vae_rd.config import Config\n"
               "from vae_rd.training.column import Column\n"
               "images = np.random.default_rng(0).integers(0, 255, (4096, 32, 32, 3), dtype=np.uint8)\n"
               "members = [Config(beta=0.1 * (m + 1), likelihood=sys.argv[2]) for m in range(int(sys.argv[1]))]\n"
               "column = Column(members, images, strategy=tf.distribute.get_strategy(), jit=True, stacked=False)\n"
               "column.train(0, 3)\n"
               "column.evaluate(Partition(images, np.arange(4096), images))\n"
               "column.restore(column.state())\n"
               "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024)\n")
    peaks = [int(subprocess.run([sys.executable, "-c", program, str(members), likelihood],
                                capture_output=True, text=True, check=True).stdout) for members in (1, 5)]
    measured, estimated = (peaks[1] - peaks[0]) / 4, columns.member_bytes(Config(likelihood=likelihood))
    assert measured <= estimated <= 4 * measured
