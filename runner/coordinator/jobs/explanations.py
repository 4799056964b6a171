"""Pure: explains the planner's figures in sentences: why a job waits, or could never start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.formats.units import format_bytes

#: A smaller lead of a tenant over another is not mentioned.
TENANT_LEAD_MIN_S = 1.0


def explain_misfit(handler: str, figures: Mapping[str, Any], device_id: str | None = None) -> str:
    """Explain why no device could ever fit a job, from `MemoryNeeds.misfit`; `device_id` is the only device
    that was requested."""
    if device_id is not None and not figures["devices"]:
        return f"{handler} does not run on {device_id}: it is for {'GPUs' if figures['gpus'] else 'the cpu'}"
    devices = ", ".join(
        f"{d['device']} at most {format_bytes(d['grantable_bytes'])}" for d in figures["devices"]
    )
    gpus = figures["gpus"]
    needed = format_bytes(figures["needed_bytes"]) + (f" on each of {gpus} devices" if gpus > 1 else "")
    return f"{handler} needs {needed}; {devices or 'there is no such device'}"


def explain_waiting(reason: str | None, figures: Mapping[str, Any]) -> str:
    """Explain why a job waits, from `gpu.planning.explain.explain`."""
    ahead = figures["jobs_ahead"]
    suffix = f"; {ahead} {'job is' if ahead == 1 else 'jobs are'} ahead of it" if ahead else ""
    lead_s = figures.get("tenant_lead_s", 0.0)
    if lead_s >= TENANT_LEAD_MIN_S:
        suffix += f"; its tenant had {lead_s:.0f} s of devices more, by weight, than another that waits"
    if reserved := figures.get("reserved"):
        device_names, starts_s = (
            ", ".join(each["device"] for each in reserved["devices"]),
            reserved["starts_in_s"],
        )
        when = "" if starts_s is None else f", in about {starts_s:.0f} s"
        suffix += f"; it gets {device_names} next{when}, and others start there only where they end before"
    match reason:
        case "paused":
            return f"its queue is paused{suffix}"
        case "concurrency_limit":
            return f"as many of its handler run as may run at once{suffix}"
        case "waiting_for_memory":
            return f"it waits for device memory: {_explain_devices(figures)}{suffix}"
        case "waiting_for_device":
            return f"it waits for a device that takes work: {_explain_devices(figures)}{suffix}"
        case _:
            return f"it is ready to start{suffix}"


def _explain_devices(figures: Mapping[str, Any]) -> str:
    return ", ".join(_explain_device(entry) for entry in figures["devices"]) or "there is none"


def _explain_device(entry: Mapping[str, Any]) -> str:
    match entry["reason"]:
        case "too_small":
            return f"{entry['device']} is too small for {format_bytes(entry['needed_bytes'])}"
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
            return f"{entry['device']} has {format_bytes(entry['free_bytes'])}, enough"
        case _:
            external_bytes = entry.get("foreign_bytes", 0)
            external_text = f" (other programs hold {format_bytes(external_bytes)})" if external_bytes else ""
            free, needed = format_bytes(entry["free_bytes"]), format_bytes(entry["needed_bytes"])
            return f"{entry['device']} has {free} of {needed}{external_text}"
