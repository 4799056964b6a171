"""Effect: readers of a stream are cut off again and again, and once the server is killed under them."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import httpx2
import pytest

from tests.faults.server_fixture import ServerFixture, SseEvent, parse_events, until

CLIENTS = 5
#: Of each client: fifty in all.
CUTS = 10
CHUNKS = 1_000


class Follower:
    """A client that goes on from its last id whatever happens to its connection."""

    def __init__(self, url: str, job_id: str, seed: int, cuts: int = CUTS) -> None:
        self.path = f"/v1/jobs/{job_id}/events"
        self.url = url
        moments = random.Random(seed)
        self.cuts = [moments.randint(10, 90) for _ in range(cuts)]
        self.seen: list[SseEvent] = []
        self.broken = 0

    def run(self, give_up: threading.Event) -> None:
        """Until `done` came; a cut after so many events, then without cuts."""
        while not (self.seen and self.seen[-1].name == "done"):
            limit = self.cuts[-1] if self.cuts else None
            headers = {"Last-Event-ID": str(self.seen[-1].id)} if self.seen else {}
            try:
                with httpx2.stream(
                    "GET",
                    self.url + self.path,
                    headers=headers,
                    timeout=10,
                    trust_env=False,
                    # Certificates are of no use here, and to load them takes 30 ms of a core each time.
                    verify=False,
                ) as answer:
                    events = (event for event in parse_events(answer.iter_bytes()) if event.id)
                    self.seen.extend(islice(events, limit))
                    del self.cuts[-1:]
            except httpx2.TransportError:
                self.broken += 1
                assert not give_up.wait(0.02), "the stream did not come back"


@pytest.mark.slow
def test_every_event_is_seen_once_in_order_over_cuts_and_a_kill(server_fixture: ServerFixture) -> None:
    gate = server_fixture.folder / "gate"
    server = server_fixture.start()
    job_id = server.submit("talk", {"n": CHUNKS, "gate": str(gate)})
    give_up = threading.Event()
    followers = [Follower(server.url, job_id, seed) for seed in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(follower.run, give_up) for follower in followers]
        try:
            until(lambda: all(len(f.seen) > CHUNKS // 3 for f in followers), "half of it was seen")
            server_fixture.kill(server)
            server = server_fixture.start(port=server.port)
            gate.touch()
            for future in running:
                future.result(timeout=8)
        finally:
            give_up.set()
    stored = [event for event in server.events(job_id) if event.id]
    for follower in followers:
        assert not follower.cuts, "it was cut as often as was meant"
        assert [event.id for event in follower.seen] == list(range(1, len(stored) + 1))
        assert follower.seen == stored
        assert follower.broken >= 1
    last_run = [e.data["chunk"]["number"] for e in stored if e.name == "output"][-CHUNKS:]
    assert last_run == list(range(CHUNKS))


@pytest.mark.slow
def test_what_retention_took_is_told_as_a_gap(server_fixture: ServerFixture) -> None:
    server = server_fixture.start(env={"RUNNER_LIMITS__EVENTS_KEPT": "100"})
    job_id = server.submit("talk", {"n": 600, "pause_s": 0.02})
    assert server.wait_for_end(job_id)["state"] == "succeeded"
    events = list(server.events(job_id, after=3))
    gap = next(event for event in events if event.name == "gap")
    assert gap.id is None
    assert gap.data["from"] == 4
    numbers = [event.id for event in events if event.id]
    assert numbers == list(range(gap.data["to"] + 1, gap.data["to"] + 1 + len(numbers)))
    assert len(numbers) >= 100
    assert events[-1].name == "done"


@pytest.mark.slow
def test_a_cursor_at_the_end_of_an_ended_job_answers_204(server_fixture: ServerFixture) -> None:
    server = server_fixture.start()
    job_id = server.submit("echo", {"a": 1})
    server.wait_for_end(job_id)
    last = list(server.events(job_id))[-1]
    assert last.name == "done"
    answer = server.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(last.id)})
    assert answer.status_code == 204
