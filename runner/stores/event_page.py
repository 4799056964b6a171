"""Pure: selects the events of one read from the log of a job."""

from __future__ import annotations

from collections.abc import Iterable

from runner.jobs.event import Event


def take_events(events: Iterable[Event], after: int, max_bytes: int) -> list[Event]:
    """Return the first events with seq > `after` whose data have at most `max_bytes` in total.

    The first one is returned whatever its size, so that a reader always advances. `events` must be in order
    of seq.
    """
    taken: list[Event] = []
    remaining_bytes = max_bytes
    for event in events:
        if event.seq <= after:
            continue
        remaining_bytes -= len(event.data)
        if taken and remaining_bytes < 0:
            break
        taken.append(event)
    return taken
