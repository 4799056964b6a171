"""Effect: the handlers that are measured; the server under test is started with this file."""

from __future__ import annotations

import os
import time
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
    while not os.path.exists(data["gate"]):
        time.sleep(0.001)
    steps = int(data["steps"])
    started_at = time.time()
    for step in range(steps):
        ctx.progress(step + 1, steps)
    return {"started_at": started_at, "calls_s": time.time() - started_at}
