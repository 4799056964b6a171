"""Lots: which queued jobs are known by their number alone, and in what order they go."""

from __future__ import annotations

import math
from array import array

from gpu.job_class import JobClass
from runner.coordinator.queue.queued_index import QueuedIndex
from runner.jobs.job import Job, JobTerms
from runner.stores.queued_groups import GroupKey, StoredGroup, to_millis


def job(n: int, *, vram_bytes: int | None = None, ready_at: float = 1.0, **changes: object) -> Job:
    made = Job(n, f"job-{n}", "h", "q", 50, 1.0, JobTerms(vram_bytes=vram_bytes), 2, ready_at=ready_at)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Known:
    """Handlers that are there: the class does not depend on the jobs' own need."""

    def __init__(self) -> None:
        self.versions = {"h": "1"}

    def class_of(self, key: GroupKey) -> JobClass | None:
        version = self.versions.get(key.handler)
        if version is None:
            return None
        return JobClass(key.queue, key.handler, version, "", key.priority, 0, 0)


def test_lots_of_one_class_go_by_number() -> None:
    known = Known()
    lots = QueuedIndex(known.class_of)
    for n in (5, 1, 4, 3, 2):
        lots.add_ready(job(n, vram_bytes=n % 2))
    (cls,) = lots.classes()
    assert (lots.count_ready(cls), lots.first_numbers(cls, 3)) == (5, [1, 2, 3])
    lots.remove_first(cls, [1, 2, 3], 7.0)
    assert lots.first_numbers(cls, 9) == [4, 5] and {lot.ready_since for lot in lots} == {7.0}
    lots.remove_first(cls, [4, 5], 8.0)
    assert lots.classes() == [] and list(lots) == [] and lots.first_numbers(cls, 9) == []


def test_a_job_is_found_where_it_waits_and_nowhere_else() -> None:
    lots = QueuedIndex(Known().class_of)
    ready, later = job(1), job(2, ready_at=9.0, reason="retry_backoff")
    lots.add_ready(ready)
    lots.add_delayed(later)
    assert [lots.phase_of(one) for one in (ready, later, job(3))] == ["behind", "delayed", None]
    assert lots.phase_of(job(1, priority=3)) is None
    assert [lots.remove(one) for one in (later, later, ready, ready)] == [True, False, True, False]
    assert list(lots) == []


def test_a_moment_that_no_calendar_has_is_a_moment_all_the_same() -> None:
    lots = QueuedIndex(Known().class_of)
    late = [job(n, ready_at=at) for n, at in enumerate((2.6e11, 1e16, 1e300, math.inf), start=1)]
    for one in late:
        lot = lots.add_delayed(one)
    assert lots.take_due(lot, to_millis(1e12) - 1, 9) == [1]
    assert [lots.phase_of(one) for one in late] == [None, "delayed", "delayed", "delayed"]
    assert [lots.remove(one) for one in late] == [False, True, True, True]


def test_delayed_ones_come_out_at_their_moment_and_ripen() -> None:
    lots = QueuedIndex(Known().class_of)
    for n, at in ((1, 5.0), (2, 3.0), (3, 4.0)):
        lot = lots.add_delayed(job(n, ready_at=at))
    assert lot.next_due_ms == 3_000
    assert lots.take_due(lot, 4_000, 1) == [2] and lots.take_due(lot, 4_000, 9) == [3]
    lots.make_ready(lot.key, 3)
    assert lots.phase_of(job(3, ready_at=4.0)) == "behind" and lot.next_due_ms == 5_000
    assert lots.take_due(lot, 5_000, 9) == [1] and lot.next_due_ms is None


def test_what_the_store_holds_is_taken_in() -> None:
    lots = QueuedIndex(Known().class_of)
    stored = StoredGroup(GroupKey("q", "h", 50, None))
    stored.ready = array("q", [3, 1, 2])
    stored.add(4, to_millis(9.0), 0, "scheduled")
    stored.add_ready_time(2.0)
    lots.load_group(stored)
    (cls,) = lots.classes()
    (lot,) = lots
    assert (lots.first_numbers(cls, 9), lot.ready_since, lot.next_due_ms) == ([1, 2, 3], 2.0, 9_000)
    only_later = StoredGroup(GroupKey("other", "h", 50, None))
    only_later.add(5, to_millis(9.0), 0, "")
    lots.load_group(only_later)
    assert lots.phase_of(job(5, ready_at=9.0, queue="other")) == "delayed"


def test_classes_follow_the_handlers() -> None:
    known = Known()
    known.versions.clear()
    lots = QueuedIndex(known.class_of)
    lots.add_ready(job(1))
    assert lots.classes() == []
    known.versions["h"] = "2"
    lots.reclassify({"h"})
    (cls,) = lots.classes()
    assert (cls.version, lots.count_ready(cls)) == ("2", 1)
    known.versions.clear()
    lots.reclassify({"h"})
    assert lots.classes() == [] and lots.remove(job(1))


def test_only_groups_of_changed_handlers_are_classified_again() -> None:
    known, looked_up = Known(), list[str]()

    def class_of(key: GroupKey) -> JobClass | None:
        looked_up.append(key.queue)
        return known.class_of(key)

    lots = QueuedIndex(class_of)
    known.versions["other"] = "1"
    for n in range(100):
        lots.add_ready(job(n, queue=f"q{n}"))
    lots.add_ready(job(100, queue="changed", handler="other"))
    looked_up.clear()
    known.versions["other"] = "2"
    lots.reclassify({"other"})
    assert looked_up == ["changed"] and len(lots.classes()) == 101
    assert [(cls.queue, lots.count_ready(cls)) for cls in lots.classes() if cls.version == "2"] == [
        ("changed", 1)
    ]


def test_a_lost_number_is_dropped_from_its_lot() -> None:
    lots = QueuedIndex(Known().class_of)
    for n in (1, 2):
        lots.add_ready(job(n))
    lots.add_ready(job(3, queue="other"))
    lots.discard_number(2)
    lots.discard_number(3)
    assert [lot.key.queue for lot in lots] == ["q"]


def test_jobs_are_counted_by_tenant() -> None:
    lots = QueuedIndex(Known().class_of)
    for n, tenant in enumerate(("a", "a", "", "b"), 1):
        lots.add_ready(job(n, terms=JobTerms(tenant=tenant)))
    lots.add_delayed(job(9, terms=JobTerms(tenant="b"), ready_at=50.0))
    assert lots.count_by_tenant() == {"a": 2, "": 1, "b": 2}


def test_a_job_of_which_only_the_number_is_known_is_removed_wherever_it_waits() -> None:
    lots = QueuedIndex(Known().class_of)
    lots.add_ready(job(1))
    lots.add_ready(job(2))
    lots.add_delayed(job(3, ready_at=9.0, reason="retry_backoff", priority=60))
    assert not lots.discard_number(4)
    assert lots.discard_number(3) and [lot.key.priority for lot in lots] == [50]
    assert lots.discard_number(1) and not lots.discard_number(1)
    assert lots.discard_number(2) and list(lots) == []
