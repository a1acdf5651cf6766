"""The batch scripts on a real Slurm: what is stopped comes back and continues; nothing is lost or done twice."""

import os
import pathlib
import re
import shutil
import signal
import sys
import zipfile

import h5py
import numpy as np
import pytest

from data_gen import generate
from tests.conftest import IMAGE_SIZE
from tests.slurm_cluster import NODES, SlurmCluster, processes, wait_for, why_not
from vae_rd.config import DataSpec
from vae_rd.storage import runs
from vae_rd.sweeps import experiments

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}")]
# Stands in for python: writes down the task, its restart and its GPU; then does what the task's number says.
PROGRAM = """\
#!/usr/bin/env bash
[[ $* == *vae_rd.sweep*--task=* ]] || { echo "$2" >>asked; exit; }
echo "task $SLURM_ARRAY_TASK_ID restart ${SLURM_RESTART_COUNT:-0} gpu $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES" >>asked
[[ ${SLURM_RESTART_COUNT:-0} == 0 ]] || exit 0
case $SLURM_ARRAY_TASK_ID in
  0) trap "exit 85" USR1; for ((i = 0; i < 600; i++)); do sleep 0.1; done ;;
  1) kill -9 $$ ;;
  2) exit 1 ;;
  3) trap "exit 85" TERM; for ((i = 0; i < 600; i++)); do sleep 0.1; done ;;
esac
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm of our own for the tests of this file."""
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


