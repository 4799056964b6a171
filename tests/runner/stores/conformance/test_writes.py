from __future__ import annotations

import pytest

from runner.errors import Fenced, RunnerError
from runner.jobs.job import AttemptRecord, FileRecord, Job, JobError, JobTerms
from runner.jobs.job_query import JobQuery
from runner.jobs.retry import Backoff
from runner.stores.damaged_row import DAMAGED, DamagedRow
from runner.stores.store import WriteBatch
from tests.runner.stores.conformance.conftest import Kept, Writes
from tests.runner.stores.store_data import chunk, events, inserts, job

ALL = JobQuery(order="asc", limit=500)


def found(store: Kept) -> list[int]:
    return [one.number for one in store.find_jobs(ALL)]


def full_job() -> Job:
    return job(
        7,
        state="failed",
        attempt=3,
        terms=JobTerms(12.5, 60.0, 2, Backoff("list", steps_s=(1.0, 2.0)), 1 << 33, ("a", "ü"), b'{"k":1}'),
        reason="timeout",
        priority=90,
        ready_at=8.25,
        started_at=8.5,
        failures=2,
        deaths=1,
        applied_seq=4,
        last_seq=9,
        first_seq=3,
        progress=b'{"done":1}',
        error=JobError("timeout", "too slow", True, {"limit_s": 12.5}),
        output_bytes=3,
        attempts=[AttemptRecord(3, "cpu-1", ["cpu"], 8.5, 9.0, 0.1, 0.4, 1 << 30, JobError("timeout", "x"))],
        files=[FileRecord("f", "a.png", 3, "00", "image/png", 3)],
        cancel_reason="why",
    )


def test_a_job_comes_back_as_it_was(store: Kept, commit: Writes) -> None:
    commit(inserts(full_job()))
    assert store.find_jobs(ALL) == [full_job()]


def test_a_stored_job_does_not_change_with_its_writers_object(store: Kept, commit: Writes) -> None:
    mine = job(1)
    commit(inserts(mine))
    mine.state = "running"
    mine.attempts.append(AttemptRecord(1, "w", [], 0.0))
    store.find_jobs(ALL)[0].priority = 1
    assert store.find_jobs(ALL) == [job(1)]


def test_an_update_changes_the_job_and_not_its_input(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1), body=b'{"x":1}'))
    commit(WriteBatch(updates=[job(1, state="running", attempt=1)]))
    assert store.find_jobs(ALL)[0].state == "running"
    assert store.load_payload(1, "input") == b'{"x":1}'


def test_payloads_of_several_jobs_come_together(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1), body=b'"\xc3\xa4, 1"'))
    commit(inserts(job(2), body=b"[]"))
    commit(WriteBatch(updates=[job(2, state="succeeded", attempt=1)], outputs=[(2, b"null")]))
    assert store.load_payloads([2, 1, 9], "input") == {1: b'"\xc3\xa4, 1"', 2: b"[]"}
    assert store.load_payloads([1, 2], "output") == {2: b"null"}
    assert store.load_payloads([], "input") == {}


def test_an_update_of_an_old_attempt_changes_nothing_and_is_counted(store: Kept, commit: Writes) -> None:
    now = job(1, state="running", attempt=2)
    commit(inserts(now, job(2)))
    late = WriteBatch(
        updates=[job(1, state="succeeded", attempt=1), job(2, state="running", attempt=1)],
        outputs=[(1, b"1"), (2, b"2")],
        events=[chunk(1, 1, 1), chunk(2, 1, 1)],
    )
    commit(late)
    assert store.find_jobs(ALL) == [now, job(2, state="running", attempt=1)]
    assert store.load_payload(1, "output") is None and store.load_payload(2, "output") == b"2"
    assert store.load_events(1, 0, 1000) == [] and store.load_events(2, 0, 1000) == events(1, 1)
    assert store.stale_updates == 1


def test_an_update_of_an_unknown_job_makes_none(store: Kept, commit: Writes) -> None:
    commit(WriteBatch(updates=[job(5, attempt=1)], events=[chunk(5, 1, 1)]))
    assert found(store) == [] and store.load_events(5, 0, 100) == [] and store.stale_updates == 1


def test_the_same_attempt_may_be_updated_again(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1)))
    for heard in (1, 2):
        commit(WriteBatch(updates=[job(1, state="running", attempt=1, applied_seq=heard)]))
    assert store.find_jobs(ALL)[0].applied_seq == 2 and store.stale_updates == 0


