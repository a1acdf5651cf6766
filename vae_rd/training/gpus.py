"""The GPUs of this machine and those that this process may use, without asking TensorFlow."""

import functools
import os
import pathlib
import re
import subprocess

DRIVER = pathlib.Path("/proc/driver/nvidia/version")


def present() -> list[str]:
    """The NVIDIA GPUs that the operating system shows, by number, ascending.

    Where it has no device files for them, as under WSL, it is NVIDIA's program that knows them.
    """
    found = [name.removeprefix("nvidia") for name in os.listdir("/dev") if name.startswith("nvidia")]
    if numbers := sorted((name for name in found if name.isdigit()), key=int):
        return numbers
    return re.findall(r"^GPU ([0-9]+):", nvidia_smi("-L"), re.MULTILINE)


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Without it they are numbered from 0, as CUDA numbers them: in a container that was given the fourth GPU alone,
    /dev/nvidia3 is GPU 0.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(len(present()))]
    return [name for part in chosen.split(",") if (name := part.strip()) not in ("", "-1")]  # empty: none


@functools.cache
def nvidia_smi(*arguments: str) -> str:
    """What NVIDIA's program says; nothing where it is not installed, as in many containers."""
    try:
        return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def driver() -> str | None:
    """Version of NVIDIA's driver, such as 550.54.15; None if it does not say."""
    text = DRIVER.read_text() if DRIVER.is_file() else ""
    found = re.search(r"Kernel Module\D.*?\s(\d+(?:\.\d+)+)\s", text)
    return found.group(1) if found else None
