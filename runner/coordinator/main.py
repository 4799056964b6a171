"""Effect: the process of `runner serve`: lock, socket, signals, exit code.

The order of the start is fixed: lock the data folder, bind the port, create the folder of sockets, then run
the coordinator. So a second server on the same folder is refused before it touches anything.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import uvloop

from runner.coordinator.coordinator import Coordinator
from runner.coordinator.processes.listeners import Listeners, UnixListener
from runner.coordinator.storage.data_lock import DataLock, LockHolder
from runner.coordinator.storage.room_wait import is_full
from runner.errors import Fenced, RefusedStart, RunnerError, StartDiskFull
from runner.processes import logs
from runner.settings.settings import Settings, misspelt_variables

log = logging.getLogger(__name__)

#: A server that was just killed may still hold the port for a moment.
PORT_WAIT_S = 5.0
#: Connections that the kernel keeps while all fronts are busy.
BACKLOG = 1024
#: The start banner waits up to this time for handlers that are still being described.
BANNER_WAIT_S = 1.5
#: Environment variable: the descriptor to which `{"url", "pid"}` is written once jobs are accepted.
READY_FD = "JOB_RUNNER_READY_FD"
#: Folders of sockets begin with this; only such folders of a killed server are removed.
RUNTIME_PREFIX = "runner-"


class StartListener(Protocol):
    """Shows the start of a server to its user; `document` is described at `startup_banner.format_banner`."""

    def on_ready(self, document: dict[str, Any]) -> None:
        """Jobs are accepted, and the handlers are described or `BANNER_WAIT_S` is over."""

    def on_described(self, document: dict[str, Any]) -> None:
        """All handlers are described; called only if they were not at `on_ready`."""


def serve(settings: Settings, listener: StartListener | None = None) -> int:
    """Run a server until it is stopped; return the exit code.

    0 after TERM or Ctrl-C, 2 for a refused start, 3 when another coordinator has taken over, 75 for a disk
    without room for the start. Errors of the start are printed to stderr. Must be called in the main thread,
    for the signals.
    """
    logs.configure(settings.log_format, settings.log_level, "coordinator")
    for variable, meant in misspelt_variables():
        log.warning("%s has no effect: did you mean %s?", variable, meant)
    ready_fd = _take_ready_fd()
    data_dir = settings.data_dir
    try:
        _make_data_dir(data_dir)
        lock = DataLock(data_dir)
        previous = lock.acquire()
        listeners = Listeners(_listen(settings.host, settings.port))
        if settings.uds is not None:
            listeners.unix = UnixListener(settings.uds, backlog=BACKLOG)
    except RefusedStart as refused:
        print(f"runner: {refused.message}", file=sys.stderr)
        return refused.exit_code
    if previous is not None:
        _remove_runtime(previous.runtime)
    try:
        runtime = Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=_runtime_parent()))
    except OSError as error:
        listeners.close()
        print(f"runner: no folder for sockets can be created: {error}", file=sys.stderr)
        return StartDiskFull.exit_code if is_full(error) else RefusedStart.exit_code
    lock.write_holder(LockHolder(os.getpid(), runtime=str(runtime)))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            return loop.run(_main(settings, listeners, runtime, lock, ready_fd, listener))
    finally:
        listeners.close()
        shutil.rmtree(runtime, ignore_errors=True)
        lock.release()


async def _main(
    settings: Settings,
    listeners: Listeners,
    runtime: Path,
    lock: DataLock,
    ready_fd: int | None,
    listener: StartListener | None,
) -> int:
    """Start the coordinator, wait for a signal, a fence or a refusal, and stop it; return the exit code.

    The first TERM or Ctrl-C stops with the grace of the settings, a second one at once.
    """
    stop_requested, hurry_requested = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurry_requested if stop_requested.is_set() else stop_requested).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    coordinator = Coordinator(
        settings, listeners=listeners, runtime=runtime, version=_version(), stop_requested=stop_requested
    )
    refused_code = await _start(coordinator, stop_requested)
    if refused_code is not None:
        await coordinator.abandon()
        return refused_code
    lock.write_holder(LockHolder(os.getpid(), coordinator.url, str(runtime), coordinator.epoch))
    if ready_fd is not None:
        os.write(ready_fd, json.dumps({"url": coordinator.url, "pid": os.getpid()}).encode() + b"\n")
        os.close(ready_fd)
    # Objects alive now live to the end: garbage collections that visit them would delay answers.
    gc.collect()
    gc.freeze()
    if listener is not None:
        await _show_start(coordinator, listeners, listener, stop_requested)
    await _wait_for_first(stop_requested.wait(), coordinator.must_stop.wait())
    if coordinator.fenced is not None:
        print(f"runner: {coordinator.fenced.message}; this server stops", file=sys.stderr)
        await coordinator.abandon()
        return coordinator.fenced.exit_code
    await coordinator.stop(grace_s=0.0 if coordinator.refused else settings.grace_s, hurry=hurry_requested)
    if coordinator.refused is not None:
        print(f"runner: {coordinator.refused.message}", file=sys.stderr)
        return RefusedStart.exit_code
    return 0


async def _show_start(
    coordinator: Coordinator,
    listeners: Listeners,
    listener: StartListener,
    stop_requested: asyncio.Event,
) -> None:
    """Show the banner with the number of handlers; a number that comes late is shown when it is known."""
    front = coordinator.components.front

    async def wait_until_described(timeout_s: float | None) -> None:
        await _wait_for_first(
            front.handler_registry.wait_until_described(),
            stop_requested.wait(),
            coordinator.must_stop.wait(),
            timeout_s=timeout_s,
        )

    await wait_until_described(BANNER_WAIT_S)
    banner = front.readiness.build_banner(listeners.urls)
    listener.on_ready(banner)
    if banner["handlers"]["describing"]:
        await wait_until_described(None)
        if not front.handler_registry.describing:
            listener.on_described(front.readiness.build_banner(listeners.urls))


async def _start(coordinator: Coordinator, stop_requested: asyncio.Event) -> int | None:
    """Start the coordinator; print why if it can't, and return the exit code."""
    try:
        await coordinator.start()
    except (Fenced, RefusedStart) as refused:
        print(f"runner: {refused.message}", file=sys.stderr)
        is_stopped = isinstance(refused, StartDiskFull) and stop_requested.is_set()
        return 0 if is_stopped else refused.exit_code
    except RunnerError as failed:
        print(f"runner: {failed.code}: {failed.message}", file=sys.stderr)
        return StartDiskFull.exit_code if is_full(failed) else RefusedStart.exit_code
    except OSError as failed:
        if not is_full(failed):
            raise
        print(f"runner: the disk is full: {failed}", file=sys.stderr)
        return StartDiskFull.exit_code
    return None


