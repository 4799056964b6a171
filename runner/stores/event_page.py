"""Pure: how much of an event log one read gives."""

from __future__ import annotations

from collections.abc import Iterable

from runner.jobs.event import Event


def page(events: Iterable[Event], after: int, max_bytes: int) -> list[Event]:
    """The events with seq > `after` whose data fit into `max_bytes` together, the first one always.

    `events` come in order of seq.
    """
    kept: list[Event] = []
    room = max_bytes
    for event in events:
        if event.seq <= after:
            continue
        room -= len(event.data)
        if kept and room < 0:
            break
        kept.append(event)
    return kept
