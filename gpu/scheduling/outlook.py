"""Pure: the effect of putting an executor to work: its expected end, and the waiting jobs it overtakes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OvertakenJob:
    """A waiting job that others overtake by an action."""

    job_number: int
    count: int
    #: Devices kept for it once it was overtaken too often.
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """The effect of putting an executor to work."""

    #: When all its assigned jobs should have ended; inf where that is unknown.
    expected_end: float = math.inf
    overtaken: tuple[OvertakenJob, ...] = ()


#: Nothing is known.
UNKNOWN_OUTLOOK = Outlook()
