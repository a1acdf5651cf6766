"""Measures speed and holds it against its limits: python -m tests.benchmarks --only=mlp1,loading --json=speed.json.

All of it takes about half an hour on 2 quiet cores; other work on the machine spoils it. JAX is wanted
(pip install .[bench]). The exit status is 1 if a limit is missed.
"""

import argparse
import functools
import importlib
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
import traceback

from tests.benchmarks import contest, material

GROUPS = {  # by name: the module and the function that measures
    "machine": ("machine", "peaks"),
    **{name: ("training", "steps") for name in ("mlp1", "mlp3", "cnn1", "cnn3")},
    **{f"column_{name}": ("training", "column") for name in ("mlp1", "cnn1")},
    "evaluation": ("training", "evaluation"), "upkeep": ("training", "upkeep"),
    "loading": ("input", "loading"), "generator": ("input", "generator"),
    "aggregate": ("estimators", "aggregate"), "nearest": ("estimators", "nearest"),
    "startup": ("startup", "commands"), "first_step": ("startup", "first_step"), "memory": ("startup", "memory"),
    "growth": ("growth", "growth"), "precision": ("precision", "precision"), "kernels": ("kernels", "prediction")}
WHEN_ASKED = {"growth", "precision", "kernels"}  # tables without limits
PACKAGES = ("tensorflow", "keras", "numpy", "jax")


def main(arguments: list[str]) -> int:
    """Measures what the arguments ask for; returns the exit status."""
    options = _parser().parse_args(arguments)
    names = options.only or [name for name in GROUPS if name not in WHEN_ASKED]
    sizes = material.TINY if options.tiny else material.FULL
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stuff = material.Material(sizes, pathlib.Path(folder))
        _configure()
        for name in names:
            rows += _measured(name, stuff, options.repeats or sizes.repeats)
            if options.json:  # after each group: hours of measuring do not hang on the last one
                options.json.write_text(json.dumps({"machine": _machine(), "tiny": options.tiny,
                                                    "rows": [row.to_dict() for row in rows]}, indent=2) + "\n")
    print(contest.table(rows))
    wrong = [row for row in rows if row.verdict in (contest.MISSED, contest.FAILED)]
    limits = [row for row in rows if row.limit is not None]
    counts = [sum(row.verdict == verdict for row in limits) for verdict in (contest.HELD, contest.MISSED, "")]
    print(f"{len(limits)} limits: {counts[0]} held, {counts[1]} missed, {counts[2]} not measured."
          + (" Sizes are tiny: verdicts mean nothing." if options.tiny else ""))
    return int(any(row.verdict == contest.FAILED or not options.tiny for row in wrong))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=_names, help=f"groups to measure, separated by commas: {', '.join(GROUPS)} "
                                                    f"(default: all but {', '.join(WHEN_ASKED)})")
    parser.add_argument("--repeats", type=int, help="repetitions of everything (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, no references: whether it runs, not how fast")
    parser.add_argument("--json", type=pathlib.Path, help="file for all figures")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{','.join(unknown)} not known; choose among {', '.join(GROUPS)}")
    return names


def _configure() -> None:
    """The same arithmetic, determinism and threads as the training program."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from vae_rd.training import devices
    devices.configure("float32")


def _measured(name: str, stuff: material.Material, repeats: int) -> list[contest.Row]:
    """Rows of one group; a group that breaks is one row that says so, and the others go on."""
    module, function = GROUPS[name]
    group = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)
    if function in ("steps", "column"):
        group = functools.partial(group, name.removeprefix("column_"))
    begun = time.monotonic()
    try:
        rows = group(stuff, repeats, functools.partial(_report, name))
    except Exception as error:
        traceback.print_exc()
        rows = [contest.Row(name, "", note=f"{contest.FAILED}: {type(error).__name__}: {error}".splitlines()[0])]
    _report(name, f"done in {time.monotonic() - begun:.0f} s\n")
    return rows


def _report(name: str, text: str) -> None:
    """Says what is running, on one line of a terminal; elsewhere only the end of each group."""
    if sys.stderr.isatty():
        print(f"\r\033[K{name}: {text}", end="", file=sys.stderr, flush=True)
    elif text.endswith("\n"):
        print(f"{name}: {text}", end="", file=sys.stderr, flush=True)


def _machine() -> dict:
    """What the figures were measured on, and with."""
    from importlib import metadata
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = contest.ABSENT
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
            "versions": versions, "load": os.getloadavg()[0], "time": time.strftime("%Y-%m-%d %H:%M:%S")}


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
