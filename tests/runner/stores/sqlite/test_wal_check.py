"""Logs that SQLite itself has written, then damaged in one place."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from runner.stores.sqlite.wal_check import is_damaged

FRAMES = 40


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Forty commits over an older generation of sixty."""
    path = tmp_path_factory.mktemp("wal") / "x.db"
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.set_wal_hook(lambda *_: apsw.SQLITE_OK)
    db.execute("CREATE TABLE t (a)")
    for number in range(60):
        db.execute("INSERT INTO t VALUES (?)", (number,))
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    for number in range(FRAMES):
        db.execute("INSERT INTO t VALUES (?)", (number,))
    text = Path(f"{path}-wal").read_bytes()
    db.close()
    return text


def frame(number: int) -> int:
    return 32 + number * (24 + 4096)


def test_a_whole_log_with_an_older_generation_behind_is_no_damage(log: bytes) -> None:
    assert len(log) > frame(FRAMES + 10)
    assert not is_damaged(log)


@pytest.mark.parametrize("text", [b"", b"\0" * 32, b"\0" * 5_000])
def test_one_that_was_never_written_is_no_damage(text: bytes) -> None:
    assert not is_damaged(text)


@pytest.mark.parametrize(
    "at",
    [0, 8, 13, 16, 25, frame(0) + 5, frame(0) + 30, frame(20) + 9, frame(20) + 18, frame(FRAMES - 3) + 99],
)
def test_acknowledged_commits_behind_a_flipped_byte_are_damage(log: bytes, at: int) -> None:
    changed = bytearray(log)
    changed[at] ^= 0x55
    assert is_damaged(bytes(changed))


def test_a_commit_that_a_power_cut_tore_is_no_damage(log: bytes) -> None:
    changed = bytearray(log)
    changed[frame(FRAMES - 1) + 100] ^= 0x55
    assert not is_damaged(bytes(changed))
    for cut in (frame(20), frame(20) + 10, frame(20) + 1_000):
        assert not is_damaged(log[:cut])
