"""Pure: why a job waits, in figures: the reason, the state of each device, and the jobs before it.

The answer comes from the state at one moment, without a plan. So "ready" means that nothing is known to be in
the job's way: the next plan starts it, or prefers another one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from gpu.job_class import JobClass
from gpu.planning.planner import find_reservation
from gpu.scheduling.resident_executor import DeviceSlot
from gpu.scheduling.scheduler_state import SchedulerState


def explain(state: SchedulerState, job_class: JobClass, job_number: int) -> dict[str, Any]:
    """Explain why a job of this class waits.

    Returns a dict that can be encoded as JSON:

    - `reason`: "paused", "concurrency_limit", "waiting_for_memory", "waiting_for_device", or "ready";
    - `devices`: a dict for each device of its pool, see `_explain_device`;
    - `jobs_ahead`: about how many waiting jobs of its pool go first by priority and number; ageing, fair
      share and the durations of runs may still change the order;
    - `tenant_lead_s`: how far its tenant is ahead of the waiting tenant served least, in device seconds
      divided by weight;
    - `overtaken`: how many jobs have overtaken it.
    """
    devices = [_explain_device(state, job_class, slot) for slot in state.residency.device_pool(job_class)]
    return {
        "reason": _reason(state, job_class, devices),
        "devices": devices,
        "jobs_ahead": count_ahead(state, job_class, job_number),
        "tenant_lead_s": state.tenant_shares.clock_of(job_class).lead_s(job_class.tenant),
        "overtaken": state.overtakes.counts.get(job_number, 0),
    }


def find_wait_reason(state: SchedulerState, job_class: JobClass) -> str:
    """Return the `reason` of `explain` alone; its cost does not depend on how many classes wait."""
    devices = [_explain_device(state, job_class, slot) for slot in state.residency.device_pool(job_class)]
    return _reason(state, job_class, devices)


def count_ahead(state: SchedulerState, job_class: JobClass, job_number: int) -> int:
    """Return about how many waiting jobs of its pool go before a job by priority and number."""
    return sum(
        len(backlog) if other.priority > job_class.priority else backlog.count_ahead(job_number)
        for other, backlog in state.backlog.by_class.items()
        if other.priority >= job_class.priority
        and state.residency.is_on_gpu(other) is state.residency.is_on_gpu(job_class)
    )


def find_wait_kind(state: SchedulerState, job_class: JobClass) -> Hashable:
    """Return a key: classes of open queues that share it have the same `find_wait_reason` at this moment."""
    need_bytes, key = state.memory_needs.need_bytes(job_class), job_class.key
    # Of the model, only what was learned of its needs and what is loaded of it matter.
    is_plain = need_bytes in (None, job_class.need_bytes) and key not in state.residency.by_key
    return (
        job_class.handler if is_plain else key,
        job_class.version,
        None if is_plain else job_class.size,
        need_bytes,
        job_class.need_bytes,
        job_class.gpus,
        job_class.strict,
        job_class.alone_on_device,
        job_class.avoided_devices,
        job_class.allowed_devices,
    )


def explain_reservation(state: SchedulerState, job_number: int, now: float) -> dict[str, Any] | None:
    """Describe what is reserved for a waiting job while others start; None where nothing is.

    Makes a plan for the time `now` to find out, and discards it. Returns `devices`, each with the bytes that
    the job needs there. When the reservation begins is left out: it is a bound that counts timeouts.
    """
    reservation = find_reservation(state, now, job_number)
    if reservation is None or not reservation.remaining:
        return None
    slots = state.residency.slots
    return {
        "devices": [
            {
                "device": each,
                "needed_bytes": reservation.candidate.need_for_capacity(slots[each].device.cap_bytes),
            }
            for each in reservation.remaining
        ],
    }


def _reason(state: SchedulerState, job_class: JobClass, devices: Sequence[dict[str, Any]]) -> str:
    """Return the reason for the class as a whole.

    A class that takes several devices is ready where that many are; it waits for memory where memory is all
    that is missing on enough devices.
    """
    if job_class.queue in state.backlog.paused:
        return "paused"
    if state.limits.is_at_limit(job_class):
        return "concurrency_limit"
    reasons, device_count = [device["reason"] for device in devices], state.residency.device_count(job_class)
    ready = reasons.count("ready")
    if ready >= device_count:
        return "ready"
    return (
        "waiting_for_memory"
        if ready + reasons.count("waiting_for_memory") >= device_count
        else "waiting_for_device"
    )


def _explain_device(state: SchedulerState, job_class: JobClass, slot: DeviceSlot) -> dict[str, Any]:
    """Describe one device: what it has free and what the class needs there, in bytes, and a reason.

    The reason is "ready", "too_small" (even when empty), why the device takes no work (such as "drained"),
    "avoided" (the job failed there), "waiting_for_device" (its worker is not ready), "max_executors" (as many
    executors load or run as may), "exclusive_executor" (one runs beside which nothing starts), "not_alone"
    (the job must run alone and does not yet), "max_resident" (as many executors are loaded as may be, and
    none of them suits the job) or "waiting_for_memory". `pinned` are the executors that stay whatever waits,
    and `pinned_bytes` what they hold.
    """
    device_id = slot.device.id
    free_bytes, need_bytes = (
        state.ledger.free_bytes(device_id),
        state.memory_needs.need_for_device(job_class, slot),
    )
    reason = "ready"
    if need_bytes > slot.device.cap_bytes:
        reason = "too_small"
    elif slot.closed_reason:
        reason = slot.closed_reason
    elif slot not in state.residency.candidate_devices(job_class):
        reason = "avoided"
    elif not slot.is_open:
        reason = "waiting_for_device"
    elif slot.busy_count >= slot.max_executors:
        reason = "max_executors"
    elif need_bytes and slot.exclusive_executor is not None:
        reason = "exclusive_executor"
    elif job_class.alone_on_device and slot.busy_count:
        reason = "not_alone"
    elif slot.is_full and not _has_idle(state, job_class, slot):
        reason = "max_resident"
    elif need_bytes > max(0, free_bytes):
        reason = "waiting_for_memory"
    return {
        "device": device_id,
        "free_bytes": max(0, free_bytes),
        "needed_bytes": need_bytes,
        "reason": reason,
        "at_work": slot.busy_count,
        "max_executors": slot.max_executors,
        "residents": len(slot.residents),
        "max_resident": slot.max_residents,
        "pinned": len(slot.pinned),
        "pinned_bytes": sum(state.ledger.charge_bytes(executor) for executor in slot.pinned),
    }


def _has_idle(state: SchedulerState, job_class: JobClass, slot: DeviceSlot) -> bool:
    """Return whether an executor idles on the device that a job of the class may use."""
    return any(
        each.key == job_class.key and state.memory_needs.is_granted_enough(each, job_class)
        for each in slot.idle.values()
    )
