"""Pure: judges the figures that `runner doctor` has taken: good, a warning, or a failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from runner.cli.formatting import format_duration, format_size, one_line

CheckState = Literal["ok", "warn", "fail"]

#: Free space below the first soon stops the server from accepting jobs; below the second it is a warning.
FREE_FAIL_BYTES, FREE_WARN_BYTES = 200 << 20, 5 << 30
#: Every accept waits for a sync; accepts during one share the next.
SYNC_SLOW_S = 0.05
#: No disk is faster: the file system keeps the data in memory.
SYNC_UNREAL_S = 20e-6
#: Older versions can damage a write-ahead log; two branches have the fix as well.
SQLITE_FIXED = (3, 51, 3)
SQLITE_BACKPORTS = {(3, 50): 7, (3, 44): 6}
#: 2025-01-01: an earlier time means that the clock was never set.
CLOCK_MIN = 1_735_689_600.0
CLOCK_STEP_S = 0.5
NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs", "beegfs")
VOLATILE = ("tmpfs", "ramfs")


class CheckResult(NamedTuple):
    """One checked subject, and what to do about it."""

    subject: str
    state: CheckState
    text: str
    fix: str = ""


class GpuSurvey(msgspec.Struct):
    """What a child process has learned about the GPUs."""

    #: None: there is no driver.
    driver: str | None
    #: All GPUs, including those hidden by a mask.
    cards: list[str] = []
    #: Number of GPUs that CUDA_VISIBLE_DEVICES leaves.
    visible: int = 0
    #: GPUs that `--gpus` selects.
    chosen: list[str] = []
    notes: list[str] = []
    #: Why `--gpus` can't be applied.
    error: str | None = None


class StoreHeader(NamedTuple):
    """Contents of the first bytes of a store's file."""

    is_sqlite: bool
    is_wal: bool
    #: The file belongs to another program, as far as these bytes tell.
    is_foreign: bool = False


class RunningServer(NamedTuple):
    """The server that holds the data folder."""

    pid: int
    url: str

    def __str__(self) -> str:
        return f"the runner with pid {self.pid}" + (f" at {self.url}" if self.url else "")


def judge_platform(system: str, machine: str, release: str) -> CheckResult:
    """Judge whether processes can be pinned and killed on this platform."""
    text = f"{system} {release} {machine}"
    if system == "Linux" and machine in ("x86_64", "aarch64", "arm64"):
        return CheckResult("platform", "ok", text + (" (WSL)" if "microsoft" in release.lower() else ""))
    fix = "use WSL2" if system == "Windows" else "serve on a Linux machine; clients run anywhere"
    return CheckResult("platform", "fail", f"{text}: runner serves on Linux (x86-64, arm64)", fix)


def judge_python(version: tuple[int, int, int], executable: str) -> CheckResult:
    """Judge whether the interpreter is recent enough."""
    text = f"{'.'.join(map(str, version))} at {executable}"
    if version >= (3, 11, 0):
        return CheckResult("python", "ok", text)
    return CheckResult("python", "fail", f"{text} is too old", "make a venv with Python 3.11 or later")


def judge_driver(survey: GpuSurvey | str, asked: str) -> CheckResult:
    """Judge whether the requested GPUs exist; a text says why nothing is known about them."""
    is_needed = asked != "none" and not asked.startswith("sim")
    if isinstance(survey, str):
        fix = "see whether nvidia-smi answers, and dmesg; --gpus none serves without"
        return CheckResult("gpus", "fail" if is_needed else "warn", survey, fix)
    if survey.error is not None:
        return CheckResult("gpus", "fail", survey.error, "give --gpus what there is, or all")
    known = f"driver {survey.driver}" if survey.driver else "no NVIDIA driver"
    if not is_needed:
        return CheckResult(
            "gpus", "ok", f"--gpus {asked}: {', '.join(survey.chosen) or 'none is used'} ({known})"
        )
    if not survey.chosen:
        text = one_line("; ".join(survey.notes) or f"{known}, no GPU: jobs run on the CPU")
        return CheckResult(
            "gpus", "warn", text, "install NVIDIA's driver, or say --gpus none if that is meant"
        )
    return CheckResult("gpus", "ok", f"{known}; {', '.join(survey.chosen)}")


