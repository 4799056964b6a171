"""The batch of the next commit: which rows it holds, and what a refused one leaves for the one after it."""

from __future__ import annotations

from runner.coordinator.jobs.event_json import build_event
from runner.coordinator.storage.pending_batch import PendingBatch
from runner.jobs.job import Job, JobTerms


def make_job(n: int = 1) -> Job:
    return Job(n, f"job-{n}", "h", "default", 50, 0.0, JobTerms(), 2)


def add_event(batch: PendingBatch, job: Job) -> None:
    batch.add_event(job, build_event(job, "progress", 0.0, b"{}"))


def test_a_taken_batch_leaves_an_empty_one() -> None:
    pending, job = PendingBatch(), make_job()
    assert not pending.has_rows()
    pending.insert(job, b"{}")
    add_event(pending, job)
    pending.set_value("name", b"1")
    assert pending.has_rows() and pending.contains(job) and pending.first_event_seq(job) == 1
    batch, events = pending.take_batch()
    assert (batch.inserts, batch.updates, batch.values) == ([(job, b"{}")], [], [("name", b"1")])
    assert [(each.number, [entry.seq for entry in new]) for each, new in events] == [(1, [1])]
    assert not pending.has_rows() and not pending.contains(job) and pending.first_event_seq(job) is None


def test_a_refused_batch_comes_before_what_was_gathered_meanwhile() -> None:
    pending, first, second = PendingBatch(), make_job(1), make_job(2)
    pending.insert(first, b"{}")
    pending.add_output(second, b"1")
    pending.trim(second, 1)
    pending.delete(3)
    for job in (first, second):
        add_event(pending, job)
    pending.set_value("kept", b"old")
    pending.set_value("other", b"1")
    refused = pending.take_batch()
    add_event(pending, first)
    pending.add_output(second, b"2")
    pending.trim(second, 2)
    pending.delete(4)
    pending.set_value("kept", None)
    pending.restore_batch(*refused)
    batch, events = pending.take_batch()
    assert (batch.inserts, batch.updates) == ([(first, b"{}")], [second, first])
    assert [(each.number, [entry.seq for entry in new]) for each, new in events] == [(1, [1, 2]), (2, [1])]
    assert batch.outputs == [(2, b"1"), (2, b"2")]
    assert (batch.trims, batch.deletes) == ([(2, 1), (2, 2)], [3, 4])
    assert dict(batch.values) == {"kept": None, "other": b"1"}


def test_a_job_inserted_again_is_not_updated_by_the_refused_batch() -> None:
    pending, job = PendingBatch(), make_job()
    pending.update(job)
    refused = pending.take_batch()
    pending.insert(job, b"{}")
    pending.update(job)
    pending.restore_batch(*refused)
    batch, _ = pending.take_batch()
    assert (batch.inserts, batch.updates) == ([(job, b"{}")], [])


def test_a_withdrawn_job_is_deleted_without_a_trace() -> None:
    pending, job = PendingBatch(), make_job()
    pending.insert(job, b"{}")
    add_event(pending, job)
    pending.withdraw(job)
    batch, events = pending.take_batch()
    assert (batch.inserts, batch.updates, events, batch.deletes) == ([], [], [], [1])


def test_a_row_set_aside_survives_a_refusal_and_gives_way_to_its_deletion() -> None:
    pending = PendingBatch()
    pending.set_aside(1, "job-1", "why")
    pending.set_aside(2, "job-2", "why")
    assert pending.has_rows()
    refused = pending.take_batch()
    assert refused[0].damaged == [(1, "job-1", "why"), (2, "job-2", "why")] and not pending.has_rows()
    pending.restore_batch(*refused)
    pending.delete(1)
    batch, _ = pending.take_batch()
    assert (batch.damaged, batch.deletes) == ([(2, "job-2", "why")], [1])
