"""Effect: the store's file is removed or replaced under a running server, which notices and ends."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, replaced
from tests.faults.server_fixture import ServerFixture, until

pytestmark = pytest.mark.slow

#: The look each second, the stop without a grace, and what a busy machine adds.
NOTICED_S = 12.0


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[ServerFixture]:
    made = ServerFixture(tmp_path)
    yield made
    made.close()


def lose_name(database: Path, way: str) -> None:
    if way == "removed":
        database.unlink()
        return
    other = database.with_name("other")
    shutil.copyfile(database, other)
    os.replace(other, database)


def store_is_saved(fixture: ServerFixture, way: str) -> None:
    """What was accepted before and after the file lost its name is in the copy that the server leaves."""
    server = fixture.start()
    before = server.submit("echo", {"a": 1})
    server.wait_for_end(before)
    later = server.submit("echo", {"a": 2}, delay_s=3600)
    database = fixture.data / "runner.db"
    lose_name(database, way)
    after = server.submit("echo", {"a": 3}, delay_s=3600)
    assert server.exit_code(within_s=NOTICED_S) == 2
    log = server.log.read_text()
    assert f"{database.name} was {way}" in log and "Traceback" not in log
    saved = re.search(r"saved in (\S+?):", log)
    assert saved is not None, log
    assert os.stat(saved[1]).st_mode & 0o777 == 0o600
    for name in ("runner.db", "runner.db-wal", "runner.db-shm"):
        database.with_name(name).unlink(missing_ok=True)
    os.rename(saved[1], database)
    again = fixture.start()
    assert {job["id"]: job["state"] for job in again.jobs()} == {
        before: "succeeded",
        later: "queued",
        after: "queued",
    }


@pytest.mark.parametrize("way", ["removed", "replaced"])
def test_a_store_that_lost_its_name_is_saved_and_the_server_ends(fixture: ServerFixture, way: str) -> None:
    store_is_saved(fixture, way)


def test_a_store_that_nobody_looks_at_is_noticed(tmp_path: Path) -> None:
    """The twin: without the look the server goes on, and all that it accepts is gone at its end."""
    fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [replaced("store-file-is-named", "pass")]))
    try:
        server = fixture.start()
        (fixture.data / "runner.db").unlink()
        job_id = server.submit("echo", {"a": 1})
        server.wait_for_end(job_id)
        ready = until(lambda: server.http.get("/readyz"), "ready")
        assert ready.json()["status"] == "ok"
        fixture.kill(server)
        again = fixture.start()
        assert again.http.get(f"/v1/jobs/{job_id}").status_code == 404
    finally:
        fixture.close()
