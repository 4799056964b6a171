"""Pure: after an executor's death, what becomes of each attempt that was handed to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision.attempts import AssignedAttempt, AttemptKey, AttemptQueue
from runner.worker.supervision.exit_status import Verdict
from runner.worker.supervision.kill_ladder import KillLadder


class Cause(NamedTuple):
    """Why we ended an executor."""

    code: str
    message: str
    detail: Any = None
    #: The handler's doing, as if its process had died by itself.
    died: bool = False


CHANNEL_LOST = Cause(
    "worker_crashed",
    "the executor's channel was closed while its process lived on",
    {"signal": None, "exit_code": None},
    died=True,
)


class End(NamedTuple):
    """An attempt's end that its worker tells."""

    entry: AssignedAttempt
    code: str
    message: str
    detail: Any = None
    died: bool = False
    #: It ended with others, of whom any may be to blame.
    shared: bool = False


class Settlement(NamedTuple):
    """What is told of a dead executor."""

    ends: list[End]
    not_started: list[AttemptKey]
    #: Of the executor itself.
    code: str
    message: str
    detail: Any = None


def settle(
    line: AttemptQueue,
    figures: PageFigures,
    *,
    was_loading: bool,
    ladders: Mapping[AttemptKey, KillLadder],
    cause: Cause | None,
    verdict: Verdict,
    stderr_tail: str,
) -> Settlement:
    """Only what was executing (or for which was loaded) is blamed; several together are told so.

    Results are sent in batches, so attempts before it may have finished without their `Ended` having
    been sent: they are `interrupted`, which costs them nothing.
    """
    blamed = line.entries[:1] if was_loading else line.running(figures)
    at = line.entries.index(blamed[0]) if blamed else 0
    ends = [
        End(entry, "interrupted", "its result was lost when its executor died in a later job")
        for entry in line.entries[:at]
    ]
    hard = next((ladder for ladder in ladders.values() if ladder.ends_executor), None)
    ran = "loading" if was_loading else "running this job"
    shared = not was_loading and (len(blamed) > 1 or any(len(entry.batch) > 1 for entry in blamed))
    for entry in blamed:
        own = ladders.get(entry.key)
        if own is not None:
            end = End(entry, own.code, own.message, shared=own.is_shared)
        elif cause is None and hard is not None:
            end = End(entry, "interrupted", "its executor was ended because of another job")
        else:
            code, message, detail = _of_executor(ran, None, cause, verdict, stderr_tail)
            end = End(entry, code, message, detail, cause is None or cause.died, shared)
        ends.append(end)
    doing = "loading" if was_loading else "running a job" if blamed else "idle"
    not_started = [entry.key for entry in line.entries[at + len(blamed) :]]
    code, message, detail = _of_executor(doing, hard, cause, verdict, stderr_tail)
    return Settlement(ends, not_started, code, message, detail)


def _of_executor(
    doing: str, ladder: KillLadder | None, cause: Cause | None, verdict: Verdict, stderr_tail: str
) -> tuple[str, str, Any]:
    if cause is not None:
        return cause.code, cause.message, _detail(cause, verdict, stderr_tail)
    if ladder is not None:
        return ladder.code, ladder.message, None
    code = "memory_exceeded" if verdict.was_oom_kill else "worker_crashed"
    return code, verdict.message(doing), verdict.detail(stderr_tail)


def _detail(cause: Cause, verdict: Verdict, stderr_tail: str) -> Any:
    return {**verdict.detail(stderr_tail), **(cause.detail or {})} if cause.died else cause.detail
