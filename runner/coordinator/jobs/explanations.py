"""Pure: explains in sentences why a job waits, where it runs, or why it could never start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.formats.units import format_bytes

#: A smaller lead of a tenant over another is not mentioned.
TENANT_LEAD_MIN_S = 1.0


def explain_misfit(handler: str, figures: Mapping[str, Any], device_id: str | None = None) -> str:
    """Explain why no device could ever fit a job, from `MemoryNeeds.misfit`; `device_id` is the only device
    that was requested."""
    if device_id is not None and not figures["devices"]:
        return f"{handler} does not run on {device_id}: it is for {'GPUs' if figures['gpus'] else 'the cpu'}"
    gpus, needed_bytes, devices = figures["gpus"], figures["needed_bytes"], figures["devices"]
    if not needed_bytes:
        needed = f"{max(1, gpus)} device{'s' if gpus > 1 else ''}"
    else:
        needed = format_bytes(needed_bytes) + (f" on each of {gpus} devices" if gpus > 1 else "")
    return f"{handler} needs {needed}, but {_explain_shortage(needed_bytes, devices)}"


def _explain_shortage(needed_bytes: int, devices: Sequence[Mapping[str, Any]]) -> str:
    """Explain what the devices that a job may use lack. Some of them may be large enough, but too few."""
    if not devices:
        return "there is no such device"
    large_enough = [each["device"] for each in devices if each["grantable_bytes"] >= needed_bytes]
    if large_enough and not needed_bytes:
        return f"there {'are' if len(large_enough) > 1 else 'is'} only {', '.join(large_enough)}"
    if large_enough:
        return f"only {', '.join(large_enough)} {'have' if len(large_enough) > 1 else 'has'} that much"
    sizes = [(each["device"], format_bytes(each["grantable_bytes"])) for each in devices]
    largest = format_bytes(max(each["grantable_bytes"] for each in devices))
    # The size of each device is named only where they differ.
    is_uniform = all(size == largest for _, size in sizes)
    names = ", ".join(name if is_uniform else f"{name} {size}" for name, size in sizes)
    return f"no device has more than {largest} ({names})"


def explain_attempt(
    phase: str, devices: Sequence[str], executor: int | None, seconds: float, *, is_cancelling: bool
) -> str:
    """Explain where the attempt in flight of a job is. `devices` and `seconds` since its start count while
    it is loading or running (phase starting or running)."""
    suffix = ", being cancelled" if is_cancelling else ""
    match phase:
        case "starting" | "running":
            verb = "loading" if phase == "starting" else "running"
            return f"{verb} on {', '.join(devices)} for {seconds:.0f} s{suffix}"
        case "staged":
            return f"queued at executor {executor}, behind its running attempt{suffix}"
        case _:
            return f"about to be sent to executor {executor}{suffix}"


def explain_failure(attempt: int, message: str) -> str:
    """Explain that an attempt of a job failed, in one line."""
    return f"attempt {attempt} failed: {' '.join(message.split()) or 'without a message'}"


def explain_retry_delay(attempt: int, message: str, seconds: float) -> str:
    """Explain that a job waits for its retry, which may start in `seconds`, after its attempt failed."""
    return f"{explain_failure(attempt, message)}; retry in {seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class WaitStatus:
    """How a queued job waits at one moment."""

    reason: str | None
    #: 1 + how many jobs should start before it; None where nothing is planned for it now.
    position: int | None
    #: Seconds to its start; None where that is unknown.
    eta_s: float | None
    #: All of it in one line for people.
    message: str


def summarize_wait(
    reason: str | None,
    *,
    needed_bytes: int | None = None,
    device_count: int = 1,
    position: int | None = None,
    eta_s: float | None = None,
) -> str:
    """Summarize in one line why a job waits, its position and its start.

    An example is `waiting for memory: needs 6 GiB, 2nd, about 10 s`.
    `needed_bytes` are those on each of its `device_count` devices, 0 or None where that is not known.
    """
    match reason:
        case "paused":
            return "the queue is paused"
        case "waiting_for_handler":
            return "waiting for its handler, which is unknown or still being described"
        case "concurrency_limit":
            text = "the handler is at its concurrency limit"
        case "waiting_for_memory" if needed_bytes:
            devices = f" on each of {device_count} devices" if device_count > 1 else ""
            text = f"waiting for memory: needs {format_bytes(needed_bytes)}{devices}"
        case "waiting_for_memory":
            text = "waiting for memory"
        case "waiting_for_device" if device_count > 1:
            text = f"waiting for {device_count} devices"
        case "waiting_for_device":
            text = "waiting for a device"
        case _:
            text = "ready to start"
    if position is not None:
        text += f", {_ordinal(position)}"
    return text if eta_s is None else f"{text}, about {format_about(eta_s)}"


def format_about(seconds: float) -> str:
    """Format an estimated duration, rounded so that it seldom changes: `1 s`, `45 s`, `3 min`, `2 h`."""
    if seconds < 9.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 3570:
        return f"{max(1, round(seconds / 60))} min"
    return f"{round(seconds / 3600)} h"


def _ordinal(number: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `4th`, `11th`, ..."""
    suffix = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def explain_waiting(reason: str | None, figures: Mapping[str, Any]) -> str:
    """Explain why a job or a prewarm request waits, in one line for people.

    `reason` is the reason that the document shows; `figures` come from `gpu.planning.explain.explain`, with
    `reserved` from `explain_reservation` if devices are reserved, and `eta_s`, the seconds to the job's start
    or None, if its start was forecast.
    """
    ahead = figures["jobs_ahead"]
    suffix = f"; queued behind {ahead} {'job' if ahead == 1 else 'jobs'}" if ahead else ""
    lead_s = figures.get("tenant_lead_s", 0.0)
    if lead_s >= TENANT_LEAD_MIN_S:
        suffix += f"; tenant has used {lead_s:.0f} s more device time, by weight, than another waiting tenant"
    if reserved := figures.get("reserved"):
        device_names = ", ".join(each["device"] for each in reserved["devices"])
        suffix += f"; reserved for it: {device_names}, where only jobs that end in time may start"
    if "eta_s" in figures and reason != "paused":
        eta_s = figures["eta_s"]
        when = "unknown yet" if eta_s is None else f"in about {format_about(eta_s)}"
        suffix += f"; expected start: {when}"
    match reason:
        case "paused":
            return f"the queue is paused{suffix}"
        case "concurrency_limit":
            return f"the handler is at its concurrency limit{suffix}"
        case "waiting_for_memory":
            return f"waiting for memory: {_explain_devices(figures)}{suffix}"
        case "waiting_for_device":
            return f"waiting for a device: {_explain_devices(figures)}{suffix}"
        case _:
            return f"ready to start{suffix}"


