"""Effect: the handlers of the soak run; each execution leaves a stamp, so that what ran is known."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from runner import Context, PermanentError, Retry, handler
from runner.testing import allocate

Document = dict[str, Any]
#: An attempt that finds another one of its job alive waits so long for it to die.
LOCK_WAIT_S = 2.0


@contextlib.contextmanager
def stamped(ctx: Context) -> Iterator[None]:
    """A file for this execution, created as a new one or not at all, with its start and its end.

    The job's lock is let go of by the kernel when the process ends, however it ends: how long it was
    waited for is how long an earlier attempt was still alive.
    """
    folder = Path(os.environ["SOAK_STAMPS"], ctx.job_id[-2:])
    fd = _create_stamp(folder, f"{ctx.job_id}.{ctx.attempt}")
    lock = os.open(folder / f"{ctx.job_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    how = "ok"
    try:
        waited_s = _wait_for_lock(lock)
        os.write(fd, f"start {time.monotonic():.6f} {os.getpid()} {waited_s:.6f}\n".encode())
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        os.write(fd, f"end {time.monotonic():.6f} {how}\n".encode())
        os.close(lock)
        os.close(fd)


def _create_stamp(folder: Path, name: str) -> int:
    """The file of that name; where it is there already this attempt runs again, and that is told."""
    for again in range(1, 100):
        path = folder / (name if again == 1 else f"{name}.{again}")
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC)
    raise RuntimeError(f"{name} ran a hundred times")


def _wait_for_lock(fd: int) -> float:
    """Seconds until the lock was ours; the bound where it was not."""
    began = time.monotonic()
    while time.monotonic() - began < LOCK_WAIT_S:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.monotonic() - began
        time.sleep(0.001)
    return LOCK_WAIT_S


def outcome(data: Document, ctx: Context, **more: object) -> Document:
    """An output that says which input and which attempt it is of."""
    return {"key": data["key"], "job": ctx.job_id, "attempt": ctx.attempt, "pid": os.getpid(), **more}


@handler("act", keep_alive="3s")
def act(data: Document, ctx: Context) -> Document:
    """Most of what a job can do without a GPU, by name, so that few executors do for all."""
    with stamped(ctx):
        return ACTS[data["do"]](data, ctx)


def quick(data: Document, ctx: Context) -> Document:
    return outcome(data, ctx)


def talk(data: Document, ctx: Context) -> Document:
    """Everything that makes events, for `s` seconds."""
    steps = max(1, int(data["s"] / 0.05))
    for step in range(steps):
        ctx.progress(step + 1, steps, message=f"step {step}")
        print(f"line {step} of attempt {ctx.attempt}")
        if step % 5 == 0:
            print("to stderr", file=sys.stderr)
            ctx.metric("loss", 1.0 / (step + 1))
            ctx.output({"n": step, "attempt": ctx.attempt})
        time.sleep(0.05)
        ctx.check_cancelled()
    return outcome(data, ctx, steps=steps)


def flaky(data: Document, ctx: Context) -> Document:
    if ctx.attempt <= data["fails"]:
        if data.get("later"):
            raise Retry("come back", after=0.1)
        raise ValueError(f"attempt {ctx.attempt} is meant to fail")
    return outcome(data, ctx)


def refuse(data: Document, ctx: Context) -> Document:
    raise PermanentError("never")


def die(data: Document, ctx: Context) -> Document:
    if data["how"] == "exit":
        os._exit(0)
    os.kill(os.getpid(), getattr(signal, data["how"]))
    time.sleep(60)
    return outcome(data, ctx)


def large(data: Document, ctx: Context) -> Document:
    text = "x" * data["bytes"]
    return outcome(data, ctx, text=text)


def save(data: Document, ctx: Context) -> Document:
    body = hashlib.sha256(f"{ctx.job_id} {ctx.attempt}".encode()).digest() * data["blocks"]
    return outcome(data, ctx, file=ctx.save_file("body.bin", body))


def escape(data: Document, ctx: Context) -> Document:
    """Children that try to outlive everybody: in sessions of their own, deaf, without our name."""
    deaf = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(86399)"
    nonce = os.environ["SOAK_NONCE"]
    subprocess.Popen([sys.executable, "-S", "-E", "-c", deaf, nonce], start_new_session=True)
    subprocess.Popen(["setsid", "--fork", "sleep", f"86399.{nonce}"])
    subprocess.Popen(["setsid", "--fork", "sleep", f"86399.{nonce}"], env={})
    time.sleep(data["s"])
    return outcome(data, ctx)


def stubborn(data: Document, ctx: Context) -> Document:
    """Deaf to all but SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    until = time.monotonic() + data["s"]
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
    return outcome(data, ctx)


