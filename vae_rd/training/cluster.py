"""The worker processes of one training, read from TF_CONFIG or from Slurm's variables; plain text, no TensorFlow."""

import json
import os
import re
from collections.abc import Mapping


def num_workers(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that train together; 1 if nothing says otherwise."""
    return len(workers(environment)) or 1


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among the workers; 0 is the chief, which alone evaluates and writes."""
    if "TF_CONFIG" in environment:
        return int(json.loads(environment["TF_CONFIG"])["task"]["index"])
    return int(environment["SLURM_PROCID"]) if "SLURM_STEP_NODELIST" in environment else 0


def workers(environment: Mapping[str, str] = os.environ) -> list[str]:
    """host:port of every worker in order of rank; empty for a start without TF_CONFIG and srun.

    Under Slurm the port is a base from the job id plus the rank, so that "nodes" that share a machine do not collide.
    """
    if "TF_CONFIG" in environment:
        return json.loads(environment["TF_CONFIG"])["cluster"]["worker"]
    if "SLURM_STEP_NODELIST" not in environment:
        return []
    hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
    counts = [int(count) for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(",") for count in _repeated(part)]
    base = 20000 + int(environment["SLURM_JOB_ID"]) % 400 * 100
    ranked = [host for host, count in zip(hosts, counts, strict=True) for _ in range(count)]
    return [f"{host}:{base + number}" for number, host in enumerate(ranked)]


def expand_hosts(hosts: str) -> list[str]:
    """The hosts of a Slurm list.

    >>> expand_hosts("n[1-3,07],login")
    ['n1', 'n2', 'n3', 'n07', 'login']
    """
    names = []
    for prefix, ranges in re.findall(r"([^,\[]+)(?:\[([^\]]+)\])?,?", hosts):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if part else [None]
            names += [prefix + ("" if number is None else str(number).zfill(len(first))) for number in numbers]
    return names


def _repeated(part: str) -> list[str]:
    """"2(x3)" -> ["2", "2", "2"]."""
    count, _, times = part.partition("(x")
    return [count] * int(times.rstrip(")") or 1)
