"""GPUs that are there and GPUs that TensorFlow can use: a difference is refused, not trained around."""

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
    assert devices.machine()["gpus"] == ["Some GPU"]
