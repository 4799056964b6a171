"""Pure: what a plan says is to be done, and why the rest waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpu.line import JobClass

Reason = Literal["paused", "concurrency_limit", "waiting_for_memory", "waiting_for_device"]


@dataclass(frozen=True, slots=True)
class Start:
    """Hand waiting jobs to a warm executor, in this order."""

    executor: int
    cls: JobClass
    ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Start a new executor with this job."""

    cls: JobClass
    n: int
    device_ids: tuple[str, ...]
    #: On each of the devices. 0: none promised.
    grant_bytes: int
    #: Nothing else starts there during its first attempt.
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Evict:
    """Tell an idle executor to go."""

    executor: int


Action = Start | Load | Evict


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order in which they are to be carried out, and why the rest waits."""

    actions: list[Action]
    #: Of each class of which somebody still waits.
    reasons: dict[JobClass, Reason]
