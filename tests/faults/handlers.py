"""Effect: handlers that behave badly on purpose; servers under test are started with this file."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import itertools
import locale
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from runner import Context, Retry, handler, testing

Document = dict[str, Any]


def say(data: Document, ctx: Context) -> None:
    """Leave one line per start in the file named by the input: what happened, not what was reported."""
    if "trace" in data:
        fd = os.open(data["trace"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{ctx.job_id} {ctx.attempt}\n".encode())
        os.close(fd)


def wait_for(path: str, ctx: Context) -> None:
    """Wait until a file exists, like a healthy job that is at work."""
    while not os.path.exists(path):
        ctx.check_cancelled()
        time.sleep(0.005)


@handler("echo")
def echo(data: Document) -> Document:
    return data


@handler("nap")
def nap(data: Document, ctx: Context) -> Document:
    say(data, ctx)
    # Even a sleep of nothing hands the core to the neighbours, and a short run is short no more.
    if "s" in data:
        time.sleep(data["s"])
    return data


@handler("stumble")
def stumble(data: Document, ctx: Context) -> Document:
    """Fails in its first `fails` attempts; those that succeed take `s` seconds."""
    if ctx.attempt <= data["fails"]:
        raise ValueError("not yet")
    if data["s"]:
        time.sleep(data["s"])
    return {"attempt": ctx.attempt}


@handler("steady")
def steady(data: Document, ctx: Context) -> Document:
    say(data, ctx)
    ctx.progress(0, 1)
    wait_for(data["gate"], ctx)
    return {"attempt": ctx.attempt, "pid": os.getpid()}


@handler("kill_parent")
def kill_parent(data: Document, ctx: Context) -> None:
    """Ends the worker, as `pkill python` does."""
    time.sleep(0.2)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@handler("talk")
def talk(data: Document, ctx: Context) -> Iterator[Document]:
    """`n` chunks, with a pause after each 50; half-way it waits for the gate."""
    for number in range(data["n"]):
        if number == data["n"] // 2 and "gate" in data:
            wait_for(data["gate"], ctx)
        if number % 50 == 0:
            time.sleep(data.get("pause_s", 0.0))
        yield {"number": number, "attempt": ctx.attempt}


@handler("leak", ram="100MiB")
def leak(data: Document) -> Document:
    print("about to leak", file=sys.stderr, flush=True)
    with open(data["stamp"], "w") as stamp:
        stamp.write(str(time.time()))
    kept = []
    for _ in range(200):
        kept.append(bytearray(b"x" * (4 << 20)))
        time.sleep(0.005)
    return {"kept": len(kept)}


@handler("die")
def die(data: Document, ctx: Context) -> Document:
    """End the process in the way named, after saying so on stderr and leaving the time in a file."""
    say(data, ctx)
    how = data.get("how")
    if how is None:
        return data
    os.write(2, f"about to die: {how}\n".encode())
    if "stamp" in data:
        with open(data["stamp"], "w") as stamp:
            stamp.write(str(time.time()))
    if "kernel_tells" in data:
        # Stands in for the kernel, which counts what it ends for memory.
        with open(data["kernel_tells"], "w") as events:
            events.write("low 0\noom 1\noom_kill 1\n")
    DEATHS[how]()
    # Closing the channel ends nothing by itself; the worker must see it.
    time.sleep(60)
    return data


DEATHS: dict[str, Callable[[], object]] = {
    "SEGV": lambda: ctypes.string_at(0),
    "KILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "ABRT": os.abort,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: sys.exit(3),
    "closed descriptors": lambda: os.closerange(0, 65_536),
    "stack overflow": lambda: faulthandler._stack_overflow(),  # type: ignore[attr-defined]
    "exec": lambda: os.execvp("sleep", ["sleep", "60"]),
}


@handler("loop_in_c")
def loop_in_c(data: Document) -> int:
    """Holds the GIL in C for minutes: no Python signal handler runs meanwhile."""
    return sum(itertools.repeat(1, 10**11))


@handler("hold_gil")
def hold_gil(data: Document) -> Document:
    """Holds the GIL for `s` seconds, as loading a model may."""
    ctypes.PyDLL(None).usleep(int(data["s"] * 1e6))
    return data


@handler("family")
def family(data: Document, ctx: Context) -> Document:
    """Starts a pool, a child in a session of its own and one that blocks signals, then goes on for ever."""
    script = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)"
    subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    subprocess.Popen(["setsid", "--fork", "sleep", "601"])
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.apply(os.getpid)
    if data.get("block"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    ctx.progress(1, 2, message="family is up")
    while True:
        time.sleep(0.01)


@handler("coroutine_echo")
async def coroutine_echo(data: Document) -> Document:
    await asyncio.sleep(0)
    return data


@handler("ticker")
def ticker(data: Document, ctx: Context) -> Iterator[Document]:
    """A chunk with the time in it, and some padding, every `every_s` until the gate is there."""
    due = time.monotonic()
    while not os.path.exists(data["gate"]):
        yield {"at": time.time(), "padding": "x" * data["padding"]}
        due += data["every_s"]
        time.sleep(max(0.0, due - time.monotonic()))


def _onto_null() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)


def _into_a_deleted_folder() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def _print_much() -> None:
    """100 MB without one end of a line, by Python and by descriptor."""
    for _ in range(50):
        sys.stdout.write("x" * 1_000_000)
        os.write(1, b"y" * 1_000_000)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


TAMPERING: dict[str, Callable[[], object]] = {
    "closed standard descriptors": lambda: os.closerange(0, 3),
    "closed low descriptors": lambda: os.closerange(0, 10),
    "standard descriptors on /dev/null": _onto_null,
    "a deleted working folder": _into_a_deleted_folder,
    "a umask that forbids all": lambda: os.umask(0o777),
    "ignored signals": _ignore_signals,
    "another locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "an empty environment": os.environ.clear,
    "100 MB on one line": _print_much,
    "garbage on every descriptor": lambda: [os.write(number, b"\x00\xff\xc1" * 50) for number in (1, 2)],
}


@handler("tamper")
def tamper(data: Document) -> int:
    """Changes its process in the way named; gives the process."""
    if "how" in data:
        TAMPERING[data["how"]]()
    return os.getpid()


HOSTILE: dict[str, Callable[[], object]] = {
    "NaN": lambda: float("nan"),
    "infinity": lambda: {"deep": [float("inf")]},
    "2**70": lambda: 2**70,
    "lone surrogate": lambda: "\ud800",
    "lone surrogate as a key": lambda: {"\udfff": 1},
    "object": object,
    "path elsewhere": lambda: Path("/etc/hostname"),
    "set of NaN": lambda: {float("nan")},
    "tuple as a key": lambda: {(1, 2): 3},
    "itself": lambda: _circle(),
    "depth 100,000": lambda: _deep(100_000),
    "an exception": lambda: ValueError("given, not raised"),
}


def _circle() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


def _deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@handler("hostile")
def hostile(data: Document) -> object:
    return HOSTILE[data["kind"]]() if "kind" in data else os.getpid()


@handler("hostile_chunks")
def hostile_chunks(data: Document) -> Iterator[object]:
    yield "fine"
    yield HOSTILE[data["kind"]]()


@handler("pour")
def pour(data: Document) -> Iterator[str]:
    """`n` chunks of a MiB."""
    for _ in range(data["n"]):
        yield "x" * (1 << 20)


@handler("frozen")
def frozen(data: Document) -> None:
    """No thread of it runs any more, as in a driver that hangs; only SIGKILL would end it."""
    os.kill(os.getpid(), signal.SIGSTOP)


@handler("frozen_on_gpu", vram="4GiB")
def frozen_on_gpu(data: Document) -> None:
    frozen(data)


@handler("steady_on_gpu", vram="20GiB")
def steady_on_gpu(data: Document, ctx: Context) -> list[str]:
    ctx.progress(0, 1)
    wait_for(data["gate"], ctx)
    return ctx.devices


@handler("where", vram="1GiB", keep_alive=0)
def where(data: Document, ctx: Context) -> list[str]:
    return ctx.devices


KEPT: list[bytearray] = []


@handler("seep", ram="150MiB")
def seep(data: Document) -> int:
    """Keeps 20 MB more after each job."""
    KEPT.append(bytearray(b"x" * 20_000_000))
    return os.getpid()


@handler("seep_on_gpu", vram="4GiB")
def seep_on_gpu(data: Document) -> int:
    """Keeps half a GiB of simulated device memory more after each job."""
    KEPT.append(bytearray(1))
    testing.allocate(len(KEPT) << 29)
    # Time enough to be ended for it.
    time.sleep(0.05)
    return os.getpid()


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


DEVICE_ERRORS: dict[str, Callable[[], Exception]] = {
    "memory": lambda: OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "sticky": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
}


@handler("device_error", vram="4GiB")
def device_error(data: Document, ctx: Context) -> Document:
    """Fails as its device makes it in the first `times` attempts."""
    say(data, ctx)
    ctx.output(os.getpid())
    if ctx.attempt <= data.get("times", 0):
        raise DEVICE_ERRORS[data["kind"]]()
    return {"pid": os.getpid(), "granted": ctx.vram_bytes}


@handler("weighty", vram="4GiB")
class Weighty:
    """Needs 6 GiB for its weights, whatever it was declared with."""

    def load(self, ctx: Context) -> None:
        if (ctx.vram_bytes or 0) < 6 << 30:
            raise DEVICE_ERRORS["memory"]()

    def run(self, data: Document, ctx: Context) -> int | None:
        return ctx.vram_bytes


@handler("modest", vram="4GiB", strict=True)
def modest(data: Document, ctx: Context) -> None:
    """May have no more than it declared, and has too little."""
    raise DEVICE_ERRORS["memory"]()


@handler("hungry", vram="4GiB")
def hungry(data: Document, ctx: Context) -> int | None:
    """Takes as much simulated device memory as it is told."""
    testing.allocate(data["hold"])
    # Time enough to be ended for it.
    time.sleep(0.05)
    testing.allocate(0)
    return ctx.vram_bytes


def mark(folder: str, ctx: Context) -> int:
    """One file for each time that user code was run for an attempt; how many there are."""
    for times in itertools.count(1):
        try:
            fd = os.open(f"{folder}/{ctx.job_id}.{ctx.attempt}.{times}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            continue
        os.close(fd)
        return times
    raise AssertionError


@handler("work")
def work(data: Document, ctx: Context) -> Document:
    """Leaves its mark, then does what the input asks: all that makes a message of some kind."""
    times = mark(data["marks"], ctx)
    if data.get("kill_worker") and ctx.attempt == times == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if "open" in data:
        ctx.open_file(data["open"]).close()
    if ctx.attempt <= data.get("fails", 0):
        raise ValueError("not yet")
    for number in range(data.get("talk", 0)):
        ctx.log.info("word %d", number)
    if "print" in data:
        os.write(1, b"past Python\n")
    if "leave" in data:
        subprocess.Popen(["sleep", "60"])
    if "allocate" in data:
        testing.allocate(data["allocate"])
    kept = bytearray(b"x" * data.get("grow", 0))
    if "gate" in data:
        ctx.progress(len(kept), 1 + len(kept))
        while not os.path.exists(data["gate"]):
            # Deaf to the flag, so that the second rung is needed.
            time.sleep(0.005)
    return {"attempt": ctx.attempt, "file": ctx.save_file("a.txt", b"a") if "save" in data else None}


@handler("fleeting", keep_alive=0)
def fleeting(data: Document, ctx: Context) -> Document:
    return work(data, ctx)


@handler("fleeting_on_gpu", vram="4GiB", keep_alive=0)
def fleeting_on_gpu(data: Document, ctx: Context) -> Document:
    """Holds a GiB of a GPU meanwhile."""
    import torch

    held = torch.empty(1 << 30, dtype=torch.uint8, device=ctx.device)
    return work(data, ctx) | {"held": held.nbytes}


@handler("frugal_on_gpu", gpus=1)
def frugal_on_gpu(data: Document, ctx: Context) -> Document:
    """Does not say that it needs no more than a GiB of simulated device memory."""
    testing.allocate("1GiB")
    return work(data, ctx) | {"granted": ctx.vram_bytes, "pid": os.getpid()}


@handler("unloadable")
class Unloadable:
    def load(self) -> None:
        raise OSError("no weights")

    def run(self, data: Document) -> None:
        raise AssertionError("it was not loaded")


@handler("put_off", retries=1)
def put_off(data: Document) -> None:
    if "at" in data:
        raise Retry("not in this life", at=datetime.fromisoformat(data["at"]))
    raise Retry("not in this life", after=data["after"])


@handler("again_soon")
def again_soon(data: Document, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise Retry("not yet", after=0.3)
    return ctx.attempt
