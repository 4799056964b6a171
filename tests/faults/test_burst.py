"""Effect: far more jobs are posted at once than the line may hold."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import NamedTuple

import pytest

from tests.faults.server_fixture import Document, LiveServer, ServerFixture

pytestmark = pytest.mark.serial

POSTS = 2_000
CONNECTIONS = 50
WITHIN_S = 2.0
QUEUE_MAX = 1_200
#: Longer than any answer may take; a busy machine needs more than the burst itself.
LIMIT_S = 20.0


class BurstResponse(NamedTuple):
    status: int
    retry_after: str | None
    body: Document


async def burst(server: LiveServer) -> tuple[list[BurstResponse], float]:
    """All answers to a burst over many connections, and the seconds that sending it took."""
    body = json.dumps({"handler": "echo", "input": {}, "queue": "burst"}).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request, each = head.encode() + body, POSTS // CONNECTIONS
    began = time.monotonic()
    links = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS)]
    for _, writer in links:
        # One behind the other, without waiting for an answer: nobody can post faster.
        writer.write(request * each)
    sent_s = time.monotonic() - began
    answers = await asyncio.gather(*(_answers(reader, each) for reader, _ in links))
    for _, writer in links:
        writer.close()
    return [answer for of_one in answers for answer in of_one], sent_s


async def _answers(reader: asyncio.StreamReader, count: int) -> list[BurstResponse]:
    found = []
    for _ in range(count):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        text = await reader.readexactly(int(headers["content-length"]))
        found.append(BurstResponse(int(lines[0].split()[1]), headers.get("retry-after"), json.loads(text)))
    return found


def test_a_burst_is_bounded_told_when_to_come_back_and_what_was_accepted_is_kept(
    server_fixture: ServerFixture,
) -> None:
    server = server_fixture.start(env={"RUNNER_LIMITS__QUEUED": str(QUEUE_MAX)})
    assert server.http.put("/v1/queues/burst", json={"paused": True}).status_code == 200
    answers, sent_s = asyncio.run(asyncio.wait_for(burst(server), LIMIT_S))
    assert sent_s <= WITHIN_S
    accepted = {answer.body["id"] for answer in answers if answer.status == 202}
    refused = [answer for answer in answers if answer.status != 202]
    assert len(accepted) == QUEUE_MAX
    assert Counter((answer.status, answer.body["code"]) for answer in refused).keys() <= {
        (429, "queue_full"),
        (503, "unavailable"),
    }
    assert all(int(answer.retry_after or 0) >= 1 for answer in refused)
    one = {"handler": "echo", "input": {}, "queue": "burst"}
    (fate,) = server.http.post("/v1/jobs/bulk", json={"jobs": [one]}).json()["jobs"]
    assert (fate["status"], fate["code"]) == (429, "queue_full")
    server_fixture.kill(server)
    server = server_fixture.start()
    assert {job["id"] for job in server.jobs(queue="burst")} == accepted
