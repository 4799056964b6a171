"""Effect: jobs that run together in a batch or in slots: what befalls one costs the others nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mutate import mutated, never
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

HANDLERS = Path(__file__).with_name("shared_run_handlers.py")
GROUP = {"group": "g"}


def start(server_fixture: ServerFixture, *flags: str, **options: Any) -> LiveServer:
    return server_fixture.start("--handlers", str(HANDLERS), *flags, **{"executors": 1, **options})


def warm(server: LiveServer, handler: str = "gathered", **data: Any) -> None:
    """One executor is loaded, so that what comes next finds it idle."""
    assert server.wait_for_end(server.submit(handler, {**GROUP, **data}))["state"] == "succeeded"


def all_ended(server: LiveServer, ids: list[str]) -> list[Document]:
    return [server.wait_for_end(job_id, within_s=20) for job_id in ids]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def spared(server_fixture: ServerFixture, how: str) -> None:
    """One of three spoils the whole batch, whenever it runs."""
    trace = server_fixture.folder / "trace"
    server = start(server_fixture)
    warm(server)
    bad = {**GROUP, "how": how, "trace": str(trace)}
    ids = server.submit_many(
        "gathered", [{**GROUP, "trace": str(trace)}, bad, {**GROUP, "trace": str(trace)}]
    )
    first, worst, last = all_ended(server, ids)
    assert lines(trace)[0] == "batch 3"
    for job in (first, last):
        assert (job["state"], job["output"]) == ("succeeded", [job["id"], 2, 1]), job
        assert job["retries_left"] == 0
        error = server.attempts(job["id"])[0]["error"]
        assert error["code"] == "interrupted" and "none of them is blamed" in error["message"]
    codes = {"segv": "worker_crashed", "raise": "handler_error"}
    assert (worst["state"], worst["error"]["code"], worst["attempt"]) == ("failed", codes[how], 2)


@pytest.mark.parametrize("how", ["segv", "raise"])
def test_only_the_one_that_spoils_a_batch_pays_for_it(server_fixture: ServerFixture, how: str) -> None:
    spared(server_fixture, how)


@pytest.mark.slow
def test_without_the_mark_a_mate_is_blamed(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [never("shared-blame")]))
    try:
        with pytest.raises(AssertionError):
            spared(server_fixture, "raise")
    finally:
        server_fixture.close()


def test_a_killer_in_batches_dies_twice_alone_and_takes_no_mate_with_it(
    server_fixture: ServerFixture,
) -> None:
    server = start(server_fixture)
    warm(server)
    inputs: list[Document] = [{**GROUP, "how": "segv"}] + [GROUP] * 10
    options = {"retries": 5, "backoff": {"kind": "fixed", "base_s": 0.05, "jitter": 0}}
    killer, *good = server.submit_many("gathered", inputs, **options)
    job = server.wait_for_end(killer, within_s=20)
    assert (job["error"]["code"], job["attempt"]) == ("poisoned", 3), job
    for each in all_ended(server, good):
        assert (each["state"], each["retries_left"]) == ("succeeded", 5)


def test_each_outcome_is_its_items_own(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server)
    hows = ["fail", "never", "later", "save"]
    ids = server.submit_many("gathered", [{**GROUP, "how": how} for how in hows], retries=1, backoff=0.05)
    fail, never, later, save = all_ended(server, ids)
    assert (fail["error"]["code"], fail["attempt"]) == ("handler_error", 2)
    assert (never["error"]["code"], never["attempt"]) == ("permanent_error", 1)
    assert (later["state"], later["attempt"], later["retries_left"]) == ("succeeded", 2, 0)
    text = server.http.get(f"/v1/jobs/{save['id']}/files/own.txt").text
    assert text == save["id"]
    assert [one.data["message"] for one in server.events(save["id"]) if one.name == "progress"] == ["of 4"]


def test_a_batch_waits_for_more_and_goes_by_groups(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server)
    ids = [server.submit("gathered", {"group": group}) for group in ("x", "y", "x", "y", "x")]
    outputs = [job["output"][2] for job in all_ended(server, ids)]
    assert outputs == [3, 2, 3, 2, 3]


def test_a_wrong_input_is_refused_by_the_schema_of_an_item(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    answer = server.http.post("/v1/jobs", json={"handler": "gathered", "input": [GROUP]})
    assert answer.status_code == 422, answer.text


def test_a_cancelled_mate_ends_alone(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server)
    go = server_fixture.folder / "go"
    ids = server.submit_many("gathered", [{**GROUP, "how": "go", "go": str(go)}, {**GROUP, "how": "wait"}])
    until(lambda: all(server.job(job_id)["progress"] for job_id in ids), "both run")
    assert server.http.post(f"/v1/jobs/{ids[1]}/cancel", json={"reason": "enough"}).status_code == 202
    assert server.job(ids[0])["state"] == "running"
    go.touch()
    other, mate = all_ended(server, ids)
    assert (other["state"], other["attempt"]) == ("succeeded", 1)
    assert (mate["state"], mate["error"]["message"]) == ("cancelled", "enough")


def test_a_batch_that_hangs_is_ended_and_only_the_one_that_hangs_times_out(
    server_fixture: ServerFixture,
) -> None:
    server = start(server_fixture)
    warm(server)
    ids = server.submit_many("gathered", [GROUP, {**GROUP, "how": "hang"}, GROUP], timeout_s=0.5)
    first, hangs, last = all_ended(server, ids)
    assert (first["state"], last["state"]) == ("succeeded", "succeeded")
    assert (hangs["error"]["code"], hangs["attempt"]) == ("timeout", 2)


def test_a_batch_shrinks_when_memory_runs_out_and_no_job_pays(server_fixture: ServerFixture) -> None:
    trace = server_fixture.folder / "trace"
    server = start(server_fixture, "--gpus", "sim:1x8GiB")
    ids = server.submit_many("batch_of_three", [{"trace": str(trace)}] * 24)
    for job in all_ended(server, ids):
        assert (job["state"], job["retries_left"]) == ("succeeded", 0), job
    sizes = [int(line.split()[1]) for line in lines(trace)]
    assert sizes[:2] == [8, 4] and max(sizes[2:]) <= 4 and max(sizes[3:]) <= 2, sizes


def test_a_killed_server_puts_a_batch_back(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server)
    ids = server.submit_many(
        "gathered", [{**GROUP, "how": "go", "go": str(server_fixture.folder / "go")}] * 3
    )
    until(lambda: all(server.job(job_id)["progress"] for job_id in ids), "all run")
    server_fixture.kill(server)
    (server_fixture.folder / "go").touch()
    server = start(server_fixture)
    for job in all_ended(server, ids):
        assert (job["state"], job["output"][1], job["retries_left"]) == ("succeeded", 2, 0)


def test_slots_run_side_by_side_in_one_executor(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server, "beside")
    ids = server.submit_many("beside", [{"s": 0.8}] * 4)
    until(lambda: all(server.job(job_id)["progress"] for job_id in ids), "all four run at once", within_s=5)
    for job in all_ended(server, ids):
        assert job["output"] == [job["id"], 1]
        texts = [one.data["text"] for one in server.events(job["id"]) if one.name == "log"]
        assert texts == [f"I am {job['id']}"]


def test_slots_cancel_and_time_out_one_by_one(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server, "beside")
    ids = server.submit_many("beside", [{"s": 60}, {"s": 1.5}])
    late = server.submit("beside", {"s": 60}, timeout_s=0.4)
    until(lambda: all(server.job(job_id)["progress"] for job_id in (*ids, late)), "all run")
    assert server.http.post(f"/v1/jobs/{ids[0]}/cancel", json={"reason": "enough"}).status_code == 202
    assert server.wait_for_end(ids[0])["state"] == "cancelled"
    assert server.wait_for_end(late)["error"]["code"] == "timeout"
    other = server.wait_for_end(ids[1])
    assert (other["state"], other["attempt"]) == ("succeeded", 1)


def test_a_slot_that_does_not_end_costs_its_mates_no_retry(server_fixture: ServerFixture) -> None:
    server = start(server_fixture)
    warm(server, "beside")
    stubborn = server.submit("beside", {"s": 60, "how": "stubborn"}, timeout_s=0.3)
    mates = server.submit_many("beside", [{"s": 2.5}] * 2)
    assert server.wait_for_end(stubborn)["error"]["code"] == "timeout"
    for job in all_ended(server, mates):
        assert (job["state"], job["attempt"], job["retries_left"]) == ("succeeded", 2, 0)


def test_a_killer_in_a_slot_is_found_alone(server_fixture: ServerFixture) -> None:
    trace = server_fixture.folder / "trace"
    server = start(server_fixture)
    warm(server, "beside")
    mates = server.submit_many("beside", [{"s": 0.5}] * 2)
    killer = server.submit("beside", {"s": 0.2, "how": "segv", "trace": str(trace)})
    job = server.wait_for_end(killer)
    assert (job["error"]["code"], job["attempt"]) == ("worker_crashed", 2)
    for each in all_ended(server, mates):
        assert (each["state"], each["retries_left"]) == ("succeeded", 0)
    assert json.dumps(lines(trace)) == json.dumps([f"begun {killer} 1", f"begun {killer} 2"])
