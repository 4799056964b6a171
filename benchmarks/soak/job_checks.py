"""Pure: what must hold of one job at its end, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

from benchmarks.soak.execution_stamps import ExecutionStamp
from benchmarks.soak.ledger import SubmittedJob
from runner.jobs.job import ENDED, ErrorCode

Document = dict[str, Any]
PUBLIC_CODES = frozenset(get_args(ErrorCode))
#: Starts that a job may have beyond its retries before it ends as interrupted.
SPARE_STARTS = 10
#: A killed process is gone within this; a later attempt that waited longer ran beside an earlier one.
OVERLAP_S = 1.0


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was re-read from the server."""

    seq: int
    name: str
    data: Document
    checksum: int


@dataclass(slots=True)
class InjectedFaults:
    """What the run did to the server, as far as it excuses something."""

    #: Executors that the run killed.
    killed_pids: set[int] = field(default_factory=set)
    #: Monotonic times at which the coordinator was killed.
    server_deaths: list[float] = field(default_factory=list)
    #: Monotonic times from which on the disk was full for a moment.
    fills: list[float] = field(default_factory=list)

    def record_kill(self, role: str, pid: int, at: float) -> None:
        """The run kills this process."""
        if role == "executor":
            self.killed_pids.add(pid)
        elif role == "coordinator":
            self.server_deaths.append(at)

    def died_between(self, first: float, second: float) -> bool:
        """Whether the server died between two moments."""
        return any(first <= at <= second for at in self.server_deaths)


@dataclass(frozen=True, slots=True)
class JobCase:
    """All that is known of one job."""

    entry: SubmittedJob
    #: None: the server says that there is no such job.
    job: Document | None
    attempts: list[Document] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)
    #: The last event that is not kept any more, 0: none.
    gap_to: int = 0
    stamps: list[ExecutionStamp] = field(default_factory=list)


def find_violations(case: JobCase, facts: InjectedFaults) -> list[str]:
    """Each broken invariant as "I<n>: what"."""
    if case.job is None:
        entry = case.entry
        if entry.answer == "accepted" and entry.deleted == "no":
            return ["I1: it was accepted and is not there"]
        return []
    if case.entry.deleted == "yes":
        return ["I2: it was deleted and is there"]
    if case.job["state"] not in ENDED:
        return [f"I7: it has not ended: {case.job['state']}, {case.job['reason']}"]
    checks = (
        _check_ends(case),
        _check_state(case, facts),
        _check_effects(case, facts),
        _check_overlaps(case),
        _check_events(case),
    )
    return [fault for check in checks for fault in check]


def _check_ends(case: JobCase) -> Iterator[str]:
    """One end for each life, and the last word is that end."""
    assert case.job is not None
    done = [event for event in case.events if event.name == "done"]
    lives = 1 + case.entry.retries
    most = lives + case.entry.retries_unknown
    least = lives if not case.gap_to else 1
    if not least <= len(done) <= most:
        yield f"I2: {len(done)} ends were told, {least} to {most} are right"
    if not case.events or case.events[-1].name != "done":
        last = case.events[-1].name if case.events else "nothing"
        yield f"I5: its last event is {last}, not done"
    elif done[-1].data["state"] != case.job["state"]:
        yield f"I2: it is {case.job['state']}, but done said {done[-1].data['state']}"


def _check_state(case: JobCase, facts: InjectedFaults) -> Iterator[str]:
    """The state and the code are among those that this kind of job may come to."""
    assert case.job is not None
    state, error, entry = case.job["state"], case.job["error"], case.entry
    code = error["code"] if error else None
    if state == "succeeded":
        if error is not None:
            yield f"I2: it succeeded with an error {code}"
    elif code not in PUBLIC_CODES:
        yield f"I7: its code {code} is none of the public ones"
    if entry.must_be_cancelled and state != "cancelled":
        yield f"I2: its cancel was answered with 200, and it is {state}"
    end = "succeeded" if state == "succeeded" else str(code)
    if end not in entry.draft.ends and not _excused(case, facts, end):
        yield f"I2: a {entry.draft.kind} ended as {end}: {error and error['message']}"


def _excused(case: JobCase, facts: InjectedFaults, end: str) -> bool:
    """Ends that no kind of job comes to by itself, but by what the run did."""
    assert case.job is not None
    match end:
        case "cancelled":
            return case.entry.cancelled
        case "interrupted":
            return bool(case.job["attempt"] >= SPARE_STARTS)
        case "handler_error" | "load_error" if any(at >= case.entry.sent_at for at in facts.fills):
            # A handler could not save its file, or an executor had no room for its own.
            return True
        case "worker_crashed" | "poisoned":
            crashed = [attempt["attempt"] for attempt in case.attempts if _crashed(attempt)]
            return bool(crashed) and all(_killed(case, facts, attempt) for attempt in crashed)
        case _:
            return False


