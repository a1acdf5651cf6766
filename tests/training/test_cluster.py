"""The workers of one training, from TF_CONFIG and from Slurm's variables as srun sets them."""

import json

import pytest

from vae_rd.config import ConfigError
from vae_rd.training import cluster

WORKERS = ["alpha:3000", "beta:3001", "beta:3002"]


def slurm(nodes: str, tasks: str, rank: int, job: int = 1234) -> dict[str, str]:
    """The variables of one task of an srun step."""
    return {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_PROCID": str(rank),
            "SLURM_JOB_ID": str(job)}


def test_a_plain_start_is_one_process():
    assert (cluster.num_workers({}), cluster.rank({}), cluster.workers({})) == (1, 0, [])


def test_a_batch_job_without_srun_is_one_process():
    assert cluster.num_workers({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == 1


@pytest.mark.parametrize("number", range(3))
def test_tf_config_names_the_workers(number):
    environment = {"TF_CONFIG": json.dumps({"cluster": {"worker": WORKERS},
                                            "task": {"type": "worker", "index": number}})}
    assert cluster.workers(environment) == WORKERS
    assert cluster.num_workers(environment) == 3
    assert cluster.rank(environment) == number


def test_tf_config_goes_before_slurm():
    environment = slurm("n[1-4]", "1(x4)", 3) | {"TF_CONFIG": json.dumps({"cluster": {"worker": WORKERS},
                                                                          "task": {"type": "worker", "index": 1}})}
    assert (cluster.num_workers(environment), cluster.rank(environment)) == (3, 1)


@pytest.mark.parametrize("nodes, tasks, hosts", [
    ("n1", "1", ["n1"]),
    ("n1", "3", ["n1", "n1", "n1"]),
    ("n[1-3]", "1(x3)", ["n1", "n2", "n3"]),
    ("n[1-2],login", "2(x2),1", ["n1", "n1", "n2", "n2", "login"]),
    ("gpu-a[009-011,20]", "2,1(x2),3", ["gpu-a009", "gpu-a009", "gpu-a010", "gpu-a011"] + ["gpu-a20"] * 3),
    ("a1.site.org,a3.site.org", "1(x2)", ["a1.site.org", "a3.site.org"]),
])
def test_slurm_tasks_are_workers_in_order_of_rank(nodes, tasks, hosts):
    workers = cluster.workers(slurm(nodes, tasks, 0))
    assert [worker.rpartition(":")[0] for worker in workers] == hosts
    assert len(set(workers)) == len(hosts)  # also where tasks share a node
    ports = [int(worker.rpartition(":")[2]) for worker in workers]
    assert len(set(ports)) == len(hosts)  # also where "nodes" share a machine
    assert cluster.rank(slurm(nodes, tasks, len(hosts) - 1)) == len(hosts) - 1


def test_ports_are_ports_and_differ_between_jobs():
    bases = {}
    for job in (1, 2, 399, 400, 123_456_789):
        ports = [int(worker.rpartition(":")[2]) for worker in cluster.workers(slurm("n1", "64", 0, job))]
        assert 1024 < min(ports) and max(ports) < 65_536
        bases[job] = ports[0]
    assert len({bases[job] for job in (1, 2, 399)}) == 3


def test_the_hosts_of_a_list():
    assert cluster.expand_hosts("n[1-3,07],login") == ["n1", "n2", "n3", "n07", "login"]
    assert cluster.expand_hosts("a,b") == ["a", "b"]
    assert cluster.expand_hosts("n[1-2]-ib,login") == ["n1-ib", "n2-ib", "login"]
    assert cluster.expand_hosts("n[1,3].site.org,m") == ["n1.site.org", "n3.site.org", "m"]
    assert cluster.expand_hosts("rack1-n[08-11]") == ["rack1-n08", "rack1-n09", "rack1-n10", "rack1-n11"]


@pytest.mark.parametrize("nodes", ["rack[1-2]n[1-4]", "n[1-2", "n1-2]", "n[a-c]", "n[]", "n1,", ""])
def test_a_list_of_hosts_that_is_not_understood_is_refused(nodes):
    with pytest.raises(ConfigError, match="hosts of SLURM_STEP_NODELIST.*cannot be parsed.*Set TF_CONFIG"):
        cluster.workers(slurm(nodes, "1", 0))


def test_hosts_and_tasks_that_do_not_match_are_refused():
    with pytest.raises(ConfigError, match=r"n\[1-3\].* has 3 hosts.*1\(x2\).* has 2.*Set TF_CONFIG"):
        cluster.workers(slurm("n[1-3]", "1(x2)", 0))


@pytest.mark.parametrize("strategy, chief", [("auto", False), ("multi_worker", False), ("mirrored", True),
                                             ("one_device", True)])
def test_every_task_is_its_own_chief_unless_they_train_together(strategy, chief):
    assert cluster.is_chief(strategy, slurm("n[1-2]", "1(x2)", 1)) == chief
    assert cluster.is_chief(strategy, slurm("n[1-2]", "1(x2)", 0))
    assert cluster.is_chief(strategy, {})
