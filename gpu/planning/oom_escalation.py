"""Pure: what a job that ran out of device memory is granted next, and when there is nothing more to grant.

The rungs, which use up no retry:

1. the same executor again, which has dropped its caches, with no other executor running on its devices;
2. half as much again (or what was learned meanwhile, if that is more) in a new process, for which idle
   neighbours are evicted;
3. a whole device, the largest there is.

A rung that cannot help is skipped: a job that already ran alone does not run alone again, and a job that had
a whole device, or all that a `strict` handler may have, cannot get more. After the last rung the job fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from gpu.job_class import JobClass
from gpu.scheduling.resident_executor import ResidentExecutor
from gpu.scheduling.scheduler_state import SchedulerState

#: The memory use of other programs fluctuates all the time. Where there is any, a whole device means this
#: much less: one byte more would keep the job waiting for ever.
SLACK_BYTES = 256 * 1024 * 1024


class OomRung(IntEnum):
    """The escalation step that a job has reached; stored with the job."""

    NONE = 0
    ALONE = 1
    LARGER = 2
    WHOLE = 3


@dataclass(frozen=True, slots=True)
class OomCircumstances:
    """The state around an attempt when it ran out of device memory. Bytes are those on each device."""

    devices: tuple[str, ...]
    grant_bytes: int
    #: No other executor ran on its devices during the attempt.
    was_alone: bool
    #: The most that an executor of its class could be granted if it were alone; None where that is unknown.
    largest_bytes: int | None
    foreign_bytes: int
    #: The other executors on its devices: `{executor, handler, state, granted_bytes, resident_bytes}`.
    neighbours: list[dict[str, Any]]


def next_rung(rung: int, circumstances: OomCircumstances) -> OomRung | None:
    """Return the next rung that can help; None where there is none."""
    largest = math.inf if circumstances.largest_bytes is None else circumstances.largest_bytes
    if rung < OomRung.ALONE and not circumstances.was_alone:
        return OomRung.ALONE
    if rung < OomRung.LARGER and _raised_grant(circumstances.grant_bytes, 0) < largest:
        return OomRung.LARGER
    if rung < OomRung.WHOLE and circumstances.grant_bytes < largest:
        return OomRung.WHOLE
    return None


def class_on_rung(state: SchedulerState, job_class: JobClass, rung: int, grant_bytes: int) -> JobClass:
    """Return the class in which a job on a rung waits; `grant_bytes` was its grant at its last attempt."""
    if rung == OomRung.NONE:
        return job_class
    alone = not _is_ram(state, job_class)  # guard: retried-alone
    if rung == OomRung.ALONE:
        retry_class = replace(job_class, need_bytes=grant_bytes, alone_on_device=alone)
        # After a restart with smaller devices it would wait for ever.
        return (
            replace(job_class, alone_on_device=alone)
            if state.memory_needs.misfit(retry_class) is not None
            else retry_class
        )
    largest = _capped(
        largest_grant_bytes(state, job_class), job_class.need_bytes if job_class.strict else None
    )
    need_bytes = largest
    if rung == OomRung.LARGER:
        learned = state.memory_needs.need_bytes(replace(job_class, need_bytes=None))
        need_bytes = min(_raised_grant(grant_bytes, learned or 0), largest)
    # Less than it had would not help, even where other executors hold more than they did.
    return replace(job_class, need_bytes=max(need_bytes, grant_bytes), alone_on_device=alone)


def largest_grant_bytes(state: SchedulerState, job_class: JobClass) -> int:
    """Return the most that a new executor of the class could be granted, if alone, on each device.

    What other programs and pinned executors hold is subtracted. 0 where there are not enough devices.
    """
    pool, device_count = state.residency.device_pool(job_class), state.residency.device_count(job_class)
    # Where none is open, the workers are still starting: a server assigns rungs to its jobs before that.
    slots = [slot for slot in pool if slot.is_open]
    free = sorted((_grantable(state, slot.device.id) for slot in slots or pool), reverse=True)
    return max(0, free[device_count - 1]) if len(free) >= device_count else 0


def oom_circumstances(
    state: SchedulerState,
    job_class: JobClass,
    executor: int,
    started_at: float,
    ceiling_bytes: int | None = None,
) -> OomCircumstances:
    """Describe the surroundings of an executor whose attempt just ran out of memory.

    The attempt began at `started_at`; `ceiling_bytes` is the most that the executor may ever be granted.
    """
    resident = state.executors[executor]
    others = {
        each: other
        for device_id in resident.devices
        for each, other in state.residency.slots[device_id].residents.items()
        if each != executor
    }
    return OomCircumstances(
        devices=resident.devices,
        grant_bytes=resident.grant_bytes,
        was_alone=_is_ram(state, job_class)
        or not any(_was_busy_since(other, started_at) for other in others.values()),
        largest_bytes=_capped(largest_grant_bytes(state, job_class), ceiling_bytes),
        foreign_bytes=max(state.ledger.usage.foreign_bytes(device_id) for device_id in resident.devices),
        neighbours=[
            {
                "executor": each,
                "handler": other.key[0],
                "state": other.state,
                "granted_bytes": other.grant_bytes,
                "resident_bytes": state.ledger.usage.observed_bytes(each),
            }
            for each, other in others.items()
        ],
    )


def unknown_circumstances(devices: Sequence[str], grant_bytes: int) -> OomCircumstances:
    """Return the circumstances of an out-of-memory failure whose server died: nothing else is known."""
    return OomCircumstances(tuple(devices), grant_bytes, False, None, 0, [])


def oom_report(
    circumstances: OomCircumstances,
    *,
    declared_bytes: int | None,
    granted: Sequence[int],
    peak_bytes: int | None,
) -> dict[str, Any]:
    """Build the report for users when there is nothing more to grant.

    `granted` are the grants of all attempts that ran out of memory, the last one included.
    """
    return {
        "declared_bytes": declared_bytes,
        "granted_bytes": list(granted),
        "peak_bytes": peak_bytes,
        "largest_bytes": circumstances.largest_bytes,
        "foreign_bytes": circumstances.foreign_bytes,
        "devices": list(circumstances.devices),
        "neighbours": circumstances.neighbours,
    }


def _capped(nbytes: int, ceiling_bytes: int | None) -> int:
    return nbytes if ceiling_bytes is None else min(nbytes, ceiling_bytes)


def _raised_grant(grant_bytes: int, learned_bytes: int) -> int:
    return max(grant_bytes * 3 // 2, learned_bytes)


def _grantable(state: SchedulerState, device_id: str) -> int:
    slot = state.residency.slots[device_id]
    foreign = state.ledger.usage.foreign_bytes(device_id)
    pinned = sum(state.ledger.charge_bytes(executor) for executor in slot.pinned)
    return slot.device.cap_bytes - foreign - pinned - (SLACK_BYTES if foreign > 0 else 0)


def _is_ram(state: SchedulerState, job_class: JobClass) -> bool:
    """Return whether the class uses RAM, where each process has a cap and takes no other one's bytes."""
    return all(slot.device.kind == "cpu" for slot in state.residency.device_pool(job_class))


def _was_busy_since(other: ResidentExecutor, since: float) -> bool:
    return other.is_busy or other.idle_since > since
