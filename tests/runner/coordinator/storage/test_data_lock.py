"""One coordinator a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.coordinator.storage.data_lock import DataLock, Holder, holder_of
from runner.errors import RefusedStart


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.take()
    first.tell(Holder(os.getpid(), "http://127.0.0.1:1234"))
    with pytest.raises(RefusedStart, match=f"pid {os.getpid()} at http://127.0.0.1:1234"):
        DataLock(tmp_path).take()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.take()
    first.release()
    second = DataLock(tmp_path)
    second.take()
    second.release()


def test_who_was_killed_is_told_to_the_next_one(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    assert first.take() is None
    first.tell(Holder(1, runtime="/tmp/runner-x"))
    os.close(first._fd)
    last = DataLock(tmp_path).take()
    assert last is not None
    assert last.runtime == "/tmp/runner-x"


def test_who_let_go_is_forgotten(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.take()
    first.release()
    assert DataLock(tmp_path).take() is None


def test_a_shorter_word_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.take()
    lock.tell(Holder(os.getpid(), "http://" + "x" * 500))
    lock.tell(Holder(os.getpid(), "http://y"))
    with pytest.raises(RefusedStart, match="at http://y;"):
        DataLock(tmp_path).take()
    lock.release()


def test_who_holds_the_folder_can_be_asked_without_taking_it(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    lock = DataLock(tmp_path)
    lock.take()
    lock.tell(Holder(7, "http://127.0.0.1:1234"))
    assert holder_of(tmp_path) == Holder(7, "http://127.0.0.1:1234")
    lock.release()
    assert holder_of(tmp_path) is None
