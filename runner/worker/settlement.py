"""Pure: after an executor's death, what becomes of each attempt that was handed to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from runner.worker.clocks import Figures
from runner.worker.ladder import Ladder
from runner.worker.line import Entry, Key, Line
from runner.worker.verdict import Verdict


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

    entry: Entry
    code: str
    message: str
    detail: Any = None
    died: bool = False


class Settlement(NamedTuple):
    """What is told of a dead executor."""

    ends: list[End]
    not_started: list[Key]
    #: Of the executor itself.
    code: str
    message: str
    detail: Any = None


def settle(
    line: Line,
    figures: Figures,
    *,
    was_loading: bool,
    ladder: Ladder | None,
    cause: Cause | None,
    verdict: Verdict,
    stderr_tail: str,
) -> Settlement:
    """Only the attempt that was executing (or for which was loaded) is blamed.

    Results are sent in batches, so attempts before it may have finished without their `Ended` having
    been sent: they are `interrupted`, which costs them nothing.
    """
    entries = list(line.entries)
    at = 0 if was_loading else min(figures.started - line.ended - 1, len(entries) - 1)
    ends = [
        End(entry, "interrupted", "its result was lost when its executor died in a later job")
        for entry in entries[: max(0, at)]
    ]
    if entries and at >= 0:
        ends.append(_blame(entries[at], was_loading, ladder, cause, verdict, stderr_tail))
    doing = "loading" if was_loading else "running a job" if at >= 0 and entries else "idle"
    not_started = [entry.key for entry in entries[max(0, at + 1) :]]
    code, message, detail = _of_executor(doing, ladder, cause, verdict, stderr_tail)
    return Settlement(ends, not_started, code, message, detail)


def _of_executor(
    doing: str, ladder: Ladder | None, cause: Cause | None, verdict: Verdict, stderr_tail: str
) -> tuple[str, str, Any]:
    if cause is not None:
        return cause.code, cause.message, _detail(cause, verdict, stderr_tail)
    if ladder is not None:
        return ladder.code, ladder.message, None
    return _crash(verdict), verdict.message(doing), verdict.detail(stderr_tail)


def _blame(
    entry: Entry,
    was_loading: bool,
    ladder: Ladder | None,
    cause: Cause | None,
    verdict: Verdict,
    stderr_tail: str,
) -> End:
    if ladder is not None and ladder.key == entry.key:
        return End(entry, ladder.code, ladder.message)
    if cause is not None:
        return End(entry, cause.code, cause.message, _detail(cause, verdict, stderr_tail), cause.died)
    if ladder is not None:
        return End(entry, "interrupted", "its executor was ended because of an earlier job")
    message = verdict.message("loading" if was_loading else "running this job")
    return End(entry, _crash(verdict), message, verdict.detail(stderr_tail), died=True)


def _crash(verdict: Verdict) -> str:
    return "memory_exceeded" if verdict.was_oom_kill else "worker_crashed"


def _detail(cause: Cause, verdict: Verdict, stderr_tail: str) -> Any:
    return {**verdict.detail(stderr_tail), **(cause.detail or {})} if cause.died else cause.detail
