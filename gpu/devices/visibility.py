"""Pure: how an executor is pinned to its devices: by its environment, before Python starts."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.devices.device import Device


def visibility_environment(devices: Sequence[Device]) -> dict[str, str]:
    """Environment that makes these the only GPUs a process can see, in this order, as cuda:0 and up.

    By uuid, since places differ between the driver's order and CUDA's on mixed cards. Where no
    device is a real GPU, all are hidden: a job that was placed on RAM must not open a context.
    """
    uuids = [device.uuid for device in devices if device.kind == "nvidia"]
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def torch_device(devices: Sequence[Device]) -> str:
    """The name under which a pinned process finds its (first) device: "cuda:0" or "cpu"."""
    return "cuda:0" if any(device.kind == "nvidia" for device in devices) else "cpu"
