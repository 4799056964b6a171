"""Effect: reads processes and their memory from /proc, and kills exactly the process that was read."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One process as /proc/PID/stat describes it."""

    pid: int
    #: State letter, such as R, S or Z.
    state: str
    parent: int
    group: int
    session: int
    #: Clock ticks since boot; together with the pid they identify a process uniquely.
    started_ticks: int


def read_process(pid: int) -> Process | None:
    """Return one process; None if it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in parentheses may contain any character, even parentheses and spaces.
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def read_processes() -> dict[int, Process]:
    """Return all visible processes of the machine by pid."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants_among(root: int, processes: dict[int, Process]) -> list[Process]:
    """Return all descendants of `root`, without `root` itself."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    pending = list(children.get(root, ()))
    while pending:
        process = pending.pop()
        found.append(process)
        pending.extend(children.get(process.pid, ()))
    return found


def child_pids(pid: int) -> list[int]:
    """Return the direct children; reads one small file per thread instead of scanning the whole machine."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    except OSError:
        return found
    return found


def descendant_pids(pid: int) -> list[int]:
    """Return all descendants of a process, without the process itself."""
    found: list[int] = []
    pending = child_pids(pid)
    while pending:
        child = pending.pop()
        found.append(child)
        pending.extend(child_pids(child))
    return found


def resident_bytes(pid: int) -> int:
    """Return the RSS in bytes: cheap, but counts shared pages in full. 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Return the PSS in bytes, in which a shared page is divided among its processes.

    0 if the process is gone.

    Expensive: the kernel walks all pages of the process.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return resident_bytes(pid)
    return resident_bytes(pid)


def kill_process(process: Process) -> None:
    """SIGKILL exactly this process, or nothing if its pid belongs to another process by now."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = read_process(process.pid)
        if now is not None and now.started_ticks == process.started_ticks:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)  # guard: process-killed
    except OSError:
        return
    finally:
        os.close(descriptor)


def count_oom_kills(
    cgroup_file: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup"
) -> int:  # guard: cgroup-files
    """Return the number of the kernel's OOM kills in this cgroup so far; 0 if it can't be read.

    Supports cgroup v1 and v2; the paths are parameters for tests.
    """
    try:
        with open(cgroup_file) as file:
            groups = [line.strip().split(":", 2) for line in file]
    except OSError:
        return 0
    total = 0
    for _, controllers, path in groups:
        if controllers == "":
            total += _read_counter(f"{root}{path}/memory.events", "oom_kill")
        elif "memory" in controllers.split(","):
            total += _read_counter(f"{root}/memory{path}/memory.oom_control", "oom_kill")
    return total


def _read_counter(path: str, name: str) -> int:
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    except (OSError, ValueError):
        return 0
    return 0
