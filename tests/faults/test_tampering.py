"""Effect: handlers that spoil their own process, while what is told of them stays whole."""

from __future__ import annotations

import pytest

from tests.faults.handlers import TAMPERING
from tests.faults.server_fixture import ServerFixture

#: What an attempt may leave in its log, and what one cut line may add.
LOG_BYTES = (1 << 20) + 64 * 1024


@pytest.mark.slow
def test_a_handler_that_spoils_its_process_harms_neither_its_result_nor_the_next_job(
    server_fixture: ServerFixture,
) -> None:
    """All of it is done to one executor, one after the other: whatever it becomes, it answers."""
    server = server_fixture.start(executors=1)
    for how in TAMPERING:
        job = server.wait_for_end(server.submit("tamper", {"how": how}))
        assert job["state"] == "succeeded", (how, job)
        after = server.wait_for_end(server.submit("tamper"))
        assert (after["state"], after["output"]) == ("succeeded", job["output"]), (how, after)
        texts = [event.data["text"] for event in server.events(job["id"]) if event.name == "log"]
        assert sum(map(len, texts)) <= LOG_BYTES, how
    assert server.wait_for_end(server.submit("echo", {"other": "handler"}))["state"] == "succeeded"
