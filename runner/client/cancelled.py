"""Pure: the exception of `result()` for a cancelled job."""

from __future__ import annotations

from runner.errors import JobWasCancelled
from runner.handlers.exceptions import JobCancelled


class CancelledJob(JobWasCancelled, JobCancelled):
    """The job was cancelled; `error` has the reason.

    One name serves both sides: `except runner.JobCancelled` catches this one as it catches the one raised
    inside a handler, and as a RunnerError this one is an ordinary exception.
    """
