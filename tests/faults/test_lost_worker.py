"""Effect: a worker dies with jobs in line at its executor, or its link breaks while they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.failpoint_sweep import FailpointCase, FailpointLane, has_ended
from tests.faults.server_fixture import ServerFixture, until

QUICK = 200


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[FailpointLane]:
    lane = FailpointLane(tmp_path)
    yield lane
    lane.close()


@pytest.mark.slow
def test_no_attempt_number_is_given_twice_when_a_worker_dies(server_fixture: ServerFixture) -> None:
    """The job that kills the worker stands in the middle of a line of quick ones: nobody was told that it
    had started."""
    marks = server_fixture.folder / "marks"
    marks.mkdir()
    server = server_fixture.start(executors=1)
    plain = {"marks": str(marks)}
    server.submit_many("work", [plain] * QUICK)
    until(lambda: server.counts().get("succeeded") == QUICK, "quick ones end", within_s=10)
    ids = server.submit_many("work", [plain] * 20 + [plain | {"kill_worker": True}] + [plain] * 20)
    until(lambda: server.counts().get("succeeded") == QUICK + len(ids), "all end", within_s=15)
    runs = Counter(path.name.rsplit(".", 1)[0] for path in marks.iterdir())
    assert {key: times for key, times in runs.items() if times > 1} == {}
    assert server.job(ids[20])["attempt"] == 2


@pytest.mark.slow
def test_jobs_run_on_over_a_cut_link_and_lost_orders_are_given_again(lane: FailpointLane) -> None:
    """The order to run a second job is lost with the link, while the first one runs."""
    gate = lane.server_fixture.folder / "gate"
    first = lane.submit("work", gate=str(gate))
    lane.await_job(first, lambda job: bool(job["progress"]), "it runs")
    (worker,) = lane.server_fixture.pids_of_role("worker")
    lane.arm(FailpointCase("coordinator>worker.RunAttempts", "cut"))
    second = lane.submit("work")
    job = lane.await_job(second, has_ended, "the second one ends")
    assert lane.has_fired() and job["state"] == "succeeded"
    gate.touch()
    job = lane.await_job(first, has_ended, "the first one ends")
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert sorted(path.name for path in lane.marks.iterdir()) == sorted([f"{first}.1.1", f"{second}.1.1"])
    assert lane.server_fixture.pids_of_role("worker") == [worker]