def judge_mask(value: str | None, survey: GpuSurvey | str) -> CheckResult:
    """Judge the devices that CUDA_VISIBLE_DEVICES leaves."""
    subject = "gpu mask"
    if value is None:
        return CheckResult(subject, "ok", "CUDA_VISIBLE_DEVICES is not set: all GPUs are seen")
    text = f"CUDA_VISIBLE_DEVICES={value}"
    if isinstance(survey, str) or not survey.cards:
        return CheckResult(subject, "ok", f"{text}; no GPU is known that it could hide")
    named, total = len([part for part in value.split(",") if part.strip()]), len(survey.cards)
    seen = f"{text} leaves {survey.visible} of {total}"
    if survey.visible == 0:
        return CheckResult(
            subject, "warn", seen, "unset CUDA_VISIBLE_DEVICES, or --gpus none if that is meant"
        )
    if survey.visible < named:
        fix = "as in CUDA, the first entry that fits no GPU hides itself and all after it: mend that entry"
        return CheckResult(subject, "warn", seen, fix)
    return CheckResult(subject, "ok", seen)


def judge_port(host: str, number: int, problem: str | None, holder: RunningServer | None) -> CheckResult:
    """Judge whether the server could listen; `problem` is the system's error."""
    address = f"{host}:{number}"
    if number == 0:
        return CheckResult(
            "port", "ok" if problem is None else "fail", problem or "0: a free one will be taken"
        )
    if problem is None:
        return CheckResult("port", "ok", f"{address} is free")
    if holder is not None and re.search(rf":{number}/?$", holder.url):
        return CheckResult("port", "ok", f"{address} is held by {holder}")
    fix = "stop what uses it, or give another --port" if number > 1023 else "give a --port above 1023"
    if "in use" not in problem and number > 1023:
        fix = "give an address of this machine by --host"
    return CheckResult("port", "fail", f"{address} can't be bound: {problem}", fix)


def judge_folder(path: Path, problem: str | None, free_bytes: int, filesystem: str) -> CheckResult:
    """Judge whether the data folder can store jobs."""
    text = f"{path}: {format_size(free_bytes)} free on {filesystem or 'an unknown file system'}"
    if problem is not None:
        return CheckResult(
            "data dir", "fail", f"{path}: {problem}", "give another --data-dir, or mend its rights"
        )
    if free_bytes < FREE_FAIL_BYTES:
        return CheckResult("data dir", "fail", text, "make room, or give another --data-dir")
    if filesystem.startswith(NETWORK):
        return CheckResult(
            "data dir", "warn", text, "put it on a local disk: SQLite needs locks and fsync that hold"
        )
    if filesystem in VOLATILE:
        return CheckResult("data dir", "warn", text, "put it on a disk: this one is empty after a restart")
    if free_bytes < FREE_WARN_BYTES:
        return CheckResult("data dir", "warn", text, "make room: a server that can't write takes no jobs")
    return CheckResult("data dir", "ok", text)


def judge_sync(times_s: Sequence[float]) -> CheckResult:
    """Judge the duration of a durable write."""
    if not times_s:
        return CheckResult("fsync", "warn", "not measured: nothing can be written there", "see data dir")
    middle = median(times_s)
    shown = format_duration(middle) if middle >= 0.01 else f"{middle * 1000:.2g} ms"
    text = f"{shown} (median of {len(times_s)})"
    if middle > SYNC_SLOW_S:
        return CheckResult(
            "fsync", "warn", f"{text}: every accept waits for one", "give a --data-dir on a faster disk"
        )
    if middle < SYNC_UNREAL_S:
        fix = "if jobs must outlive a power cut, give a --data-dir on a disk"
        return CheckResult("fsync", "warn", f"{text}: no disk is so fast, this is memory", fix)
    return CheckResult("fsync", "ok", text)


def judge_sqlite(version: str) -> CheckResult:
    """Judge whether the SQLite version is free of bugs that damage files."""
    numbers = tuple(int(part) for part in version.split(".")[:3])
    is_fixed = numbers >= SQLITE_FIXED or numbers[2] >= SQLITE_BACKPORTS.get(
        (numbers[0], numbers[1]), 1 << 30
    )
    if is_fixed:
        return CheckResult("sqlite", "ok", version)
    text = f"{version}: versions before 3.51.3 can damage a write-ahead log"
    return CheckResult("sqlite", "warn", text, "pip install --upgrade apsw")


