"""Pure: what `--devices` asks for."""

from __future__ import annotations

import re

from gpu.devices.device import Device, sim

#: As many as one plan is meant for.
DEVICES_MAX = 1_000
_PART = re.compile(r"(?:(\d{1,6})x)?(\d+(?:\.\d+)?)\s*(MiB|GiB|TiB)", re.IGNORECASE)
_UNITS = {"mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def parse_devices(text: str, max_executors: int | None = None) -> list[Device]:
    """The devices of "8x80GiB" or "4x80GiB,8x24GiB".

    Raises:
        ValueError: another form, no device or more than 1,000.
    """
    sizes: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a count and a size: write 8x80GiB or 4x80GiB,8x24GiB")
        count, nbytes = int(match[1] or 1), int(float(match[2]) * _UNITS[match[3].lower()])
        if nbytes < 1 or not 1 <= count <= DEVICES_MAX - len(sizes):
            raise ValueError(f"{text!r} is not 1 to {DEVICES_MAX:,} devices with memory")
        sizes += [nbytes] * count
    return [sim(place, nbytes, max_executors) for place, nbytes in enumerate(sizes)]
