"""A start waits for room on its disk, says so, and gives up with the exit code that asks for a later try."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import pytest

from runner.coordinator.storage.room_wait import wait_for_room
from runner.errors import RefusedStart, StartDiskFull, StoreFull, StoreUnavailable


class Disk:
    """A disk that is full for a number of writes."""

    def __init__(self, full_for: float, error: Callable[[], Exception]) -> None:
        self.full_for, self.error = full_for, error
        self.tries = 0

    async def write(self) -> int:
        self.tries += 1
        if self.tries <= self.full_for:
            raise self.error()
        return 7


def no_room() -> Exception:
    return StoreFull("/data/runner.db: the disk is full")


def out_of_space() -> Exception:
    return OSError(errno.ENOSPC, "No space left on device", "/data/spool")


def play(disk: Disk, *, wait_s: float, report_s: float = 10.0, is_stopped: bool = False) -> int:
    async def main() -> int:
        give_up = asyncio.Event()
        if is_stopped:
            give_up.set()
        return await wait_for_room(
            disk.write, give_up=give_up, wait_s=wait_s, retry_s=0.001, report_s=report_s
        )

    return asyncio.run(main())


@pytest.mark.parametrize("error", [no_room, out_of_space])
def test_the_start_goes_on_once_there_is_room(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert play(Disk(5, error), wait_s=60.0) == 7
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("no room to start") and "60 s" in first and "room again" in last


def test_a_disk_that_stays_full_ends_the_start_for_now() -> None:
    with pytest.raises(StartDiskFull, match=r"/data/runner\.db.*make room") as refused:
        play(Disk(float("inf"), no_room), wait_s=0.02)
    assert refused.value.exit_code == 75 and isinstance(refused.value, RefusedStart)


def test_the_wait_is_reported_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartDiskFull):
        play(Disk(float("inf"), no_room), wait_s=0.05, report_s=0.0)
    assert len(caplog.records) > 2


def test_a_stop_ends_the_wait() -> None:
    disk = Disk(float("inf"), no_room)
    with pytest.raises(StartDiskFull):
        play(disk, wait_s=60.0, is_stopped=True)
    assert disk.tries == 1


@pytest.mark.parametrize("error", [StoreUnavailable("locked"), OSError(errno.EACCES, "denied")])
def test_no_other_error_is_waited_for(error: Exception) -> None:
    disk = Disk(float("inf"), lambda: error)
    with pytest.raises(type(error)):
        play(disk, wait_s=60.0)
    assert disk.tries == 1
