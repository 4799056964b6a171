"""Effect: a small load under one fault after the other, and what must hold of it when the server is back."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx2

from benchmarks.ready_pipe import read_line
from runner.protocol.spool import DRAFT_SUFFIX
from tests.fakes.fake_gpus import Card, FakeGpus
from tests.faults.server_fixture import (
    ROOT,
    Document,
    LiveServer,
    ServerFixture,
    SseEvent,
    parse_events,
    until,
)

POINTS = Path(__file__).with_name("points")
#: All that was begun under a fault has its end within this time, the start of a new server included.
END_S = 30.0
ENDED = ("succeeded", "failed", "cancelled")
BACKOFF = {"kind": "fixed", "base_s": 0.02, "jitter": 0}
#: One process of each role; the executors come and go.
ROLES = ("front", "worker", "probe", "writer")


class FailpointCase(NamedTuple):
    """A point and what is done there; with `then`, a second point and what is done there afterwards."""

    point: str
    mode: str
    then: tuple[str, str] | None = None

    def __str__(self) -> str:
        first = f"{self.point} {self.mode}"
        return f"{first}, then {' '.join(self.then)}" if self.then is not None else first


class Accepted(NamedTuple):
    """A job that was accepted, and the ends that it may have."""

    job_id: str
    ends: tuple[str, ...]


def _done(armed: Path) -> Path:
    """The name of a fault's file once the fault was done."""
    return armed.with_name(f"{armed.name}.done")


def has_ended(job: Document) -> bool:
    return job["state"] in ENDED


