"""Effect: a server starts on a full disk: it waits for room, says so, and ends with 75 if none appears."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ready_pipe import read_line
from tests.faults.mutate import mutated, replaced
from tests.faults.server_fixture import ROOT, ServerFixture, until
from tests.faults.test_broken_store import mount_tmpfs

pytestmark = pytest.mark.slow

#: What a full disk leaves; the log of the store needs 5 MiB.
ROOM_BYTES = (0, 64 * 1024, 3 * 1024 * 1024)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    with mount_tmpfs(folder, "-o", "size=24m,mode=0700"):
        yield folder


def fill(folder: Path, room_bytes: int) -> Path:
    """Fill the disk up to so much room; the file that does it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        figures = os.statvfs(folder)
        file.write(b"x" * (figures.f_bavail * figures.f_frsize - room_bytes))
    return filler


def finished_store(tmp_path: Path) -> str:
    """A store with one ended job, from a server that was stopped; the job's id."""
    fixture = ServerFixture(tmp_path)
    try:
        server = fixture.start()
        job_id = server.submit("echo", {"a": 1})
        server.wait_for_end(job_id)
        server.process.terminate()
        assert server.exit_code(within_s=10) == 0
        return job_id
    finally:
        fixture.close()


@pytest.mark.parametrize("room_bytes", ROOM_BYTES)
def test_a_start_goes_on_when_room_appears(tmp_path: Path, data: Path, room_bytes: int) -> None:
    job_id = finished_store(tmp_path)
    filler = fill(data, room_bytes)
    fixture = ServerFixture(tmp_path)
    process, ready, log = fixture.spawn()
    try:
        until(lambda: "no room to start" in log.read_text(), "the wait is reported")
        assert process.poll() is None
        filler.unlink()
        assert read_line(ready, 20), log.read_text()
        assert "the disk has room again" in log.read_text() and "Traceback" not in log.read_text()
    finally:
        process.terminate()
        assert process.wait(10) == 0
        os.close(ready)
        fixture.close()
    again = ServerFixture(tmp_path)
    try:
        assert again.start().job(job_id)["output"] == {"a": 1}
    finally:
        again.close()


@pytest.mark.parametrize("room_bytes", ROOM_BYTES)
def test_a_start_without_room_ends_with_75(tmp_path: Path, data: Path, room_bytes: int) -> None:
    finished_store(tmp_path)
    fill(data, room_bytes)
    fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [replaced("room-wait", "WAIT_S = 1.5")]))
    process, ready, log = fixture.spawn()
    try:
        assert process.wait(20) == 75, log.read_text()
    finally:
        os.close(ready)
        fixture.close()
    assert "make room there and start again" in log.read_text() and "Traceback" not in log.read_text()


def test_a_stop_ends_the_wait_for_room(tmp_path: Path, data: Path) -> None:
    finished_store(tmp_path)
    fill(data, 0)
    fixture = ServerFixture(tmp_path, tree=ROOT)
    process, ready, log = fixture.spawn()
    try:
        until(lambda: "no room to start" in log.read_text(), "the wait is reported")
        process.terminate()
        assert process.wait(5) == 0
    finally:
        os.close(ready)
        fixture.close()
