"""Effect: the Huey reference's task, as its consumer imports it; the environment names the database."""

from __future__ import annotations

import os
from typing import Any

from huey import SqliteHuey

# Huey's defaults: WAL, SQLite's own synchronous=FULL (its `fsync=None` leaves it), results kept. Only the
# wait for a lock is longer: on a loaded machine its 5 s ended in "database is locked".
huey = SqliteHuey("bench", filename=os.environ["BENCH_HUEY_DB"], timeout=60)


@huey.task()  # type: ignore[untyped-decorator]
def echo(data: dict[str, Any]) -> dict[str, Any]:
    return data
