"""Effect: handlers of the server that is held to its contract; files are the gates at which they wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from runner import Context, PermanentError, Retry, handler
from runner.testing import allocate

Document = dict[str, Any]
GIB = 1 << 30


def pass_gate(data: Document, ctx: Context) -> None:
    """Say that user code runs, then wait for the file named by `gate`, if one is."""
    ctx.progress(0, 1)
    while "gate" in data and not os.path.exists(data["gate"]):
        ctx.check_cancelled()
        time.sleep(0.003)


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@handler("echo")
def echo(data: object) -> object:
    return data


@handler("even")
def even(data: Even) -> int:
    return data.number // 2


@handler("who", gpus=0, keep_alive="1m")
def who(data: Document) -> int:
    """The process, to tell executors apart."""
    return os.getpid()


@handler("one", concurrency=1)
def one(data: Document, ctx: Context) -> Document:
    pass_gate(data, ctx)
    return data


@handler("steady")
def steady(data: Document, ctx: Context) -> Document:
    pass_gate(data, ctx)
    return {"attempt": ctx.attempt}


@handler("fails")
def fails(data: Document, ctx: Context) -> int:
    """Fails before attempt `until`."""
    if ctx.attempt < data["until"]:
        raise ValueError(f"no luck in attempt {ctx.attempt}")
    return ctx.attempt


@handler("again", retries=1)
def again(data: Document, ctx: Context) -> int:
    if ctx.attempt == 1 and data["how"] == "after":
        raise Retry("429", after=0.4)
    if ctx.attempt == 1:
        raise Retry("429", at=datetime.now(UTC) + timedelta(seconds=0.4))
    return ctx.attempt


@handler("never", retries=3)
def never(data: Document) -> None:
    raise PermanentError("404")


@handler("result")
def result(data: Document) -> object:
    made: dict[str, object] = {"nan": float("nan"), "object": object(), "half": "\ud800", "key": {(1, 2): 3}}
    return made[data["kind"]] if data["kind"] in made else "x" * int(data["kind"])


@handler("deaf")
def deaf(data: Document, ctx: Context) -> None:
    """Takes no notice of anything."""
    ctx.progress(0, 1)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@handler("silent", stall_timeout=0.4)
def silent(data: Document, ctx: Context) -> None:
    for _ in range(3):
        ctx.progress(0, 1)
        time.sleep(0.2)
    time.sleep(60)


@handler("async_nap")
async def async_nap(data: Document, ctx: Context) -> None:
    ctx.progress(0, 1)
    await asyncio.sleep(60)


@handler("slow_load", gpus=0, load_timeout=0.5)
class SlowLoad:
    def load(self, ctx: Context) -> None:
        time.sleep(60)

    def run(self, data: Document) -> None: ...


@handler("gated_load", gpus=0)
class GatedLoad:
    def load(self, ctx: Context) -> None:
        time.sleep(60)

    def run(self, data: Document) -> None: ...


@handler("bad_load", gpus=0)
class BadLoad:
    def load(self, ctx: Context) -> None:
        raise OSError("no weights")

    def run(self, data: Document) -> None: ...


@handler("at_once", gpus=0, keep_alive=0)
def at_once(data: Document) -> int:
    return os.getpid()


@handler("pinned", gpus=0, keep_alive=-1)
def pinned(data: Document) -> int:
    return os.getpid()


@handler("brief", gpus=0, keep_alive=0.3)
def brief(data: Document) -> int:
    return os.getpid()


@handler("worn", gpus=0, max_jobs=2)
def worn(data: Document) -> int:
    return os.getpid()


@handler("files")
def files(data: Document, ctx: Context) -> object:
    """Saves one file for each name."""
    saved = [ctx.save_file(name, bytes(range(100)), "image/png") for name in data["names"]]
    return saved[0] if len(saved) == 1 else saved


@handler("talk")
def talk(data: Document) -> Iterator[int]:
    yield from range(data["n"])


def _hold(data: Document, ctx: Context) -> Document:
    if "hold" in data:
        allocate(data["hold"])
    pass_gate(data, ctx)
    return {"pid": os.getpid(), "device": ctx.devices, "granted": ctx.vram_bytes}


@handler("small", vram="4GiB", keep_alive="1m")
def small(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("models", vram="4GiB", keep_alive="1m", model_by="checkpoint.name", size_by=("width", "height"))
class Models:
    def load(self, ctx: Context) -> None:
        self.loaded = ctx.model

    def run(self, data: Document, ctx: Context) -> Document:
        return {"loaded": self.loaded, "model": ctx.model, **_hold(data, ctx)}


@handler("medium", vram="10GiB", keep_alive="1m")
def medium(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("medium2", vram="10GiB", keep_alive="1m")
def medium2(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("big", vram="20GiB", keep_alive="1m")
def big(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("stint", vram="20GiB", keep_alive="1m")
def stint(data: Document) -> None:
    """Has a device for itself for a while."""
    time.sleep(data["s"])


@handler("stint2", vram="20GiB", keep_alive="1m")
def stint2(data: Document) -> None:
    time.sleep(data["s"])


@handler("pair", gpus=2, vram="4GiB", keep_alive="1m")
def pair(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("unknown", gpus=1, keep_alive="1m")
def unknown(data: Document, ctx: Context) -> Document:
    return _hold(data, ctx)


@handler("capped", ram="120MiB")
def capped(data: Document) -> int:
    kept = [bytearray(b"x" * (8 << 20)) for _ in range(data["blocks"])]
    time.sleep(1.0 if data["blocks"] > 8 else 0.0)
    return len(kept)


@handler("trace")
def trace(data: Document, ctx: Context) -> int:
    with Path(data["trace"]).open("a") as file:
        file.write(f"{ctx.job_id} {ctx.attempt}\n")
    return ctx.attempt
