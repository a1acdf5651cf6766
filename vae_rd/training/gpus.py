"""The GPUs of this machine and those that this process may use, without asking TensorFlow."""

import os


def present() -> list[str]:
    """The NVIDIA GPUs that the operating system shows, by number; rising."""
    found = [name.removeprefix("nvidia") for name in os.listdir("/dev") if name.startswith("nvidia")]
    return sorted((name for name in found if name.isdigit()), key=int)


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return present()
    return [name for part in chosen.split(",") if (name := part.strip()) not in ("", "-1")]  # empty: none
