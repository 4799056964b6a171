"""Pure: what must hold of each job, whatever was done to the server meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from benchmarks.soak.judge.history import NEVER, Call, Execution, History, JobHistory, Stream, View

#: A killed process is gone within this; a later attempt that waited longer ran beside an earlier one.
OVERLAP_S = 1.0


def judge_job(job: JobHistory, history: History) -> Iterator[str]:
    """Each broken rule in words."""
    yield from _judge_presence(job, history)
    yield from _judge_deletion(job)
    yield from _judge_ends(job)
    yield from _judge_order(job, history)
    yield from _judge_cancels(job)
    yield from _judge_executions(job, history)
    yield from _judge_outputs(job)


def _judge_presence(job: JobHistory, history: History) -> Iterator[str]:
    """A job that was accepted is there until somebody deletes it, and comes to an end."""
    submit = job.submit
    if submit is None:
        return
    reads: list[Call | Stream] = [*job.of("get"), *job.of("attempts"), *job.streams]
    for call in reads:
        if call.status == 404 and call.start > submit.end and call.end < job.deleted_from:
            yield f"lost: it was accepted, nobody has deleted it, and it was answered 404 at {call.end:.3f}"
            return
    if not history.is_complete or job.deleted_from < NEVER:
        return
    lives_from = max((start for start, _ in job.retries), default=0.0)
    if not any(view.has_ended and call.end > lives_from for call, view in job.views):
        yield "lost: it was accepted and nobody has seen its end"
    if job.streams and not any(stream.is_whole for stream in job.streams):
        yield "done: none of its streams has shown its end"


def _judge_deletion(job: JobHistory) -> Iterator[str]:
    """A job that was deleted does not come back."""
    gone_from = job.gone_from
    for call, view in job.views:
        if call.start > gone_from:
            yield f"back: it was deleted by {gone_from:.3f} and a {call.kind} showed it as {view.state} later"
            return
    for stream in job.streams:
        if stream.start > gone_from and stream.status == 200:
            yield f"back: it was deleted by {gone_from:.3f} and its stream was opened later"
            return


def _judge_ends(job: JobHistory) -> Iterator[str]:
    """A job ends once for each life, and that end stays as it is."""
    ends: dict[int, View] = {}
    for call, view in job.views:
        life = _life(job, call)
        if life is None:
            continue
        end = ends.get(life)
        if view.has_ended and (end is None or (end.digest is None and _is_same_end(view, end))):
            ends[life] = view
        elif view.has_ended and end is not None and not _is_same_end(view, end):
            yield f"end: it was seen as {_words(end)}, and then as {_words(view)}, without a retry"
            return
    done = {
        event.id: event
        for stream in job.streams
        for event in stream.events
        if event.name == "done" and event.id is not None
    }
    if len(done) > 1 + len(job.retries):
        yield f"end: {len(done)} ends were told with {len(job.retries)} retries"
    last = done[max(done)].facts if done else None
    if last is not None and not job.retries and ends and last["state"] != ends[0].state:
        yield f"end: its stream said {last['state']}, and it was seen as {_words(ends[0])}"


def _life(job: JobHistory, call: Call) -> int | None:
    """How many retries were done before a call; None where one may have been done meanwhile."""
    life = 0
    for start, end in job.retries:
        if end < call.start:
            life += 1
        elif start < call.end:
            return None
    return life


def _is_same_end(one: View, other: View) -> bool:
    """Lists leave out long outputs."""
    are_outputs_same = None in (one.digest, other.digest) or one.digest == other.digest
    return (one.state, one.attempt, one.code) == (other.state, other.attempt, other.code) and are_outputs_same


def _judge_order(job: JobHistory, history: History) -> Iterator[str]:
    """No answer shows a state that is older than one already seen."""
    waiting = sorted(job.views, key=lambda each: each[0].end)
    seen: tuple[Call, View] | None = None
    at = 0
    for call, view in sorted(job.views, key=lambda each: each[0].start):
        while at < len(waiting) and waiting[at][0].end < call.start:
            if seen is None or waiting[at][1].age > seen[1].age:
                seen = waiting[at]
            at += 1
        if seen is not None and view.age < seen[1].age and not _may_go_back(job, history, seen, (call, view)):
            before = f"a {seen[0].kind} had shown {_words(seen[1])} by {seen[0].end:.3f}"
            yield f"order: {before}, and a {call.kind} at {call.start:.3f} showed {_words(view)}"
            return


def _may_go_back(
    job: JobHistory, history: History, first: tuple[Call, View], second: tuple[Call, View]
) -> bool:
    """Whether a retry or a death of the coordinator explains that a job seems to have become younger."""
    (before, old), (after, new) = first, second
    # The start of a first attempt need not be stored before it is made.
    if (old.attempt, new.attempt) == (1, 0) and not old.has_ended:
        return history.coordinator_died(before.start, after.end)
    if old.has_ended and old.attempt == new.attempt and new.state == "queued":
        return any(start < after.end and before.start < end for start, end in job.retries)
    return False


def _judge_cancels(job: JobHistory) -> Iterator[str]:
    """A job whose cancel was answered neither succeeds afterwards nor gets a further attempt."""
    for cancel in job.of("cancel"):
        told = cancel.view
        if not cancel.is_done or told is None or told.state in ("succeeded", "failed"):
            continue
        until = min((start for start, end in job.retries if end > cancel.start), default=NEVER)
        answer = f"cancel: it was answered {cancel.status} at {cancel.end:.3f} in attempt {told.attempt}"
        for call, view in job.views:
            if view.state == "succeeded" and cancel.end < call.start and call.end < until:
                yield f"{answer}, and the job succeeded"
                return
        for execution in job.executions:
            if execution.attempt > told.attempt and cancel.end < execution.start < until:
                yield f"{answer}, and attempt {execution.attempt} ran"
                return


def _judge_executions(job: JobHistory, history: History) -> Iterator[str]:
    """Each attempt runs once, and none beside another."""
    ran: dict[int, Execution] = {}
    for execution in job.executions:
        before = ran.get(execution.attempt)
        # The start of a first attempt need not be stored before it is made; that of a later one is.
        if before is not None and not (
            execution.attempt == 1 and history.coordinator_died(before.start, execution.start)
        ):
            yield f"twice: attempt {execution.attempt} was executed twice"
        ran[execution.attempt] = execution
        if execution.waited_s > OVERLAP_S:
            waited = f"{execution.waited_s:.1f} s"
            yield f"overlap: attempt {execution.attempt} waited {waited} for an earlier one to die"
    whole = [each for each in job.executions if each.end is not None]
    for first, second in pairwise(whole):
        if first.end is not None and second.start < first.end:
            yield f"overlap: attempts {first.attempt} and {second.attempt} ran at the same time"
    for call in job.of("attempts"):
        yield from _judge_attempts(call)
    known = max((view.attempt for _, view in job.views if view.has_ended), default=None)
    if known is not None and ran and max(ran) > known and not job.retries and job.deleted_from == NEVER:
        yield f"twice: attempt {max(ran)} was executed, and the job ended in attempt {known}"


def _judge_attempts(call: Call) -> Iterator[str]:
    """Attempts follow each other, in their numbers as in their times."""
    for (first, _, ended), (second, began, _) in pairwise(call.attempts):
        if second != first + 1:
            yield f"overlap: attempt {second} follows attempt {first}"
        elif began is not None and (ended is None or began < ended):
            yield f"overlap: attempt {second} began at {began}, attempt {first} ended at {ended}"


def _judge_outputs(job: JobHistory) -> Iterator[str]:
    """An output was made from the job's own input, by its last attempt."""
    for _, view in job.views:
        if view.state != "succeeded" or not view.parts:
            continue
        wrong = set(view.parts) - {(view.tag, job.job, view.attempt)}
        if wrong:
            yield f"output: it is of {sorted(wrong)}, the job of {view.tag} in attempt {view.attempt}"
            return


def _words(view: View) -> str:
    code = f" {view.code}" if view.code else ""
    return f"{view.state}{code} in attempt {view.attempt}"
