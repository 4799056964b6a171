"""Pure: judges the facts that `runner doctor` has collected: ok, a warning or a failure.

A failure keeps a server from starting or from accepting jobs; a warning is a risk or a loss of speed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from runner.cli.formatting import format_duration, format_size, one_line

CheckState = Literal["ok", "warn", "fail"]

#: Free disk space below which a server will soon stop accepting jobs, and below which doctor warns.
FREE_FAIL_BYTES, FREE_WARN_BYTES = 200 << 20, 5 << 30
#: Every accepted job waits for an fsync; submits that arrive during one share the next.
SYNC_SLOW_S = 0.05
#: No disk syncs faster: the file system keeps the data in memory.
SYNC_UNREAL_S = 20e-6
#: Older versions can damage a write-ahead log; two older branches have the fix as well.
SQLITE_FIXED = (3, 51, 3)
SQLITE_BACKPORTS = {(3, 50): 7, (3, 44): 6}
#: 2025-01-01 in UTC epoch seconds: an earlier time means that the clock was never set.
CLOCK_MIN = 1_735_689_600.0
CLOCK_STEP_S = 0.5
NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs", "beegfs")
VOLATILE = ("tmpfs", "ramfs")


class CheckResult(NamedTuple):
    """One checked subject: its state, the finding, and the suggested fix ("" if there is nothing to fix)."""

    subject: str
    state: CheckState
    text: str
    fix: str = ""


class GpuSurvey(msgspec.Struct):
    """What a child process found about the GPUs."""

    #: Version of the driver; None if there is no driver.
    driver: str | None
    #: All GPUs, including those hidden by a mask.
    cards: list[str] = []
    #: Number of GPUs that CUDA_VISIBLE_DEVICES leaves visible.
    visible: int = 0
    #: GPUs that `--gpus` selects.
    chosen: list[str] = []
    notes: list[str] = []
    #: Why `--gpus` can't be applied; None if it can.
    error: str | None = None


class StoreHeader(NamedTuple):
    """The first bytes of a store's file, decoded."""

    is_sqlite: bool
    is_wal: bool
    #: The file belongs to another program, judging by its application id.
    is_foreign: bool = False


class RunningServer(NamedTuple):
    """The server that holds the data folder."""

    pid: int
    #: Its address; "" while it starts.
    url: str

    def __str__(self) -> str:
        return f"the runner with pid {self.pid}" + (f" at {self.url}" if self.url else "")


def judge_platform(system: str, machine: str, release: str) -> CheckResult:
    """Judge whether runner can pin and kill processes here; `system` as `platform.system()` returns it."""
    text = f"{system} {release} {machine}"
    if system == "Linux" and machine in ("x86_64", "aarch64", "arm64"):
        return CheckResult("platform", "ok", text + (" (WSL)" if "microsoft" in release.lower() else ""))
    fix = "use WSL2" if system == "Windows" else "run the server on Linux; clients work here"
    return CheckResult("platform", "fail", f"{text}: the server needs Linux (x86-64 or arm64)", fix)


def judge_python(version: tuple[int, int, int], executable: str) -> CheckResult:
    """Judge whether the interpreter is recent enough."""
    text = f"{'.'.join(map(str, version))} at {executable}"
    if version >= (3, 11, 0):
        return CheckResult("python", "ok", text)
    return CheckResult("python", "fail", f"{text} is too old", "make a venv with Python 3.11 or later")


def judge_driver(survey: GpuSurvey | str, asked: str) -> CheckResult:
    """Judge whether the requested GPUs exist.

    `survey` is the child's result, or the reason why it has none; `asked` is the value of `--gpus`.
    """
    is_needed = asked != "none" and not asked.startswith("sim")
    if isinstance(survey, str):
        fix = "check nvidia-smi and dmesg, or run without GPUs: --gpus none"
        return CheckResult("gpus", "fail" if is_needed else "warn", survey, fix)
    if survey.error is not None:
        return CheckResult(
            "gpus", "fail", survey.error, "choose existing GPUs with --gpus, or use --gpus all"
        )
    known = f"driver {survey.driver}" if survey.driver else "no NVIDIA driver"
    if not is_needed:
        return CheckResult(
            "gpus", "ok", f"--gpus {asked}: {', '.join(survey.chosen) or 'no GPU is used'} ({known})"
        )
    if not survey.chosen:
        text = one_line("; ".join(survey.notes) or f"{known}, no GPU: jobs run on the CPU")
        return CheckResult(
            "gpus", "warn", text, "install the NVIDIA driver, or set --gpus none if this is intended"
        )
    return CheckResult("gpus", "ok", f"{known}; {', '.join(survey.chosen)}")


