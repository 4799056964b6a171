"""Effect: the store's file is locked by others, out of room, read-only or damaged."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from tests.faults.mutate import mutated, replaced
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, read_trace, until

pytestmark = pytest.mark.slow

#: Answers while the store refuses: the bound, and what a busy machine adds.
ANSWER_S = 2.0
MARGIN_S = 0.3
GRACE_S = 1.0
#: Takes the one write lock of the file and holds it until its input ends.
LOCKER = """
import apsw, sys
db = apsw.Connection(sys.argv[1])
db.set_busy_timeout(5000)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
db.execute("ROLLBACK")
"""


class PostResult(NamedTuple):
    status: int
    took_s: float
    body: Document
    retry_after: str | None

    @property
    def accepted(self) -> list[str]:
        """Ids of the jobs that were taken in."""
        if self.status not in (200, 202):
            return []
        return [str(job["id"]) for job in self.body.get("jobs", [self.body])]


class PostingThread:
    """A client that posts jobs one after another, in all ways, and remembers every answer."""

    def __init__(self, server: LiveServer, trace: Path, **padding: str) -> None:
        self.answers: list[PostResult] = []
        self._server = server
        job = {"handler": "nap", "input": {"trace": str(trace), **padding}}
        self._ways: list[tuple[str, Document, dict[str, str]]] = [
            ("/v1/jobs", job, {}),
            ("/v1/jobs", job, {"Prefer": "wait=20"}),
            ("/v1/jobs/bulk", {"jobs": [job, job]}, {}),
        ]
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with httpx2.Client(base_url=self._server.url, timeout=20, trust_env=False) as http:
            while not self._enough.wait(0.01):
                path, body, headers = self._ways[len(self.answers) % len(self._ways)]
                began = time.monotonic()
                answer = http.post(path, json=body, headers=headers)
                took_s = time.monotonic() - began
                retry_after = answer.headers.get("Retry-After")
                self.answers.append(PostResult(answer.status_code, took_s, answer.json(), retry_after))

    def stop(self) -> list[PostResult]:
        self._enough.set()
        self._thread.join()
        return self.answers


@contextmanager
def hold_write_lock(database: Path) -> Iterator[Callable[[], None]]:
    """Another program holds the file's write lock until the yielded function is called."""
    command = [sys.executable, "-P", "-c", LOCKER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None and locker.stdin is not None
        assert locker.stdout.readline() == b"locked\n"
        yield locker.stdin.close


@contextmanager
def mount_tmpfs(folder: Path, *options: str) -> Iterator[None]:
    """A small file system in memory; the test is skipped where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def readiness(server: LiveServer) -> tuple[int, str]:
    """The status of /readyz and what it says of the store."""
    answer = server.http.get("/readyz")
    return answer.status_code, str(answer.json()["parts"]["store"]["state"])


def assert_honest(server: LiveServer, answers: list[PostResult], trace: Path) -> None:
    """Everything accepted ends and ran once; everything else was refused in time, with a code."""
    accepted = {job_id for answer in answers for job_id in answer.accepted}
    refused = [answer for answer in answers if not answer.accepted]
    assert {answer.status for answer in refused} <= {503, 507}
    assert all(answer.retry_after for answer in refused)
    assert {answer.body["code"] for answer in refused} <= {"store_unavailable"}
    assert max(answer.took_s for answer in answers) <= ANSWER_S + MARGIN_S
    until(
        lambda: not set(server.counts()) & {"queued", "running"} - _page_zeroes(server),
        "all that waited ends",
    )
    jobs = {job["id"]: job for job in server.jobs()}
    assert accepted <= set(jobs)
    assert {jobs[job_id]["state"] for job_id in accepted} == {"succeeded"}
    starts = [job_id for job_id, _ in read_trace(trace)]
    assert len(starts) == len(set(starts)), "nothing ran twice"
    assert accepted <= set(starts)


def _page_zeroes(server: LiveServer) -> set[str]:
    return {state for state, count in server.counts().items() if not count}


def ends_survive(server: LiveServer, gate: Path, running: list[str]) -> None:
    """Jobs that end while nothing can be written have one stored end, of their first attempt."""
    assert gate.exists()
    for job_id in running:
        job = server.wait_for_end(job_id)
        assert (job["state"], job["output"]["attempt"]) == ("succeeded", 1)


def start_steady(server_fixture: ServerFixture, server: LiveServer, trace: Path) -> tuple[Path, list[str]]:
    gate = server_fixture.folder / "gate"
    data = {"gate": str(gate), "trace": str(trace)}
    running = [server.submit("steady", data, timeout_s=60) for _ in range(2)]
    until(lambda: all(server.job(job_id)["progress"] for job_id in running), "two jobs run")
    return gate, running


def wait_until_healed(server: LiveServer, posting: PostingThread) -> None:
    """The store works again, and so does every part that waited for it."""
    until(lambda: readiness(server) == (200, "ok"), "the store heals", within_s=3)
    healed = len(posting.answers)
    until(lambda: any(a.accepted for a in posting.answers[healed:]), "jobs are taken in again")


def write_lock_is_survived(server_fixture: ServerFixture, held_s: float) -> list[PostResult]:
    server, trace = server_fixture.start(executors=4), server_fixture.folder / "trace"
    gate, running = start_steady(server_fixture, server, trace)
    posting = PostingThread(server, trace)
    until(lambda: len(posting.answers) >= 12, "jobs are taken in")
    with hold_write_lock(server_fixture.data / "runner.db") as release:
        began = time.monotonic()
        gate.touch()
        until(lambda: readiness(server) == (503, "unavailable"), "the store is told to be unavailable")
        until(lambda: time.monotonic() - began >= held_s, "the lock is held", within_s=held_s + 1)
        assert readiness(server) == (503, "unavailable")
        release()
    wait_until_healed(server, posting)
    answers = posting.stop()
    ends_survive(server, gate, running)
    assert_honest(server, answers, trace)
    return answers


@pytest.mark.timed
@pytest.mark.parametrize("held_s", [3.0, 7.0])
def test_another_programs_lock_delays_or_refuses_and_loses_nothing(
    server_fixture: ServerFixture, held_s: float
) -> None:
    answers = write_lock_is_survived(server_fixture, held_s)
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and any(answer.accepted for answer in answers)


def test_a_removal_that_could_not_be_stored_is_refused_and_made_good_later(
    server_fixture: ServerFixture,
) -> None:
    server, marks = server_fixture.start(), server_fixture.folder / "marks"
    marks.mkdir()
    job_id = server.submit("work", {"marks": str(marks), "save": True})
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    files = server_fixture.data / "files" / job_id
    assert files.is_dir()
    with hold_write_lock(server_fixture.data / "runner.db") as release:
        for _ in range(2):
            answer = server.http.delete(f"/v1/jobs/{job_id}")
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert files.is_dir() and server.http.get(f"/v1/jobs/{job_id}").status_code == 200
        release()
    until(lambda: server.http.get(f"/v1/jobs/{job_id}").status_code == 404, "the job is gone", within_s=8)
    until(lambda: not files.exists(), "its files are gone")
    assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_ends_that_could_not_be_stored_outlive_the_coordinator(server_fixture: ServerFixture) -> None:
    server, trace = server_fixture.start(), server_fixture.folder / "trace"
    gate, running = start_steady(server_fixture, server, trace)
    with hold_write_lock(server_fixture.data / "runner.db") as release:
        gate.touch()
        until(lambda: readiness(server) == (503, "unavailable"), "the store is told to be unavailable")
        server_fixture.kill(server)
        release()
    server = server_fixture.start()
    ends_survive(server, gate, running)
    assert sorted(read_trace(trace)) == sorted((job_id, 1) for job_id in running)


def test_a_stop_while_the_store_is_locked_is_clean_and_loses_no_end(server_fixture: ServerFixture) -> None:
    server, trace = server_fixture.start(), server_fixture.folder / "trace"
    gate, running = start_steady(server_fixture, server, trace)
    with hold_write_lock(server_fixture.data / "runner.db") as release:
        gate.touch()
        until(lambda: readiness(server) == (503, "unavailable"), "the store is told to be unavailable")
        server.process.terminate()
        assert server.exit_code(within_s=GRACE_S + 3) == 0
        assert "Traceback" not in server.log.read_text()
        release()
    server = server_fixture.start()
    ends_survive(server, gate, running)
    assert sorted(read_trace(trace)) == sorted((job_id, 1) for job_id in running)


@pytest.mark.parametrize("heals_first", [True, False], ids=["after it healed", "without a writer"])
def test_a_writer_that_cannot_be_replaced_is_replaced_later(
    server_fixture: ServerFixture, heals_first: bool
) -> None:
    """The coordinator is out of descriptors in the moment in which its writer dies."""
    server = server_fixture.start()
    # The last line of the banner, which is printed, and its module imported, after the server is ready.
    until(lambda: "store  " in server.log.read_text(), "the start is complete")
    (writer,) = server_fixture.pids_of_role("writer")
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(writer, signal.SIGKILL)
    tried = "writer process cannot be started"
    until(lambda: _refused(server) and tried in server.log.read_text(), "a start was tried")
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    if heals_first:
        until(lambda: not _refused(server), "a submit is taken in")
        assert readiness(server) == (200, "ok")
    server.process.terminate()
    assert server.exit_code(within_s=GRACE_S + 3) == 0
    assert "Traceback" not in server.log.read_text()


def _refused(server: LiveServer) -> bool:
    """Whether a job is; it waits for long, as one that starts may need a process too."""
    answer = server.http.post("/v1/jobs", json={"handler": "echo", "input": {}, "delay_s": 3_600})
    assert answer.status_code in (202, 503), answer.text
    return answer.status_code == 503


def full_disk_is_survived(server_fixture: ServerFixture) -> None:
    server, trace = server_fixture.start(executors=4), server_fixture.folder / "trace"
    gate, running = start_steady(server_fixture, server, trace)
    ballast = server_fixture.data / "ballast"
    posting = PostingThread(server, trace, padding="x" * 50_000)
    fill(ballast)
    until(lambda: any(not a.accepted for a in posting.answers), "a submit is refused", within_s=8)
    assert readiness(server) == (503, "unavailable")
    gate.touch()
    refusals = len(posting.answers)
    until(lambda: len(posting.answers) >= refusals + 20, "more are refused")
    ballast.unlink()
    wait_until_healed(server, posting)
    answers = posting.stop()
    ends_survive(server, gate, running)
    assert_honest(server, answers, trace)


def fill(ballast: Path) -> None:
    """Take all the room that the file system has left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            return


@pytest.mark.serial
def test_a_full_disk_refuses_new_jobs_and_keeps_the_old(server_fixture: ServerFixture) -> None:
    with mount_tmpfs(server_fixture.data, "-o", "size=24m,mode=0700"):
        full_disk_is_survived(server_fixture)
        server_fixture.close()


def refused_start(server_fixture: ServerFixture, *flags: str) -> str:
    """What a server says that must not start: exit code 2, within a few seconds, no traceback."""
    process, ready, log = server_fixture.spawn(*flags)
    try:
        assert process.wait(8) == 2, log.read_text()
        assert os.read(ready, 100) == b""
    finally:
        process.kill()
        process.wait()
        os.close(ready)
    said = log.read_text()
    assert "Traceback" not in said
    return said


def test_a_read_only_folder_is_refused_at_start(server_fixture: ServerFixture) -> None:
    with mount_tmpfs(server_fixture.data, "-o", "ro,size=1m"):
        assert f"{server_fixture.data} can't be written to" in refused_start(server_fixture)


def test_a_read_only_file_is_refused_at_start(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    server.process.terminate()
    server.process.wait(5)
    database = server_fixture.data / "runner.db"
    made = subprocess.run(["mount", "--bind", database, database], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", database], check=True)
        said = refused_start(server_fixture)
    finally:
        subprocess.run(["umount", "-l", database], check=True)
    assert str(database) in said and "store_unavailable" in said


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with a few hundred jobs, as a server leaves it that was stopped."""
    server_fixture = ServerFixture(tmp_path_factory.mktemp("filled"))
    try:
        server = server_fixture.start()
        server.submit_many("echo", [{"text": "x" * 2_000}] * 400)
        until(lambda: server.counts().get("succeeded") == 400, "all jobs end")
        server.process.terminate()
        server.process.wait(5)
        return (server_fixture.data / "runner.db").read_bytes()
    finally:
        server_fixture.close()


def interior_page(database: bytes) -> int:
    """Where the first interior page of a table begins."""
    size = int.from_bytes(database[16:18], "big")
    return next(at for at in range(size, len(database), size) if database[at] == 0x05)


@pytest.mark.parametrize("where", ["header", "interior page", "leaf page", "cut off"])
def test_a_damaged_file_is_refused_and_left_alone(
    server_fixture: ServerFixture, filled: bytes, where: str
) -> None:
    damaged = bytearray(filled)
    at = {"header": 0, "cut off": 0, "interior page": interior_page(filled)}.get(where, 0)
    if where == "leaf page":
        size = int.from_bytes(filled[16:18], "big")
        at = next(at for at in range(size, len(filled), size) if filled[at] == 0x0D)
    if where == "cut off":
        del damaged[len(damaged) // 2 :]
    else:
        damaged[at : at + 16] = bytes(255 - byte for byte in damaged[at : at + 16])
    server_fixture.data.mkdir()
    database = server_fixture.data / "runner.db"
    database.write_bytes(damaged)
    said = refused_start(server_fixture)
    assert str(database) in said and "store_corrupt" in said
    assert hashlib.sha256(database.read_bytes()).digest() == hashlib.sha256(damaged).digest()


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a server that lost its power with a hundred commits in the log."""
    server_fixture = ServerFixture(tmp_path_factory.mktemp("cut_off"))
    try:
        server = server_fixture.start()
        for number in range(100):
            server.submit("echo", {"number": number}, delay_s=3_600)
        server_fixture.cut_power(server)
        return {name: (server_fixture.data / name).read_bytes() for name in ("runner.db", "runner.db-wal")}
    finally:
        server_fixture.close()


@pytest.mark.parametrize("where", ["whole", "header", "first frame", "a page", "salts of a frame"])
def test_a_damaged_log_is_refused_and_left_alone(
    server_fixture: ServerFixture, cut_off: dict[str, bytes], where: str
) -> None:
    """SQLite alone would read it up to the damage and forget what was acknowledged after that."""
    log = bytearray(cut_off["runner.db-wal"])
    step = 24 + int.from_bytes(log[8:12], "big")
    at = {
        "header": 16,
        "first frame": 32 + 20,
        "a page": 32 + 20 * step + 500,
        "salts of a frame": 32 + 30 * step + 8,
    }
    if where in at:
        log[at[where]] ^= 0x55
    server_fixture.data.mkdir()
    (server_fixture.data / "runner.db").write_bytes(cut_off["runner.db"])
    (server_fixture.data / "runner.db-wal").write_bytes(log)
    if where == "whole":
        assert len(server_fixture.start().jobs()) == 100
        return
    said = refused_start(server_fixture)
    assert f"{server_fixture.data / 'runner.db-wal'} is damaged" in said and "store_corrupt" in said
    assert (server_fixture.data / "runner.db").read_bytes() == cut_off["runner.db"]
    assert (server_fixture.data / "runner.db-wal").read_bytes() == log


def test_answers_before_the_commit_are_noticed(tmp_path: Path) -> None:
    early = replaced("answer-when-durable", "on_durable(None)")
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [early]))
    try:
        server = server_fixture.start()
        with hold_write_lock(server_fixture.data / "runner.db"):
            answer = server.http.post("/v1/jobs", json={"handler": "echo", "input": {}})
            server_fixture.kill(server, within_s=8)
        server = server_fixture.start()
        assert answer.status_code == 202
        assert server.http.get(f"/v1/jobs/{answer.json()['id']}").status_code == 404
    finally:
        server_fixture.close()