def submit(cluster: SlurmCluster, project: pathlib.Path, script: str, *flags: str, **environment: str) -> list[str]:
    """Submits a batch script as a user does; the numbers of its jobs."""
    python = pathlib.Path(sys.executable).parent
    said = cluster.run("bash", f"{project}/launch/{script}", *flags, INSTALL="no", TF_CPP_MIN_LOG_LEVEL="2",
                       **{"PATH": f"{python}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix} | environment)
    return re.findall(r"job (\d+)", said)


def project_with_python(folder: pathlib.Path, program: str) -> str:
    """Copies the launch scripts into a folder; a PATH on which `python` is the program."""
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(program)
    (folder / "bin/python").chmod(0o755)
    return f"{folder}/bin:{os.environ['PATH']}"


def test_a_training_over_the_gpus_of_a_node_sees_them_all(cluster, tmp_path):
    path = project_with_python(tmp_path, '#!/usr/bin/env bash\necho "$CUDA_VISIBLE_DEVICES $SLURM_NTASKS $*" >>asked\n')
    submit(cluster, tmp_path, "slurm_multi_gpu.sbatch", "--beta=0.1", PATH=path, RUNS_DIR="elsewhere",
           SBATCH_OPTIONS="--gres=gpu:2 --cpus-per-task=2 --mem=100")
    wait_for(lambda: not cluster.states(), "the job's end", 60)
    command = "-m vae_rd.main --strategy=mirrored --data_dir=data --runs_dir=elsewhere --beta=0.1"
    assert (tmp_path / "asked").read_text() == f"0,1 1 {command}\n"


def test_tasks_that_are_stopped_come_back_and_those_that_failed_do_not(cluster, tmp_path):
    path = project_with_python(tmp_path, PROGRAM)
    # USR1 is due 10 seconds after the start; Slurm looks every 30 seconds.
    array, summary = submit(cluster, tmp_path, "slurm_sweep.sbatch", PATH=path, EXPERIMENT="figure4", TASKS="4",
                            SBATCH_OPTIONS="--cpus-per-task=1 --mem=100 --time=1 --signal=USR1@50")
    asked = tmp_path / "asked"
    wait_for(lambda: asked.exists() and "task 3" in asked.read_text(), "the last task's start", 30)
    cluster.run("scancel", f"{array}_3")
    wait_for(lambda: not cluster.states(), "an empty queue", 120)
    first, *tasks = asked.read_text().splitlines()
    starts = sorted(re.match(r"(task \d+ restart \d+) ", line)[1] for line in tasks if line.startswith("task"))
    assert starts == ["task 0 restart 0", "task 0 restart 1", "task 1 restart 0", "task 1 restart 1",
                      "task 2 restart 0", "task 3 restart 0"]
    assert len({line.split()[-1] for line in tasks if "restart 0" in line}) == 4  # two GPUs on each of two nodes
    assert first == "vae_rd.sweep"  # the submission asks for the status
    assert tasks[-2:] == ["vae_rd.sweep", "vae_rd.export"]  # and so does the summary, after all tasks
    log = (tmp_path / f"logs/vae_rd_sweep-{array}_2.log").read_text()
    assert "failed with status 1" in log and "scale=paper" in log and "--task=2 --num_tasks=4" in log
    assert (tmp_path / f"logs/vae_rd_summary-{summary}.log").exists()


@pytest.fixture(scope="module")
def smoke_data(tmp_path_factory):
    """A folder with the one split of the swept experiment at its smallest scale."""
    folder = tmp_path_factory.mktemp("smoke")
    generate.generate(folder, DataSpec("tetrominoes", "cv_500", image_size=16), progress=False)
    return folder


def task_processes(array: str, task: int) -> list[int]:
    """The sweep and its workers in a task of an array."""
    return processes("vae_rd.sweep", SLURM_ARRAY_JOB_ID=array, SLURM_ARRAY_TASK_ID=str(task))


def under_way(array: str, task: int, runs_dir: pathlib.Path) -> bool:
    """Whether a task of an array is in the midst of a run."""
    holders = tuple(f"process {number}\n" for number in task_processes(array, task))
    return any(run.status() == runs.UNFINISHED and run.lock.read_text().endswith(holders)
               for run in runs.find_runs(runs_dir))


def test_a_sweep_loses_no_run(cluster, smoke_data, tmp_path):
    """One task is killed, one is preempted, and a node is drained."""
    folders = {f"{name.upper()}_DIR": f"{tmp_path}/{name}" for name in ("runs", "figures", "logs")}
    array, _ = submit(cluster, ROOT, "slurm_sweep.sbatch", "--column_size=2", EXPERIMENT="early_stopping",
                      SCALE="smoke", TASKS="4", LIMIT="3", SBATCH_OPTIONS="--gres=none --cpus-per-task=1 --mem=1000",
                      DATA_DIR=str(smoke_data), **folders)
    wait_for(lambda: under_way(array, 0, tmp_path / "runs"), "a run of task 0 under way", 100)
    for process in task_processes(array, 0):
        os.kill(process, signal.SIGKILL)
    cluster.run("scontrol", "update", f"nodename={NODES[0]}", "state=drain", "reason=test")
    wait_for(lambda: under_way(array, 2, tmp_path / "runs"), "a run of task 2 under way", 100)
    cluster.run("sbatch", "--partition=urgent", f"--nodelist={NODES[1]}", "--exclusive", "--wrap=sleep 3",
                "--output=/dev/null")

    written: dict[pathlib.Path, set[int]] = {}

    def ended():
        for path in tmp_path.glob("runs/*/results.json"):
            written.setdefault(path, set()).add(path.stat().st_mtime_ns)
        return not cluster.states()

    try:
        wait_for(ended, "the array's and the summary's end", 500)
    finally:
        cluster.run("scontrol", "update", f"nodename={NODES[0]}", "state=resume")
    logs = [(tmp_path / f"logs/vae_rd_sweep-{array}_{task}.log").read_text() for task in range(4)]
    assert "was killed by signal 9" in logs[0] and "restart 1" in logs[0]
    assert "is to be continued" in logs[2] and "restart 1" in logs[2]
    assert f"on {NODES[0]}, restart 0" in logs[0] and f"on {NODES[1]}, restart 1" in logs[0]
    assert f"on {NODES[0]}, restart 0" in logs[1] and "restart 1" not in logs[1]  # drained: it ends what it has begun
    wanted = set(experiments.experiment("early_stopping", "smoke").run_names)
    assert {run.path.name for run in runs.find_runs(tmp_path / "runs")} == wanted
    assert all(len(times) == 1 for times in written.values()) and len(written) == len(wanted)
    for run in runs.find_runs(tmp_path / "runs"):
        assert run.status() == runs.FINISHED
        steps = [row["step"] for row in run.read_history() if row["partition"] == "train"]
        assert steps == sorted(set(steps)) and steps[-1] == run.read_config().train_steps
        assert len(list(run.path.rglob("*"))) <= 20
    assert list(tmp_path.glob("figures/*.png"))


def weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of a model.keras, by name."""
    found = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as content:
        content.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def test_a_training_over_two_nodes_survives_the_death_of_a_worker(cluster, data_dir, tmp_path):
    flags = ["--split=cd_300", f"--image_size={IMAGE_SIZE}", "--hidden_units=16", "--train_steps=600",
             "--eval_every=150"]
    settings = {"DATA_DIR": str(data_dir), "LOGS_DIR": f"{tmp_path}/logs",
                "SBATCH_OPTIONS": "--gres=none --cpus-per-task=1 --mem=1000"}
    submit(cluster, ROOT, "slurm_multi_node.sbatch", *flags, RUNS_DIR=f"{tmp_path}/undisturbed", **settings)
    wait_for(lambda: not cluster.states(), "the undisturbed training's end", 200)
    [job] = submit(cluster, ROOT, "slurm_multi_node.sbatch", *flags, RUNS_DIR=f"{tmp_path}/disturbed", **settings)

    def evaluated():
        return any(row["step"] >= 150 for run in runs.find_runs(tmp_path / "disturbed") for row in run.read_history())

    wait_for(evaluated, "the first evaluation after the start", 100)
    [worker] = processes("vae_rd.main", SLURM_JOB_ID=job, SLURM_PROCID="1")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not processes("vae_rd.main", SLURM_JOB_ID=job), "the other worker's end", 30)
    wait_for(lambda: not cluster.states(), "the disturbed training's end", 200)
    log = (tmp_path / f"logs/vae_rd_multi_node-{job}.log").read_text()
    assert re.search("was killed by signal (9|15);", log) and "restart 1" in log  # 15: srun ended the other worker
    [one], [other] = runs.find_runs(tmp_path / "undisturbed"), runs.find_runs(tmp_path / "disturbed")
    assert one.status() == other.status() == runs.FINISHED
    assert one.read_results()["machine"]["replicas"] == 2
    expected, found = weights(one.model), weights(other.model)
    assert expected and expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
