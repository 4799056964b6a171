"""Pure: what follows from setting an executor to work: until when, and which waiting jobs it overtakes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OvertakenJob:
    """A waiting job that others overtake by an action."""

    job_number: int
    count: int
    #: Kept for it once it was overtaken too often.
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What follows from setting an executor to work."""

    #: When it is expected to have done all that it was handed; inf where that is unknown.
    expected_end: float = math.inf
    overtaken: tuple[OvertakenJob, ...] = ()


#: Nothing is known.
UNKNOWN_OUTLOOK = Outlook()