def judge_mask(value: str | None, survey: GpuSurvey | str) -> CheckResult:
    """Judge CUDA_VISIBLE_DEVICES.

    `value` is the variable (None if unset); `survey` says how many GPUs it leaves visible.
    """
    subject = "gpu mask"
    if value is None:
        return CheckResult(subject, "ok", "CUDA_VISIBLE_DEVICES is not set: all GPUs are visible")
    text = f"CUDA_VISIBLE_DEVICES={value}"
    if isinstance(survey, str) or not survey.cards:
        return CheckResult(subject, "ok", f"{text} (no GPU was found that it could hide)")
    named, total = len([part for part in value.split(",") if part.strip()]), len(survey.cards)
    seen = f"{text} leaves {survey.visible} of {total} visible"
    if survey.visible == 0:
        return CheckResult(
            subject, "warn", seen, "unset CUDA_VISIBLE_DEVICES, or set --gpus none if this is intended"
        )
    if survey.visible < named:
        fix = "CUDA ignores the first entry that matches no GPU and all entries after it: correct that entry"
        return CheckResult(subject, "warn", seen, fix)
    return CheckResult(subject, "ok", seen)


def judge_port(host: str, number: int, problem: str | None, holder: RunningServer | None) -> CheckResult:
    """Judge whether the server could listen on `host`:`number` (0: any free port).

    `problem` is the system's error for a trial bind, None if it succeeded; `holder` is the server that holds
    the data folder and may be the one on this port.
    """
    address = f"{host}:{number}"
    if number == 0:
        return CheckResult(
            "port", "ok" if problem is None else "fail", problem or "0: a free port will be chosen"
        )
    if problem is None:
        return CheckResult("port", "ok", f"{address} is free")
    if holder is not None and re.search(rf":{number}/?$", holder.url):
        return CheckResult("port", "ok", f"{address} is in use by {holder}")
    fix = (
        "stop the program on it, or choose another --port" if number > 1023 else "choose a --port above 1023"
    )
    if "in use" not in problem and number > 1023:
        fix = "set --host to an address of this machine"
    return CheckResult("port", "fail", f"cannot bind {address}: {problem}", fix)


def judge_folder(path: Path, problem: str | None, free_bytes: int, filesystem: str) -> CheckResult:
    """Judge whether the data folder can store jobs.

    `problem` is why it can't be written to, or None; `filesystem` is its type, "" if unknown.
    """
    text = f"{path}: {format_size(free_bytes)} free on {filesystem or 'an unknown file system'}"
    if problem is not None:
        return CheckResult(
            "data dir", "fail", f"{path}: {problem}", "choose another --data-dir, or fix its permissions"
        )
    if free_bytes < FREE_FAIL_BYTES:
        return CheckResult("data dir", "fail", text, "free some space, or choose another --data-dir")
    if filesystem.startswith(NETWORK):
        return CheckResult(
            "data dir", "warn", text, "put it on a local disk: SQLite needs reliable locks and fsync"
        )
    if filesystem in VOLATILE:
        return CheckResult(
            "data dir", "warn", text, "put it on a disk: this file system is empty after a reboot"
        )
    if free_bytes < FREE_WARN_BYTES:
        return CheckResult(
            "data dir", "warn", text, "free some space: a server that can't write accepts no jobs"
        )
    return CheckResult("data dir", "ok", text)


def judge_sync(times_s: Sequence[float]) -> CheckResult:
    """Judge the durations of durable writes (seconds); none means that nothing could be written."""
    if not times_s:
        return CheckResult("fsync", "warn", "not measured: the data folder is not writable", "see data dir")
    middle = median(times_s)
    shown = format_duration(middle) if middle >= 0.01 else f"{middle * 1000:.2g} ms"
    text = f"{shown} (median of {len(times_s)})"
    if middle > SYNC_SLOW_S:
        return CheckResult(
            "fsync", "warn", f"{text}: every submit waits for one", "choose a --data-dir on a faster disk"
        )
    if middle < SYNC_UNREAL_S:
        fix = "if jobs must survive a power cut, choose a --data-dir on a disk"
        return CheckResult("fsync", "warn", f"{text}: too fast for a disk, this is memory", fix)
    return CheckResult("fsync", "ok", text)


def judge_sqlite(version: str) -> CheckResult:
    """Judge whether the SQLite version (`3.51.3`) has the fixes for bugs that damage files."""
    numbers = tuple(int(part) for part in version.split(".")[:3])
    is_fixed = numbers >= SQLITE_FIXED or numbers[2] >= SQLITE_BACKPORTS.get(
        (numbers[0], numbers[1]), 1 << 30
    )
    if is_fixed:
        return CheckResult("sqlite", "ok", version)
    text = f"{version}: versions before 3.51.3 can damage a write-ahead log"
    return CheckResult("sqlite", "warn", text, "pip install --upgrade apsw")


