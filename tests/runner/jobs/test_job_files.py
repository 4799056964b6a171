from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.jobs import job_files
from runner.jobs.ids import new_id


def write(files_dir: Path, job_id: str = "job", attempt: int = 1) -> str:
    file_id = new_id()
    job_files.write_file(files_dir, job_id, attempt, file_id, [b"abc", memoryview(b"de")])
    return file_id


def links(files_dir: Path) -> list[str]:
    return sorted(os.path.basename(path) for path in files_dir.glob("by-id/*/*"))


def test_a_file_lies_under_its_attempt_and_is_found_by_its_id(tmp_path: Path) -> None:
    file_id = new_id()
    written = job_files.write_file(tmp_path, "job", 2, file_id, [b"abc", memoryview(b"de")])
    assert written == (5, hashlib.sha256(b"abcde").hexdigest())
    path = tmp_path / "job" / "2" / file_id
    assert path.read_bytes() == b"abcde" and list(path.parent.iterdir()) == [path]
    assert job_files.file_path(tmp_path, "job", 2, file_id) == path
    assert job_files.find_path(tmp_path, file_id) == path


def test_a_folder_may_be_moved_with_its_index(tmp_path: Path) -> None:
    file_id = write(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert job_files.find_path(tmp_path / "new", file_id) == tmp_path / "new" / "job" / "1" / file_id


def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("gone")

    file_id = new_id()
    with pytest.raises(OSError, match="gone"):
        job_files.write_file(tmp_path, "job", 1, file_id, chunks())
    assert list((tmp_path / "job" / "1").iterdir()) == [] and links(tmp_path) == []
    assert job_files.find_path(tmp_path, file_id) is None


def test_a_removed_file_leaves_the_index(tmp_path: Path) -> None:
    file_id, other = write(tmp_path), write(tmp_path)
    job_files.remove_file(tmp_path, "job", 1, file_id)
    job_files.remove_file(tmp_path, "job", 1, file_id)
    assert job_files.find_path(tmp_path, file_id) is None
    assert links(tmp_path) == [other] and job_files.find_path(tmp_path, other) is not None


def test_an_entry_without_its_file_is_no_file(tmp_path: Path) -> None:
    file_id = write(tmp_path)
    (tmp_path / "job" / "1" / file_id).unlink()
    assert job_files.find_path(tmp_path, file_id) is None


def test_a_file_is_added_to_the_index_once(tmp_path: Path) -> None:
    file_id = write(tmp_path)
    job_files.add_to_index(tmp_path, "job", 1, file_id)
    assert links(tmp_path) == [file_id]


@pytest.mark.parametrize(
    "text", ["", "-", ".", "..", "../x", "a/b", "by-id/x", ".complete", "a.b", "\0", "\u00e9", "a" * 65]
)
def test_what_is_no_id_is_looked_for_nowhere(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    assert not job_files.is_file_id(text)
    assert job_files.find_path(tmp_path, text) is None
