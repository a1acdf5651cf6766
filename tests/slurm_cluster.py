"""A real Slurm on this machine for tests: two nodes with two CPUs and two make-believe GPUs each."""

import os
import pathlib
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable

from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NODES = ("127.0.0.1", "127.0.0.2")  # names under which programs on one node find the other: both are this machine
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# cred_expire is how long a requeued job waits before it may start again: 2 minutes, were it not set here.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[0]} CPUs=2 RealMemory=64000 Gres=gpu:2
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[1]} CPUs=2 RealMemory=64000 Gres=gpu:2
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=SEARCH)]:
        return f"{', '.join(missing)} not installed (Debian packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "its daemons have to be started by root"


class SlurmCluster:
    """Daemons, configuration and state of a Slurm in one folder; a context that stops all it started."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._daemons: list[subprocess.Popen] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self._environment = kept | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": SEARCH}

    def __enter__(self) -> "SlurmCluster":
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self._folder / name).mkdir(parents=True)
        ports = free_ports(3)
        self._write("slurm.conf", CONFIGURATION.format(folder=self._folder, host=socket.gethostname().split(".")[0],
                                                       nodes=NODES, controller_port=ports[0], node_ports=ports[1:]))
        self._write("gres.conf", f"NodeName={','.join(NODES)} Name=gpu File={self._make_gpus()}\n")
        self._write("munge.key", os.urandom(512).hex())
        try:
            files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
            self._start("munged", "--foreground", "--force",
                        *(f"--{option}={self._folder}/munge.{name}" for option, name in files.items()))
            wait_for(lambda: (self._folder / "munge.socket").exists(), "munged's socket", 20)
            self._start("slurmctld", "-D")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            wait_for(lambda: self.run("sinfo", "--noheader", "--format=%T %D", "--partition=batch") == "idle 2",
                     "two idle nodes", 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            self.run("scancel", "--user=root")
            wait_for(lambda: self.run("squeue", "--noheader") == "", "an empty queue", 60)
        except (subprocess.SubprocessError, TimeoutError):
            pass  # a controller that does not answer has no jobs to end
        finally:
            for daemon in reversed(self._daemons):
                daemon.terminate()
            for daemon in reversed(self._daemons):
                daemon.wait(timeout=30)

    def run(self, *command: str, folder: pathlib.Path | None = None, **environment: str) -> str:
        """Runs a command with this Slurm as its cluster; what it printed. Raises CalledProcessError if it failed."""
        ran = subprocess.run(command, cwd=folder or self._folder, env=self._environment | environment, timeout=60,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ran.returncode:
            raise subprocess.CalledProcessError(ran.returncode, command, ran.stdout, ran.stderr)
        return ran.stdout.strip()

    def states(self) -> dict[str, str]:
        """State of every job that has not ended; a task of an array is number_task."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)
        (self._folder / name).chmod(0o600 if name == "munge.key" else 0o644)

    def _make_gpus(self) -> str:
        """Device files for GPUs: Slurm accepts no plain ones. Their driver is that of /dev/null."""
        try:
            for number in (0, 1):
                os.mknod(self._folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            return "/dev/tty[0-1]"
        return f"{self._folder}/gpu[0-1]"

    def _start(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{len(self._daemons)}-{program}.log").open("w") as log:
            self._daemons.append(subprocess.Popen([shutil.which(program, path=SEARCH), *arguments], cwd=self._folder,
                                                  env=self._environment, stdout=log, stderr=log,
                                                  stdin=subprocess.DEVNULL))


def processes(module: str, **environment: str) -> list[int]:
    """Processes that run `python -m module` with these environment variables."""
    wanted = {f"{name}={value}" for name, value in environment.items()}
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
            if command[1:3] == ["-m", module] and wanted <= set((folder / "environ").read_text().split("\0")):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def wait_for(holds: Callable[[], bool], what: str, seconds: float) -> None:
    """Waits until `holds()`; raises TimeoutError, naming what was waited for, if that takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while not _holds(holds):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.25)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except subprocess.CalledProcessError:  # a controller that is not up yet
        return False
