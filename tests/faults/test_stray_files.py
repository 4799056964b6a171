"""Effect: a server dies after a delete is durable and before its files are removed."""

from __future__ import annotations

import uuid

import pytest

from tests.faults.server_fixture import ServerFixture, until


@pytest.mark.slow
def test_files_of_a_deleted_job_that_a_dead_server_left_are_removed(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    ended, waits = server.submit("echo"), server.submit("echo", delay_s=600)
    server.wait_for_end(ended)
    server_fixture.kill(server)
    # As they lie when the row is gone, and those of jobs that are there.
    folders = {
        job_id: server_fixture.data / "files" / job_id / "1" for job_id in (ended, waits, str(uuid.uuid4()))
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_bytes(b"x")
    server_fixture.start()
    (*kept, stray) = folders.values()
    until(lambda: not stray.parent.exists(), "the stray folder is gone")
    assert all((folder / "file").exists() for folder in kept)
