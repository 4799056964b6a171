"""Effect: the handlers that are measured; the server under test is started with this file."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Any

from runner import Context, handler


@handler("echo")
def echo(data: dict[str, Any]) -> dict[str, Any]:
    return data


@handler("burst")
def burst(data: dict[str, Any], ctx: Context) -> dict[str, float]:
    """Report `data["steps"]` steps as fast as it goes, once the file `data["gate"]` exists.

    The gate lets the reader of the stream be in place first; the output says when the first call was made.
    """
    _await_gate(data["gate"])
    steps = int(data["steps"])
    started_at = time.time()
    for step in range(steps):
        ctx.progress(step + 1, steps)
    return {"started_at": started_at, "calls_s": time.time() - started_at}


@handler("spray")
def spray(data: dict[str, Any]) -> Generator[int, None, str]:
    """Stream `data["chunks"]` numbers as fast as it goes, once the file `data["gate"]` exists."""
    _await_gate(data["gate"])
    yield from range(data["chunks"])
    return "all said"


@handler("nap")
def nap() -> None:
    """Exactly 100 ms."""
    time.sleep(0.1)


def _await_gate(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.001)
