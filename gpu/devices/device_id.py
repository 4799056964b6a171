"""Pure: the id of a device, which may name the node that the device is in."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: As many characters as every name in the API may have.
CHARS_MAX = 100

#: The last part never has a dot, so that the name of a node may have some: "a.example.org.gpu0".
_DEVICE_ID = re.compile(
    r"(?:(?P<node>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.)?(?P<local>cpu|(?:gpu|sim)(?:0|[1-9][0-9]{0,3}))"
)


@dataclass(frozen=True, slots=True)
class DeviceId:
    """The id of a device: `NODE.gpu0`, or `gpu0` alone for a device of the coordinator's own node."""

    #: Unique in its node: "gpu0", "sim0" or "cpu".
    local: str
    #: Host name of the node; None: the node of the coordinator.
    node: str | None = None

    def __str__(self) -> str:
        return self.local if self.node is None else f"{self.node}.{self.local}"


def parse_device_id(text: str) -> DeviceId:
    """Return the id that `str` of it gives back.

    Raises:
        ValueError: the text is not a device id, or longer than `CHARS_MAX`.
    """
    found = _DEVICE_ID.fullmatch(text)
    if found is None or len(text) > CHARS_MAX:
        raise ValueError(f"{text!r} is not a device id; these are gpu0, sim0, cpu, and NODE.gpu0")
    return DeviceId(found["local"], found["node"])


def is_cpu_id(text: str) -> bool:
    """Return whether the text is the id of a CPU, of whichever node; False where it is no device id."""
    found = _DEVICE_ID.fullmatch(text)
    return found is not None and found["local"] == "cpu"
