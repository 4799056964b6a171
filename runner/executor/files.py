"""Effect: saves and opens the files of an attempt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from runner.bounds import CONTENT_TYPE_CHARS_MAX, FILE_NAME_BYTES_MAX, FILES_MAX
from runner.jobs import job_files
from runner.jobs.job import FileRecord

if TYPE_CHECKING:
    from runner.executor.attempt_run import AttemptRun

#: Bytes of one read while a file is copied.
CHUNK_BYTES = 1024 * 1024


class Readable(Protocol):
    """An open file, or any object with such a `read`."""

    def read(self, size: int, /) -> bytes | str:
        """Return at most `size` bytes or characters; empty at the end."""
        ...


FileData = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable


def save_file(run: AttemptRun, name: str, data: FileData, content_type: str | None) -> dict[str, Any]:
    """Write a file durably into the attempt's folder; return its reference, which may be part of an output.

    Saving a name again replaces the earlier file.

    Raises:
        ValueError: the name is not a file name, the content type is not one, or the attempt has saved
            FILES_MAX files.
        OSError: the disk refused the write, or the given path can't be read.
    """
    check_name(name)
    if content_type is not None:
        check_content_type(content_type)
    if len(run.files or ()) >= FILES_MAX and name not in (run.files or ()):
        raise ValueError(f"an attempt saves at most {FILES_MAX} files")
    from runner.jobs.ids import new_id

    file_id = new_id()
    files_dir = Path(run.environment.config.files_dir)
    size, sha256 = job_files.write_file(files_dir, run.job_id, run.number, file_id, _read_chunks(data))
    record = FileRecord(file_id, name, size, sha256, content_type or _guess_content_type(name), run.number)
    if run.files is None:
        run.files = {}
    earlier = run.files.get(name)
    run.files[name] = record
    if earlier is not None:
        job_files.remove_file(files_dir, run.job_id, run.number, earlier.id)
    return make_reference(run.job_id, record)


def free_name(run: AttemptRun, name: str) -> str:
    """Return the name, or with a number before its ending if the attempt has saved a file of that name."""
    taken = run.files or {}
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{stem}-{number}{dot}{ending}"
    return found


def make_reference(job_id: str, record: FileRecord) -> dict[str, Any]:
    """Return the reference that stands for the file in inputs and outputs.

    Its keys are `$file` and `id` (the file's id), `name`, `size` in bytes, `sha256` in hexadecimal,
    `content_type` and `url`, the path at which the API serves the file.
    """
    from urllib.parse import quote

    return {
        "$file": record.id,
        "id": record.id,
        "name": record.name,
        "size": record.size,
        "sha256": record.sha256,
        "content_type": record.content_type,
        "url": f"/v1/jobs/{job_id}/files/{quote(record.name, safe='')}",
    }


def open_file(run: AttemptRun, reference: Any) -> IO[bytes]:
    """Open a file for reading by its reference or id.

    A file of this attempt is opened at once; for any other the coordinator is asked for its path.

    Raises:
        TypeError: the value is not a file reference.
        FileNotFoundError: no such file.
        TimeoutError: the coordinator did not answer within 30 s.
    """
    file_id = reference
    if isinstance(reference, dict):
        file_id = reference.get("$file", reference.get("id"))
    if not isinstance(file_id, str) or not file_id:
        raise TypeError(f'{reference!r} is not a file reference such as {{"$file": id}}')
    for record in run.file_records():
        if record.id == file_id:
            files_dir = Path(run.environment.config.files_dir)
            return open(job_files.file_path(files_dir, run.job_id, run.number, file_id), "rb")
    try:
        path = run.environment.request(run.job_id, run.number, "file", file_id)
    except LookupError as error:
        raise FileNotFoundError(f"file {file_id}: {error.args[-1]}") from None
    return open(str(path), "rb")


def check_name(name: object) -> None:
    """Refuse a name that no file can have.

    Raises:
        ValueError: the name is not a file name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a file's name is a text, not {name!r}")
    if any(mark in name for mark in "/\\\0") or not name.strip("."):
        raise ValueError(f"{name!r} can't be a file's name: no slashes, no NUL, not dots alone")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError("a file's name must be valid text") from None
    if size > FILE_NAME_BYTES_MAX:
        raise ValueError(f"a file's name has at most {FILE_NAME_BYTES_MAX} bytes, this one {size}")


def check_content_type(content_type: object) -> None:
    """Refuse a media type that no header can have.

    Raises:
        ValueError: not 1 to CONTENT_TYPE_CHARS_MAX printable ASCII characters.
    """
    if (
        not isinstance(content_type, str)
        or not 0 < len(content_type) <= CONTENT_TYPE_CHARS_MAX
        or not (content_type.isascii() and content_type.isprintable())
    ):
        raise ValueError(
            f"a content type is a text of 1 to {CONTENT_TYPE_CHARS_MAX} printable ASCII characters"
        )


def _guess_content_type(name: str) -> str:
    from mimetypes import guess_type

    return guess_type(name)[0] or "application/octet-stream"


def _read_chunks(data: FileData) -> Iterator[bytes | memoryview]:
    """Yield the bytes; a text read from a file is encoded as UTF-8.

    Raises:
        TypeError: the value is neither bytes nor a path nor a file.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        yield memoryview(data).cast("B")
    elif isinstance(data, (str, os.PathLike)):
        with open(data, "rb") as file:
            yield from _read_chunks(file)
    elif callable(getattr(data, "read", None)):
        while chunk := data.read(CHUNK_BYTES):
            yield chunk.encode() if isinstance(chunk, str) else chunk
    else:
        raise TypeError(f"save_file takes bytes, a path or a file, not {type(data).__name__}")
