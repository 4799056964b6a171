"""Effect: random histories, played to a store and to plain dictionaries that must stay equal to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runner.jobs.event import Event
from runner.jobs.job import Job, State
from runner.jobs.job_query import JobQuery
from runner.stores.memory import MemoryStore
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import EventChunk, WriteBatch
from tests.runner.stores.store_data import job

NUMBERS = st.integers(1, 6)
STATES: st.SearchStrategy[State] = st.sampled_from(["queued", "running", "succeeded", "failed", "cancelled"])
QUEUES = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from([b"1", b'"x"', b"{}"])


class History(RuleBasedStateMachine):
    """Jobs 1 to 6 come, change and go; `restart` drops the connection as a crash would."""

    def make(self) -> MemoryStore | SqliteStore:
        return MemoryStore()

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make()
        self.epoch = self.store.take_epoch()
        self.jobs: dict[int, Job] = {}
        self.payloads: dict[tuple[int, str], bytes] = {}
        self.logs: dict[int, list[EventChunk]] = {}
        self.named: dict[str, bytes] = {}
        self.last_n = self.stale = 0

    def commit(self, batch: WriteBatch) -> None:
        self.store.commit(self.epoch, batch)

    @rule(state=STATES, queue=QUEUES, body=TEXTS, attempt=st.integers(0, 2), skip=st.integers(1, 3))
    def insert(self, state: State, queue: str, body: bytes, attempt: int, skip: int) -> None:
        self.last_n += skip
        new = job(self.last_n, state=state, queue=queue, attempt=attempt)
        self.commit(WriteBatch(inserts=[(new, body)]))
        self.jobs[new.number] = new
        self.payloads[new.number, "input"] = body

    @rule(n=NUMBERS, state=STATES, attempt=st.integers(0, 3), output=TEXTS)
    def update(self, n: int, state: State, attempt: int, output: bytes) -> None:
        known = self.jobs.get(n)
        changed = job(n, state=state, attempt=attempt, queue=known.queue if known else "a")
        self.commit(WriteBatch(updates=[changed], outputs=[(n, output)]))
        if known is None or known.attempt > attempt:
            self.stale += 1
        else:
            self.jobs[n] = changed
            self.payloads[n, "output"] = output

    @rule(n=NUMBERS, count=st.integers(1, 4))
    def log(self, n: int, count: int) -> None:
        if n not in self.jobs:
            return
        chunks = self.logs.setdefault(n, [])
        first = chunks[-1].last_seq + 1 if chunks else 1
        events = [Event(seq, "log", b"%d" % seq) for seq in range(first, first + count)]
        chunks.append(EventChunk(n, first, first + count - 1, msgspec.msgpack.encode(events)))
        self.commit(WriteBatch(events=[chunks[-1]]))

    @rule(n=NUMBERS, seq=st.integers(1, 12))
    def trim(self, n: int, seq: int) -> None:
        self.commit(WriteBatch(trims=[(n, seq)]))
        chunks = self.logs.get(n, [])
        self.logs[n] = [chunk for chunk in chunks if chunk.last_seq >= seq]

    @rule(n=NUMBERS)
    def delete(self, n: int) -> None:
        self.commit(WriteBatch(deletes=[n]))
        self.jobs.pop(n, None)
        self.logs.pop(n, None)
        self.payloads = {key: text for key, text in self.payloads.items() if key[0] != n}

    @rule(name=st.sampled_from(["x/1", "x/2", "y"]), value=st.none() | TEXTS)
    def name(self, name: str, value: bytes | None) -> None:
        self.commit(WriteBatch(values=[(name, value)]))
        self.named.pop(name, None)
        if value is not None:
            self.named[name] = value

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.epoch = self.store.take_epoch()

    @invariant()
    def equal(self) -> None:
        ordered = [self.jobs[n] for n in sorted(self.jobs)]
        assert self.store.find_jobs(JobQuery(order="asc", limit=500)) == ordered
        assert self.store.load_running_jobs() == [one for one in ordered if one.state == "running"]
        assert sorted(n for lot in self.store.load_queued_groups(1e9) for n in lot.ready) == [
            one.number for one in ordered if one.state == "queued"
        ]
        assert self.store.count_jobs() == Counter((one.queue, one.state) for one in ordered)
        assert self.store.load_values("x/") == {k: v for k, v in self.named.items() if k != "y"}
        assert (self.store.last_job_number(), self.store.stale_updates) == (self.last_n, self.stale)
        for n in range(1, 7):
            for which in ("input", "output"):
                assert self.store.load_payload(n, which) == self.payloads.get((n, which))
            seqs = [
                seq for chunk in self.logs.get(n, []) for seq in range(chunk.first_seq, chunk.last_seq + 1)
            ]
            assert [event.seq for event in self.store.load_events(n, 0, 10_000)] == seqs

    def teardown(self) -> None:
        self.store.close()


class SqliteHistory(History):
    """The same over a file."""

    def make(self) -> SqliteStore:
        self.folder = TemporaryDirectory()
        return SqliteStore(str(Path(self.folder.name) / "runner.db"))

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


SMALL = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
History.TestCase.settings = SMALL
SqliteHistory.TestCase.settings = SMALL
TestMemory = History.TestCase
TestSqlite = pytest.mark.slow(SqliteHistory.TestCase)
