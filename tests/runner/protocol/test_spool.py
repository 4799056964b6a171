"""Spool files: whole or moved aside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from runner.protocol.spool import (
    fit_reserve,
    read_spools,
    release_spool,
    remove_drafts,
    remove_spool,
    reserve_spool,
    write_spool,
)
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB; the test is skipped where mounting is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space"), open(folder / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 65536):
            pass


def test_a_reserved_spool_is_written_on_a_full_disk(small_disk: Path) -> None:
    reserve_spool(small_disk, HELLO.name)
    fill(small_disk)
    written = messages(500)
    write_spool(small_disk, HELLO, written)
    (spool,) = read_spools(small_disk)
    assert spool.messages == written


def test_of_too_many_messages_the_oldest_fit_into_the_reserve(small_disk: Path) -> None:
    reserve_spool(small_disk, HELLO.name)
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        write_spool(small_disk, HELLO, messages(2_000))
    fitting = fit_reserve(HELLO, messages(2_000))
    assert 900 < len(fitting) < 1_000
    write_spool(small_disk, HELLO, fitting)
    (spool,) = read_spools(small_disk)
    assert spool.messages == fitting == messages(len(fitting))


def test_a_reserve_leaves_nothing_in_a_shorter_spool(tmp_path: Path) -> None:
    reserve_spool(tmp_path, HELLO.name)
    path = write_spool(tmp_path, HELLO, messages(2))
    assert path.stat().st_size < 3_000 and len(read_spools(tmp_path)[0].messages) == 2


def test_drafts_and_reserves_are_removed(tmp_path: Path) -> None:
    reserve_spool(tmp_path, "cpu-1")
    reserve_spool(tmp_path, "cpu-2")
    release_spool(tmp_path, "cpu-1")
    assert len(list(tmp_path.iterdir())) == 1
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []
