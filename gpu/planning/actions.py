"""Pure: the actions of a plan, and the reasons why the remaining jobs wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpu.job_class import JobClass
from gpu.scheduling.outlook import UNKNOWN_OUTLOOK, Outlook

WaitReason = Literal["concurrency_limit", "waiting_for_memory", "waiting_for_device"]


@dataclass(frozen=True, slots=True)
class StartAction:
    """Assign waiting jobs to a warm executor, in this order."""

    executor: int
    job_class: JobClass
    job_numbers: tuple[int, ...]
    outlook: Outlook = UNKNOWN_OUTLOOK


@dataclass(frozen=True, slots=True)
class LoadAction:
    """Start a new executor with this job, and with the jobs that run together with it."""

    job_class: JobClass
    job_number: int
    device_ids: tuple[str, ...]
    #: On each of the devices. 0: no bytes are granted.
    grant_bytes: int
    #: No other executor starts on the devices during its first attempt.
    exclusive: bool
    outlook: Outlook = UNKNOWN_OUTLOOK
    extra_job_numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EvictAction:
    """Unload an idle executor."""

    executor: int


PlanAction = StartAction | LoadAction | EvictAction


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order in which they must be carried out, and the reasons why the remaining jobs wait."""

    actions: list[PlanAction]
    #: By class, for each class at which the plan looked and that still has waiting jobs, except those whose
    #: next batch is still gathering. Paused queues have none.
    reasons: dict[JobClass, WaitReason]
    #: When to plan again if nothing happens before: a batch reaches its deadline, or a warm executor that a
    #: job waits for should be free.
    replan_at: float = math.inf
    #: More classes wait than the plan looked at.
    is_partial: bool = False
