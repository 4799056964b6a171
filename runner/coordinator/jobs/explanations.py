"""Pure: figures of the plan told in words: why a job waits, or could never start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


#: A tenant that had so much more than another is told so.
LEAD_S = 1.0


def nbytes(count: int) -> str:
    """`6.0 GiB`: three digits are enough for people."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def misfit(handler: str, figures: Mapping[str, Any], device_id: str | None = None) -> str:
    """Why no device could ever fit a job, from `MemoryNeeds.misfit`; `device_id`: the only one that was
    asked for."""
    if device_id is not None and not figures["devices"]:
        return f"{handler} does not run on {device_id}: it is for {'GPUs' if figures['gpus'] else 'the cpu'}"
    devices = ", ".join(f"{d['device']} at most {nbytes(d['grantable_bytes'])}" for d in figures["devices"])
    gpus = figures["gpus"]
    wanted = nbytes(figures["needed_bytes"]) + (f" on each of {gpus} devices" if gpus > 1 else "")
    return f"{handler} needs {wanted}; {devices or 'there is no such device'}"


def waiting(reason: str | None, figures: Mapping[str, Any]) -> str:
    """Why a job waits, from `View.explain`."""
    ahead = figures["jobs_ahead"]
    tail = f"; {ahead} {'job is' if ahead == 1 else 'jobs are'} ahead of it" if ahead else ""
    lead_s = figures.get("tenant_lead_s", 0.0)
    if lead_s >= LEAD_S:
        tail += f"; its tenant had {lead_s:.0f} s of devices more, by weight, than another that waits"
    if kept := figures.get("reserved"):
        names, starts_s = ", ".join(each["device"] for each in kept["devices"]), kept["starts_in_s"]
        when = "" if starts_s is None else f", in about {starts_s:.0f} s"
        tail += f"; it gets {names} next{when}, and others start there only where they end before"
    match reason:
        case "paused":
            return f"its queue is paused{tail}"
        case "concurrency_limit":
            return f"as many of its handler run as may run at once{tail}"
        case "waiting_for_memory":
            return f"it waits for device memory: {_devices(figures)}{tail}"
        case "waiting_for_device":
            return f"it waits for a device that takes work: {_devices(figures)}{tail}"
        case _:
            return f"it is ready to start{tail}"


def _devices(figures: Mapping[str, Any]) -> str:
    return ", ".join(_device(entry) for entry in figures["devices"]) or "there is none"


def _device(entry: Mapping[str, Any]) -> str:
    match entry["reason"]:
        case "too_small":
            return f"{entry['device']} is too small for {nbytes(entry['needed_bytes'])}"
        case "waiting_for_device":
            return f"{entry['device']} is busy"
        case "not_alone":
            return f"{entry['device']} has others at work, and it has to be alone there"
        case "avoided":
            return f"{entry['device']} failed under it before"
        case "drained":
            return f"{entry['device']} is drained"
        case "device_fault":
            return f"{entry['device']} takes no new work ({entry.get('message', 'it is not well')})"
        case "ready":
            return f"{entry['device']} has {nbytes(entry['free_bytes'])}, enough"
        case _:
            others = entry.get("foreign_bytes", 0)
            told = f" (other programs hold {nbytes(others)})" if others else ""
            free, needed = nbytes(entry["free_bytes"]), nbytes(entry["needed_bytes"])
            return f"{entry['device']} has {free} of {needed}{told}"
