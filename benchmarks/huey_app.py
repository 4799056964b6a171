"""Effect: the Huey reference's task, as its consumer imports it; the environment names the database."""

from __future__ import annotations

import os
from typing import Any

from huey import SqliteHuey

# Everything is Huey's default: WAL, SQLite's own synchronous=FULL (its `fsync=None` leaves it), results kept.
huey = SqliteHuey("bench", filename=os.environ["BENCH_HUEY_DB"])


@huey.task()  # type: ignore[untyped-decorator]
def echo(data: dict[str, Any]) -> dict[str, Any]:
    return data
