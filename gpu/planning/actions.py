"""Pure: what a plan says is to be done, and why the rest waits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpu.job_class import JobClass
from gpu.scheduling.outlook import UNKNOWN_OUTLOOK, Outlook

WaitReason = Literal["paused", "concurrency_limit", "waiting_for_memory", "waiting_for_device"]


@dataclass(frozen=True, slots=True)
class StartAction:
    """Hand waiting jobs to a warm executor, in this order."""

    executor: int
    job_class: JobClass
    job_numbers: tuple[int, ...]
    outlook: Outlook = UNKNOWN_OUTLOOK


@dataclass(frozen=True, slots=True)
class LoadAction:
    """Start a new executor with this job, and those that run together with it."""

    job_class: JobClass
    job_number: int
    device_ids: tuple[str, ...]
    #: On each of the devices. 0: none promised.
    grant_bytes: int
    #: Nothing else starts there during its first attempt.
    exclusive: bool
    outlook: Outlook = UNKNOWN_OUTLOOK
    extra_job_numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EvictAction:
    """Tell an idle executor to go."""

    executor: int


PlanAction = StartAction | LoadAction | EvictAction


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order in which they are to be carried out, and why the rest waits."""

    actions: list[PlanAction]
    #: Of each class of which somebody still waits, but for those whose next batch gathers.
    reasons: dict[JobClass, WaitReason]
    #: When to ask again, if nothing happens before: a batch has gathered long enough then, or what somebody
    #: waits for should have come.
    replan_at: float = math.inf
