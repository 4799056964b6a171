"""Effect: what GPUs and their driver do to a server, on cards that are made up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.fakes.fake_gpus import GIB, Card, FakeGpus
from tests.fakes.gpu_server import (
    FileGate,
    device_healths,
    device_of,
    explain_job,
    gpus_of,
    kill_job,
    start_on_gpus,
)
from tests.faults.mutate import Change, always, mutated, removed, value
from tests.faults.server_fixture import LiveServer, ServerFixture, until

pytestmark = pytest.mark.slow

A, B = "GPU-a", "GPU-b"
#: Bounds of seconds and minutes that are no part of what is shown, made short in a copy of the program.
SHORT = [
    value("foreign-window", "1.0"),
    value("drain-bound", "2.0"),
]

IMPATIENT = [value("first-look", "1.0")]
#: A reading stays good however old it is.
TRUSTS_OLD = [value("reading-age", "1e9")]
#: What others hold is granted all the same.
TAKES_ALL = [value("foreign-bytes", "0")]
#: What a process held is free as soon as it is dead.
FREE_AT_ONCE = [always("gpus-drain")]
#: What is not given back is taken for what other programs have.
TAKEN_FOR_FOREIGN = [always("taken-if-named"), always("taken-if-not-unnamed")]
#: What the driver says of a device's faults is not heard.
DEAF = [removed("driver-faults")]


@pytest.fixture
def one(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A))


@pytest.fixture
def two(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A), Card(B))


@pytest.fixture
def split(tmp_path: Path) -> FakeGpus:
    """A card in two parts, with room for a third."""
    parts: list[Card | None] = [Card("MIG-1", total=9 * GIB), None, Card("MIG-2", total=9 * GIB)]
    return FakeGpus(tmp_path / "gpus", Card(A, instances=parts))


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[ServerFixture]:
    """A server_fixture whose servers have short bounds."""
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, SHORT))
    yield server_fixture
    server_fixture.close()


@contextmanager
def watched(server: LiveServer) -> Iterator[list[float]]:
    """Asks the server this and that meanwhile: how long each answer took."""
    spent: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=server.url, timeout=10, trust_env=False) as http:
            while not over.wait(0.005):
                for path in ("/v1/devices", "/v1/jobs", "/readyz"):
                    began = time.monotonic()
                    http.get(path)
                    spent.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield spent
    finally:
        over.set()
        thread.join()


def percentile(values: list[float], share: float) -> float:
    assert len(values) >= 100, "too few answers to tell"
    return sorted(values)[int(share * len(values))]


# What is shown, as functions of a server_fixture: with a guard taken out they must fail.


def hang(server_fixture: ServerFixture, two: FakeGpus) -> None:
    """A driver that does not answer holds up nobody, and its GPUs take no work until it does."""
    server = start_on_gpus(server_fixture, two)
    gate = FileGate(server, server_fixture.folder)
    running = gate.submit_running()
    with watched(server) as spent:
        two.hang()
        began = time.monotonic()
        until(lambda: "ok" not in device_healths(server), "it is told", within_s=6.5)
        assert time.monotonic() - began >= 4, "a short silence is none"
        waits = server.submit("take")
        assert server.wait_for_end(server.submit("beside"))["state"] == "succeeded"
        told = explain_job(server, waits)
        assert told["state"] == "queued" and "has not been read" in told["message"], told
        assert len(server_fixture.pids_of_role("probe")) <= 1, "probes do not pile up"
        gate.open()
        assert server.wait_for_end(running)["state"] == "succeeded"
    assert percentile(spent, 0.99) < 0.05, sorted(spent)[-10:]
    two.answer()
    assert server.wait_for_end(waits, within_s=15)["attempt"] == 1
    assert device_healths(server) == ["ok", "ok"]


def foreign(server_fixture: ServerFixture, one: FakeGpus) -> None:
    """What other programs hold is left to them; the job says so, and starts when they go."""
    one.change(A, foreign=12 * GIB)
    server = start_on_gpus(server_fixture, one)
    job_id = server.submit("take-much", {"bytes": ["14GiB"]})
    told = until(
        lambda: (found := explain_job(server, job_id))["reason"] == "waiting_for_memory" and found,
        "it says what it waits for",
    )
    assert "other programs hold 12 GiB" in told["message"], told
    assert server.wait_for_end(server.submit("take", {"bytes": ["2GiB"]}))["state"] == "succeeded"
    assert server.job(job_id)["state"] == "queued"
    one.change(A, foreign=0)
    job = server.wait_for_end(job_id)
    assert (job["state"], job["attempt"], job["output"]["held"]) == ("succeeded", 1, 14 * GIB)


def late_release(server_fixture: ServerFixture, one: FakeGpus) -> None:
    """Bytes that the dead still hold are not granted again; what is really free is."""
    # A kill in mid-kernel leaves some cards at 100 % for good.
    one.change(A, holds=True, utilisation=100)
    server = start_on_gpus(server_fixture, one)
    kill_job(server, FileGate(server, server_fixture.folder).submit_running("take-much", nbytes="14GiB"))
    waits = server.submit("take-much", {"bytes": ["14GiB"]})
    until(lambda: gpus_of(server)[0]["used_bytes"] >= 14 * GIB, "the device still shows them")
    beside = server.wait_for_end(server.submit("take", {"bytes": ["2GiB"]}))
    assert beside["state"] == "succeeded"
    assert server.job(waits)["state"] == "queued", "granted while the dead hold it"
    assert gpus_of(server)[0]["draining_bytes"] >= 14 * GIB
    one.change(A, holds=False)
    job = server.wait_for_end(waits)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)


def never_released(server_fixture: ServerFixture, two: FakeGpus) -> None:
    """A card that does not give back what a dead process had takes no more work, until it does."""
    server = start_on_gpus(server_fixture, two)
    job_id = FileGate(server, server_fixture.folder).submit_running("take-much", nbytes="14GiB")
    at = 0 if device_of(server, job_id) == "gpu0" else 1
    held, other = (A, B) if at == 0 else (B, A)
    until(lambda: gpus_of(server)[at]["level"] == "processes", "the driver names it")
    two.change(held, holds=True)
    kill_job(server, job_id)
    until(lambda: "still hold" in device_healths(server)[at], "it is taken out of work", within_s=6)
    jobs = [server.wait_for_end(server.submit("take", {"bytes": ["1GiB"]})) for _ in range(2)]
    assert {job["output"]["device"] for job in jobs} == {other}
    assert gpus_of(server)[at]["suspect_bytes"] >= 14 * GIB
    two.change(held, holds=False)
    until(lambda: device_healths(server)[at] == "ok", "it is back", within_s=10)
    assert gpus_of(server)[at]["draining_bytes"] == 0


def split_anew(server_fixture: ServerFixture, split: FakeGpus) -> None:
    """An instance that vanished is lost; a new one waits for a restart."""
    server = start_on_gpus(server_fixture, split)
    assert {each["uuid"] for each in gpus_of(server)} == {"MIG-1", "MIG-2"}
    kept = Card("MIG-2", total=9 * GIB)
    split.change(A, instances=[None, Card("MIG-3", total=9 * GIB), kept])
    until(lambda: device_healths(server)[0] == "lost", "it is lost", within_s=5)
    assert device_healths(server)[1] == "ok"
    jobs = [server.wait_for_end(server.submit("take", {"bytes": ["1GiB"]})) for _ in range(2)]
    assert {job["output"]["device"] for job in jobs} == {"MIG-2"}
    assert {each["uuid"] for each in gpus_of(server)} == {"MIG-1", "MIG-2"}


@pytest.mark.serial
def test_a_driver_that_hangs_holds_up_nobody_and_its_gpus_take_no_work(
    server_fixture: ServerFixture, two: FakeGpus
) -> None:
    hang(server_fixture, two)


def test_memory_of_others_is_left_to_them_and_the_job_starts_when_they_go(
    hasty: ServerFixture, one: FakeGpus
) -> None:
    foreign(hasty, one)


def test_bytes_that_the_dead_still_hold_are_not_granted_again(
    server_fixture: ServerFixture, one: FakeGpus
) -> None:
    late_release(server_fixture, one)


def test_a_card_that_never_gives_memory_back_is_taken_out_of_work(
    hasty: ServerFixture, two: FakeGpus
) -> None:
    never_released(hasty, two)


def test_an_instance_that_vanished_is_lost_and_a_new_one_waits_for_a_restart(
    server_fixture: ServerFixture, split: FakeGpus
) -> None:
    split_anew(server_fixture, split)


def test_a_driver_that_hangs_at_the_start_is_told_and_nothing_is_left(tmp_path: Path, one: FakeGpus) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, IMPATIENT))
    try:
        one.hang()
        process, ready, log = server_fixture.spawn("--gpus", "all", env=one.environ(server_fixture.tree))
        os.close(ready)
        assert process.wait(15) != 0
        assert "the driver may hang" in log.read_text() and "--gpus none" in log.read_text()
        until(lambda: not server_fixture.processes(), "nothing is left")
    finally:
        server_fixture.close()


@pytest.mark.parametrize(
    ("guard", "shown", "cards", "fault"),
    [
        (TRUSTS_OLD, hang, "two", "it is told"),
        (TAKES_ALL, foreign, "one", "it says what it waits for"),
        (TAKES_ALL + FREE_AT_ONCE, late_release, "one", "granted while the dead hold it"),
        (SHORT + TAKEN_FOR_FOREIGN, never_released, "two", "it is taken out of work"),
        (DEAF, split_anew, "split", "it is lost"),
    ],
)
def test_without_its_guard_it_would_show(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    guard: list[Change],
    shown: Callable[[ServerFixture, FakeGpus], None],
    cards: str,
    fault: str,
) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, guard))
    try:
        with pytest.raises(AssertionError, match=fault):
            shown(server_fixture, request.getfixturevalue(cards))
    finally:
        server_fixture.close()
