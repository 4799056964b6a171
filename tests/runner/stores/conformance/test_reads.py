from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from runner.jobs.event import Event
from runner.jobs.job import JobTerms
from runner.jobs.job_query import JobQuery
from runner.stores.queued_groups import GroupKey, group_key, to_millis
from runner.stores.store import WriteBatch
from tests.runner.stores.conformance.conftest import Kept, Writes
from tests.runner.stores.store_data import chunk, events, inserts, job

JOBS = [
    job(1, state="succeeded", handler="paint", tags=("a", "b")),
    job(2, state="failed", reason="timeout", queue="slow"),
    job(3, state="running", attempt=1, tags=("b",)),
    job(4, handler="paint", queue="slow", reason="scheduled"),
    job(5, state="cancelled", reason="cancelled"),
    job(6, tags=("c",)),
]

QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [6, 5, 4, 3, 2, 1]),
    ({"order": "asc"}, [1, 2, 3, 4, 5, 6]),
    ({"limit": 2}, [6, 5]),
    ({"limit": 2, "cursor": 5}, [4, 3]),
    ({"limit": 2, "cursor": 2, "order": "asc"}, [3, 4]),
    ({"cursor": 1}, []),
    ({"ids": [JOBS[1].id, JOBS[4].id, JOBS[4].id, "unknown"]}, [5, 2]),
    ({"ids": []}, []),
    ({"states": ["queued"]}, [6, 4]),
    ({"states": ["failed", "cancelled", "succeeded", "failed"]}, [5, 2, 1]),
    ({"states": ["failed", "cancelled", "succeeded"], "limit": 2, "order": "asc"}, [1, 2]),
    ({"states": []}, []),
    ({"reasons": ["timeout", "cancelled"]}, [5, 2]),
    ({"handlers": ["paint", "other"]}, [4, 1]),
    ({"queues": ["slow"]}, [4, 2]),
    ({"queues": ["slow"], "handlers": ["paint"], "states": ["queued", "failed"]}, [4]),
    ({"tags": ["b"]}, [3, 1]),
    ({"tags": ["a", "b", "c"], "states": ["queued", "succeeded"]}, [6, 1]),
    ({"tags": []}, []),
    ({"created_after": 2.0, "created_before": 5.0}, [4, 3]),
    ({"finished_after": 1.5}, [5, 2]),
    ({"finished_before": 5.5}, [2, 1]),
    ({"finished_before": 100.0, "order": "asc", "limit": 2}, [1, 2]),
    ({"states": ["queued"], "finished_before": 100.0}, []),
    ({"handlers": ["x' OR 1=1 --"]}, []),
]


@pytest.mark.parametrize(("filters", "expected"), QUERIES, ids=[str(one) for one, _ in QUERIES])
def test_a_query_gives_what_matches_in_order(
    store: Kept, commit: Writes, filters: dict[str, Any], expected: list[int]
) -> None:
    commit(inserts(*JOBS))
    assert [one.number for one in store.find_jobs(JobQuery(**filters))] == expected


def test_jobs_are_found_by_their_tenants(store: Kept, commit: Writes) -> None:
    commit(
        inserts(
            job(1),
            job(2, state="failed", terms=JobTerms(tenant="acme")),
            job(3, terms=JobTerms(tenant="acme")),
            job(4, terms=JobTerms(tenant="b")),
        )
    )
    for tenants, states, expected in (
        (["acme"], None, [3, 2]),
        (["acme", "b"], ["queued"], [4, 3]),
        (["", "c"], None, []),
        ([], None, []),
    ):
        found = store.find_jobs(JobQuery(tenants=tenants, states=states))
        assert [one.number for one in found] == expected


INPUT = (
    '{"a":{"b":[1,{"c":"é"}],"1":true,"n":null},"x":1.5,"one":1,"yes":true,"s":"1","k e":"v","0":[[7]]}'
).encode()
PATHS: list[tuple[str, bytes, bool]] = [
    ("a.b.0", b"1", True),
    ("a.b.0", b"1.0", True),
    ("a.b.0", b"2", False),
    ("a.b.1.c", '"é"'.encode(), True),
    ("a.b.1.c", b'"\\u00e9"', True),
    ("a.b.2", b"1", False),
    ("a.1", b"true", True),
    ("a.1", b"1", False),
    ("a.n", b"null", True),
    ("a.missing", b"null", False),
    ("x", b"1.5", True),
    ("x", b'"1.5"', False),
    ("one", b"true", False),
    ("yes", b"true", True),
    ("yes", b"false", False),
    ("s", b'"1"', True),
    ("s", b"1", False),
    ("k e", b'"v"', True),
    ("0.0.0", b"7", True),
    ("a", b'{"b":1}', False),
    ('a"]', b"1", False),
    ("a\\", b"1", False),
    ("", b"1", False),
    ("x.y", b"1", False),
    ("a.b.4294967296", b"1", False),
    ("a.b." + "9" * 190, b"1", False),
    ("a.b.0000000000", b"1", True),
]


