"""Pure: what `runner doctor` makes of the figures that it has taken: fine, worth a look, or in the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from runner.cli.formatting import duration, line, size

State = Literal["ok", "warn", "fail"]

#: Below the first a server soon stops taking jobs in, below the second it is worth a look.
FREE_FAIL_BYTES, FREE_WARN_BYTES = 200 << 20, 5 << 30
#: Every accept waits for one; those that come meanwhile share the next.
SYNC_SLOW_S = 0.05
#: No disk is so fast: the file system keeps it in memory.
SYNC_UNREAL_S = 20e-6
#: Older ones can damage a write-ahead log; two branches got the mend as well.
SQLITE_MENDED = (3, 51, 3)
SQLITE_ALSO = {(3, 50): 7, (3, 44): 6}
#: 2025-01-01: earlier is a clock that nobody has set.
CLOCK_LEAST = 1_735_689_600.0
CLOCK_STEP_S = 0.5
NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs", "beegfs")
VOLATILE = ("tmpfs", "ramfs")


class Finding(NamedTuple):
    """One thing that was looked at, and what to do about it."""

    subject: str
    state: State
    text: str
    fix: str = ""


class Survey(msgspec.Struct):
    """What a child process has learned of the GPUs."""

    #: None: there is no driver.
    driver: str | None
    #: All GPUs, those that a mask hides too.
    cards: list[str] = []
    #: How many of them CUDA_VISIBLE_DEVICES leaves.
    visible: int = 0
    #: Those that `--gpus` takes.
    chosen: list[str] = []
    notes: list[str] = []
    #: Why `--gpus` can't be followed.
    error: str | None = None


class Header(NamedTuple):
    """What the first bytes of a store's file say."""

    is_sqlite: bool
    is_wal: bool
    #: Another program's, as far as these bytes tell.
    is_foreign: bool = False


class Holder(NamedTuple):
    """Who holds the data folder."""

    pid: int
    url: str

    def __str__(self) -> str:
        return f"the runner with pid {self.pid}" + (f" at {self.url}" if self.url else "")


def platform(system: str, machine: str, release: str) -> Finding:
    """Whether processes can be pinned and killed here."""
    text = f"{system} {release} {machine}"
    if system == "Linux" and machine in ("x86_64", "aarch64", "arm64"):
        return Finding("platform", "ok", text + (" (WSL)" if "microsoft" in release.lower() else ""))
    fix = "use WSL2" if system == "Windows" else "serve on a Linux machine; clients run anywhere"
    return Finding("platform", "fail", f"{text}: runner serves on Linux (x86-64, arm64)", fix)


def python(version: tuple[int, int, int], executable: str) -> Finding:
    """Whether the interpreter is new enough."""
    text = f"{'.'.join(map(str, version))} at {executable}"
    if version >= (3, 11, 0):
        return Finding("python", "ok", text)
    return Finding("python", "fail", f"{text} is too old", "make a venv with Python 3.11 or later")


def driver(survey: Survey | str, asked: str) -> Finding:
    """Whether the GPUs that are asked for are there; text says why nothing is known of them."""
    is_needed = asked != "none" and not asked.startswith("sim")
    if isinstance(survey, str):
        fix = "see whether nvidia-smi answers, and dmesg; --gpus none serves without"
        return Finding("gpus", "fail" if is_needed else "warn", survey, fix)
    if survey.error is not None:
        return Finding("gpus", "fail", survey.error, "give --gpus what there is, or all")
    known = f"driver {survey.driver}" if survey.driver else "no NVIDIA driver"
    if not is_needed:
        return Finding(
            "gpus", "ok", f"--gpus {asked}: {', '.join(survey.chosen) or 'none is used'} ({known})"
        )
    if not survey.chosen:
        text = line("; ".join(survey.notes) or f"{known}, no GPU: jobs run on the CPU")
        return Finding("gpus", "warn", text, "install NVIDIA's driver, or say --gpus none if that is meant")
    return Finding("gpus", "ok", f"{known}; {', '.join(survey.chosen)}")


