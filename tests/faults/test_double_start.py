"""Effect: two servers on one data folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, never, removed
from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

JOBS = 100
NO_LOCK = [removed("data-folder-lock")]
#: Neither the transactions nor the look once a second heed the epoch.
NO_EPOCH = [never("epoch-in-transactions"), never("epoch-each-second")]


def second_is_refused(server_fixture: ServerFixture, server: LiveServer) -> None:
    """The second one ends at once and says who holds the folder."""
    started = time.monotonic()
    process, ready, log = server_fixture.spawn()
    try:
        until(lambda: process.poll() is not None, "the second server ends", within_s=3)
        assert time.monotonic() - started <= 2.0
        assert process.returncode == 2
        assert str(server.pid) in log.read_text()
        assert os.read(ready, 100) == b""
    finally:
        process.kill()
        process.wait()
        os.close(ready)


def older_stops_writing(server_fixture: ServerFixture, server: LiveServer) -> None:
    """With the lock file gone a second server starts; the store's epoch then fences the older one,
    which is at work, and the newer one ends what the older could not."""
    ids = server.submit_many("nap", [{"s": 0.05}] * JOBS)
    until(lambda: server.counts().get("succeeded"), "the older one is at work")
    (server_fixture.data / "lock").unlink()
    newer = server_fixture.start()
    until(lambda: server.process.poll() is not None, "the older server ends", within_s=2)
    assert server.process.returncode == 3
    until(lambda: newer.counts().get("succeeded") == len(ids), "the newer one ends all", within_s=6)


@pytest.mark.serial
def test_a_second_server_is_refused_and_the_first_goes_on(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    ids = server.submit_many("nap", [{"s": 0.005}] * JOBS)
    second_is_refused(server_fixture, server)
    until(lambda: server.counts().get("succeeded") == len(ids), "all jobs of the first end well")


def test_with_the_lock_file_deleted_the_older_server_is_fenced(server_fixture: ServerFixture) -> None:
    older_stops_writing(server_fixture, server_fixture.start())


def test_without_the_lock_a_second_server_starts(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_LOCK))
    try:
        with pytest.raises(AssertionError, match="the second server ends"):
            second_is_refused(server_fixture, server_fixture.start())
    finally:
        server_fixture.close()


def test_without_the_epoch_the_older_server_keeps_its_devices(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, NO_EPOCH))
    try:
        with pytest.raises(AssertionError, match="still holds"):
            older_stops_writing(server_fixture, server_fixture.start())
    finally:
        server_fixture.close()
