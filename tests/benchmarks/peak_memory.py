"""Runs vae_rd.main with its arguments, then says how much memory the process has held resident at most."""

import atexit
import pathlib
import re
import runpy


def peak_megabytes() -> float:
    """Most resident memory of this process so far (Linux); unlike getrusage's, it does not begin with the parent's."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1000


if __name__ == "__main__":
    atexit.register(lambda: print(f"peak memory {peak_megabytes():.1f} MB", flush=True))
    runpy.run_module("vae_rd.main", run_name="__main__", alter_sys=True)
