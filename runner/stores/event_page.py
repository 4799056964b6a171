"""Pure: selects the events that one read of an event log returns."""

from __future__ import annotations

from collections.abc import Iterable

from runner.jobs.event import Event


def take_events(events: Iterable[Event], after: int, max_bytes: int) -> list[Event]:
    """Return events with seq > `after` whose data fit into `max_bytes` together, the first one always.

    `events` come in order of seq.
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