def _explain_devices(figures: Mapping[str, Any]) -> str:
    """Explain device by device what is missing there."""
    return ", ".join(_explain_device(entry) for entry in figures["devices"]) or "there is no suitable device"


def _explain_device(entry: Mapping[str, Any]) -> str:
    """Explain one device; amounts of memory are per device."""
    match entry["reason"]:
        case "too_small":
            return f"{entry['device']} is too small for {format_bytes(entry['needed_bytes'])}"
        case "waiting_for_device":
            return f"{entry['device']} is not ready"
        case "max_executors":
            return (
                f"{entry['device']} is busy: {entry['at_work']} executors load or run, and max_executors is "
                f"{entry['max_executors']}"
            )
        case "exclusive_executor":
            return f"{entry['device']} is busy with an executor beside which no other one starts"
        case "max_resident":
            return (
                f"{entry['device']} has {entry['residents']} executors ({entry['pinned']} of them pinned), "
                f"and max_resident is {entry['max_resident']}"
            )
        case "not_alone":
            return f"{entry['device']} is running other jobs, and this one must run alone"
        case "avoided":
            return f"{entry['device']} is avoided because an earlier attempt failed there"
        case "drained":
            return f"{entry['device']} is drained"
        case "device_fault":
            return f"{entry['device']} is out of service ({entry.get('message', 'unhealthy')})"
        case "ready":
            return f"{entry['device']} has enough memory ({format_bytes(entry['free_bytes'])} free)"
        case _:
            held = [
                f"{holder} hold {format_bytes(nbytes)}"
                for holder, nbytes in (
                    ("other programs", entry.get("foreign_bytes", 0)),
                    ("pinned executors", entry.get("pinned_bytes", 0)),
                )
                if nbytes
            ]
            held_text = f" ({', '.join(held)})" if held else ""
            free, needed = format_bytes(entry["free_bytes"]), format_bytes(entry["needed_bytes"])
            return f"{entry['device']} has {free} free of {needed} needed{held_text}"
