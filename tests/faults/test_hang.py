"""Effect: native code that hangs, and native code that only looks as if it did."""

from __future__ import annotations

from datetime import datetime

from tests.faults.harness import House


def test_a_loop_in_c_ends_at_its_deadline_and_a_long_hold_of_the_gil_does_not(house: House) -> None:
    server = house.start()
    hang = server.submit("loop_in_c", timeout_s=1)
    healthy = server.submit("hold_gil", {"s": 3}, timeout_s=6)
    job = server.ended(hang)
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    started, finished = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    assert (finished - started).total_seconds() <= 1 + 2
    job = server.ended(healthy)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), job