def nan(data: Document, ctx: Context) -> Document:
    return outcome(data, ctx, figure=float("nan"))


ACTS: dict[str, Callable[[Document, Context], Document]] = {
    function.__name__: function
    for function in (quick, talk, flaky, refuse, die, large, save, escape, stubborn, nan)
}


@handler("chunks", keep_alive="3s")
def chunks(data: Document, ctx: Context) -> Iterator[Document]:
    with stamped(ctx):
        for number in range(data["n"]):
            if number % 20 == 0:
                time.sleep(data["pause_s"])
            chunk = {"key": data["key"], "job": ctx.job_id, "attempt": ctx.attempt, "n": number}
            yield {**chunk, "padding": "x" * data["padding"]}


@handler("rest", keep_alive="3s")
async def rest(data: Document, ctx: Context) -> Document:
    with stamped(ctx):
        await asyncio.sleep(data["s"])
        return outcome(data, ctx)


@handler("probe", gpus=1, vram="64MiB", keep_alive="3s")
def probe(data: Document, ctx: Context) -> Document:
    with stamped(ctx):
        return outcome(data, ctx)


@handler("model", vram="3GiB", keep_alive="3s")
class Model:
    """Two of three models fit on a device: loading one evicts another."""

    def load(self, ctx: Context) -> None:
        allocate("2GiB")

    def run(self, data: Document, ctx: Context) -> Document:
        with stamped(ctx):
            time.sleep(data["s"])
            return outcome(data, ctx)


@handler("hog", gpus=1, vram="1GiB", keep_alive="3s")
def hog(data: Document, ctx: Context) -> Document:
    """Takes device memory, more than it was granted where it is told so."""
    with stamped(ctx):
        allocate(data["bytes"])
        time.sleep(data["s"])
        allocate(0)
        return outcome(data, ctx)


@handler("eater", ram="96MiB", keep_alive="3s")
def eater(data: Document, ctx: Context) -> Document:
    """The same with real memory."""
    with stamped(ctx):
        kept = []
        for _ in range(data["mib"]):
            kept.append(bytearray(b"x" * (1 << 20)))
            time.sleep(0.002)
        time.sleep(data["s"])
        return outcome(data, ctx, mib=len(kept))


@handler("silent", stall_timeout="1s", keep_alive="3s")
def silent(data: Document, ctx: Context) -> Document:
    with stamped(ctx):
        time.sleep(30)
        return outcome(data, ctx)


@handler("unloadable", gpus=1, vram="64MiB", keep_alive="3s")
class Unloadable:
    def load(self, ctx: Context) -> None:
        raise OSError("the weights are not there")

    def run(self, data: Document, ctx: Context) -> Document:
        with stamped(ctx):
            return outcome(data, ctx)


@handler("slow_to_load", gpus=1, vram="64MiB", load_timeout="1s", keep_alive="3s")
class SlowToLoad:
    def load(self, ctx: Context) -> None:
        time.sleep(30)

    def run(self, data: Document, ctx: Context) -> Document:
        with stamped(ctx):
            return outcome(data, ctx)


class Even(BaseModel):
    key: str
    number: int

    @field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("must be even")
        return number


@handler("typed", keep_alive="3s")
def typed(data: Even, ctx: Context) -> Document:
    with stamped(ctx):
        return outcome(data.model_dump(), ctx)
