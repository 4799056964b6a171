"""Pure and over HTTP: tickets open streams, for a while."""

from __future__ import annotations

import time

import httpx2
import pytest

from api.http.tickets import TICKET_S, Tickets
from runner.errors import Unauthorized
from runner.formats.timestamps import parse_rfc3339
from tests.api.fake_coordinator import running_front

NOW = 1_800_000_000.0
UNTIL = int(NOW) + 60
KEY = b"sealed with this"


def refused(ticket: str, job_id: str | None = "a", *, key: bytes = KEY, now: float = NOW) -> str:
    with pytest.raises(Unauthorized) as error:
        Tickets(key).check(ticket, job_id, now)
    return error.value.message


def test_a_ticket_opens_what_it_is_for_up_to_its_end() -> None:
    tickets = Tickets(KEY)
    for now in (NOW, float(UNTIL)):
        tickets.check(tickets.issue(UNTIL, "a"), "a", now)
        tickets.check(tickets.issue(UNTIL, None), "a", now)
        tickets.check(tickets.issue(UNTIL, None), None, now)


def test_the_refusal_says_why() -> None:
    own = Tickets(KEY).issue(UNTIL, "a")
    assert "expired" in refused(own, now=UNTIL + 1)
    assert "another job" in refused(own, "b")
    assert "another job" in refused(own, None)
    assert "was not issued by this server" in refused(own, key=b"another")


def test_no_letter_of_a_ticket_can_be_changed() -> None:
    own = Tickets(KEY).issue(UNTIL, "a")
    for at in range(len(own) - 1):
        other = "A" if own[at] != "A" else "B"
        assert "not issued by" in refused(own[:at] + other + own[at + 1 :])


@pytest.mark.parametrize("text", ["", "A", "A" * 43, "ticket", "\xff", "\u20ac", "a b", "==", "A" * 9999])
def test_what_is_no_ticket_is_refused(text: str) -> None:
    assert "not issued by" in refused(text)


def test_a_browser_reads_a_stream_by_its_ticket_alone() -> None:
    with running_front(token="secret") as front, httpx2.Client(base_url=front.url, timeout=10) as http:
        job, other = front.fake.new(), front.fake.new()
        front.fake.finish(job)
        assert http.post("/v1/tickets", json={"job_id": job.id}).status_code == 401
        token = {"authorization": "Bearer secret"}
        answer = http.post("/v1/tickets", json={"job_id": job.id}, headers=token)
        given = answer.json()
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        assert TICKET_S - 5 <= parse_rfc3339(given["expires_at"]) - time.time() <= TICKET_S
        assert given["url"] == f"/v1/jobs/{job.id}/events?ticket={given['ticket']}"
        read = http.get(given["url"])
        assert read.status_code == 200 and "event: done" in read.text
        assert http.get(given["url"], headers={"last-event-id": "1"}).status_code == 204
        refusal = http.get(f"/v1/jobs/{other.id}/events", params={"ticket": given["ticket"]})
        assert (refusal.status_code, refusal.json()["code"]) == (401, "unauthorized")
        assert "another job" in refusal.json()["detail"]
        whole = http.post("/v1/tickets", headers=token).json()
        assert whole["url"] is None
        assert http.get(f"/v1/jobs/{job.id}/events?ticket={whole['ticket']}").status_code == 200


def test_the_document_tells_that_a_ticket_is_enough_for_streams_alone() -> None:
    with running_front(token="secret") as front, httpx2.Client(base_url=front.url, timeout=10) as http:
        document = http.get("/openapi.json", headers={"authorization": "Bearer secret"}).json()
    assert document["components"]["securitySchemes"]["ticket"]["in"] == "query"
    enough = [
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if {"ticket": []} in operation.get("security", [])
    ]
    assert enough == ["/v1/jobs/{job_id}/events"]


def test_a_ticket_is_asked_for_in_the_right_words() -> None:
    with running_front() as front, httpx2.Client(base_url=front.url, timeout=10) as http:
        job = front.fake.new()
        missing = http.post("/v1/tickets", json={"job_id": job.id[:-1] + "f"})
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        for body, pointer in (({"job_id": 1}, "/job_id"), ({"job_id": "x"}, "/job_id"), ({"ttl": 1}, "/ttl")):
            fault = http.post("/v1/tickets", json=body)
            assert (fault.status_code, fault.json()["errors"][0]["pointer"]) == (422, pointer)


def test_without_a_token_a_ticket_is_given_and_not_looked_at() -> None:
    with running_front() as front, httpx2.Client(base_url=front.url, timeout=10) as http:
        job = front.fake.new()
        front.fake.finish(job)
        given = http.post("/v1/tickets", json={"job_id": job.id}).json()
        for ticket in (given["ticket"], "of an earlier time"):
            assert http.get(f"/v1/jobs/{job.id}/events", params={"ticket": ticket}).status_code == 200