def mask(value: str | None, survey: Survey | str) -> Finding:
    """What CUDA_VISIBLE_DEVICES leaves."""
    subject = "gpu mask"
    if value is None:
        return Finding(subject, "ok", "CUDA_VISIBLE_DEVICES is not set: all GPUs are seen")
    text = f"CUDA_VISIBLE_DEVICES={value}"
    if isinstance(survey, str) or not survey.cards:
        return Finding(subject, "ok", f"{text}; no GPU is known that it could hide")
    named, total = len([part for part in value.split(",") if part.strip()]), len(survey.cards)
    seen = f"{text} leaves {survey.visible} of {total}"
    if survey.visible == 0:
        return Finding(subject, "warn", seen, "unset CUDA_VISIBLE_DEVICES, or --gpus none if that is meant")
    if survey.visible < named:
        fix = "as in CUDA, the first entry that fits no GPU hides itself and all after it: mend that entry"
        return Finding(subject, "warn", seen, fix)
    return Finding(subject, "ok", seen)


def port(host: str, number: int, problem: str | None, holder: Holder | None) -> Finding:
    """Whether the server could listen; `problem` is the system's word on it."""
    where = f"{host}:{number}"
    if number == 0:
        return Finding("port", "ok" if problem is None else "fail", problem or "0: a free one will be taken")
    if problem is None:
        return Finding("port", "ok", f"{where} is free")
    if holder is not None and re.search(rf":{number}/?$", holder.url):
        return Finding("port", "ok", f"{where} is held by {holder}")
    fix = "stop what uses it, or give another --port" if number > 1023 else "give a --port above 1023"
    if "in use" not in problem and number > 1023:
        fix = "give an address of this machine by --host"
    return Finding("port", "fail", f"{where} can't be bound: {problem}", fix)


def folder(path: Path, problem: str | None, free_bytes: int, filesystem: str) -> Finding:
    """Whether jobs can be kept there."""
    text = f"{path}: {size(free_bytes)} free on {filesystem or 'an unknown file system'}"
    if problem is not None:
        return Finding(
            "data dir", "fail", f"{path}: {problem}", "give another --data-dir, or mend its rights"
        )
    if free_bytes < FREE_FAIL_BYTES:
        return Finding("data dir", "fail", text, "make room, or give another --data-dir")
    if filesystem.startswith(NETWORK):
        return Finding(
            "data dir", "warn", text, "put it on a local disk: SQLite needs locks and fsync that hold"
        )
    if filesystem in VOLATILE:
        return Finding("data dir", "warn", text, "put it on a disk: this one is empty after a restart")
    if free_bytes < FREE_WARN_BYTES:
        return Finding("data dir", "warn", text, "make room: a server that can't write takes no jobs")
    return Finding("data dir", "ok", text)


def sync(times_s: Sequence[float]) -> Finding:
    """How long a durable write takes."""
    if not times_s:
        return Finding("fsync", "warn", "not measured: nothing can be written there", "see data dir")
    middle = median(times_s)
    shown = duration(middle) if middle >= 0.01 else f"{middle * 1000:.2g} ms"
    text = f"{shown} (median of {len(times_s)})"
    if middle > SYNC_SLOW_S:
        return Finding(
            "fsync", "warn", f"{text}: every accept waits for one", "give a --data-dir on a faster disk"
        )
    if middle < SYNC_UNREAL_S:
        fix = "if jobs must outlive a power cut, give a --data-dir on a disk"
        return Finding("fsync", "warn", f"{text}: no disk is so fast, this is memory", fix)
    return Finding("fsync", "ok", text)


def sqlite(version: str) -> Finding:
    """Whether the library is one that damages nothing."""
    numbers = tuple(int(part) for part in version.split(".")[:3])
    mended = numbers >= SQLITE_MENDED or numbers[2] >= SQLITE_ALSO.get((numbers[0], numbers[1]), 1 << 30)
    if mended:
        return Finding("sqlite", "ok", version)
    text = f"{version}: versions before 3.51.3 can damage a write-ahead log"
    return Finding("sqlite", "warn", text, "pip install --upgrade apsw")