@pytest.mark.parametrize(("path", "wanted", "matches"), PATHS)
def test_a_path_inside_the_input_is_compared_by_json_type(
    store: Kept, commit: Writes, path: str, wanted: bytes, matches: bool
) -> None:
    commit(WriteBatch(inserts=[(job(1), INPUT), (job(2), b"[]"), (job(3), b"3")]))
    assert [one.number for one in store.find_jobs(JobQuery(inputs=[(path, wanted)]))] == [1] * matches


def test_all_paths_of_a_query_must_match(store: Kept, commit: Writes) -> None:
    commit(WriteBatch(inserts=[(job(1), b'{"a":1,"b":2}'), (job(2), b'{"a":1,"b":3}')]))
    query = JobQuery(inputs=[("a", b"1"), ("b", b"3")], states=["queued", "running"])
    assert [one.number for one in store.find_jobs(query)] == [2]


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize(("rows_max", "limit_s"), [(7, math.inf), (1, math.inf), (10_000, 0.0)])
def test_a_bounded_search_continued_finds_what_one_list_finds(
    store: Kept, commit: Writes, order: Literal["desc", "asc"], rows_max: int, limit_s: float
) -> None:
    rows = [(job(n, state="failed" if n % 2 else "queued"), b'{"a":%d}' % (n % 3)) for n in range(1, 101)]
    commit(WriteBatch(inserts=rows))
    query = JobQuery(inputs=[("a", b"1")], states=["failed"], order=order, limit=4)
    seen: list[int] = []
    pages = 0
    while True:
        page = store.search_jobs(query, rows_max=rows_max, limit_s=limit_s)
        pages += 1
        seen += [one.number for one in page.jobs]
        assert len(page.jobs) <= 4
        if len(page.jobs) == 4:
            query.cursor = page.jobs[-1].number
        elif page.stopped_at is None:
            break
        else:
            assert query.cursor != page.stopped_at
            query.cursor = page.stopped_at
    whole = store.find_jobs(JobQuery(inputs=[("a", b"1")], states=["failed"], order=order, limit=500))
    assert seen == [one.number for one in whole] and len(seen) == 17
    assert pages > 4


def test_a_search_looks_at_no_more_than_its_rows(store: Kept, commit: Writes) -> None:
    commit(WriteBatch(inserts=[(job(n), b'{"a":1}' if n == 1 else b"{}") for n in range(1, 51)]))
    page = store.search_jobs(JobQuery(inputs=[("a", b"1")]), rows_max=20, limit_s=math.inf)
    assert (page.jobs, page.stopped_at) == ([], 31)
    page = store.search_jobs(JobQuery(inputs=[("a", b"1")]), rows_max=50, limit_s=math.inf)
    assert [one.number for one in page.jobs] == [1]
    assert store.search_jobs(JobQuery(inputs=[("b", b"1")]), rows_max=99, limit_s=math.inf).stopped_at is None


def test_pages_joined_by_cursors_give_every_job_once(store: Kept, commit: Writes) -> None:
    commit(inserts(*(job(n, state="failed" if n % 3 else "queued") for n in range(1, 51))))
    seen: list[int] = []
    cursor = None
    while page := store.find_jobs(JobQuery(limit=7, cursor=cursor, states=["failed", "queued"])):
        seen += [one.number for one in page]
        cursor = page[-1].number
    assert seen == list(range(50, 0, -1))


def test_running_gives_what_runs_by_number(store: Kept, commit: Writes) -> None:
    also = job(7, state="running", attempt=2)
    commit(inserts(also, *reversed(JOBS)))
    assert store.load_running_jobs() == [JOBS[2], also]
    commit(WriteBatch(updates=[job(3, state="succeeded", attempt=1)]))
    assert store.load_running_jobs() == [also]