def _crashed(attempt: Document) -> bool:
    return bool(attempt["error"] and attempt["error"]["code"] in ("worker_crashed", "poisoned"))


def _killed(case: JobCase, facts: InjectedFaults, attempt: int) -> bool:
    """Whether the run killed the executor of an attempt; without a stamp it was still being loaded."""
    pids = {stamp.pid for stamp in case.stamps if stamp.attempt == attempt}
    return not pids or bool(pids & facts.killed_pids)


def _check_effects(case: JobCase, facts: InjectedFaults) -> Iterator[str]:
    """No attempt ran twice, and the output is that of the last."""
    assert case.job is not None
    job = case.job
    ran: dict[int, ExecutionStamp] = {}
    for stamp in case.stamps:
        before = ran.get(stamp.attempt)
        # The start of a first attempt need not be durable before it is made; that of a later one is.
        lost_start = before is not None and facts.died_between(before.started_at, stamp.started_at)
        if before is not None and not (stamp.attempt == 1 and lost_start):
            yield f"I3: attempt {stamp.attempt} ran twice"
        if stamp.attempt > job["attempt"]:
            yield f"I3: attempt {stamp.attempt} ran, but only {job['attempt']} are known"
        ran[stamp.attempt] = stamp
    numbers = [attempt["attempt"] for attempt in case.attempts]
    if numbers != list(range(job["attempt"] - len(numbers) + 1, job["attempt"] + 1)):
        yield f"I3: {job['attempt']} starts, but these attempts: {numbers}"
    if job["state"] != "succeeded":
        return
    last = ran.get(job["attempt"])
    if last is None or last.how != "ok":
        yield f"I3: it succeeded, but the execution of attempt {job['attempt']} did not: {last}"
    if not _is_of(job["output"], job["attempt"]):
        yield f"I3: its output is not that of attempt {job['attempt']}: {str(job['output'])[:200]}"
    for attempt in case.attempts[:-1]:
        if attempt["ended_at"] is None:
            yield f"I3: attempt {attempt['attempt']} never ended and was followed by another"
        elif attempt["error"] is None and case.entry.retries + case.entry.retries_unknown == 0:
            yield f"I3: attempt {attempt['attempt']} succeeded and was followed by another"


def _is_of(output: Any, attempt: int) -> bool:
    parts = output if isinstance(output, list) else [output]
    return bool(parts) and all(isinstance(part, dict) and part.get("attempt") == attempt for part in parts)


def _check_overlaps(case: JobCase) -> Iterator[str]:
    """Executions of one job never ran at the same time; a killed one was dead before the next began."""
    for stamp in case.stamps:
        if stamp.waited_s > OVERLAP_S:
            yield f"I4: attempt {stamp.attempt} began {stamp.waited_s:.1f} s before an earlier one was dead"
    whole = [stamp for stamp in case.stamps if stamp.ended_at is not None]
    for first, second in pairwise(whole):
        if second.started_at < (first.ended_at or 0.0):
            yield f"I4: attempts {first.attempt} and {second.attempt} ran at the same time"


def _check_events(case: JobCase) -> Iterator[str]:
    """Numbers without holes, and what readers saw is what is kept."""
    numbers = [event.seq for event in case.events]
    first = case.gap_to + 1
    if case.gap_to:
        # Far fewer events than are kept.
        yield f"I5: its events up to {case.gap_to} are gone"
    if numbers != list(range(first, first + len(numbers))):
        yield f"I5: its events are not numbered from {first} without a hole: {numbers[:5]}...{numbers[-5:]}"
    kept = {event.seq: event.checksum for event in case.events}
    for seq, checksum in case.entry.seen.items():
        if seq > case.gap_to and kept.get(seq) != checksum:
            yield f"I5: event {seq} was seen by a reader and is not the same now"
            return
    yield from _check_chunks(case)


def _check_chunks(case: JobCase) -> Iterator[str]:
    """A generator's chunks: those of the last attempt are all there, once and in order."""
    assert case.job is not None
    if case.entry.draft.handler != "chunks" or case.job["state"] != "succeeded" or case.gap_to:
        return
    stored = [event.data["chunk"] for event in case.events if event.name == "output"]
    numbers = [chunk["n"] for chunk in stored if chunk["attempt"] == case.job["attempt"]]
    wanted = case.entry.draft.input["n"]
    if numbers != list(range(wanted)):
        yield f"I5: {len(numbers)} of {wanted} chunks of the last attempt were kept, or out of order"
