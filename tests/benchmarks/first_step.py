"""Runs vae_rd.main until its first training step is done and says after how many seconds, evaluations left out.

The first argument is the time at which the command was given; the others are vae_rd.main's.
"""

import os
import runpy
import sys
import time


def watch(begun: float) -> None:
    """Lets the first training call end the process with the time, less that of evaluations."""
    from vae_rd.training.column import Column
    from vae_rd.training.evaluation import Evaluator
    train, evaluate, evaluating = Column.train, Evaluator.evaluate, []

    def timed_evaluate(*arguments, **keywords):
        before = time.time()
        values = evaluate(*arguments, **keywords)
        evaluating.append(time.time() - before)
        return values

    def timed_train(*arguments):
        train(*arguments)
        print(f"first step after {time.time() - begun - sum(evaluating):.3f} s", flush=True)
        os._exit(0)

    Column.train, Evaluator.evaluate = timed_train, timed_evaluate


if __name__ == "__main__":
    start = float(sys.argv.pop(1))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # as vae_rd.main does, before TensorFlow is there
    watch(start)
    runpy.run_module("vae_rd.main", run_name="__main__", alter_sys=True)
