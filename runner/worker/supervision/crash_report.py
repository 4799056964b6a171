"""Pure: decides how each attempt assigned to a dead executor ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.kill_ladder import KillLadder


class EndCause(NamedTuple):
    """Why runner killed an executor."""

    #: Error code of the attempts that end with it.
    code: str
    message: str
    #: A JSON value for the error's `detail`.
    detail: Any = None
    #: The handler is the cause, as if its process had crashed by itself.
    counts_as_crash: bool = False


#: The handler has closed the descriptor of the channel: nothing can reach its process any more.
CHANNEL_LOST = EndCause(
    "worker_crashed",
    "the executor closed its channel without exiting",
    {"signal": None, "exit_code": None},
    counts_as_crash=True,
)


class ReportedEnd(NamedTuple):
    """The end of an attempt, as the worker reports it."""

    entry: AssignedAttempt
    code: str
    message: str
    detail: Any = None
    #: The attempt counts as one that killed its executor.
    executor_died: bool = False
    #: It ended together with others, any of which may be the culprit.
    is_blame_unknown: bool = False


class CrashReport(NamedTuple):
    """The report on a dead executor."""

    #: In the order of their start.
    ends: list[ReportedEnd]
    #: Attempts that return to the queue.
    not_started: list[AttemptKey]
    #: Code of the executor's own end.
    code: str
    message: str
    detail: Any = None


def assign_blame(
    attempts: AttemptQueue,
    figures: PageFigures,
    *,
    was_loading: bool,
    ladders: Mapping[AttemptKey, KillLadder],
    cause: EndCause | None,
    exit_status: ExitStatus,
    stderr_tail: str,
) -> CrashReport:
    """Return the ends of all attempts of a dead executor.

    Only attempts that were running, or for which the executor was loading, are blamed; of several, the
    culprit is unknown. Results are sent in batches, so earlier attempts may have finished without an
    `AttemptEnded`: they end as `interrupted`, which costs them no retry.
    """
    blamed = attempts.entries[:1] if was_loading else attempts.running(figures)
    first_blamed = attempts.entries.index(blamed[0]) if blamed else 0
    ends = [
        ReportedEnd(entry, "interrupted", "the result was lost when the executor died during a later job")
        for entry in attempts.entries[:first_blamed]
    ]
    fatal_ladder = next((ladder for ladder in ladders.values() if ladder.ends_executor), None)
    attempt_activity = "loading" if was_loading else "running this job"
    is_blame_unknown = not was_loading and (len(blamed) > 1 or any(len(entry.batch) > 1 for entry in blamed))
    for entry in blamed:
        own_ladder = ladders.get(entry.key)
        if own_ladder is not None:
            end = ReportedEnd(
                entry, own_ladder.code, own_ladder.message, is_blame_unknown=own_ladder.is_shared
            )
        elif cause is None and fatal_ladder is not None:
            end = ReportedEnd(entry, "interrupted", "the executor was killed because of another job")
        else:
            code, message, detail = _describe_death(attempt_activity, None, cause, exit_status, stderr_tail)
            end = ReportedEnd(
                entry, code, message, detail, cause is None or cause.counts_as_crash, is_blame_unknown
            )
        ends.append(end)
    executor_activity = "loading" if was_loading else "running a job" if blamed else "idle"
    not_started = [entry.key for entry in attempts.entries[first_blamed + len(blamed) :]]
    code, message, detail = _describe_death(executor_activity, fatal_ladder, cause, exit_status, stderr_tail)
    return CrashReport(ends, not_started, code, message, detail)


def _describe_death(
    activity: str,
    ladder: KillLadder | None,
    cause: EndCause | None,
    exit_status: ExitStatus,
    stderr_tail: str,
) -> tuple[str, str, Any]:
    """Return (code, message, detail) of a death: from the cause or ladder, else from the exit status."""
    if cause is not None:
        return cause.code, cause.message, _death_detail(cause, exit_status, stderr_tail)
    if ladder is not None:
        return ladder.code, ladder.message, None
    code = "memory_exceeded" if exit_status.was_oom_kill else "worker_crashed"
    return code, exit_status.message(activity), exit_status.detail(stderr_tail)


def _death_detail(cause: EndCause, exit_status: ExitStatus, stderr_tail: str) -> Any:
    return (
        {**exit_status.detail(stderr_tail), **(cause.detail or {})} if cause.counts_as_crash else cause.detail
    )