async def _wait_for_first(*coroutines: Coroutine[Any, Any, object], timeout_s: float | None = None) -> None:
    """Wait until one of the coroutines is done, or the time is over; cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in coroutines]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, which fronts inherit; retry for `PORT_WAIT_S` if the port is in use.

    Raises:
        RefusedStart: the host is not an address of this machine, or the port can't be bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise RefusedStart(f"--host {host} is not an address of this machine: {error}") from error
    deadline = time.monotonic() + PORT_WAIT_S
    while True:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # guard: address-reuse
        try:
            listening.bind(address)
            listening.listen(BACKLOG)  # guard: one-accept-queue
            return listening
        except OSError as error:
            listening.close()
            if time.monotonic() > deadline or port == 0:
                raise RefusedStart(
                    f"{host}:{port} can't be bound ({error.strerror}); "
                    "stop the program that uses it, or choose another --port"
                ) from error
        time.sleep(0.05)


def _remove_runtime(folder: str) -> None:
    """Remove the sockets of a server that was killed, if a server of this user made the folder."""
    path = Path(folder)
    if path.name.startswith(RUNTIME_PREFIX) and path.is_dir() and path.stat().st_uid == os.getuid():
        shutil.rmtree(path, ignore_errors=True)


def _make_data_dir(data_dir: Path) -> None:
    """Create the data folder, accessible to this user only. Raises RefusedStart if it is not writable."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        kind = StartDiskFull if is_full(error) else RefusedStart
        raise kind(f"the data folder {data_dir} cannot be created: {error.strerror}") from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise RefusedStart(f"the data folder {data_dir} can't be written to; choose another --data-dir")


def _runtime_parent() -> str | None:
    """The parent of the socket folder: the session's runtime folder if it is writable, else /tmp."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return folder if folder and os.path.isdir(folder) and os.access(folder, os.W_OK) else None


def _take_ready_fd() -> int | None:
    """Take the descriptor of `READY_FD` out of the environment, so that no child inherits it."""
    text = os.environ.pop(READY_FD, None)
    if text is None:
        return None
    fd = int(text)
    os.set_inheritable(fd, False)
    return fd


def _version() -> str:
    """The version of the installed package; "0" if it runs from a source tree that is not installed."""
    try:
        return metadata.version("gpu-job-runner")
    except metadata.PackageNotFoundError:
        return "0"
