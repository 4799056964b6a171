"""Effect: collects the facts that `runner doctor` judges, one subject after another.

The judgements are pure functions of `doctor_findings`; this module only measures.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli import doctor_findings
from runner.cli.doctor_findings import CheckResult, GpuSurvey, RunningServer, StoreHeader
from runner.stores.sqlite.migrations import APPLICATION_ID

if TYPE_CHECKING:
    from runner.settings.settings import Settings

#: Longest wait for the NVIDIA driver: one that has not answered by then hangs.
SURVEY_TIMEOUT_S = 15.0
SYNCS = 7
SYNC_BYTES = 4096
_MAGIC = b"SQLite format 3\0"


def check_machine() -> Iterator[CheckResult]:
    """Yield the results for the machine itself, independent of the settings: platform and Python."""
    yield doctor_findings.judge_platform(platform.system(), platform.machine(), platform.release())
    yield doctor_findings.judge_python(sys.version_info[:3], sys.executable)


def check_server(settings: Settings, url: str | None) -> Iterator[CheckResult]:
    """Yield the results for a server with these settings, and for one that may already be running.

    `url` is the server given on the command line, if any; otherwise the one that holds the data folder is
    asked. The driver is queried in a child process, since a hung one never answers.
    """
    from runner.coordinator.storage.data_lock import read_holder

    wall, mono = time.time(), time.monotonic()
    found = survey_gpus(settings.gpus)
    yield doctor_findings.judge_driver(found, settings.gpus)
    yield doctor_findings.judge_mask(os.environ.get("CUDA_VISIBLE_DEVICES"), found)
    try:
        lock = read_holder(settings.data_dir)
    except OSError:
        # No lock, or no access to it: the check of the data folder reports that.
        lock = None
    holder = None if lock is None else RunningServer(lock.pid, lock.url)
    yield doctor_findings.judge_port(
        settings.host, settings.port, bind_problem(settings.host, settings.port), holder
    )
    yield from _check_storage(settings, holder)
    yield _check_handlers(settings)
    yield _check_running_server(url, settings, holder)
    written = _last_written_at(_store_path(settings))
    yield doctor_findings.judge_clock(time.time(), time.time() - wall, time.monotonic() - mono, written)


def survey_gpus(gpus: str, within_s: float = SURVEY_TIMEOUT_S) -> GpuSurvey | str:
    """Return what a child process found about the GPUs, or the reason why it did not reply.

    A child, because a hung driver can't be interrupted. `gpus` is the value of `--gpus`; the child is killed
    after `within_s` seconds.
    """
    import msgspec

    from runner.processes import child as child_processes

    ours, theirs = os.pipe()
    try:
        child = child_processes.start_child(
            "survey", child_processes.SurveyConfig(gpus, theirs), pass_fds=(theirs,)
        )
    except OSError as error:
        os.close(ours)
        return f"cannot start the process that lists the GPUs: {error.strerror}"
    finally:
        os.close(theirs)
    try:
        answer = _read_all(ours, time.monotonic() + within_s)
    finally:
        child.signal(signal.SIGKILL)
        # Wait briefly: a process that is stuck in a driver may survive even SIGKILL.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(1.0)
        child.close()
        os.close(ours)
    if answer is None:
        return f"the NVIDIA driver did not answer within {within_s:g} s"
    try:
        return msgspec.json.decode(answer, type=GpuSurvey)
    except msgspec.MsgspecError:
        return "the process that lists the GPUs exited without a reply"


def _read_all(fd: int, deadline_mono: float) -> bytes | None:
    """Return everything read up to the end of the stream; None if the deadline (monotonic) comes first."""
    text = b""
    while True:
        remaining_s = deadline_mono - time.monotonic()
        if remaining_s <= 0 or not select.select([fd], [], [], remaining_s)[0]:
            return None
        chunk = os.read(fd, 65536)
        if not chunk:
            return text
        text += chunk


def bind_problem(host: str, port: int) -> str | None:
    """Return the system's error if a server could not listen on this address, else None."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            # With SO_REUSEADDR set, only this call fails if another program listens there.
            listening.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _check_storage(settings: Settings, holder: RunningServer | None) -> Iterator[CheckResult]:
    """Check the data folder and its disk: permissions, free space, file system and the time of an fsync."""
    data, problem = settings.data_dir, None
    existing = nearest_existing(data)
    if not existing.is_dir():
        problem = f"{existing} is not a folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission to write to {existing}"
    taken: list[float] = []
    if problem is None:
        try:
            taken = measure_syncs(existing)
        except OSError as error:
            problem = f"cannot write a file in {existing}: {error.strerror}"
    disk = os.statvfs(existing)
    yield doctor_findings.judge_folder(data, problem, disk.f_bavail * disk.f_frsize, filesystem(existing))
    yield doctor_findings.judge_sync(taken)
    from runner.stores.sqlite.sqlite_connection import sqlite_version

    yield doctor_findings.judge_sqlite(sqlite_version())
    yield _check_store(_store_path(settings), holder)


