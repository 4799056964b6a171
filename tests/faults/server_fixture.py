"""Effect: a real server that faults are done to: started, stalled, killed and started again on one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx2

from benchmarks.ready_pipe import read_line, spawn_server
from runner.client.events import SseParser

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = Path(__file__).with_name("handlers.py")
#: Every process of a server_fixture carries this variable with the server_fixture's own value.
MARK_VARIABLE = "FAULT_TEST_SERVER"
Found = TypeVar("Found")
Document = dict[str, Any]


#: How long a test waits for what must come. No promise: where one is at stake, the test names its own bound.
PATIENCE_S = 15.0


class SseEvent(NamedTuple):
    name: str
    id: int | None
    data: Document


def until(
    look: Callable[[], Found | None], what: str, *, within_s: float = PATIENCE_S, every_s: float = 0.01
) -> Found:
    """What `look` gives as soon as that is true; AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    rest = threading.Event()
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        rest.wait(every_s)


def wait_until_stable(
    look: Callable[[], Found], what: str, *, for_s: float = 0.3, within_s: float = PATIENCE_S
) -> Found:
    """What `look` gives once it has given the same for so long; AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    rest = threading.Event()
    found, since = look(), time.monotonic()
    while time.monotonic() - since < for_s:
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        rest.wait(0.02)
        now = look()
        if now != found:
            found, since = now, time.monotonic()
    return found


def pids_with_environ(name: str, value: str) -> list[int]:
    """Processes whose environment holds `name` with a value that begins so; zombies do not count."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = Path(entry.path, "environ").read_bytes()
        except OSError:
            continue
        if any(item.startswith(wanted) for item in environ.split(b"\0")):
            found.append(int(entry.name))
    return found


