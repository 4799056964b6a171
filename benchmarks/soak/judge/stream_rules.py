"""Pure: what must hold of the streams of a job, of each alone and of all together."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.soak.judge.history import History, JobHistory, Stream

#: A stream may end by what was done to the server this long after it was done.
FAULT_S = 1.0


def judge_streams(job: JobHistory, history: History) -> Iterator[str]:
    """Each broken rule in words."""
    for stream in job.streams:
        yield from _judge_numbers(stream)
        yield from _judge_close(stream, history)
    yield from _judge_meaning(job)
    yield from _judge_reach(job)


def _judge_numbers(stream: Stream) -> Iterator[str]:
    """Ids come once, in order, and without a gap that was not announced."""
    last = stream.after or 0
    if stream.events and stream.events[0].name != "snapshot":
        yield f"stream: it began with {stream.events[0].name}, not with a snapshot"
    for event in stream.events:
        if event.name == "gap":
            first, to = event.facts["from"], event.facts["to"]
            if first != last + 1 or to < first:
                yield f"stream: a gap from {first} to {to} was announced behind event {last}"
            last = to
        elif event.id is not None:
            if event.id <= last:
                yield f"stream: event {event.id} came behind event {last}"
            elif event.id != last + 1:
                yield f"stream: events {last + 1} to {event.id - 1} are missing, and no gap was announced"
            last = event.id


def _judge_close(stream: Stream, history: History) -> Iterator[str]:
    """The server closes a stream behind the job's end, unless the server itself ends."""
    if stream.status != 200 or stream.how != "closed" or stream.is_whole:
        return
    if not any(fault.start <= stream.end <= fault.end + FAULT_S for fault in history.faults):
        last = stream.events[-1].name if stream.events else "nothing"
        yield f"stream: it was closed at {stream.end:.3f} behind {last}, not behind done"


def _judge_meaning(job: JobHistory) -> Iterator[str]:
    """An id never changes its meaning."""
    known: dict[int, tuple[str, str]] = {}
    for stream in job.streams:
        for event in stream.events:
            if event.id is None:
                continue
            meaning = (event.name, event.digest)
            before = known.setdefault(event.id, meaning)
            if before != meaning:
                yield f"meaning: event {event.id} was {before[0]} and then {event.name}, or its data changed"
                return


def _judge_reach(job: JobHistory) -> Iterator[str]:
    """A stream that the server ended has shown at least what earlier ones have."""
    names = {event.id: event.name for stream in job.streams for event in stream.events if event.id}
    by_end = sorted(job.streams, key=lambda each: each.end)
    most = at = 0
    for stream in job.streams:
        while at < len(by_end) and by_end[at].end < stream.start:
            most = max([most, *by_end[at].ids])
            at += 1
        if stream.status == 204:
            refused = f"reach: a stream behind event {stream.after} was answered 204"
            if names.get(stream.after or 0, "done") != "done":
                yield f"{refused}, and that event is not done"
            elif (stream.after or 0) < most:
                yield f"{refused}, and event {most} was known"
        elif stream.is_whole and stream.ids and stream.ids[-1] < most:
            yield f"reach: a stream ended with event {stream.ids[-1]}, and event {most} was known"
