"""Effect: says on what machine and with which versions a run was made."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib import metadata
from pathlib import Path

import apsw

PACKAGES = ("pyzmq", "msgspec", "uvicorn", "uvloop", "starlette", "apsw", "huey")


def describe(folder: Path) -> dict[str, str | float | dict[str, str]]:
    """Processor, kernel, versions, and what one fdatasync costs under `folder`."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": float(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": {"apsw": apsw.sqlite_lib_version(), "huey": sqlite3.sqlite_version},
        "packages": {name: _version(name) for name in PACKAGES},
        "fdatasync_ms": _fdatasync_ms(folder / "sync"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # Of the references; the groups that need none run without.
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _fdatasync_ms(path: Path) -> float:
    """Median of 100 syncs of one overwritten page."""
    spent: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            os.pwrite(file.fileno(), bytes(4096), 0)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - started)
    path.unlink()
    return round(sorted(spent)[50] * 1e3, 3)
