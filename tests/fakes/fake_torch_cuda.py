"""Effect: a look-alike of `torch.cuda`: the calls that executors and the handlers of the tests make."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.fakes.fake_device_memory import FakeDevice, OutOfMemoryError
from tests.fakes.fake_gpus import Card

__all__ = ["OutOfMemoryError"]

#: What a card computes in a second.
OPERATIONS_S = 10e12

_devices: list[FakeDevice] = []
_lock = threading.Lock()
_is_initialized = False
_queued: list[Callable[[], object]] = []


def is_available() -> bool:
    return device_count() > 0


def device_count() -> int:
    return len(_all())


def is_initialized() -> bool:
    return _is_initialized


def init() -> None:
    global _is_initialized
    if not _all():
        raise RuntimeError("No CUDA GPUs are available")
    if _is_initialized:
        return
    _is_initialized = True
    while _queued:
        _queued.pop(0)()


def _lazy_call(call: Callable[[], object]) -> None:
    """What is called as the first thing after the start, or at once where that is over."""
    if _is_initialized:
        call()
    else:
        _queued.append(call)


def current_device() -> int:
    init()
    return 0


def get_device_name(device: Any = None) -> str:
    return _card(device).name


def get_device_properties(device: Any = None) -> SimpleNamespace:
    card = _card(device)
    return SimpleNamespace(name=card.name, total_memory=card.total - card.reserved, uuid=card.uuid)


def mem_get_info(device: Any = None) -> tuple[int, int]:
    return allocator(device).memory()


def memory_allocated(device: Any = None) -> int:
    return _quiet(device, "allocated")


def memory_reserved(device: Any = None) -> int:
    return _quiet(device, "reserved")


def max_memory_allocated(device: Any = None) -> int:
    return _quiet(device, "max_allocated")


def max_memory_reserved(device: Any = None) -> int:
    return _quiet(device, "max_reserved")


def reset_peak_memory_stats(device: Any = None) -> None:
    allocator(device).reset_peaks()


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    allocator(device).limit(fraction)


def get_per_process_memory_fraction(device: Any = None) -> float:
    return allocator(device).fraction


def empty_cache() -> None:
    if _is_initialized:
        for each in _all():
            each.empty_cache()


def synchronize(device: Any = None) -> None:
    allocator(device).synchronize()


def launch(device: Any = None, operations: float = 0.0) -> None:
    """A kernel. torch has no such call: its operations are kernels."""
    allocator(device).launch(operations / OPERATIONS_S)


def allocator(device: Any) -> FakeDevice:
    """What stands behind a device, which is opened by this as by any first use."""
    init()
    found = _all()[_index(device)]
    found.open()
    return found


def _quiet(device: Any, figure: str) -> int:
    """A figure that torch gives without opening anything."""
    return int(getattr(_all()[_index(device)], figure)) if _is_initialized else 0


def _card(device: Any) -> Card:
    init()
    return _all()[_index(device)].card


def _index(device: Any) -> int:
    if device is None:
        return 0
    if isinstance(device, int):
        return device
    return int(str(device).partition(":")[2] or 0)


def _all() -> list[FakeDevice]:
    """The cards that the mask leaves, in its order; it is read once, as by the driver."""
    with _lock:
        if not _devices:
            mask = os.environ.get("CUDA_VISIBLE_DEVICES")
            uuids = (
                [card.uuid for card in FakeDevice.folder().state().cards] if mask is None else mask.split(",")
            )
            _devices.extend(FakeDevice(place, uuid) for place, uuid in enumerate(uuids) if uuid)
        return _devices
