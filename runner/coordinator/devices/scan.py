"""Effect: a process that looks once at the GPUs and answers; a driver that hangs holds up nobody else."""

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


def survey(gpus: str, environ: Mapping[str, str], **nvml: Any) -> dict[str, Any]:
    """The driver, all GPUs, how many the mask leaves, and those that `--gpus` takes."""
    everything = GpuRequest("all")
    cards = find_devices(everything, {}, **nvml)
    answer: dict[str, Any] = {
        "driver": driver_version(**nvml),
        "cards": [_words(device) for device in cards.devices if device.kind == "nvidia"],
        "visible": sum(
            device.kind == "nvidia" for device in find_devices(everything, environ, **nvml).devices
        ),
    }
    try:
        found = find_devices(parse_gpus(gpus), environ, **nvml)
    except (DeviceError, ValueError) as error:
        return answer | {"error": str(error)}
    chosen = [f"{device.id}: {_words(device)}" for device in found.devices if device.kind != "cpu"]
    return answer | {"chosen": chosen, "notes": found.notes}


def main() -> None:
    """Answer in JSON on the descriptor that the lifeline names."""
    config, lifeline = child_processes.read_config(
        int(sys.argv[sys.argv.index("--lifeline") + 1]), SurveyConfig
    )
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    answer = msgspec.json.encode(survey(config.gpus, os.environ))
    with os.fdopen(config.fd, "wb") as out:
        out.write(answer)


def _words(device: Device) -> str:
    return f"{device.name}, {device.total_bytes / 2**30:.0f} GiB"


def _end_with(lifeline: socket.socket) -> None:
    """A thread of its own: the main one may be stuck in a driver."""
    lifeline.recv(1)
    os._exit(0)


if __name__ == "__main__":
    main()
