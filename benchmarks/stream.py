"""Effect: measures how many events a second reach many readers of one job."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from benchmarks.figure import Figures
from benchmarks.http_client import BenchmarkFailed, Connection
from benchmarks.readers import Reader, Readers
from benchmarks.scale_sizes import Sizes
from benchmarks.server import Server

LIVE = "output events to all readers, while it runs"
CATCH_UP = "output events to all readers, after its end"
_LAST = re.compile(rb"\nid: (\d+)\nevent: done\n")


def measure(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
    """A handler yields as fast as it goes, with all readers there; then as many come who missed it all."""
    server = Server(folder / "data")
    try:
        connection = Connection(server.port)
        for number in range(rounds):
            gate = folder / f"gate-{number}"
            input_ = {"chunks": sizes.outputs, "gate": str(gate)}
            body = msgspec.json.encode({"handler": "spray", "input": input_})
            job_id = msgspec.json.decode(connection.post("/v1/jobs", body, 202))["id"]
            live = Readers(server.port, job_id, sizes.readers)
            # It runs and waits at the gate: from here on only its outputs and its end are sent.
            live.read_until(lambda reader: b'"state":"running"' in reader.tail)
            gate.touch()
            figures.add(LIVE, "runner", "events/s", _rate(live, sizes))
            later = Readers(server.port, job_id, sizes.readers)
            figures.add(CATCH_UP, "runner", "events/s", _rate(later, sizes))
        connection.close()
    finally:
        server.stop()


def _rate(readers: Readers, sizes: Sizes) -> float:
    """Outputs a second that reached somebody, from the first byte to the last; each reader got them all."""
    readers.read_until(_is_done)
    readers.close()
    for reader in readers.all:
        found = _LAST.search(reader.tail)
        last = int(found[1]) if found else 0
        if not sizes.outputs <= last == reader.events:
            raise BenchmarkFailed(
                f"a reader saw {reader.events} events up to {last} of {sizes.outputs} outputs"
            )
    return sizes.outputs * len(readers.all) / (readers.last_at - readers.first_at)


def _is_done(reader: Reader) -> bool:
    return reader.done
