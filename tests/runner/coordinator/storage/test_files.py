from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runner.coordinator.storage.files import FileStore
from runner.errors import NotFound
from runner.jobs.ids import new_id
from runner.jobs.job import FileRecord, Job
from tests.runner.stores.store_data import job

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def save(files: FileStore, job_id: str, attempt: int = 1, content: bytes = b"x") -> FileRecord:
    return run(files.save(job_id, attempt, "a.txt", [content], "text/plain"))


def older_file(files_dir: Path, job_id: str, attempt: int = 1) -> Path:
    """A file as versions without an index left it."""
    path = files_dir / job_id / str(attempt) / new_id()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"old")
    return path


def links(files_dir: Path) -> set[str]:
    return {path.name for path in files_dir.glob("by-id/??/*")}


def test_a_saved_file_is_found_by_its_id(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    record = save(files, "job", 2, b"content")
    assert record == FileRecord(
        record.id, "a.txt", 7, hashlib.sha256(b"content").hexdigest(), "text/plain", 2
    )
    path = tmp_path / "job" / "2" / record.id
    assert path.read_bytes() == b"content"
    assert files.path("job", record) == run(files.find(record.id)) == path


def test_with_a_whole_index_no_folder_of_a_job_is_searched(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    run(files.build_index())
    record = save(files, "job")
    # A search of the folders would find this one.
    unlisted = older_file(tmp_path, "other")
    assert run(files.find(record.id)) is not None
    assert run(files.find(unlisted.name)) is None


def test_files_of_older_versions_are_found_before_and_after_they_are_in_the_index(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    paths = [older_file(tmp_path, f"job-{number}", number) for number in (1, 2, 3)]
    assert [run(files.find(path.name)) for path in paths] == paths and links(tmp_path) == set()
    run(files.build_index())
    assert links(tmp_path) == {path.name for path in paths}
    assert [run(files.find(path.name)) for path in paths] == paths
    assert run(files.find(new_id())) is None


def test_an_index_that_was_cut_off_is_completed_by_the_next_start(tmp_path: Path) -> None:
    first, second = older_file(tmp_path, "job"), older_file(tmp_path, "job")
    run(FileStore(tmp_path).build_index())
    (tmp_path / "by-id" / ".complete").unlink()
    (tmp_path / "by-id" / second.name[-2:] / second.name).unlink()
    files = FileStore(tmp_path)
    run(files.build_index())
    assert links(tmp_path) == {first.name, second.name}


def test_a_whole_index_is_not_built_again(tmp_path: Path) -> None:
    run(FileStore(tmp_path).build_index())
    unlisted = older_file(tmp_path, "job")
    run(FileStore(tmp_path).build_index())
    assert unlisted.name not in links(tmp_path)


def test_what_is_no_saved_file_stays_out_of_the_index(tmp_path: Path) -> None:
    path = older_file(tmp_path, "job")
    for name in ("half.tmp", "deeper/file", "../stray"):
        other = path.parent / name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(b"")
    (tmp_path / "job" / "notes").mkdir()
    (tmp_path / "job" / "notes" / "file").write_bytes(b"")
    run(FileStore(tmp_path).build_index())
    assert links(tmp_path) == {path.name}


def test_a_removed_job_leaves_neither_files_nor_entries(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    for attempt in (1, 2):
        save(files, "gone", attempt)
    kept = save(files, "kept")
    run(files.remove_job("gone"))
    run(files.remove_job("gone"))
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "by-id"}
    assert links(tmp_path) == {kept.id} and run(files.find(kept.id)) is not None


def test_files_of_deleted_jobs_are_removed(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    records = {job_id: save(files, job_id) for job_id in ("live", "stored", "deleted")}
    asked: list[str] = []

    async def find_existing(ids: list[str]) -> set[str]:
        asked.extend(ids)
        return {"stored"}

    run(files.remove_orphans({"live"}, find_existing))
    assert set(asked) == {"stored", "deleted"}
    assert links(tmp_path) == {records["live"].id, records["stored"].id}
    assert not (tmp_path / "deleted").exists()


def test_a_folder_of_many_jobs_is_checked_in_parts(tmp_path: Path) -> None:
    for number in range(450):
        (tmp_path / f"job-{number}").mkdir()
    sizes: list[int] = []

    async def find_existing(ids: list[str]) -> set[str]:
        sizes.append(len(ids))
        return set(ids)

    run(FileStore(tmp_path).remove_orphans((), find_existing))
    assert sizes == [200, 200, 50] and len(list(tmp_path.iterdir())) == 450


def test_the_latest_file_of_a_name_is_described(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    owner: Job = job(1)
    owner.files = [save(files, owner.id, attempt) for attempt in (1, 2)]
    described = json.loads(files.file_json(owner, "a.txt"))
    assert described["path"] == str(tmp_path / owner.id / "2" / owner.files[1].id)
    assert described["file"]["id"] == owner.files[1].id
    with pytest.raises(NotFound, match=r"has no file 'b'; its files: a\.txt, a\.txt"):
        files.file_json(owner, "b")
    owner.files = []
    with pytest.raises(NotFound, match="its files: none"):
        files.file_json(owner, "a.txt")
