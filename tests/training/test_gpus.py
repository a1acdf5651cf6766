"""GPUs that are there and GPUs that TensorFlow can use: a difference is refused, not trained around."""

import os
import subprocess
import sys

import pytest

from vae_rd.config import ConfigError
from vae_rd.training import devices, gpus


@pytest.mark.parametrize("visible, refused", [(None, True), ("0", True), ("-1", False), ("", False)])
def test_a_gpu_that_tensorflow_cannot_use_is_refused_unless_it_is_hidden(monkeypatch, visible, refused):
    monkeypatch.setattr(gpus.os, "listdir", lambda path: ["nvidia0", "nvidiactl", "null"])
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if refused:
        with pytest.raises(ConfigError, match="the GPUs 0 are visible.*CUDA_VISIBLE_DEVICES=-1"):
            devices.check_gpus()
    else:
        devices.check_gpus()


def test_the_model_of_the_gpu_is_recorded(monkeypatch):
    assert "gpus" not in devices.machine()
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"] * (kind == "GPU"))
    details = {"device_name": "Some GPU"}
    monkeypatch.setattr(devices.tf.config.experimental, "get_device_details", lambda device: details)
    assert devices.machine()["gpus"] == ["Some GPU"] and "driver" in devices.machine()


@pytest.mark.parametrize("files, said, numbers", [
    (["nvidia10", "nvidia2", "nvidiactl"], "GPU 0: Some GPU (UUID: GPU-1)\n", ["2", "10"]),
    (["dxg", "null"], "GPU 0: Some GPU (UUID: GPU-1)\nGPU 1: Some GPU (UUID: GPU-2)\n", ["0", "1"]),
    (["null"], "No devices were found\n", []), (["null"], None, [])])
def test_gpus_without_device_files_are_asked_for(tmp_path, monkeypatch, files, said, numbers):
    """As under WSL; a container may have the program and no GPU."""
    monkeypatch.setattr(gpus.os, "listdir", lambda path: files)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus.nvidia_smi.cache_clear()
    if said:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && printf '{said}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus.present() == numbers
    gpus.nvidia_smi.cache_clear()


@pytest.mark.parametrize("text, version", [
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  12 \n",
     "535.104.05"),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs)\n", "550.54.15"),
    ("something else 1.2 \n", None), (None, None)])
def test_the_driver_is_recorded(tmp_path, monkeypatch, text, version):
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    if text:
        gpus.DRIVER.write_text(text)
    assert gpus.driver() == version


@pytest.mark.slow
def test_kernels_are_not_tuned_on_a_gpu_and_flags_of_the_user_stay(monkeypatch):
    """In a process of its own: XLA reads them when it first compiles, and ends the process for one it does not know."""
    program = ("import os, tensorflow as tf\n"
               "from vae_rd.training import devices, gpus\n"
               "gpus.visible = lambda: ['0']\n"
               "gpus.present = lambda: []\n"
               "devices.configure('float32')\n"
               "devices.configure('float32')\n"
               "print(os.environ['XLA_FLAGS'])\n"
               "print(tf.function(lambda x: 2 * x, jit_compile=True)(tf.constant(1.0)).numpy())\n")

    def run(flags):
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              env=os.environ | {"XLA_FLAGS": flags})
    good, bad = run("--xla_gpu_autotune_level=4"), run("--xla_gpu_no_such_flag=1")
    assert good.stdout.splitlines() == [f"{devices.XLA_FLAGS} --xla_gpu_autotune_level=4", "2.0"], good.stderr
    assert bad.returncode != 0 and "xla_gpu_no_such_flag" in bad.stderr