def test_jobs_gives_those_of_these_numbers(store: Kept, commit: Writes) -> None:
    commit(inserts(*JOBS))
    assert store.load_jobs([6, 2, 99, 2]) == [JOBS[1], JOBS[5]]
    assert store.load_jobs([]) == []


def told(store: Kept, now: float) -> dict[GroupKey, tuple[Any, ...]]:
    """All that `queued` says, in a form that compares."""
    return {
        lot.key: (
            sorted(lot.ready),
            {why: sorted(zip(m.times_ms, m.numbers, strict=True)) for why, m in lot.delayed.items()},
            sorted(zip(lot.start_deadlines.times_ms, lot.start_deadlines.numbers, strict=True)),
            lot.oldest_ready_at,
        )
        for lot in store.load_queued_groups(now)
    }


def test_queued_takes_any_moment_that_is_stored(store: Kept, commit: Writes) -> None:
    limited = JobTerms(queue_timeout_s=1e300)
    moments = [2.6e11, 9.2e15, 1e18, 1e300, math.inf]
    commit(inserts(*(job(n, ready_at=at, reason="scheduled") for n, at in enumerate(moments, start=1))))
    commit(inserts(job(6, ready_at=-1e300), job(7, ready_at=5.0, terms=limited)))
    late = [(to_millis(at), n) for n, at in enumerate(moments, start=1)]
    assert [at for at, _ in late] == [260_000_000_000_000, *[2**53] * 4]
    assert told(store, 10.0) == {group_key(job(1)): ([6, 7], {"scheduled": late}, [(2**53, 7)], -1e300)}


def test_queued_gives_numbers_by_lot(store: Kept, commit: Writes) -> None:
    at = 1_763_817_834.123456
    large = JobTerms(vram_bytes=1 << 30)
    commit(
        inserts(
            job(1, ready_at=at),
            job(2, ready_at=at + 60, reason="scheduled"),
            job(3, ready_at=at + 0.0004, reason="retry_backoff", attempt=1),
            job(4, ready_at=at - 5, terms=JobTerms(queue_timeout_s=7.5)),
            job(5, ready_at=at - 5, terms=JobTerms(queue_timeout_s=7.5), started_at=1.0),
            job(6, terms=large),
            job(7, priority=51),
            job(8, queue="q"),
            job(9, handler="paint"),
            job(10, state="running", attempt=1),
            job(11, state="failed"),
            job(12, ready_at=at + 1, reason="scheduled", terms=JobTerms(queue_timeout_s=1.0)),
        )
    )
    delayed = {
        "retry_backoff": [(to_millis(at + 0.0004), 3)],
        "scheduled": [(to_millis(at + 1), 12), (to_millis(at + 60), 2)],
    }
    limits = [(to_millis(at + 1 + 1.0), 12), (to_millis(at - 5 + 7.5), 4)]
    assert told(store, at) == {
        GroupKey("default", "echo", 50, None): ([1, 4, 5], delayed, limits, at - 5),
        GroupKey("default", "echo", 50, 1 << 30): ([6], {}, [], 0.0),
        GroupKey("default", "echo", 51, None): ([7], {}, [], 0.0),
        GroupKey("q", "echo", 50, None): ([8], {}, [], 0.0),
        GroupKey("default", "paint", 50, None): ([9], {}, [], 0.0),
    }


def test_jobs_of_other_traits_are_of_another_lot(store: Kept, commit: Writes) -> None:
    told_apart = [
        JobTerms(timeout_s=600.0),
        JobTerms(timeout_s=60.0),
        JobTerms(model="sdxl"),
        JobTerms(model="sdxl", size="1024,1024"),
        JobTerms(group="sdxl"),
        JobTerms(tenant="sdxl"),
        JobTerms(model='"]\x7f\'"', size="ä,☃"),
    ]
    jobs = [job(n, terms=terms) for n, terms in enumerate(told_apart, start=1)]
    alike = [job(n + 20, terms=terms) for n, terms in enumerate(told_apart, start=1)]
    commit(inserts(*jobs, *alike, job(41, terms=JobTerms(timeout_s=599.0, tags=("x",)))))
    expected = {group_key(one): [one.number, one.number + 20] for one in jobs}
    expected[group_key(jobs[0])].append(41)
    assert {lot.key: sorted(lot.ready) for lot in store.load_queued_groups(100.0)} == expected


