"""The launch scripts: checked, helpful, idempotent; and the dependencies they install."""

import ast
import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

import vae_rd
from vae_rd.sweeps import cost, experiments

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), ROOT / ".ci/run"])
SOURCED = ("environment.sh", "slurm_job.sh")
STARTED = [path for path in COMMANDS if path.name not in (*SOURCED, "run")]


def bash(command: str, folder: pathlib.Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Runs a bash command in a folder, with the tests' own Python first on PATH and nothing to install."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "EXTRAS", "PYTHON")}
    path = f"{pathlib.Path(sys.executable).parent}:{kept['PATH']}"
    return subprocess.run(["bash", "-c", command], cwd=folder, env=kept | {"PATH": path, "INSTALL": "no"} | environment,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


def program(path: pathlib.Path, text: str) -> None:
    """Writes an executable bash script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    """A copy of what the installation reads, with an active environment whose python writes down what it is asked."""
    for name in ("setup.cfg", "pyproject.toml", "launch"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    program(tmp_path / "venv/bin/python", 'echo "$*" >>"$(dirname "$0")/../../asked"')
    program(tmp_path / "bin/nvidia-smi", "exit 9")
    return tmp_path


def asked(project: pathlib.Path, command: str, **environment: str) -> list[str]:
    """What the project's python was asked by a command."""
    (project / "asked").write_text("")
    path = f"{project}/venv/bin:{project}/bin:{os.environ['PATH']}"
    ran = bash(f"set -euo pipefail; {command}", project, PATH=path, **environment)
    assert ran.returncode == 0, ran.stderr
    return (project / "asked").read_text().splitlines()


def install(project: pathlib.Path, extra: str = "", **environment: str) -> list[str]:
    """What pip is asked to install when the project's environment is entered."""
    lines = asked(project, f'source launch/environment.sh; enter_environment "$PWD" {extra}',
                  **{"INSTALL": "yes", "VIRTUAL_ENV": f"{project}/venv"} | environment)
    return [line.rsplit("/", 1)[1].removeprefix(project.name) for line in lines]


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian package shellcheck)")
    ran = subprocess.run(["shellcheck", "--external-sources", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "" and ran.returncode == 0


@pytest.mark.parametrize("script", STARTED, ids=lambda path: path.name)
def test_help_names_every_parameter(script):
    text = script.read_text()
    ran = bash(f"bash '{script}' --help", pathlib.Path("/"))
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout.startswith("Usage")
    assert "\nset -euo pipefail\n" in text
    for name in re.findall(r"^([A-Z_]+)=\$\{\1:-", text, re.MULTILINE):
        assert f"{name}=" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 120


def test_an_argument_that_quickstart_does_not_know_is_refused():
    ran = bash("bash launch/quickstart.sh --beta=1")
    assert ran.returncode == 2 and "Usage" in ran.stderr


def test_installs_once_per_version_and_extra(project):
    assert install(project) == [""]
    assert install(project) == []
    assert install(project, "test") == ["[test]"]
    assert install(project, "test") == install(project) == []
    with (project / "launch/constraints.txt").open("a") as file:
        file.write("# another version\n")
    assert install(project, "test") == ["[test]"]
    assert install(project) == []


def test_a_failed_installation_is_not_taken_for_a_finished_one(project):
    program(project / "venv/bin/python", "exit 1")
    with pytest.raises(AssertionError):
        install(project)
    program(project / "venv/bin/python", 'echo "$*" >>"$(dirname "$0")/../../asked"')
    assert install(project) == [""]


def test_a_gpu_brings_the_cuda_extra_unless_told_otherwise(project):
    program(project / "bin/nvidia-smi", "echo 'GPU 0: some'")
    assert install(project, "test", EXTRAS="") == ["[test]"]
    assert install(project, "test") == ["[test,cuda]"]
    assert install(project, EXTRAS="cuda") == []
    assert install(project, EXTRAS="bench") == ["[bench]"]


def test_nothing_is_installed_when_told_so(project):
    assert install(project, INSTALL="no") == []
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("python, words", [
    ("exit 1", "older than 3.11"),
    ('[[ $1 == -c ]] || { mkdir "$3"; exit 1; }', "apt-get install python3-venv"),
])
def test_a_python_that_does_not_serve_is_refused_and_leaves_nothing(project, python, words):
    program(project / "bin/python3", python)
    ran = bash('set -e; source launch/environment.sh; enter_environment "$PWD"', project, INSTALL="yes",
               PYTHON=str(project / "bin/python3"))
    assert ran.returncode == 1 and words in ran.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("gpus, settings, workers", [(0, {}, "3"), (0, {"CORES_PER_RUN": "16"}, "1"), (2, {}, "2"),
                                                     (2, {"RUNS_PER_GPU": "3"}, "6")])
def test_a_local_sweep_has_a_process_per_gpu_or_group_of_cores(project, gpus, settings, workers):
    program(project / "venv/bin/python", f'[[ $1 != -c ]] || {{ echo {gpus}; exit; }}\n'
                                         'echo "$*" >>"$(dirname "$0")/../../asked"')
    program(project / "bin/nproc", "echo 7")
    sweep, export = asked(project, "bash launch/sweep_local.sh --retry", EXPERIMENT="figure4", **settings)
    assert f" --workers={workers} --retry" in sweep and "vae_rd.sweep --experiment=figure4 --scale=laptop" in sweep
    assert "vae_rd.export --experiment=figure4 --scale=laptop --runs_dir=runs --out_dir=figures" in export


@pytest.mark.parametrize("script, flag", [("sweep_local.sh", "--scale=smoke"), ("sweep_local.sh", "-runs_dir"),
                                          ("slurm_sweep.sbatch", "--experiment=figure8"),
                                          ("slurm_summary.sbatch", "--runs_dir=elsewhere"),
                                          ("slurm_summary.sbatch", "--out_dir=elsewhere")])
def test_a_flag_that_would_not_reach_the_figures_is_refused(project, script, flag):
    ran = bash(f"bash launch/{script} --retry {flag}", project)
    name = flag.strip("-").partition("=")[0].upper().replace("OUT_DIR", "FIGURES_DIR")
    assert ran.returncode == 2 and f"{flag} must be given as a variable, before the command: {name}=..." in ran.stderr


@pytest.mark.parametrize("answers, state, asked", [("echo RUNNING", "RUNNING", 1), ("exit 1", "UNKNOWN", 3),
                                                   ("(($(wc -l <times) > 1)) && echo PENDING", "PENDING", 2)])
def test_a_controller_that_does_not_answer_is_asked_again(project, answers, state, asked):
    """Else a job that has saved its state would end without going back to the queue."""
    program(project / "bin/squeue", f"echo >>times; {answers}")
    program(project / "bin/scontrol", 'echo "$*" >requeued')
    program(project / "bin/sleep", "")
    ran = bash("set -euo pipefail; source launch/slurm_job.sh; requeue because", project, SLURM_JOB_ID="7",
               PATH=f"{project}/bin:{os.environ['PATH']}")
    assert ran.returncode == 0 and f"it is {state}" in ran.stdout
    assert len((project / "times").read_text().splitlines()) == asked
    assert (project / "requeued").is_file() == (state != "PENDING")


@pytest.mark.parametrize("status, drawn", [(1, True), (85, False), (130, False), (143, False)])
def test_a_local_sweep_draws_after_failed_runs_but_not_after_an_interruption(project, status, drawn):
    program(project / "venv/bin/python", f'echo "$*" >>asked; [[ $* != *sweep* ]] || exit {status}')
    ran = bash("bash launch/sweep_local.sh", project, PATH=f"{project}/venv/bin:{os.environ['PATH']}")
    assert ran.returncode == status
    assert ("vae_rd.export" in (project / "asked").read_text()) == drawn


def requirements() -> dict[str, list[Requirement]]:
    """What setup.cfg asks for, by extra; the base under the empty name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
            for extra, text in extras.items()}


def test_constraints_hold_one_exact_version_of_all_that_is_asked_for():
    lines = [line for line in (ROOT / "launch/constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    versions = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    assert len(versions) == len(lines)
    for requirement in sum(requirements().values(), []):
        assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement


def test_every_package_that_is_imported_is_asked_for_and_the_other_way_round():
    imported = set()
    for path in [*ROOT.glob("vae_rd/**/*.py"), *ROOT.glob("data_gen/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    distributions = {"PIL": "pillow", "absl": "absl-py"}
    third_party = {distributions.get(name, name.replace("_", "-"))
                   for name in imported - sys.stdlib_module_names - {"vae_rd", "data_gen"}}
    by_others = {"tf-keras": "an import of tensorflow-probability", "tensorboard": "shows the runs"}
    assert third_party | set(by_others) == {requirement.name for requirement in requirements()[""]}


def test_the_version_is_in_one_place():
    assert "version = attr: vae_rd.__version__" in (ROOT / "setup.cfg").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", vae_rd.__version__)


@pytest.mark.slow
def test_the_costs_in_the_documentation_are_those_of_the_experiments():
    page = (ROOT / "docs/clusters.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) (\| [\d,]+ \| \d+ \| [\d,]+ \| \d+) \|$", page, re.MULTILINE))
    expected = {}
    for name in experiments.names():
        if configs := experiments.experiment(name, "paper").configs:
            runs, hours, gigabytes = cost.cost(configs)
            million_steps = sum({config.training_key: config.train_steps for config in configs}.values()) / 1e6
            expected[name] = f"| {runs:,} | {million_steps:.0f} | {hours:,.0f} | {gigabytes:.0f}"
    assert rows == expected


@pytest.mark.slow
def test_the_costs_of_the_figures_in_the_documentation_are_those_of_the_experiments():
    page = (ROOT / "docs/figures.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| [^|]+ \| ([\d,]+, [\d.]+ \| .*) \|$", page, re.MULTILINE))
    expected = {}
    for name in experiments.names():
        costs = [cost.cost(experiments.experiment(name, scale).configs)
                 for scale in ("laptop", "tenth", "paper")]
        if costs[0].runs:
            cells = [f"{runs:,}, {hours:,.{0 if hours >= 10 else 1}f}" for runs, hours, _ in costs]
            expected[name] = " | ".join(cells)
    assert rows == expected


@pytest.mark.slow
def test_quickstart_draws_a_curve_and_a_second_run_repeats_nothing(tmp_path):
    settings = {"SPLIT": "cd_256", "LAYERS": "1 3", "BETAS": "0.1,1", "TRAIN_STEPS": "20", "VIRTUAL_ENV": sys.prefix,
                "DATA_DIR": f"{tmp_path}/data", "RUNS_DIR": f"{tmp_path}/runs", "FIGURES_DIR": f"{tmp_path}/figures"}
    first = bash("bash launch/quickstart.sh", **settings)
    assert first.returncode == 0, first.stderr
    for name in ("rd.png", "rd.pdf", "rd_curves.csv", "runs.csv"):
        assert (tmp_path / "figures" / name).stat().st_size > 0
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/results.json")}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("data/**/*.gz")}
    assert len(trained) == 4 and len(made) >= 2
    second = bash("bash launch/quickstart.sh", **settings)
    assert second.returncode == 0, second.stderr
    assert trained == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/results.json")}
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.glob("data/**/*.gz")}
