"""Spool files: whole or moved aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from runner.protocol.spool import read_spools, remove_spool, write_spool
from runner.protocol.worker import AttemptEnded, Hello

HELLO = Hello(worker_protocol.PROTOCOL, "secret", "node", "worker", "cpu-1", 7, 3)


def messages(count: int) -> list[bytes]:
    return [
        worker_protocol.encode(AttemptEnded(f"job-{n}", 1, 1, None, output=b"x" * 1000)) for n in range(count)
    ]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = messages(10_000)
    path = write_spool(tmp_path, HELLO, written)
    (spool,) = read_spools(tmp_path)
    assert (spool.path, spool.hello.name, spool.messages) == (path, "cpu-1", written)
    remove_spool(spool)
    assert read_spools(tmp_path) == []


def test_token_stays_out_of_the_file(tmp_path: Path) -> None:
    path = write_spool(tmp_path, HELLO, [])
    assert b"secret" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def test_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert read_spools(tmp_path / "none") == []


@pytest.mark.parametrize("kept", [0, 3, 20, 60, -1, -4, -8])
def test_torn_file_is_moved_aside(tmp_path: Path, kept: int) -> None:
    path = write_spool(tmp_path, HELLO, messages(3))
    path.write_bytes(path.read_bytes()[:kept])
    other = write_spool(tmp_path, Hello(1, "", "node", "worker", "cpu-2", 8, 3), messages(1))
    assert [spool.path for spool in read_spools(tmp_path)] == [other]
    assert path.with_name("cpu-1.spool.bad").exists()


@pytest.mark.parametrize(
    "content", [b"\x00\x00\x00\x01\x90" * 2, b"hello\n" * 99, b"\xff" * 64, b"\x00" * 64]
)
def test_foreign_file_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.spool").write_bytes(content)
    assert read_spools(tmp_path) == []
    assert (tmp_path / "x.spool.bad").read_bytes() == content