def test_queued_follows_what_becomes_of_a_job(store: Kept, commit: Writes) -> None:
    commit(inserts(*(job(n) for n in range(1, 8))))
    commit(
        WriteBatch(
            updates=[
                job(1, state="running", attempt=1),
                job(2, attempt=1, ready_at=20.0, reason="retry_backoff"),
                job(3, priority=60, terms=JobTerms(vram_bytes=5)),
            ],
            deletes=[4],
        )
    )
    commit(WriteBatch(updates=[job(1, attempt=1, terms=JobTerms(queue_timeout_s=1.0))]))
    assert told(store, 10.0) == {
        GroupKey("default", "echo", 50, None): (
            [1, 5, 6, 7],
            {"retry_backoff": [(to_millis(20.0), 2)]},
            [(to_millis(1.0), 1)],
            0.0,
        ),
        GroupKey("default", "echo", 60, 5): ([3], {}, [], 0.0),
    }


def test_queued_gives_as_many_as_there_are(store: Kept, commit: Writes) -> None:
    commit(inserts(*(job(n, ready_at=float(n % 2), reason="scheduled") for n in range(1, 40_001))))
    ((ready, delayed, _, oldest),) = told(store, 0.5).values()
    assert (ready, oldest) == (list(range(2, 40_001, 2)), 0.0)
    assert delayed == {"scheduled": [(to_millis(1.0), n) for n in range(1, 40_001, 2)]}


def test_queued_waits_for_no_time_without_a_reason(store: Kept, commit: Writes) -> None:
    """Jobs that were accepted while the clock was a day ahead are ready, and have been since now."""
    day = 86_400.0
    limited = JobTerms(queue_timeout_s=5.0)
    commit(inserts(job(1, ready_at=day), job(2, ready_at=day, terms=limited), job(3, ready_at=1.0)))
    commit(inserts(job(4, ready_at=day, reason="scheduled")))
    limit = [(to_millis(day + 5.0), 2)]
    assert told(store, 10.0) == {
        group_key(job(1)): ([1, 2, 3], {"scheduled": [(to_millis(day), 4)]}, limit, 1.0)
    }


def test_counts_are_by_queue_and_state(store: Kept, commit: Writes) -> None:
    commit(inserts(*JOBS, job(7)))
    commit(WriteBatch(updates=[job(7, state="running", attempt=1)], deletes=[6]))
    assert store.count_jobs() == {
        ("default", "succeeded"): 1,
        ("slow", "failed"): 1,
        ("default", "running"): 2,
        ("slow", "queued"): 1,
        ("default", "cancelled"): 1,
    }


def test_events_come_in_order_after_a_cursor(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1), job(2)))
    commit(WriteBatch(events=[chunk(1, 1, 3), chunk(2, 1, 1)]))
    commit(WriteBatch(events=[chunk(1, 4, 4), chunk(1, 5, 8)]))
    for after in range(9):
        assert store.load_events(1, after, 1_000) == events(after + 1, 8)
    assert store.load_events(3, 0, 1_000) == []


def test_events_stop_at_the_byte_limit_but_never_before_the_first(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1)))
    commit(WriteBatch(events=[chunk(1, 1, 2, 100), chunk(1, 3, 4, 100), chunk(1, 5, 9, 100)]))
    assert store.load_events(1, 0, 0) == events(1, 1, 100)
    assert store.load_events(1, 0, 350) == events(1, 3, 100)
    assert store.load_events(1, 3, 100) == events(4, 4, 100)


def test_events_in_many_chunks_are_reached_by_going_on(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1)))
    commit(WriteBatch(events=[chunk(1, seq, seq) for seq in range(1, 1_301)]))
    seen: list[Event] = []
    while more := store.load_events(1, len(seen), 1_000_000):
        seen += more
    assert seen == events(1, 1_300)


def test_a_trim_drops_only_whole_chunks_before_the_number(store: Kept, commit: Writes) -> None:
    commit(inserts(job(1), job(2)))
    commit(WriteBatch(events=[chunk(1, 1, 3), chunk(1, 4, 6), chunk(1, 7, 9), chunk(2, 1, 3)]))
    commit(WriteBatch(trims=[(1, 6)]))
    assert store.load_events(1, 0, 1_000) == events(4, 9)
    commit(WriteBatch(trims=[(1, 7)]))
    assert store.load_events(1, 0, 1_000) == events(7, 9) and store.load_events(2, 0, 1_000) == events(1, 3)
