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


#: Of a page that no attempt has started in.
NO_FIGURES = PageFigures(0, 0.0, 0, 0.0)


def believe(
    known: PageFigures, read: PageFigures, *, ended_count: int, assigned_count: int, now_mono: float
) -> PageFigures:
    """Return what of a page just read can be true, with the figures known before in place of the rest.

    The page lies in the handler's process, and a stray write there must not move a timeout. Counts only rise,
    and no more attempts start than were assigned, of which `ended_count` have ended. A page that was written
    over shows that an attempt runs. A start keeps its time, and no time is in the future.
    """
    started, started_mono = read.started, read.started_mono
    if not known.started <= started <= assigned_count:
        started, started_mono = max(known.started, min(ended_count + 1, assigned_count)), now_mono
    if started == known.started:
        started_mono = known.started_mono
    elif not known.started_mono <= started_mono <= now_mono:
        started_mono = now_mono
    finished = read.finished if known.finished <= read.finished <= started else known.finished
    active_mono = read.active_mono if known.active_mono <= read.active_mono <= now_mono else known.active_mono
    return PageFigures(started, started_mono, finished, active_mono)
