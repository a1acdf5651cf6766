"""How long a command takes until it answers, and until its first training step; how much memory a training holds."""

import os
import subprocess
import sys
import time

from tests.benchmarks.contest import Row, alone, measure, timed
from tests.benchmarks.material import Material

COMMANDS = {"vae_rd.main --help": ["vae_rd.main", "--help"],
            "vae_rd.export --help": ["vae_rd.export", "--help"],
            "vae_rd.evaluate --help": ["vae_rd.evaluate", "--help"],
            "data_gen.main --help": ["data_gen.main", "--help"],
            "vae_rd.sweep --list": ["vae_rd.sweep", "--list", "--experiment=figure3"]}
SMALLEST_SPLIT = "cd_40"
HELP_SECONDS, FIRST_STEP_SECONDS, MEGABYTES = 1.0, 12.0, 2000


def commands(material: Material, repeats: int, report) -> list[Row]:
    """The commands' help and the sweep's list, each a new process; a bare interpreter for comparison."""
    contestants = {name: lambda arguments=arguments: timed(lambda: _run("-m", *arguments))
                   for name, arguments in COMMANDS.items()}
    figures = measure({"python -c pass": lambda: timed(lambda: _run("-c", "pass")), **contestants}, repeats, report)
    return [alone(name, "s", values, HELP_SECONDS if name in COMMANDS else None) for name, values in figures.items()]


def first_step(material: Material, repeats: int, report) -> list[Row]:
    """From the command to the end of the first training step: its compilation counts, the evaluation before it not."""
    config = material.config("mlp1", eval_images=1).replace(split=material.sizes.first_step_split)
    material.generate(config.split)
    flags = [f"--{name}={value}" for name, value in config.non_default.items()]

    def start() -> float:
        output = _run("-m", "tests.benchmarks.first_step", str(time.time()), f"--data_dir={material.folder / 'data'}",
                      f"--runs_dir={material.folder / 'started'}", "--noprogress", *flags)
        return float(output.rpartition("first step after ")[2].split()[0])

    figures = measure({"start": start}, repeats, report, warm_up=False)
    return [alone(f"command to first step, {config.split}", "s", figures["start"], FIRST_STEP_SECONDS)]


def memory(material: Material, repeats: int, report) -> list[Row]:
    """Peak memory of a training on the largest split, evaluations included, beyond that of one on hardly any data."""
    config = material.config("mlp1", train_steps=3)

    def held(split: str) -> float:
        flags = [f"--{name}={value}" for name, value in config.replace(split=split).non_default.items()]
        output = _run("-m", "tests.benchmarks.peak_memory", f"--data_dir={material.folder / 'data'}", "--noprogress",
                      f"--runs_dir={material.folder / f'held-{time.time()}'}", *flags)
        return float(output.rpartition("peak memory ")[2].split()[0])

    for split in (SMALLEST_SPLIT, material.sizes.largest_split):
        material.generate(split)
    figures = measure({"largest": lambda: held(material.sizes.largest_split),
                       "framework": lambda: held(SMALLEST_SPLIT)}, 1, report, warm_up=False)
    beyond = [largest - framework for largest, framework in zip(figures["largest"], figures["framework"])]
    return [alone(f"memory of a training on {material.sizes.largest_split}", "MB", figures["largest"]),
            alone("memory beyond the framework's own", "MB", beyond, MEGABYTES,
                  note=f"a training on {SMALLEST_SPLIT} holds {figures['framework'][0]:,.0f} MB")]


def _run(*arguments: str) -> str:
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                             env={"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ))
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{process.stderr}")
    return process.stdout