def test_a_batch_may_be_committed_twice(store: Kept, commit: Writes) -> None:
    batch = WriteBatch(
        inserts=[(job(1, state="succeeded", attempt=1, tags=("t",)), b"1")],
        outputs=[(1, b"2")],
        events=[chunk(1, 1, 3)],
        values=[("k", b"v")],
    )
    commit(batch)
    commit(batch)
    assert found(store) == [1] and store.load_events(1, 0, 1000) == events(1, 3)
    assert store.load_payload(1, "output") == b"2"


@pytest.mark.parametrize("clash", [job(1, id="other"), job(2, id=job(1).id)], ids=["number", "id"])
def test_a_batch_with_a_taken_name_leaves_nothing(store: Kept, commit: Writes, clash: Job) -> None:
    commit(inserts(job(1)))
    batch = inserts(job(3), clash)
    batch.values.append(("k", b"v"))
    with pytest.raises(RunnerError):
        commit(batch)
    assert found(store) == [1] and store.last_job_number() == 1 and store.load_values("") == {}


def test_a_later_epoch_fences_the_earlier_one(store: Kept, commit: Writes) -> None:
    assert store.take_epoch() == commit.epoch + 1 == store.current_epoch()
    with pytest.raises(Fenced):
        commit(inserts(job(1)))
    assert found(store) == []


def test_an_epoch_that_was_never_given_is_fenced(store: Kept, commit: Writes) -> None:
    with pytest.raises(Fenced):
        store.commit(commit.epoch + 1, inserts(job(1)))


def test_an_output_is_replaced_by_a_later_one(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1)))
    for text in (b"1", '"é😀"'.encode()):
        commit(WriteBatch(outputs=[(1, text)]))
    assert store.load_payload(1, "output") == '"é😀"'.encode()


def test_a_payload_that_is_no_text_fails_no_batch(store: Kept, commit: Writes) -> None:
    commit(WriteBatch(inserts=[(job(1), b"\xff\xfe"), (job(2), b"2")]))
    assert found(store) == [1, 2] and store.load_payload(2, "input") == b"2"


def test_there_is_no_payload_of_an_unknown_job(store: Kept, commit: Writes) -> None:
    assert store.load_payload(1, "input") is None and store.load_payload(1, "output") is None


def test_a_deleted_job_leaves_nothing_behind(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1, tags=("t",)), job(2, tags=("t",))))
    commit(WriteBatch(outputs=[(1, b"1")], events=[chunk(1, 1, 2)]))
    commit(WriteBatch(deletes=[1]))
    assert found(store) == [2] and store.load_events(1, 0, 100) == []
    assert store.load_payload(1, "input") is None and store.load_payload(1, "output") is None
    assert [one.number for one in store.find_jobs(JobQuery(tags=["t"]))] == [2]


def test_a_number_is_never_given_again(store: Kept, commit: Writes) -> None:
    assert store.last_job_number() == 0
    commit(inserts(job(4), job(9), job(5)))
    commit(WriteBatch(deletes=[9]))
    assert store.last_job_number() == 9
    commit(inserts(job(6)))
    assert store.last_job_number() == 9


def test_values_are_set_replaced_and_removed(store: Kept, commit: Writes) -> None:
    commit(WriteBatch(values=[("queue/a", b"1"), ("queue/b", b"2"), ("queue_", b"3"), ("é", b"")]))
    commit(WriteBatch(values=[("queue/a", None), ("queue/b", b"4"), ("none", None)]))
    assert store.load_values("queue/") == {"queue/b": b"4"}
    assert store.load_values("") == {"queue/b": b"4", "queue_": b"3", "é": b""}


def test_an_empty_batch_changes_nothing(store: Kept, commit: Writes) -> None:
    commit(WriteBatch())
    assert found(store) == [] and store.count_jobs() == {}


def test_a_row_set_aside_is_found_by_its_id_alone(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1), job(2), job(3, state="running", attempt=1)))
    commit(WriteBatch(damaged=[(1, job(1).id, "why"), (3, job(3).id, "because")]))
    rows = [DamagedRow(1, job(1).id, "why", "", DAMAGED), DamagedRow(3, job(3).id, "because", "", DAMAGED)]
    assert found(store) == [2] and store.load_running_jobs() == []
    assert store.find_jobs(JobQuery(ids=[job(1).id])) == []
    assert [list(group.ready) for group in store.load_queued_groups(10.0)] == [[2]]
    assert store.count_jobs() == {("default", "queued"): 1, ("", DAMAGED): 2}
    assert store.find_damaged(job(1).id) == rows[0] and store.find_damaged(job(2).id) is None
    assert store.list_set_aside(0, 4, 10) == rows
    assert store.list_set_aside(1, 4, 10) == rows[1:] and store.list_set_aside(0, 4, 1) == rows[:1]
    commit(WriteBatch(deletes=[1]))
    assert store.find_damaged(job(1).id) is None and store.last_job_number() == 3