def judge_store(path: str | None, header: StoreHeader | None, holder: RunningServer | None) -> CheckResult:
    """Judge the store's file.

    `path` is None for `memory:`, `header` None if there is no file or it is in use.
    """
    if path is None:
        return CheckResult("store", "ok", "memory: all jobs are lost when the server exits")
    if holder is not None:
        return CheckResult("store", "ok", f"{path} is in use by {holder} and was not opened")
    if header is None:
        return CheckResult("store", "ok", f"{path} does not exist yet: the first start creates it")
    if not header.is_sqlite:
        return CheckResult(
            "store", "fail", f"{path} is not an SQLite file", "choose another --store, or restore the file"
        )
    if header.is_foreign:
        what = f"{path} is an SQLite file of another program"
        return CheckResult("store", "fail", what, "choose another --store")
    if not header.is_wal:
        fix = "the next start sets it; if the warning returns, the file system does not support WAL"
        return CheckResult("store", "warn", f"{path} is not in journal mode WAL", fix)
    return CheckResult("store", "ok", f"{path}, journal mode WAL")


def judge_clock(
    wall: float, wall_elapsed_s: float, mono_elapsed_s: float, store_written: float | None
) -> CheckResult:
    """Judge whether the wall clock is plausible.

    `wall` and `store_written` are UTC epoch seconds (None: no store yet). Both clocks measured the elapsed
    times over the same interval: a difference means that the wall clock was set meanwhile.
    """
    fix = "set the clock and keep it in sync by NTP (timedatectl set-ntp true)"
    if wall < CLOCK_MIN:
        return CheckResult("clock", "fail", "the time is before 2025: the clock was never set", fix)
    if store_written is not None and store_written - wall > 60:
        behind = format_duration(store_written - wall)
        return CheckResult("clock", "warn", f"the clock is {behind} behind the last write to the store", fix)
    step_s = wall_elapsed_s - mono_elapsed_s
    if abs(step_s) > CLOCK_STEP_S:
        return CheckResult(
            "clock", "warn", f"the clock was changed by {step_s:+.1f} s during this check", fix
        )
    return CheckResult("clock", "ok", "the wall clock and the monotonic clock agree")


def judge_handlers(
    states: Sequence[tuple[str, str]], unused: Sequence[str], refusal: str | None
) -> CheckResult:
    """Judge whether all handlers can be used.

    `states` are (name, state) pairs, `unused` the override tables without a handler, `refusal` the reason why
    a server would not start with these sources, or None.
    """
    if refusal is not None:
        return CheckResult("handlers", "fail", refusal, "correct --handlers, or `sources` in the config file")
    broken = [name for name, state in states if state != "ok"]
    if broken:
        text = f"{len(broken)} of {len(states)} broken: {', '.join(broken)}"
        return CheckResult("handlers", "fail", text, "`runner handlers check` shows why")
    if unused:
        text = f"{len(states)} ok; no handler for {', '.join(f'[handlers.{name}]' for name in unused)}"
        return CheckResult("handlers", "warn", text, "correct the name of the table, or remove it")
    if not states:
        fix = "add some: runner serve --handlers FILE; `runner init` writes an example"
        return CheckResult("handlers", "warn", "none", fix)
    return CheckResult("handlers", "ok", f"{len(states)} ok")


def judge_server(
    url: str, status: str | None, problem: str | None, *, is_expected: bool, levels: Sequence[str] = ()
) -> CheckResult:
    """Judge the server at `url`.

    `status` is that of /readyz; `problem` is why there is no status, or what is missing; `is_expected` says
    whether a server should be running; `levels` is the memory attribution of each GPU.
    """
    if status == "ok":
        known = f"; memory attribution: {', '.join(levels)}" if levels else ""
        return CheckResult("server", "ok", f"{url} is ready{known}")
    if status is not None:
        text = f"{url} is {status}" + (f": {problem}" if problem else "")
        state: CheckState = "warn" if status == "degraded" else "fail"
        return CheckResult("server", state, text, "see its log, `runner devices` and `runner handlers`")
    if is_expected:
        return CheckResult(
            "server",
            "fail",
            f"{url}: {problem}",
            "start it (runner serve), or correct --url and RUNNER_TOKEN",
        )
    return CheckResult("server", "ok", f"no server is running at {url}")


def worst_state(results: Sequence[CheckResult]) -> CheckState:
    """Return the worst state among the results; "ok" if there are none."""
    order: tuple[CheckState, ...] = ("ok", "warn", "fail")
    return max((one.state for one in results), key=order.index, default="ok")