def judge_store(path: str | None, header: StoreHeader | None, holder: RunningServer | None) -> CheckResult:
    """Judge the store's file; it is not read while a server holds it."""
    if path is None:
        return CheckResult("store", "ok", "memory: jobs are gone when the server ends")
    if holder is not None:
        return CheckResult("store", "ok", f"{path} is in use by {holder}, so it was not opened")
    if header is None:
        return CheckResult("store", "ok", f"{path} is not there yet: the first start makes it")
    if not header.is_sqlite:
        return CheckResult(
            "store", "fail", f"{path} is not a file of SQLite", "give another --store, or restore it"
        )
    if header.is_foreign:
        what = f"{path} is an SQLite file of another program"
        return CheckResult("store", "fail", what, "give another --store")
    if not header.is_wal:
        fix = "the next start sets it; if this comes back, the file system can't hold a write-ahead log"
        return CheckResult("store", "warn", f"{path} is not in journal mode WAL", fix)
    return CheckResult("store", "ok", f"{path}, journal mode WAL")


def judge_clock(
    wall: float, wall_elapsed_s: float, mono_elapsed_s: float, store_written: float | None
) -> CheckResult:
    """Judge whether the wall clock is plausible; `wall` and `store_written` are UTC epoch seconds."""
    fix = "set the clock, and keep it by NTP (timedatectl set-ntp true)"
    if wall < CLOCK_MIN:
        return CheckResult("clock", "fail", "it is before 2025: nobody has set it", fix)
    if store_written is not None and store_written - wall > 60:
        behind = format_duration(store_written - wall)
        return CheckResult("clock", "warn", f"it is {behind} behind the last write of the store", fix)
    step_s = wall_elapsed_s - mono_elapsed_s
    if abs(step_s) > CLOCK_STEP_S:
        return CheckResult("clock", "warn", f"it was set by {step_s:+.1f} s while this ran", fix)
    return CheckResult("clock", "ok", "wall and monotonic clock agree")


def judge_handlers(
    states: Sequence[tuple[str, str]], unused: Sequence[str], refusal: str | None
) -> CheckResult:
    """Judge whether all of (name, state) import; `refusal`: why a server would not start with them."""
    if refusal is not None:
        return CheckResult("handlers", "fail", refusal, "mend --handlers, or sources in the config")
    broken = [name for name, state in states if state != "ok"]
    if broken:
        text = f"{len(broken)} of {len(states)} broken: {', '.join(broken)}"
        return CheckResult("handlers", "fail", text, "`runner handlers check` shows why")
    if unused:
        text = f"{len(states)} ok; no handler for {', '.join(f'[handlers.{name}]' for name in unused)}"
        return CheckResult("handlers", "warn", text, "mend the name of the table, or remove it")
    if not states:
        fix = "name some: runner serve --handlers FILE; `runner init` writes a first one"
        return CheckResult("handlers", "warn", "none", fix)
    return CheckResult("handlers", "ok", f"{len(states)} ok")


def judge_server(
    url: str, status: str | None, problem: str | None, *, is_expected: bool, levels: Sequence[str] = ()
) -> CheckResult:
    """Judge the server at `url`.

    `status` is that of /readyz, `problem` why there is none or what is missing, `levels` the memory
    attribution of each GPU.
    """
    if status == "ok":
        known = f"; bytes are known by: {', '.join(levels)}" if levels else ""
        return CheckResult("server", "ok", f"{url} is ready{known}")
    if status is not None:
        text = f"{url} is {status}" + (f": {problem}" if problem else "")
        state: CheckState = "warn" if status == "degraded" else "fail"
        return CheckResult(
            "server", state, text, "its log says more; `runner devices` and `runner handlers` too"
        )
    if is_expected:
        return CheckResult(
            "server", "fail", f"{url}: {problem}", "start it (runner serve), or mend --url and RUNNER_TOKEN"
        )
    return CheckResult("server", "ok", f"none runs at {url}")


def worst_state(results: Sequence[CheckResult]) -> CheckState:
    """Return the worst state among the results."""
    order: tuple[CheckState, ...] = ("ok", "warn", "fail")
    return max((one.state for one in results), key=order.index, default="ok")
