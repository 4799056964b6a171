"""Pure: what a device is, and what `--gpus` asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from gpu.devices.device_id import DeviceId, parse_device_id

DeviceKind = Literal["nvidia", "cpu", "sim"]

MIB = 1024 * 1024
#: How many executors run at once on a GPU or simulated device by default.
GPU_EXECUTORS = 8
#: How many executors may exist on one by default, idle ones included.
GPU_RESIDENT = 64
#: The same on the cpu: for each core, and at least in all.
CPU_RESIDENT_PER_CORE = 4
CPU_RESIDENT = 16
#: Bound on simulated devices: each has a worker process, and a typing error must not start thousands.
SIM_DEVICES_MAX = 64

ACCEPTED = "accepted are: all, none, 0 or 0,1, GPU-<uuid>, MIG-<uuid>, sim:24GiB, sim:2x24GiB"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,80}")


@dataclass(frozen=True, slots=True)
class Device:
    """A unit with memory on which executors run."""

    #: See `DeviceId`: "gpu0", "sim0" or "cpu", or "NODE.gpu0" on another node. Not stable: GPUs are numbered.
    id: str
    #: Stable name: what CUDA_VISIBLE_DEVICES takes, and what locks are named by.
    uuid: str
    kind: DeviceKind
    #: Marketing name, for people.
    name: str
    #: Memory of the device, without what its driver keeps for itself.
    total_bytes: int
    #: Never granted: reserved for contexts, other programs and rounding.
    headroom_bytes: int
    #: How many executors run or load at once.
    max_executors: int
    #: How many executors exist at once, idle ones included.
    max_resident: int = GPU_RESIDENT

    @property
    def cap_bytes(self) -> int:
        """The most that may be granted in total."""
        return self.total_bytes - self.headroom_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a message."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Device:
        """Restore the device that `to_dict` was called on; unknown fields are ignored.

        Raises:
            ValueError: the id is not a device id.
        """
        parse_device_id(data["id"])
        return cls(**{field.name: data[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What `--gpus` asks for; created by `parse_gpus`."""

    kind: Literal["all", "none", "named", "sim"]
    #: For "named": positions inside the inherited mask (int) and uuids or their prefixes (str), as written.
    names: tuple[int | str, ...] = ()
    #: For "sim": total bytes of each simulated device.
    sims: tuple[int, ...] = ()


def nvidia(
    index: int,
    uuid: str,
    name: str,
    total_bytes: int,
    max_executors: int | None = None,
    headroom_bytes: int | None = None,
    max_resident: int | None = None,
) -> Device:
    """Describe a GPU (or MIG instance) by its position among the visible ones.

    The total is without the driver's part.
    """
    headroom = _headroom(total_bytes) if headroom_bytes is None else headroom_bytes
    return Device(
        id=str(DeviceId(f"gpu{index}")),
        uuid=uuid,
        kind="nvidia",
        name=name,
        total_bytes=total_bytes,
        headroom_bytes=min(headroom, total_bytes),
        max_executors=max_executors or GPU_EXECUTORS,
        max_resident=max_resident or max(GPU_RESIDENT, max_executors or 0),
    )


def sim(
    index: int, total_bytes: int, max_executors: int | None = None, max_resident: int | None = None
) -> Device:
    """Describe a simulated GPU: it has no headroom, so that figures in tests are round."""
    return Device(
        id=str(DeviceId(f"sim{index}")),
        uuid=f"SIM-{index}",
        kind="sim",
        name="Simulated GPU",
        total_bytes=total_bytes,
        headroom_bytes=0,
        max_executors=max_executors or GPU_EXECUTORS,
        max_resident=max_resident or max(GPU_RESIDENT, max_executors or 0),
    )


def cpu(
    machine: str,
    name: str,
    total_bytes: int,
    cores: int,
    max_executors: int | None = None,
    max_resident: int | None = None,
) -> Device:
    """Describe the machine itself; its memory is RAM, of which the headroom is a quarter at most."""
    return Device(
        id=str(DeviceId("cpu")),
        uuid=f"cpu-{machine}",
        kind="cpu",
        name=name,
        total_bytes=total_bytes,
        headroom_bytes=min(_headroom(total_bytes), total_bytes // 4),
        max_executors=max_executors or max(2, cores),
        max_resident=max_resident or max(CPU_RESIDENT, CPU_RESIDENT_PER_CORE * cores, max_executors or 0),
    )


def parse_gpus(text: str) -> GpuRequest:
    """Parse the text of `--gpus`.

    Raises:
        ValueError: not one of the accepted forms; says which part is wrong and what is accepted.
    """
    word = text.strip()
    if word in ("all", "none"):
        return GpuRequest(cast(Literal["all", "none"], word))
    if word.startswith("sim:"):
        return GpuRequest("sim", sims=_parse_sims(text, word[4:]))
    names = tuple(_parse_name(text, part.strip()) for part in word.split(","))
    if len(set(names)) < len(names):
        raise ValueError(f"--gpus {text!r} names a device twice; {ACCEPTED}")
    return GpuRequest("named", names=names)


def _headroom(total_bytes: int) -> int:
    """Return the default headroom in bytes: 2 % of the device, at least 256 MiB."""
    return max(256 * MIB, total_bytes // 50)


def _parse_name(text: str, part: str) -> int | str:
    if part.isascii() and part.isdigit():
        return int(part)
    if _UUID.fullmatch(part):
        return part
    raise ValueError(f"--gpus {text!r}: {part!r} is neither a number nor a uuid; {ACCEPTED}")


def _parse_sims(text: str, rest: str) -> tuple[int, ...]:
    sims: list[int] = []
    for part in rest.split(","):
        count, cross, size = part.strip().partition("x")
        if not cross:
            count, size = "1", part.strip()
        match = _SIZE.fullmatch(size.strip())
        if not (count.isascii() and count.isdigit()) or match is None:
            raise ValueError(f"--gpus {text!r}: {part!r} is not a count and a size; {ACCEPTED}")
        nbytes = int(float(match[1]) * _UNITS[(match[2] or "B").lower()])
        if nbytes < MIB or len(count) > 3 or not 1 <= int(count) <= SIM_DEVICES_MAX - len(sims):
            raise ValueError(
                f"--gpus {text!r}: {part!r} is not 1 to {SIM_DEVICES_MAX} devices of at least 1MiB; "
                f"{ACCEPTED}"
            )
        sims += [nbytes] * int(count)
    return tuple(sims)
