"""Effect: handlers whose jobs run together, some of which do harm; what they say goes by a trace file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Any

from runner import Batch, Context, PermanentError, Retry, handler, testing

Document = dict[str, Any]


def say(data: Document, word: str) -> None:
    """One line into the file that the input names."""
    if "trace" in data:
        fd = os.open(data["trace"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{word}\n".encode())
        os.close(fd)


@handler("gathered", batch=Batch(max=4, wait="300ms", by="group"), grace="1s")
def gathered(data: list[Document], ctx: Context) -> list[Any]:
    """A batch; what one item asks for may befall all of it."""
    say(data[0], f"batch {len(data)}")
    for item, one in zip(ctx.items, data, strict=True):
        item.progress(1, 2, message=f"of {len(data)}")
        if one.get("how") == "segv":
            ctypes.string_at(0)
        if one.get("how") == "raise":
            raise ValueError("spoiled for all")
        if one.get("how") == "hang":
            time.sleep(60)
    for item, one in zip(ctx.items, data, strict=True):
        while one.get("how") == "wait" and not item.cancelled:
            time.sleep(0.005)
        if one.get("how") == "go" and not os.path.exists(one["go"]):
            while not os.path.exists(one["go"]):
                time.sleep(0.005)
    return [_outcome(one, item, len(data)) for item, one in zip(ctx.items, data, strict=True)]


def _outcome(one: Document, item: Context, count: int) -> Any:
    match one.get("how"):
        case "fail":
            return ValueError("mine alone")
        case "never":
            return PermanentError("gone")
        case "later":
            return Retry("busy", after=0.05) if item.attempt == 1 else item.attempt
        case "save":
            return item.save_file("own.txt", item.job_id.encode())
    return [item.job_id, item.attempt, count]


@handler("batch_of_three", batch=Batch(max=8, wait="50ms"), gpus=1, vram="1GiB")
def batch_of_three(data: list[Document], ctx: Context) -> list[int]:
    """Three fit into memory at once."""
    say(data[0], f"batch {len(data)}")
    if len(data) > 3:
        raise RuntimeError("CUDA out of memory. Tried to allocate")
    testing.allocate(len(data) * 1024 * 1024)
    return [len(data)] * len(data)


@handler("beside", slots=4, grace="300ms")
async def beside(data: Document, ctx: Context) -> Any:
    """Runs beside others."""
    say(data, f"begun {ctx.job_id} {ctx.attempt}")
    ctx.progress(1, 2)
    print(f"I am {ctx.job_id}")
    end = time.monotonic() + data.get("s", 0)
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            if data.get("how") != "stubborn":
                raise
    if data.get("how") == "segv":
        ctypes.string_at(0)
    return [ctx.job_id, ctx.attempt]
