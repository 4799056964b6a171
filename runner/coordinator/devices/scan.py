"""Effect: a process that scans the GPUs once for `runner doctor`; a hung driver blocks no other process."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from gpu.devices.device import Device, GpuRequest, parse_gpus
from gpu.devices.discovery import DeviceError, driver_version, find_devices
from runner.processes import child as child_processes
from runner.processes.child import SurveyConfig


def scan(gpus: str, environ: Mapping[str, str], **nvml: Any) -> dict[str, Any]:
    """Return the driver's version, all GPUs (`cards`), how many of them CUDA_VISIBLE_DEVICES leaves
    (`visible`), and the GPUs that `--gpus` selects (`chosen`, or `error`)."""
    all_gpus = GpuRequest("all")
    unmasked = find_devices(all_gpus, {}, **nvml)
    result: dict[str, Any] = {
        "driver": driver_version(**nvml),
        "cards": [_device_text(device) for device in unmasked.devices if device.kind == "nvidia"],
        "visible": sum(device.kind == "nvidia" for device in find_devices(all_gpus, environ, **nvml).devices),
    }
    try:
        selected = find_devices(parse_gpus(gpus), environ, **nvml)
    except (DeviceError, ValueError) as error:
        return result | {"error": str(error)}
    chosen = [f"{device.id}: {_device_text(device)}" for device in selected.devices if device.kind != "cpu"]
    return result | {"chosen": chosen, "notes": selected.notes}


def main() -> None:
    """Scan, and write the result as JSON to the file descriptor that the configuration names."""
    config, lifeline = child_processes.read_config(
        int(sys.argv[sys.argv.index("--lifeline") + 1]), SurveyConfig
    )
    threading.Thread(target=_exit_with_lifeline, args=(lifeline,), name="lifeline", daemon=True).start()
    result = msgspec.json.encode(scan(config.gpus, os.environ))
    with os.fdopen(config.fd, "wb") as out:
        out.write(result)


def _device_text(device: Device) -> str:
    return f"{device.name}, {device.total_bytes / 2**30:.0f} GiB"


def _exit_with_lifeline(lifeline: socket.socket) -> None:
    """Exit when the parent has gone. Runs in a separate thread: the main thread may hang in a driver."""
    lifeline.recv(1)
    os._exit(0)


if __name__ == "__main__":
    main()
