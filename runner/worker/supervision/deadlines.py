"""Pure: determines the next deadline of a running attempt."""

from __future__ import annotations

from typing import NamedTuple

from runner.protocol.worker import AttemptSpec
from runner.worker.processes.page_figures import PageFigures

#: Time, in seconds, to encode and send the result after the handler's code has returned.
RESULT_ALLOWANCE_S = 5.0


class Deadline(NamedTuple):
    """A monotonic time, and the error with which the attempt ends then."""

    at_mono: float
    code: str
    message: str


def next_deadline(figures: PageFigures, ordinal: int, attempt: AttemptSpec) -> Deadline | None:
    """Return the next deadline of this attempt; None before its start, or if it has no limits.

    `ordinal` is the attempt's count of starts: the page's figures are about this attempt only if they agree.
    """
    if figures.started != ordinal:
        return None
    allowance_s = RESULT_ALLOWANCE_S if figures.finished >= ordinal else 0.0
    earliest: Deadline | None = None
    if attempt.timeout_s is not None:  # guard: timeout-deadline
        at_mono = figures.started_mono + attempt.timeout_s + allowance_s
        earliest = Deadline(at_mono, "timeout", f"timed out after {attempt.timeout_s:g} s")
    if attempt.stall_timeout_s is not None:
        last_active_mono = max(figures.started_mono, figures.active_mono)
        at_mono = last_active_mono + attempt.stall_timeout_s + allowance_s
        if earliest is None or at_mono < earliest.at_mono:
            limit = f"{attempt.stall_timeout_s:g} s"
            earliest = Deadline(
                at_mono, "stalled", f"stalled: no activity within its stall timeout of {limit}"
            )
    return earliest