def store(path: str | None, header: Header | None, holder: Holder | None) -> Finding:
    """What the file of the jobs is; it is not looked into while a server has it."""
    if path is None:
        return Finding("store", "ok", "memory: jobs are gone when the server ends")
    if holder is not None:
        return Finding("store", "ok", f"{path} is in use by {holder}, so it was not opened")
    if header is None:
        return Finding("store", "ok", f"{path} is not there yet: the first start makes it")
    if not header.is_sqlite:
        return Finding(
            "store", "fail", f"{path} is not a file of SQLite", "give another --store, or restore it"
        )
    if header.is_foreign:
        what = f"{path} is an SQLite file of another program"
        return Finding("store", "fail", what, "give another --store")
    if not header.is_wal:
        fix = "the next start sets it; if this comes back, the file system can't hold a write-ahead log"
        return Finding("store", "warn", f"{path} is not in journal mode WAL", fix)
    return Finding("store", "ok", f"{path}, journal mode WAL")


def clock(wall: float, wall_elapsed_s: float, mono_elapsed_s: float, store_written: float | None) -> Finding:
    """Whether the wall clock can be believed; `wall` and `store_written` are UTC epoch seconds."""
    fix = "set the clock, and keep it by NTP (timedatectl set-ntp true)"
    if wall < CLOCK_LEAST:
        return Finding("clock", "fail", "it is before 2025: nobody has set it", fix)
    if store_written is not None and store_written - wall > 60:
        behind = duration(store_written - wall)
        return Finding("clock", "warn", f"it is {behind} behind the last write of the store", fix)
    step_s = wall_elapsed_s - mono_elapsed_s
    if abs(step_s) > CLOCK_STEP_S:
        return Finding("clock", "warn", f"it was set by {step_s:+.1f} s while this ran", fix)
    return Finding("clock", "ok", "wall and monotonic clock agree")


def handlers(states: Sequence[tuple[str, str]], unused: Sequence[str], refusal: str | None) -> Finding:
    """Whether all of (name, state) import; `refusal`: why a server would not start with them."""
    if refusal is not None:
        return Finding("handlers", "fail", refusal, "mend --handlers, or sources in the config")
    broken = [name for name, state in states if state != "ok"]
    if broken:
        text = f"{len(broken)} of {len(states)} broken: {', '.join(broken)}"
        return Finding("handlers", "fail", text, "`runner handlers check` shows why")
    if unused:
        text = f"{len(states)} ok; no handler for {', '.join(f'[handlers.{name}]' for name in unused)}"
        return Finding("handlers", "warn", text, "mend the name of the table, or remove it")
    if not states:
        fix = "name some: runner serve --handlers FILE; `runner init` writes a first one"
        return Finding("handlers", "warn", "none", fix)
    return Finding("handlers", "ok", f"{len(states)} ok")


def server(
    url: str, said: str | None, problem: str | None, *, is_expected: bool, seen: Sequence[str] = ()
) -> Finding:
    """What answers at `url`: `said` is /readyz's status, `problem` why there is none or what it lacks, `seen`
    by what it knows of each GPU who uses its bytes."""
    if said == "ok":
        known = f"; bytes are known by: {', '.join(seen)}" if seen else ""
        return Finding("server", "ok", f"{url} is ready{known}")
    if said is not None:
        text = f"{url} is {said}" + (f": {problem}" if problem else "")
        state: State = "warn" if said == "degraded" else "fail"
        return Finding("server", state, text, "its log says more; `runner devices` and `runner handlers` too")
    if is_expected:
        return Finding(
            "server", "fail", f"{url}: {problem}", "start it (runner serve), or mend --url and RUNNER_TOKEN"
        )
    return Finding("server", "ok", f"none runs at {url}")


def worst(findings: Sequence[Finding]) -> State:
    """The state of all together."""
    order: tuple[State, ...] = ("ok", "warn", "fail")
    return max((one.state for one in findings), key=order.index, default="ok")
