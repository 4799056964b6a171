"""Handlers that the worker's tests run in real executors."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from runner import Context, handler, testing


def _circumstances() -> dict[str, Any]:
    """All in which one process may differ from another."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
    own = ("JOB_RUNNER_EXECUTOR", "TEMPLATE_READY")
    return {
        "path": sys.path,
        "argv": sys.argv,
        "main": sys.modules["__main__"].__spec__.name,  # type: ignore[union-attr]
        "env": {name: value for name, value in os.environ.items() if name not in own},
        "fds": fds,
        "cwd": os.getcwd(),
        "leads": (os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
        "parent": os.getppid(),
        "threads": status["Threads"],
        "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
        "privileges": status["NoNewPrivs"],
        "limits": Path("/proc/self/limits").read_text(),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
        "nice": os.nice(0),
    }


@handler("circumstances")
def circumstances(data: Any) -> dict[str, Any]:
    return _circumstances()


@handler("drawn")
def drawn(data: Any) -> list[Any]:
    """Random numbers, by whoever makes them; the process, and the one that has imported the heavy module."""
    import random

    import numpy

    from tests.runner.worker import slow_import

    matrix = numpy.ones((300, 300))
    assert float((matrix @ matrix)[0, 0]) == 300
    return [random.random(), float(numpy.random.random()), os.getpid(), slow_import.PID]


@handler("echo")
def echo(data: Any) -> Any:
    return data


@handler("speak")
def speak(data: dict[str, Any], ctx: Context) -> str:
    ctx.progress(1, 2)
    os.write(1, data.get("raw", "from C").encode())
    os.write(2, b"warned\n")
    print("from python")
    return "spoken"


_left: list[subprocess.Popen[bytes]] = []


@handler("leave")
def leave(data: str, ctx: Context) -> str:
    """Leaves a child that prints behind, lets it print, or ends it; speaks itself each time."""
    if data == "start":
        script = "sleep 0.2; while :; do echo stray; sleep 0.02; done"
        _left.append(subprocess.Popen(["sh", "-c", script]))
    elif data == "wait":
        time.sleep(0.6)
    elif data == "stop":
        child = _left.pop()
        child.kill()
        child.wait()
    os.write(1, f"{data}\n".encode())
    return data


def many(data: list[dict[str, Any]], ctx: Context) -> list[Any]:
    """A batch: what one item of it asks for happens to all."""
    ctx.output("begun")
    os.write(1, b"from C\n")
    for one in data:
        if one.get("how"):
            die(one, ctx)
        if one.get("s"):
            time.sleep(one["s"])
    while any(one.get("polite") for one in data):
        ctx.check_cancelled()
        time.sleep(0.01)
    return [item.job_id for item in ctx.items]


async def aside(data: dict[str, Any], ctx: Context) -> str:
    """Runs beside others; `block`: does not let them."""
    ctx.output("begun")
    if data.get("block"):
        time.sleep(data["block"])
    end = time.monotonic() + data.get("s", 0)
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if not data.get("stubborn"):
                raise
    if data.get("how"):
        die(data, ctx)
    return "rested"


@handler("linger")
def linger(data: dict[str, Any], ctx: Context) -> str:
    """Sleeps for `s` seconds; heeds nothing but a raised cancel."""
    time.sleep(data["s"])
    return "rested"


@handler("scribble")
def scribble(data: dict[str, Any], ctx: Context) -> str:
    """Writes where the executor and its worker share memory, then sleeps for `s` seconds."""
    text = b"progress: 10 of 100 steps are done, loss 0.25\n"
    if data["how"] == "descriptor":
        for change in (lambda: os.write(3, text), lambda: os.ftruncate(3, 0)):
            with contextlib.suppress(OSError):
                change()
    else:
        with open("/proc/self/maps") as maps:
            address = next(int(line.split("-")[0], 16) for line in maps if "runner-page" in line)
        ctypes.memmove(address, text, len(text))
    time.sleep(data["s"])
    return "scribbled"


@handler("polite")
def polite(data: dict[str, Any], ctx: Context) -> str:
    while True:
        ctx.check_cancelled()
        time.sleep(0.01)


@handler("stubborn")
def stubborn(data: dict[str, Any], ctx: Context) -> str:
    """Swallows the raised cancel and ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(60)
        except BaseException:
            continue
    return "never"


@handler("termable")
def termable(data: dict[str, Any], ctx: Context) -> str:
    """Swallows the raised cancel and dies of SIGTERM."""
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@handler("gil")
def gil(data: dict[str, Any], ctx: Context) -> int:
    """Holds the GIL in C for a time that grows with `n`."""
    return sum(itertools.repeat(1, data["n"]))


@handler("die")
def die(data: dict[str, Any], ctx: Context) -> str:
    how = data["how"]
    print(f"printed by {ctx.job_id}", file=sys.stderr)
    os.write(2, b"last words\n")
    if how == "live":
        return "alive"
    if how == "segv":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(data["code"])
    elif how == "sys.exit":
        sys.exit(data["code"])
    elif how == "exec":
        os.execvp("sleep", ["sleep", "60"])
    elif how == "close":
        os.closerange(3, 4096)
        time.sleep(60)
    else:
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)
    return "never"


@handler("brood")
def brood(data: dict[str, Any], ctx: Context) -> list[int]:
    """Leaves children: in its group, in a session of its own, and one that has thrown off everything."""
    pids = [subprocess.Popen(["sleep", "60"]).pid]
    pids.append(subprocess.Popen(["sleep", "60"], start_new_session=True).pid)
    pids.append(subprocess.Popen(["setsid", "sleep", "60"], env={"PATH": os.environ["PATH"]}).pid)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    assert child.pid is not None
    pids.append(child.pid)
    if data.get("s"):
        ctx.output(pids)
        time.sleep(data["s"])
    return pids


@handler("hog")
def hog(data: dict[str, Any], ctx: Context) -> str:
    held = bytearray(data["bytes"])
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(data.get("s", 30))
    return "kept"


@handler("simulate")
def simulate(data: dict[str, Any], ctx: Context) -> str:
    testing.allocate(data["bytes"])
    time.sleep(data.get("s", 0))
    return f"{(ctx.vram_bytes or 0) >> 20} MiB"


@handler("slow_load")
class SlowLoad:
    def load(self, ctx: Context) -> None:
        time.sleep(30)

    def run(self, data: Any) -> Any:
        return data


@handler("bad_load")
class BadLoad:
    def load(self, ctx: Context) -> None:
        raise RuntimeError("no weights")

    def run(self, data: Any) -> Any:
        return data


@handler("dying_load")
class DyingLoad:
    def load(self, ctx: Context) -> None:
        os._exit(9)

    def run(self, data: Any) -> Any:
        return data
