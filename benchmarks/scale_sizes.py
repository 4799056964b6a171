"""Pure: how much of everything one run does."""

from __future__ import annotations

import msgspec

#: Jobs of one POST /v1/jobs/bulk, where the size of a batch is not what is measured.
BATCH = 1_000


class Sizes(msgspec.Struct, frozen=True):
    """What a run of `make bench` does by default; tests do less of it."""

    #: No-op jobs of a bulk round.
    bulk: int = 10_000
    #: Single jobs: number of chunks, with sides taking turns, and jobs in each.
    chunks: int = 10
    chunk: int = 50
    #: Jobs accepted one by one: number of chunks, with sides taking turns, and jobs in each.
    accept_chunks: int = 5
    accept_chunk: int = 200
    #: Jobs accepted in bulk, and rows of the insert alone.
    accept_bulk: int = 20_000
    accept_rows: int = 2_000
    #: Readers of one job's stream, and `output` events that it makes.
    readers: int = 100
    outputs: int = 20_000
    #: How long nothing is asked of the idle server, and how long it may settle before.
    idle_s: float = 20.0
    settle_s: float = 3.0
    #: How long the loop is kept saturated while commits are timed.
    saturated_s: float = 8.0
    #: Jobs of exactly 100 ms.
    naps: int = 200
    #: Jobs that wait while the assign time is measured; the first few are the yardstick.
    few: int = 1_000
    many: int = 1_000_000
    #: Jobs whose assign time is measured, and jobs drained from the head of the waiting ones.
    assigned: int = 300
    drained: int = 5_000
