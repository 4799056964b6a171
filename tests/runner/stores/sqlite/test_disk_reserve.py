"""On a full disk jobs can be deleted, and only that, until there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runner.errors import StoreFull
from runner.jobs.job_query import JobQuery
from runner.stores.sqlite.disk_reserve import RESERVE_BYTES, DiskReserve
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
from tests.runner.stores.store_data import inserts, job


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 14 MiB; the test is skipped where mounting is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_jobs_can_be_deleted_from_a_full_disk(small_disk: Path) -> None:
    store = SqliteStore(str(small_disk / "runner.db"))
    epoch = store.take_epoch()
    body = b'"' + b"x" * 100_000 + b'"'
    number = 0
    with pytest.raises(StoreFull):
        while True:
            number += 1
            store.commit(epoch, inserts(job(number), body=body))
            with suppress(StoreFull):
                store.checkpoint_if_due()
    # What withdraws a refused job is no deletion, and does not use the reserve up.
    with pytest.raises(StoreFull):
        store.commit(epoch, WriteBatch(deletes=[number], values=[("v", b"x" * 4_000_000)]))
    assert (small_disk / "runner.db-reserve").stat().st_size == RESERVE_BYTES
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    for deleted in range(1, 11):
        store.commit(epoch, WriteBatch(deletes=[deleted]))
    kept = [one.number for one in store.find_jobs(JobQuery(order="asc", limit=500))]
    assert kept == list(range(11, number))
    with pytest.raises(StoreFull, match="only deletions"):
        store.commit(epoch, inserts(job(number + 1)))
    filler.unlink()
    store.close()


def test_a_reserve_is_kept_again_when_there_is_room(tmp_path: Path) -> None:
    reserve = DiskReserve(str(tmp_path / "runner.db"))
    assert not reserve.release() and not reserve.is_released
    assert reserve.keep() and reserve.release()
    assert reserve.is_released and list(tmp_path.iterdir()) == []
    assert reserve.keep() and not reserve.is_released


def test_a_folder_without_room_keeps_none(tmp_path: Path) -> None:
    reserve = DiskReserve(str(tmp_path / "absent" / "runner.db"))
    assert not reserve.keep()