class FailpointLane:
    """One server_fixture through which cases go one by one, each with its own round of jobs."""

    def __init__(self, folder: Path, *, tree: Path = ROOT, end_s: float = END_S, gpus: str = "none") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        #: What its servers are told of GPUs. Of "all" there is one, which is made up.
        self.gpus = gpus
        self.cards = FakeGpus(folder / "gpus", Card("GPU-a")) if gpus == "all" else None
        self.server_fixture = ServerFixture(folder, tree=tree)
        self.end_s = end_s
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.armed = folder / "armed"
        #: The fault that follows the armed one.
        self.then = folder / "armed.then"
        #: Whether two faults are armed.
        self._is_pair = False
        self.pool = ThreadPoolExecutor(4)
        self.is_abandoned = threading.Event()
        self.server: LiveServer | None = None
        self._port = 0
        self._lock = threading.Lock()
        #: A request had no answer.
        self._is_unsure = False
        #: What was seen of each job that is followed.
        self.seen: dict[str, list[SseEvent]] = {}
        #: It was told to end in order.
        self._is_stopping = False
        #: How often a coordinator has died.
        self.deaths = 0
        self.rounds = 0
        self.accepted: list[Accepted] = []
        #: Flags that name handlers besides the usual ones.
        self._sources: list[str] = []

    def close(self) -> None:
        self.is_abandoned.set()
        # First the server: who follows a stream of its goes on as long as it lives.
        with self._lock:
            self.server_fixture.close()
        self.pool.shutdown()

    def describe_state(self) -> str:
        """What its server says of jobs and workers, and the logs of the last two."""
        logs = sorted(self.server_fixture.folder.glob("server-*"), key=lambda path: path.stat().st_mtime)
        words = [path.read_text()[-3000:] for path in logs[-2:]]
        try:
            server = self.live_server()
            for job in server.jobs():
                if job["state"] not in ENDED:
                    words.append(server.http.get(f"/v1/jobs/{job['id']}/explain").text)
            words += [server.http.get(f"/v1/{what}").text for what in ("workers", "devices")]
        except (AssertionError, httpx2.HTTPError) as error:
            words.append(f"and it can't be asked: {error!r}")
        return "\n".join(words)

    # The fault.

    def arm(self, case: FailpointCase) -> None:
        # The second fault counts only once the first was done, so its file changes while neither is armed.
        self.then.unlink(missing_ok=True)
        for each in (self.armed, self.then):
            _done(each).unlink(missing_ok=True)
        self._is_pair = case.then is not None
        if case.then is not None:
            self.then.write_text(" ".join(case.then))
        draft = self.armed.with_suffix(".draft")
        draft.write_text(f"{case.point} {case.mode}")
        draft.rename(self.armed)

    def has_fired(self) -> bool:
        """Whether all faults that were armed have been done."""
        return _done(self.then if self._is_pair else self.armed).exists()

    def has_begun(self) -> bool:
        """Whether the first fault has been done."""
        return _done(self.armed).exists()

    # The server, which may die at any moment.

    def live_server(self) -> LiveServer:
        """The server; a new one where the last has died."""
        with self._lock:
            while self.server is None or self.server.process.poll() is not None:
                if self.server is not None:
                    self._on_server_death(self.server.process.returncode)
                assert not self.is_abandoned.is_set(), "the case is over"
                self.server = self._start()
            return self.server

    def _on_server_death(self, status: int) -> None:
        assert self.server is not None
        self.deaths += status != 0
        assert status == -9 or (status == 0 and self._is_stopping), (
            f"the server ended with {status}:\n{self.server.log.read_text()[-3000:]}"
        )
        until(lambda: not self.server_fixture.processes(), "what belonged to a dead server is gone")
        self.server.http.close()
        self.server = None

    def _start(self) -> LiveServer | None:
        """None where it died before it was ready."""
        tree = self.server_fixture.tree
        env = {"PYTHONPATH": str(tree)} if self.cards is None else self.cards.environ(tree)
        env |= {
            "PYTHONPATH": f"{POINTS}:{env['PYTHONPATH']}",
            "FAULT_ARMED": str(self.armed),
            "RUNNER_LIMITS__EVENTS_KEPT": "50",
        }
        flags = ["--gpus", self.gpus, *self._sources]
        process, ready, log = self.server_fixture.spawn(*flags, env=env, port=self._port)
        with open(ready, "rb", buffering=0) as pipe:
            line = read_line(pipe.fileno(), END_S)
        if not line:
            try:
                status = process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
                raise
            self.deaths += 1
            # It was killed, or it refused to start because a process that it needs had died.
            assert status in (-9, 2) and self.has_begun(), f"{status}: {log.read_text()[-3000:]}"
            until(lambda: not self.server_fixture.processes(), "what belonged to a dead server is gone")
            return None
        server = LiveServer(process, json.loads(line)["url"], 0.0, log)
        self._port = server.port
        self.server_fixture.servers.append(server)
        return server

    def add_source(self, text: str) -> Path:
        """A file of handlers that a server has which is started from now on."""
        path = self.server_fixture.folder / f"source_{self.rounds}.py"
        path.write_text(text)
        self._sources += ["--handlers", str(path)]
        return path

    def stop(self, number: int) -> None:
        """Signal the server and wait for its end; it may die of the fault instead."""
        server = self.live_server()
        self._is_stopping = number == signal.SIGTERM
        os.kill(server.pid, number)
        status = server.exit_code(within_s=self.end_s)
        assert status == -9 or (status == 0 and self._is_stopping), server.log.read_text()[-3000:]

    # Requests, which are made until they have an answer.

    def ask(self, method: str, path: str, body: object = None) -> httpx2.Response:
        """The answer below 500; a request that got none is made again."""
        deadline = time.monotonic() + self.end_s
        while True:
            server = self.live_server()
            try:
                answer = server.http.request(method, path, json=body, timeout=self.end_s)
            except httpx2.TransportError:
                answer = None
                self._is_unsure = True
            if answer is not None and answer.status_code < 500:
                return answer
            last_answer = None if answer is None else answer.text
            assert time.monotonic() < deadline, f"{method} {path} has no answer: {last_answer}"
            assert not self.is_abandoned.wait(0.02), "the case is over"

    def submit(self, handler: str, *ends: str, options: Document | None = None, **data: object) -> str:
        """The id of a job that was accepted."""
        body = {
            "handler": handler,
            "input": {"marks": str(self.marks), **data},
            "retries": 3,
            "backoff": BACKOFF,
            **(options or {}),
        }
        self._is_unsure = False
        answer = self.ask("POST", "/v1/jobs", body)
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        self.accepted.append(Accepted(job_id, ends or ("succeeded",)))
        if self._is_unsure:
            # A first try may have been taken in as well; it must not keep an executor from the others.
            self._cancel_unknown_jobs()
        return job_id

    def submit_many(self, inputs: Sequence[Mapping[str, object]]) -> None:
        """Jobs in one request, so that they stand in line together."""
        jobs = [
            {"handler": "work", "input": {"marks": str(self.marks), **data}, "retries": 3, "backoff": BACKOFF}
            for data in inputs
        ]
        answer = self.ask("POST", "/v1/jobs/bulk", {"jobs": jobs})
        assert answer.status_code == 202, answer.text
        self.accepted += [Accepted(str(job["id"]), ("succeeded",)) for job in answer.json()["jobs"]]

    def delete(self, job_id: str) -> None:
        """Remove an ended job; a request whose answer was lost has removed it already."""
        answer = self.ask("DELETE", f"/v1/jobs/{job_id}")
        assert answer.status_code in (204, 404), answer.text
        assert self.ask("GET", f"/v1/jobs/{job_id}").status_code == 404
        self.accepted = [job for job in self.accepted if job.job_id != job_id]

    def job(self, job_id: str) -> Document:
        answer = self.ask("GET", f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, f"an accepted job is not there: {answer.text}"
        return dict(answer.json())

    def await_job(self, job_id: str, look: Callable[[Document], bool], what: str) -> Document:
        return until(lambda: job if look(job := self.job(job_id)) else None, what, within_s=self.end_s)

    def cancel(self, job_id: str) -> None:
        """Once it runs."""
        self.await_job(job_id, lambda job: bool(job["progress"]), "it runs")
        answer = self.ask("POST", f"/v1/jobs/{job_id}/cancel", {})
        # It may have been made before, and its answer lost.
        assert answer.status_code in (200, 202, 409), answer.text

    def follow(self, job_id: str) -> Future[list[SseEvent]]:
        """All events of a job, followed to its end."""
        return self.pool.submit(self._follow, job_id)

    def _follow(self, job_id: str) -> list[SseEvent]:
        seen = self.seen[job_id] = []
        while not (seen and seen[-1].name == "done"):
            headers = {"Last-Event-ID": str(seen[-1].id)} if seen else {}
            url = f"{self.live_server().url}/v1/jobs/{job_id}/events"
            try:
                with httpx2.stream(
                    "GET", url, headers=headers, timeout=self.end_s, trust_env=False
                ) as answer:
                    if answer.status_code == 200:
                        seen.extend(event for event in parse_events(answer.iter_bytes()) if event.id)
                    assert answer.status_code in (200, 503), answer.status_code
            except httpx2.TransportError:
                assert not self.is_abandoned.wait(0.02), "the stream did not come back"
        return seen

    # A round.

    def run(self, case: FailpointCase, provoke: Callable[[FailpointLane], None]) -> None:
        """One fault in one round of jobs."""
        self.live_server()
        self.accepted, deaths = [], self.deaths
        self.rounds += 1
        self.arm(case)
        followed = self._load()
        provoke(self)
        if self._is_pair:
            self._work_until_fired(case)
        until(self.has_fired, f"the point is come to: {case}", within_s=self.end_s)
        for job_id, ends in self.accepted:
            job = self.await_job(job_id, has_ended, f"job {job_id} ends")
            assert job["state"] in ends, job
        for job_id, events in followed.items():
            self._check_events(job_id, events.result(self.end_s))
        self._check_runs(self.deaths - deaths)
        self._cancel_unknown_jobs()
        until(self._has_all_roles, f"one process of each kind is there: {self._roles()}", within_s=self.end_s)

    def _work_until_fired(self, case: FailpointCase) -> None:
        """Jobs go through one by one, over a restart of the server, until the second fault was done too."""
        deadline = time.monotonic() + self.end_s
        while not self.has_fired():
            assert time.monotonic() < deadline, f"both points are come to: {case}"
            self.await_job(self.submit("work"), has_ended, "it ends")

    def _load(self) -> dict[str, Future[list[SseEvent]]]:
        """Plain jobs, one that fails first, and one that is cancelled; two of them are followed."""
        cancelled = self.submit("work", "cancelled", gate=str(self.server_fixture.folder / "never"))
        retried = self.submit("work", fails=1, talk=3)
        followed = {job_id: self.follow(job_id) for job_id in (cancelled, retried)}
        for _ in range(2):
            self.submit("work", print=True)
        self.cancel(cancelled)
        return followed

    def _check_events(self, job_id: str, seen: list[SseEvent]) -> None:
        """Each was seen once, in order; all of them can be read again, and are the same."""
        server = self.live_server()
        stored = [event for event in server.events(job_id) if event.id]
        assert [event.id for event in stored] == list(range(1, len(stored) + 1))
        assert [event.name for event in stored].count("done") == 1 and stored[-1].name == "done"
        assert seen == stored

    def _check_runs(self, deaths: int) -> None:
        """User code ran once for each attempt; more often only for a first one that no store knew of yet
        when the server died."""
        runs = Counter(tuple(path.name.split(".")[:2]) for path in self.marks.iterdir())
        for job_id, _ in self.accepted:
            job = self.job(job_id)
            ran = {int(number): times for (owner, number), times in runs.items() if owner == job_id}
            assert set(ran) <= set(range(1, job["attempt"] + 1)), (job, ran)
            assert all(times <= (1 + deaths if number == 1 else 1) for number, times in ran.items()), (
                job,
                ran,
            )
            if job["state"] == "succeeded":
                assert job["output"]["attempt"] == job["attempt"] and job["attempt"] in ran, (job, ran)

    def _cancel_unknown_jobs(self) -> None:
        """Jobs whose submit had no answer may be there as well, and end too."""
        known = {job.job_id for job in self.accepted}
        for job in self.ask("GET", "/v1/jobs?limit=500").json()["data"]:
            if job["state"] not in ENDED and job["id"] not in known:
                self.ask("POST", f"/v1/jobs/{job['id']}/cancel", {"force": True})
                self.await_job(job["id"], has_ended, "a job that nobody knew of ends")

    def _roles(self) -> dict[str, int]:
        return {role: len(self.server_fixture.pids_of_role(role)) for role in ROLES}

    def _has_all_roles(self) -> bool:
        roles = self._roles()
        # That of the cpu comes with the first job after a start.
        drivers = 0 if self.gpus == "none" else 1
        return 0 <= roles.pop("worker") - drivers <= 1 and set(roles.values()) == {1}

    def end(self) -> None:
        """An orderly stop: nothing of the server is left, and nothing waits for another start."""
        self.stop(signal.SIGTERM)
        assert not self.server_fixture.processes()
        data = self.server_fixture.data
        for path in (data / "lock", *(data / "locks").iterdir()):
            with path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not list((data / "tmp").iterdir())
        # The room that a killed worker has kept for a spool is given back by the next start.
        assert {path.suffix for path in (data / "spool").iterdir()} <= {DRAFT_SUFFIX}
