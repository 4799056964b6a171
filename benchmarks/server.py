"""Effect: starts and stops the server under test, and asks what it costs while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.http_client import BenchmarkFailed
from benchmarks.ready_pipe import read_line, spawn_server

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 120.0
STOP_WITHIN_S = 15.0


class Server:
    """One `runner serve` on a data folder, from its start until `stop`."""

    def __init__(self, data_dir: Path, *, executors: int = 2) -> None:
        self.data_dir = data_dir
        environ = {
            "PYTHONPATH": str(ROOT),
            "RUNNER_DEVICES__MAX_EXECUTORS": str(executors),
            "RUNNER_LOG_LEVEL": "warning",
        }
        arguments = ["--port", "0", "--gpus", "none", "--data-dir", str(data_dir), "--no-entry-points"]
        arguments += ["--grace", "1s", "--handlers", str(ROOT / "benchmarks" / "handlers.py")]
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        with self.log_path.open("ab") as log:
            self.process, read_fd = spawn_server(arguments, environ=environ, folder=ROOT, log=log)
        self.port = self._await_ready(read_fd)

    def stop(self) -> None:
        """Ask the server to end and wait for it; kill it where that takes too long."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """SIGKILL the coordinator, if it still runs; what it started ends by itself."""
        self.process.kill()
        self.process.wait()

    def pss_bytes(self) -> int:
        """Proportional set size of the server and everything under it."""
        return sum(pss_bytes(process.pid) for process in self._processes())

    def rss_bytes(self) -> int:
        """What the coordinator alone has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_s(self) -> dict[str, float]:
        """Role -> seconds on a core since the start, of all processes of that role."""
        spent: dict[str, float] = {}
        for process in self._processes():
            role = _role(process.cmdline())
            spent[role] = spent.get(role, 0.0) + cpu_s(process.pid)
        return spent

    def _processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def disk_bytes(self) -> int:
        """Bytes of the data folder's files, write-ahead log included."""
        return sum(path.stat().st_blocks * 512 for path in self.data_dir.rglob("*") if path.is_file())

    def _await_ready(self, fd: int) -> int:
        try:
            text = read_line(fd, READY_WITHIN_S)
        finally:
            os.close(fd)
        if not text:
            self.process.kill()
            self.process.wait()
            raise BenchmarkFailed(f"the server did not get ready:\n{self.log_path.read_text()[-4000:]}")
        port: int | None = urlsplit(json.loads(text)["url"]).port
        if port is None:
            raise BenchmarkFailed(f"no port in {text!r}")
        return port


def cpu_s(pid: int) -> float:
    """Seconds that the threads which a process has now were on a core, to the nanosecond.

    Its `stat` counts in steps of 10 ms, of which an idle process hardly takes one.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _role(command: list[str]) -> str:
    """`python -P -m runner ROLE ...` or `python ... -m runner.MODULE ...`."""
    module = command.index("-m") + 1
    role = command[module + 1] if command[module] == "runner" else command[module].rpartition(".")[2]
    return "coordinator" if role == "serve" else role


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