def _check_store(path: Path | None, holder: RunningServer | None) -> CheckResult:
    """Check the store's file by its header; a file in use by a server is not opened."""
    try:
        seen = read_header(path) if path is not None and holder is None else None
    except OSError as error:
        return CheckResult(
            "store",
            "fail",
            f"cannot read {path}: {error.strerror}",
            "fix its permissions, or choose another --store",
        )
    return doctor_findings.judge_store(None if path is None else str(path), seen, holder)


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(each for each in (path, *path.parents) if os.path.exists(each))


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds a path, such as `ext4` or `nfs4`; "" if unknown."""
    import psutil

    real = path.resolve()
    kinds = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    return next((kinds[str(each)] for each in (real, *real.parents) if str(each) in kinds), "")


def measure_syncs(folder: Path) -> list[float]:
    """Return the durations, in seconds, of some small durable writes made as the store makes them.

    The file is removed again. Raises OSError if the folder can't be written to.
    """
    taken: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(SYNC_BYTES))
            file.flush()
            started_at = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - started_at)
    return taken


def read_header(path: Path) -> StoreHeader | None:
    """Return the decoded header of a store's file; None if the file does not exist.

    SQLite itself is not used: it would create files next to the store even for a read. Raises OSError.
    """
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except (FileNotFoundError, NotADirectoryError):
        return None
    is_sqlite = not head or head.startswith(_MAGIC)
    owner = int.from_bytes(head[68:72])
    # If the first server was killed at once, its application id may still be only in the WAL file.
    is_young = owner == 0 and (not head or os.path.exists(f"{path}-wal"))
    is_foreign = is_sqlite and owner != APPLICATION_ID and not is_young
    return StoreHeader(is_sqlite, head[18:20] == b"\2\2", is_foreign)


def _store_path(settings: Settings) -> Path | None:
    """Return the path of the store's file; None for `memory:`."""
    from runner.stores.url import sqlite_path

    path = sqlite_path(settings.store_url)
    return None if path is None else Path(path).absolute()


def _last_written_at(path: Path | None) -> float | None:
    """Return when the store was last written to, in UTC epoch seconds."""
    try:
        return None if path is None else path.stat().st_mtime
    except OSError:
        return None


def _check_handlers(settings: Settings) -> CheckResult:
    """Import all handlers as a server would, and report the broken ones and the unused override tables."""
    from runner.cli.handlers import describe_handlers
    from runner.errors import RefusedStart
    from runner.handlers.overrides import Overrides

    try:
        specs = describe_handlers(settings)
    except RefusedStart as refused:
        return doctor_findings.judge_handlers([], [], refused.message)
    unused = Overrides(settings.overrides).unused_tables(spec.name for spec in specs)
    return doctor_findings.judge_handlers([(spec.name, spec.state) for spec in specs], unused, None)


def _check_running_server(url: str | None, settings: Settings, holder: RunningServer | None) -> CheckResult:
    """Ask the server at `url`, or the one that holds the data folder, whether it is ready."""
    from runner.client import Client
    from runner.errors import RunnerError

    holder_url = holder.url if holder is not None else ""
    named = url or os.environ.get("RUNNER_URL") or holder_url
    token = settings.token.get_secret_value() if settings.token is not None else None
    address = named or f"http://127.0.0.1:{settings.port}"
    try:
        with Client(address, token) as client:
            answer = client.ready()
    except RunnerError as error:
        return doctor_findings.judge_server(address, None, error.message, is_expected=bool(named))
    parts = answer.get("parts") or {}
    wrong = [
        f"{name}: {part.get('message', part['state'])}"
        for name, part in parts.items()
        if part["state"] != "ok"
    ]
    levels = [
        f"{name.removeprefix('device ')} {part['level']}"
        for name, part in parts.items()
        if part.get("level") not in (None, "exact")
    ]
    return doctor_findings.judge_server(
        address, str(answer.get("status")), "; ".join(wrong), is_expected=True, levels=levels
    )
