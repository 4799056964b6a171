"""Pure: the contents of an executor's shared page at one moment."""

from __future__ import annotations

from typing import NamedTuple


class PageFigures(NamedTuple):
    """The shared page at one moment; times are monotonic seconds.

    The executor writes the times before `started`, and the reader reads in the opposite order, so a count is
    never newer than its time.
    """

    #: Attempts that this executor has started so far, which is also the ordinal of the latest one.
    started: int
    #: Start of the latest attempt.
    started_mono: float
    finished: int
    #: Last use of a context by an attempt.
    active_mono: float
