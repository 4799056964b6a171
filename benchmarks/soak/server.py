"""Effect: the server under test, its processes by what they are, and what a start of it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ready_pipe import read_line, spawn_server

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = Path(__file__).with_name("handlers.py")
#: File in the data folder that takes up the room.
BALLAST = "ballast"
READY_WITHIN_S = 30.0
GRACE_S = 2.0
#: What belonged to a dead coordinator is gone within this.
GONE_WITHIN_S = 5.0
ROLES = ("coordinator", "front", "writer", "probe", "worker", "executor")
#: Below the kernel's own choice, so that no client's end takes the port while the server is down.
PORTS = range(20_000, 30_000)


class ServerFailed(Exception):
    """The server did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process of the server."""

    pid: int
    role: str
    #: The executor that it was started under, by its marker.
    marker: str


class SoakServer:
    """One data folder, one port, and `runner serve` on them, again and again."""

    def __init__(self, folder: Path, nonce: str, *, fronts: int = 2, disk_mib: int = 0) -> None:
        self.folder = folder
        self.nonce = nonce
        self.fronts = fronts
        self.data = folder / "data"
        self.stamps = folder / "stamps"
        self.log = folder / "server.log"
        self.port = _free_port()
        self.starts = 0
        #: Folders for sockets that earlier starts have made.
        self.runtimes: set[Path] = set()
        #: Whether the server was told to end, or is dead by our hand.
        self.is_ending = False
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether the data folder is a file system of its own, which can be filled.
        self.has_own_disk = disk_mib > 0 and self._mount(disk_mib)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    async def start(self) -> float:
        """Start the server; seconds until it was ready. Raises ServerFailed."""
        began = time.monotonic()
        arguments = ["--port", str(self.port), "--gpus", "sim:2x8GiB", "--fronts", str(self.fronts)]
        arguments += ["--grace", f"{GRACE_S:g}s"]
        arguments += ["--data-dir", str(self.data), "--handlers", str(HANDLERS), "--no-entry-points"]
        with self.log.open("ab") as log:
            self._process, ours = spawn_server(
                arguments, environ=self._environ(), folder=self.folder, log=log
            )
        try:
            line = await asyncio.to_thread(read_line, ours, READY_WITHIN_S)
        finally:
            os.close(ours)
        if not line:
            code = self.process.poll()
            raise ServerFailed(f"not ready within {READY_WITHIN_S:g} s, exit code {code}; see {self.log}")
        self.starts += 1
        self.is_ending = False
        holder = json.loads((self.data / "lock").read_bytes())
        self.runtimes.add(Path(holder["runtime"]))
        return time.monotonic() - began

    async def wait(self, within_s: float) -> int | None:
        """The coordinator's exit code, None if it has not ended by then."""
        try:
            return await asyncio.to_thread(self.process.wait, within_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self, *, everything: bool = False) -> None:
        """SIGKILL the coordinator, or all at once; it is gone on return."""
        self.is_ending = True
        self.process.kill()
        if everything:
            self._kill_members()
        self.process.wait()

    def members(self) -> list[ServerProcess]:
        """All processes of the server, the handlers' children included."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                member = self._member(int(entry.name))
                if member is not None:
                    found.append(member)
        return found

    def pids_of_role(self, role: str) -> list[int]:
        return [member.pid for member in self.members() if member.role == role]

    async def wait_until_gone(self, within_s: float = GONE_WITHIN_S) -> list[ServerProcess]:
        """What is left when everything should have ended."""
        until = time.monotonic() + within_s
        while (left := self.members()) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return left

    def close(self, *, keep_data: bool = False) -> None:
        """Kill all that is left, and unmount; the data is copied first where it is to be kept."""
        self.is_ending = True
        self._kill_members()
        if self._process is not None:
            self._process.wait()
        if self.has_own_disk:
            self.has_own_disk = False
            if keep_data:
                shutil.copytree(self.data, self.folder / "data-at-the-end")
            subprocess.run(["umount", "-l", str(self.data)], check=True)

    def _mount(self, mib: int) -> bool:
        """False where mounting is not permitted."""
        self.data.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(self.data)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def fill_disk(self) -> None:
        """Take all the room that the data folder's file system has left."""
        free = os.statvfs(self.data)
        with (self.data / BALLAST).open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 12))

    def empty_disk(self) -> None:
        """Give the room back."""
        (self.data / BALLAST).unlink()

    def disk_bytes(self) -> int:
        """Bytes of the data folder."""
        total = 0
        for path, _, names in os.walk(self.data):
            for name in names:
                try:
                    total += os.stat(os.path.join(path, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    def read_tracebacks(self) -> list[str]:
        """The server's own, from its log: each kind by its last line."""
        found: dict[str, None] = {}
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if "Traceback (most recent call last)" in line:
                    text = json.loads(line)["text"] if line.startswith("{") else line + "".join(lines)
                    found[" / ".join(text.strip().splitlines()[-3:])] = None
        return list(found)

    def _kill_members(self) -> None:
        for member in self.members():
            try:
                os.kill(member.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _environ(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "RUNNER_DEVICES__MAX_EXECUTORS": "4",
            "RUNNER_LOG_LEVEL": "info",
            "RUNNER_LOG_FORMAT": "json",
            "SOAK_NONCE": self.nonce,
            "SOAK_STAMPS": str(self.stamps),
        }

    def _member(self, pid: int) -> ServerProcess | None:
        """None where it is not ours, or a zombie."""
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return None
        named = f"SOAK_NONCE={self.nonce}".encode() in environ
        if not named and not any(self.nonce in word for word in words):
            return None
        marker = next((item for item in environ if item.startswith(b"JOB_RUNNER_EXECUTOR=")), b"")
        return ServerProcess(pid, _role(words), marker.decode("utf-8", "replace"))


def _role(words: list[str]) -> str:
    if "runner.executor" in words:
        return "executor"
    if "--lifeline" in words:
        return words[words.index("--lifeline") - 1]
    if "serve" in words and "runner" in words:
        return "coordinator"
    return "child"


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + os.getpid() % 1000))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerFailed("no port is free")
