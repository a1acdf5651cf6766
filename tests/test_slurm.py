"""The batch scripts on a real Slurm: what is stopped comes back and continues, nothing is lost and nothing is done twice."""

import os
import pathlib
import re
import shutil
import sys

import pytest

from tests.slurm_cluster import SlurmCluster, wait_for, why_not

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


def test_tasks_that_are_stopped_come_back_and_those_that_failed_do_not(cluster, tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(PROGRAM)
    (tmp_path / "bin/python").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    # USR1 is due 10 seconds after the start; Slurm looks every 30 seconds.
    array, summary = submit(cluster, tmp_path, "slurm_sweep.sbatch", PATH=path, TASKS="4", LIMIT="4", EXPERIMENT="figure4",
                            SBATCH_OPTIONS="--cpus-per-task=1 --mem=100 --time=1 --signal=USR1@50")
    asked = tmp_path / "asked"
    wait_for(lambda: asked.exists() and "task 3" in asked.read_text(), "the last task's start", 30)
    cluster.run("scancel", f"{array}_3")
    wait_for(lambda: not cluster.states(), "an empty queue", 120)
    first, *tasks = asked.read_text().splitlines()
    starts = sorted(re.match(r"(task \d+ restart \d+) ", line)[1] for line in tasks if line.startswith("task"))
    assert starts == ["task 0 restart 0", "task 0 restart 1", "task 1 restart 0", "task 1 restart 1", "task 2 restart 0",
                      "task 3 restart 0"]
    assert len({line.split()[-1] for line in tasks if "restart 0" in line}) == 4  # two GPUs on each of two nodes
    assert first == "vae_rd.sweep"  # the submission asks for the status
    assert tasks[-2:] == ["vae_rd.sweep", "vae_rd.export"]  # and so does the summary, after all tasks
    log = (tmp_path / f"logs/vae_rd_sweep-{array}_2.log").read_text()
    assert "failed with status 1" in log and "scale=paper" in log and "--task=2 --num_tasks=4" in log
    assert (tmp_path / f"logs/vae_rd_summary-{summary}.log").exists()
