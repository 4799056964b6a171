"""One coordinator a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.coordinator.storage.data_lock import DataLock, LockHolder, read_holder
from runner.errors import RefusedStart


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.acquire()
    first.write_holder(LockHolder(os.getpid(), "http://127.0.0.1:1234"))
    with pytest.raises(RefusedStart, match=f"pid {os.getpid()} at http://127.0.0.1:1234"):
        DataLock(tmp_path).acquire()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.acquire()
    first.release()
    second = DataLock(tmp_path)
    second.acquire()
    second.release()


def test_who_was_killed_is_told_to_the_next_one(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    assert first.acquire() is None
    first.write_holder(LockHolder(1, runtime="/tmp/runner-x"))
    os.close(first._fd)
    last = DataLock(tmp_path).acquire()
    assert last is not None
    assert last.runtime == "/tmp/runner-x"


def test_who_let_go_is_forgotten(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.acquire()
    first.release()
    assert DataLock(tmp_path).acquire() is None


def test_a_shorter_word_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire()
    lock.write_holder(LockHolder(os.getpid(), "http://" + "x" * 500))
    lock.write_holder(LockHolder(os.getpid(), "http://y"))
    with pytest.raises(RefusedStart, match="at http://y;"):
        DataLock(tmp_path).acquire()
    lock.release()


def test_who_holds_the_folder_can_be_asked_without_taking_it(tmp_path: Path) -> None:
    assert read_holder(tmp_path) is None
    lock = DataLock(tmp_path)
    lock.acquire()
    lock.write_holder(LockHolder(7, "http://127.0.0.1:1234"))
    assert read_holder(tmp_path) == LockHolder(7, "http://127.0.0.1:1234")
    lock.release()
    assert read_holder(tmp_path) is None