class LiveServer:
    """One `runner serve` process and what can be asked of it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, ready_s: float, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.url = url
        self.port = int(url.rsplit(":", 1)[1])
        #: Seconds from the spawn to the word that it is ready.
        self.ready_s = ready_s
        self.log = log
        self.http = httpx2.Client(base_url=url, timeout=30, trust_env=False)

    def submit(self, handler: str, data: object = None, **options: object) -> str:
        """The id of an accepted job."""
        answer = self.http.post("/v1/jobs", json={"handler": handler, "input": data or {}, **options})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def submit_many(self, handler: str, inputs: list[Document], **options: object) -> list[str]:
        """The ids of jobs accepted in one request."""
        jobs = [{"handler": handler, "input": data, **options} for data in inputs]
        answer = self.http.post("/v1/jobs/bulk", json={"jobs": jobs})
        assert answer.status_code == 202, answer.text
        return [str(job["id"]) for job in answer.json()["jobs"]]

    def job(self, job_id: str) -> Document:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def attempts(self, job_id: str) -> list[Document]:
        document = self.http.get(f"/v1/jobs/{job_id}/attempts").json()
        return list(document["data"] if isinstance(document, dict) else document)

    def wait_for_end(self, job_id: str, *, within_s: float = 8.0) -> Document:
        """The job once it has ended."""
        wait = {"Prefer": f"wait={max(1, round(within_s))}"}
        job = dict(self.http.get(f"/v1/jobs/{job_id}", headers=wait).json())
        assert job["state"] in ("succeeded", "failed", "cancelled"), job
        return job

    def jobs(self, **filters: str) -> list[Document]:
        """All jobs that match, oldest first."""
        found: list[Document] = []
        params = {"order": "asc", "limit": "500", **filters}
        while True:
            answer = self.http.get("/v1/jobs", params=params)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["data"]
            if not page["next_cursor"]:
                return found
            params["cursor"] = page["next_cursor"]

    def counts(self, queue: str = "default") -> dict[str, int]:
        """Jobs of a queue by state."""
        return dict(self.http.get(f"/v1/queues/{queue}").json()["counts"])

    def figures(self, handler: str) -> Document:
        """What the server has measured of a handler's runs."""
        return dict(self.http.get(f"/v1/handlers/{handler}").json()["figures"])

    def events(self, job_id: str, *, after: int | None = None) -> Iterator[SseEvent]:
        """A job's stream until it closes; with `after`, from behind that sequence number."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            if answer.status_code == 204:
                return
            assert answer.status_code == 200, answer.read()
            yield from parse_events(answer.iter_bytes())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, *, within_s: float) -> int:
        """The exit code; subprocess.TimeoutExpired if it has not ended by then."""
        return self.process.wait(within_s)


class ServerFixture:
    """One data folder, the servers that lived on it, and the care that none is left behind."""

    def __init__(self, folder: Path, *, tree: Path = ROOT) -> None:
        self.folder = folder
        self.data = folder / "data"
        #: The copy of the project that is put first on PYTHONPATH.
        self.tree = tree
        self.mark = uuid.uuid4().hex
        self.servers: list[LiveServer] = []

    def start(
        self,
        *flags: str,
        executors: int = 2,
        env: dict[str, str] | None = None,
        within_s: float = 30.0,
        port: int = 0,
    ) -> LiveServer:
        """A server that is ready. `env` is laid over its environment (`RUNNER_*`: settings)."""
        process, ready, log = self.spawn(*flags, executors=executors, env=env, port=port)
        started = time.monotonic()
        with open(ready, "rb", buffering=0) as pipe:
            line = read_line(pipe.fileno(), within_s)
        if not line:
            process.kill()
            process.wait()
            raise AssertionError(f"not ready within {within_s} s:\n{log.read_text()[-6000:]}")
        server = LiveServer(process, json.loads(line)["url"], time.monotonic() - started, log)
        self.servers.append(server)
        return server

    def spawn(
        self, *flags: str, executors: int = 2, env: dict[str, str] | None = None, port: int = 0
    ) -> tuple[subprocess.Popen[bytes], int, Path]:
        """A server that may refuse to start: its process, the pipe on which it says ready, its log."""
        self.data.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"server-{len(list(self.folder.glob('server-*')))}.log"
        arguments = ["--host", "127.0.0.1", "--port", str(port)]
        if "--gpus" not in flags:
            arguments += ["--gpus", "none"]
        arguments += ["--data-dir", str(self.data), "--handlers", str(HANDLERS), "--no-entry-points"]
        if "--grace" not in flags:
            arguments += ["--grace", "1s"]
        with log.open("wb") as output:
            process, ready_fd = spawn_server(
                [*arguments, *flags],
                environ=self._environ(executors) | (env or {}),
                folder=self.folder,
                log=output,
            )
        return process, ready_fd, log

    def _environ(self, executors: int) -> dict[str, str]:
        return {
            MARK_VARIABLE: self.mark,
            "PYTHONPATH": str(self.tree),
            "RUNNER_DEVICES__MAX_EXECUTORS": str(executors),
            "RUNNER_LOG_LEVEL": "info",
        }

    def kill(self, server: LiveServer, *, within_s: float = 3.0) -> None:
        """SIGKILL the coordinator; back when all that belonged to it has ended by itself."""
        server.process.kill()
        server.process.wait()
        until(lambda: not self.processes(), "everything of a killed server is gone", within_s=within_s)

    def cut_power(self, server: LiveServer) -> None:
        """SIGKILL everything at once, as a machine that loses its power does."""
        for pid in self.processes():
            _kill(pid)
        server.process.wait()
        until(lambda: not self.processes(), "all processes are gone")

    def processes(self) -> list[int]:
        """All processes that came from this server_fixture, executors' children included."""
        return pids_with_environ(MARK_VARIABLE, self.mark)

    def pids_of_role(self, role: str) -> list[int]:
        """Pids of one role: worker, front, probe, writer."""
        found = []
        for pid in self.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if role.encode() in words and b"--lifeline" in words:
                found.append(pid)
        return found

    def close(self) -> None:
        """Kill what is left and let go of the sockets."""
        for pid in self.processes():
            _kill(pid)
        for server in self.servers:
            server.process.wait()
            server.http.close()


def read_trace(path: Path) -> list[tuple[str, int]]:
    """(job id, attempt) in the order in which handlers said that they run."""
    if not path.exists():
        return []
    return [(words[0], int(words[1])) for line in path.read_text().splitlines() if (words := line.split())]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def parse_events(chunks: Iterable[bytes]) -> Iterator[SseEvent]:
    """The events of an SSE body; comments and `retry` are left out."""
    parser = SseParser()
    for chunk in chunks:
        for frame in parser.feed(chunk):
            yield SseEvent(frame.name, int(frame.id) if frame.id else None, json.loads(frame.data))
