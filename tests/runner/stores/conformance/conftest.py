"""Every store that a test of this folder runs over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.stores.memory import MemoryStore
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import Store, WriteBatch


class Sides:
    """Writes go to one connection and reads to another, as in a server."""

    def __init__(self, path: str) -> None:
        self._writing = SqliteStore(path)
        self._reading = SqliteStore(path, read_only=True)
        self.take_epoch = self._writing.take_epoch
        self.commit = self._writing.commit
        self.current_epoch = self._reading.current_epoch
        self.find_jobs = self._reading.find_jobs
        self.search_jobs = self._reading.search_jobs
        self.load_running_jobs = self._reading.load_running_jobs
        self.load_queued_groups = self._reading.load_queued_groups
        self.load_jobs = self._reading.load_jobs
        self.load_payload = self._reading.load_payload
        self.load_payloads = self._reading.load_payloads
        self.load_events = self._reading.load_events
        self.load_values = self._reading.load_values
        self.count_jobs = self._reading.count_jobs
        self.last_job_number = self._reading.last_job_number
        self.take_damaged = self._reading.take_damaged
        self.find_damaged = self._reading.find_damaged
        self.list_set_aside = self._reading.list_set_aside

    @property
    def stale_updates(self) -> int:
        return self._writing.stale_updates

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


Kept = MemoryStore | SqliteStore | Sides


@pytest.fixture(params=["memory", "sqlite", "sqlite, two connections"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    path = str(tmp_path / "runner.db")
    made: Kept
    if request.param == "memory":
        made = MemoryStore()
    else:
        made = SqliteStore(path) if request.param == "sqlite" else Sides(path)
    yield made
    made.close()


class Writes:
    """A store in its first epoch, with a short word for commits."""

    def __init__(self, store: Kept) -> None:
        self.store = store
        self.epoch = store.take_epoch()

    def __call__(self, batch: WriteBatch) -> None:
        self.store.commit(self.epoch, batch)


@pytest.fixture
def commit(store: Kept) -> Writes:
    return Writes(store)


def is_store(store: Kept) -> Store:
    """The type checker's proof that each is a Store."""
    return store
