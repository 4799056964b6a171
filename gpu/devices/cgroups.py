"""Effect: reads how much memory the control groups of this process leave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Limits above this mean "no limit": version 1 writes the largest multiple of a page.
NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group that limits memory, and its use at the time of reading."""

    #: memory.max of version 2, memory.limit_in_bytes of version 1.
    limit_bytes: int
    #: The use without what the kernel would free at once (file cache that was not used recently).
    used_bytes: int


def memory_groups(root: Path = Path("/")) -> list[MemoryGroup]:
    """Return the groups of this process that limit memory, outer ones included; version 2 and version 1.

    `root` is the root of the file system. Files that are missing or unreadable set no limit.
    """
    groups: list[MemoryGroup] = []
    for folder, limit, usage in _candidates(root):
        limit_bytes = _number(folder / limit)
        if limit_bytes is not None and limit_bytes < NO_LIMIT_BYTES:
            used = (_number(folder / usage) or 0) - _inactive_file(folder / "memory.stat")
            groups.append(MemoryGroup(limit_bytes, max(0, used)))
    return groups


def limit_memory(total_bytes: int, available_bytes: int, groups: list[MemoryGroup]) -> tuple[int, int]:
    """Pure: return (total, used) bytes as a process in these groups should see the machine's memory.

    `total_bytes` and `available_bytes` are the machine's. The tightest limit decides each of the two figures.
    """
    total, available = total_bytes, available_bytes
    for group in groups:
        total = min(total, group.limit_bytes)
        available = min(available, group.limit_bytes - group.used_bytes)
    return total, max(0, total - available)


def _candidates(root: Path) -> list[tuple[Path, str, str]]:
    """Return (folder, name of the limit file, name of the usage file) of each group that may limit memory."""
    found: list[tuple[Path, str, str]] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, files = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # A container may see its own group at the root of the mount, whatever its path says outside.
        inner = PurePosixPath(path.lstrip("/"))
        found += [(base / each, *files) for each in (inner, *inner.parents)]
    return found


def _inactive_file(path: Path) -> int:
    """Return the bytes of file cache that was not used recently, from a memory.stat file; 0 without one."""
    for name in ("total_inactive_file", "inactive_file"):
        for line in _lines(path):
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is none ("max") or no file."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        # Not this version of control groups, or not mounted: it sets no limit.
        return []
