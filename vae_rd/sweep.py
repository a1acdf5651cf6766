"""Runs experiments: python -m vae_rd.sweep --experiment=figure3 --scale=laptop; all of it, a part, or its status."""

import sys

from absl import flags

from vae_rd import cli
from vae_rd.config import ConfigError
from vae_rd.measures import MEASURES
from vae_rd.sweeps import experiments, reports, running
from vae_rd.sweeps.sweep import Sweep

_EXPERIMENT = flags.DEFINE_list("experiment", None, f"one or several of {', '.join(experiments.names())}")
_SCALE = flags.DEFINE_enum("scale", experiments.DEFAULT_SCALE, list(experiments.SCALES),
                           "smoke (minutes), laptop (hours), tenth (days: the paper's sizes, a tenth of its "
                           "steps), paper (the full protocol)")
_LIST = flags.DEFINE_bool("list", False, "print the runs and what they cost, and exit")
_STATUS = flags.DEFINE_bool("status", False, "print the progress of all runs, wherever they are trained, and exit")
_TASK = flags.DEFINE_integer("task", 0, "number of the part to run, from 0", 0)
_NUM_TASKS = flags.DEFINE_integer("num_tasks", 1, "parts that the experiment is cut into; may change between calls", 1)
_WORKERS = flags.DEFINE_integer("workers", 1, "processes on this machine, each on its GPU or its share of the cores", 1)
_COLUMN_SIZE = flags.DEFINE_string("column_size", "auto", "runs trained together by one process: a number, or auto: as "
                                                          "memory allows")
_STRATEGY = flags.DEFINE_enum("strategy", "auto", ["auto", "one_device", "mirrored"],
                              "devices of a worker: one, or all GPUs of this machine (mirrored, with one worker)")
_MEASURE = flags.DEFINE_bool("measure", True, "compute the measures that the experiment needs")
_COLUMN = flags.DEFINE_integer("column", None, "for the workers: train this one column in this process", 0)
_SHARING = flags.DEFINE_integer("sharing", None, "for the workers: how many of them share a GPU's memory", 1)
_DATA_DIR, _RAW_DIR, _RUNS_DIR = cli.data_dir(), cli.raw_dir(), cli.runs_dir()
_RETRY, _PROGRESS, _IMPORT = cli.retry(), cli.progress(), cli.modules()
_SETTINGS = cli.settings(MEASURES)


def _column_size(text: str) -> int | None:
    """The number of runs in a column; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"column_size must be a whole number, 1 or more, or auto (got {text!r}).")
    return int(text)


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.failures_in_words(argv):
        cli.import_modules(_IMPORT.value)
        sweep = Sweep(_EXPERIMENT.value or (), scale=_SCALE.value, task=_TASK.value, num_tasks=_NUM_TASKS.value,
                      workers=_WORKERS.value, column_size=_column_size(_COLUMN_SIZE.value), runs_dir=_RUNS_DIR.value,
                      data_dir=_DATA_DIR.value, raw_dir=_RAW_DIR.value, measure=_MEASURE.value, retry=_RETRY.value,
                      progress=_PROGRESS.value, strategy=_STRATEGY.value, sharing=_SHARING.value, modules=_IMPORT.value,
                      settings=cli.given(_SETTINGS))
        if _LIST.value or _STATUS.value:
            for line in (reports.listing if _LIST.value else reports.status)(sweep):
                print(line)
        elif _COLUMN.value is not None:
            sys.exit(running.run_column(sweep, _COLUMN.value))
        else:
            sys.exit(running.run(sweep))


if __name__ == "__main__":
    cli.run(main)
