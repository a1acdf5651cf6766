"""The worker processes of one training, read from TF_CONFIG or from Slurm's variables; plain text, no TensorFlow."""

import json
import os
import re
from collections.abc import Mapping

from vae_rd.config import ConfigError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")  # which devices train: see `devices.place`
JOINING = ("auto", "multi_worker")  # the strategies under which workers train together; else each is on its own
_HOSTS = re.compile(r"([^\[\]]+)(?:\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\])?([^\[\]]*)")  # prefix[ranges]suffix
_REMEDY = "Set TF_CONFIG for every worker: it goes before Slurm's variables."


def num_workers(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that train together; 1 if nothing says otherwise."""
    return len(workers(environment)) or 1


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among the workers; 0 is the chief, which alone evaluates and writes."""
    if "TF_CONFIG" in environment:
        return int(json.loads(environment["TF_CONFIG"])["task"]["index"])
    return int(environment["SLURM_PROCID"]) if "SLURM_STEP_NODELIST" in environment else 0


def is_chief(strategy: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process evaluates and writes: of workers that train together the first, else every one."""
    return strategy not in JOINING or rank(environment) == 0


def workers(environment: Mapping[str, str] = os.environ) -> list[str]:
    """host:port of every worker in order of rank; empty for a start without TF_CONFIG and srun.

    Under Slurm the port is a base from the job id plus the rank, so that "nodes" that share a machine do not collide.

    Raises:
        ConfigError: if Slurm's variables cannot be parsed.
    """
    if "TF_CONFIG" in environment:
        return json.loads(environment["TF_CONFIG"])["cluster"]["worker"]
    if "SLURM_STEP_NODELIST" not in environment:
        return []
    nodes, tasks = environment["SLURM_STEP_NODELIST"], environment["SLURM_STEP_TASKS_PER_NODE"]
    hosts, counts = expand_hosts(nodes), [int(count) for part in tasks.split(",") for count in _repeated(part)]
    if len(hosts) != len(counts):
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r} has {len(hosts)} hosts, and SLURM_STEP_TASKS_PER_NODE="
                          f"{tasks!r} has {len(counts)}: the two must be equal. {_REMEDY}")
    base = 20000 + int(environment["SLURM_JOB_ID"]) % 400 * 100
    ranked = [host for host, count in zip(hosts, counts) for _ in range(count)]
    return [f"{host}:{base + number}" for number, host in enumerate(ranked)]


def expand_hosts(hosts: str) -> list[str]:
    """The hosts of a Slurm list; ConfigError for several brackets in a name, or a list that is not Slurm's.

    >>> expand_hosts("n[1-3,07]-ib,login")
    ['n1-ib', 'n2-ib', 'n3-ib', 'n07-ib', 'login']
    """
    names = []
    for text in re.split(r",(?![^\[]*\])", hosts):  # at commas outside brackets
        if not (match := _HOSTS.fullmatch(text)):
            raise ConfigError(f"the hosts of SLURM_STEP_NODELIST={hosts!r} cannot be parsed: {text!r} must be a name "
                              f"or prefix[ranges]suffix, with one pair of brackets. {_REMEDY}")
        prefix, ranges, suffix = match.groups()
        for part in ranges.split(",") if ranges else ():
            first, _, last = part.partition("-")
            names += [f"{prefix}{number:0{len(first)}}{suffix}" for number in range(int(first), int(last or first) + 1)]
        names += [] if ranges else [prefix]
    return names


def _repeated(part: str) -> list[str]:
    """"2(x3)" -> ["2", "2", "2"]."""
    count, _, times = part.partition("(x")
    return [count] * int(times.rstrip(")") or 1)
