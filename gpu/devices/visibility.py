"""Pure: how an executor is limited to its devices: by its environment, before Python starts."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.devices.device import Device


def visibility_environment(devices: Sequence[Device]) -> dict[str, str]:
    """Return the environment that makes these the only GPUs visible to a process, in order from cuda:0.

    GPUs are named by uuid, since positions differ between the driver's order and CUDA's on mixed GPUs. Where
    no device is a real GPU, all are hidden: a job that was placed on RAM must not open a context.
    """
    uuids = [device.uuid for device in devices if device.kind == "nvidia"]
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def torch_device(devices: Sequence[Device]) -> str:
    """Return the name by which such a process finds its (first) device: "cuda:0" or "cpu"."""
    return "cuda:0" if any(device.kind == "nvidia" for device in devices) else "cpu"
