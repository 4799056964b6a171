"""Effect: nobody reads what the server logs, as with Ctrl-S in its terminal or a full pipe."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from tests.faults.server_fixture import ServerFixture, until

JOBS = 60


@pytest.mark.timed
def test_a_server_whose_log_is_not_read_works_on_and_stops(server_fixture: ServerFixture) -> None:
    # The fixture numbers its logs by the files that are there.
    fifo = server_fixture.folder / "server-1.log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        server = server_fixture.start()
        assert server.log == fifo
        # Each is logged with more than 100 bytes.
        server.submit_many("stumble", [{"fails": 1, "s": 0}] * JOBS)
        until(lambda: server.counts().get("failed") == JOBS, "all fail", within_s=20)
        assert server.http.get("/readyz").json()["status"] == "ok"
        started = time.monotonic()
        server.process.terminate()
        assert server.process.wait(10) == 0
        # The grace is 1 s, and nothing runs.
        assert time.monotonic() - started <= 3.0
        until(lambda: not server_fixture.processes(), "no process is left", within_s=2)
        assert len(os.read(reader, 65_536)) <= 4096
    finally:
        os.close(reader)
