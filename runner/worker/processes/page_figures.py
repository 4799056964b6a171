"""Pure: what an executor's shared page says about its attempts at one moment."""

from __future__ import annotations

from typing import NamedTuple


class PageFigures(NamedTuple):
    """The page at one moment; times are monotonic seconds.

    The executor writes the times before `started`, and reading goes the other way round, so that a
    count is never newer than its time.
    """

    #: Attempts that this executor has started so far; the attempt of that ordinal is the last one started.
    started: int
    started_mono: float
    finished: int
    active_mono: float
