"""Pure: what a job that ran out of device memory is given next, and when nothing is left to give.

The ladder, which uses up no retry:

1. the same executor again, which has dropped its caches, with nobody else at work on its devices;
2. half as much again (or what was learned meanwhile, if that is more) in a fresh process, for which idle
   neighbours make room;
3. a whole device, the largest there is.

A rung that can bring nothing is skipped: who was alone needs not be alone again, and who had a whole
device, or all that a `strict` handler may have, can't have more. After the last one the job fails.
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

#: Other programs' use moves a little all the time: where there is any, a whole device is this much less, or
#: one byte more of it would keep the job waiting for ever.
SLACK_BYTES = 256 * 1024 * 1024


class OomRung(IntEnum):
    """How far up a job has come; stored with it."""

    NONE = 0
    ALONE = 1
    LARGER = 2
    WHOLE = 3


@dataclass(frozen=True, slots=True)
class OomCircumstances:
    """What stood around an attempt when it ran out of device memory. Bytes are those on each device."""

    devices: tuple[str, ...]
    grant_bytes: int
    #: Nobody else was at work on its devices while it ran.
    was_alone: bool
    #: The most that an executor of its kind could be granted were it alone; None where nobody could look.
    largest_bytes: int | None
    foreign_bytes: int
    #: Who else lived on its devices: `{executor, handler, state, granted_bytes, resident_bytes}`.
    neighbours: list[dict[str, Any]]


def next_rung(rung: int, circumstances: OomCircumstances) -> OomRung | None:
    """The next rung that can bring something; None where there is none."""
    largest = math.inf if circumstances.largest_bytes is None else circumstances.largest_bytes
    if rung < OomRung.ALONE and not circumstances.was_alone:
        return OomRung.ALONE
    if rung < OomRung.LARGER and _raised_grant(circumstances.grant_bytes, 0) < largest:
        return OomRung.LARGER
    if rung < OomRung.WHOLE and circumstances.grant_bytes < largest:
        return OomRung.WHOLE
    return None


def class_on_rung(state: SchedulerState, job_class: JobClass, rung: int, grant_bytes: int) -> JobClass:
    """The class in which a job waits that is on a rung; `grant_bytes` is what it had when it ran out."""
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
    # Less than it had would be of no use, also where others hold more than they did.
    return replace(job_class, need_bytes=max(need_bytes, grant_bytes), alone_on_device=alone)


def largest_grant_bytes(state: SchedulerState, job_class: JobClass) -> int:
    """The most that a new executor of the class could be granted on each of its devices were it alone there:
    without what other programs and pinned executors hold. 0 where it has no devices."""
    pool, device_count = state.residency.device_pool(job_class), state.residency.device_count(job_class)
    # Where none is open, their workers are still to come: a server that starts places its jobs first.
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
    """Look around an executor whose attempt, begun at `started_at`, has just run out of memory. More than
    the ceiling it is never granted."""
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
    """What stood around an attempt of which is only known that it ran out: its server died meanwhile."""
    return OomCircumstances(tuple(devices), grant_bytes, False, None, 0, [])


def oom_report(
    circumstances: OomCircumstances,
    *,
    declared_bytes: int | None,
    granted: Sequence[int],
    peak_bytes: int | None,
) -> dict[str, Any]:
    """What people are told when nothing is left to give. `granted` are the grants of all attempts that
    ran out, the last one's too."""
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
    """Whether its bytes are RAM, where caps hold for each process and nobody takes another one's."""
    return all(slot.device.kind == "cpu" for slot in state.residency.device_pool(job_class))


def _was_busy_since(other: ResidentExecutor, since: float) -> bool:
    return other.is_busy or other.idle_since > since
