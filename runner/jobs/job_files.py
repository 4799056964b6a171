"""Effect: the files of jobs on disk: `JOB/ATTEMPT/FILE_ID`, and an index that finds one by its id.

The index is a folder of symbolic links beside the jobs' folders: `by-id/XX/FILE_ID`, where XX are the last
two characters of the id, points to `../../JOB/ATTEMPT/FILE_ID`. A link whose file is missing means that there
is no such file. Executors and the coordinator share these functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: The folder of the index. No job has this id.
INDEX_NAME = "by-id"
#: Ids are 36 characters long; a longer text can't be one.
FILE_ID_MAX_CHARS = 64


def file_path(files_dir: Path, job_id: str, attempt: int, file_id: str) -> Path:
    """Return the path of a file."""
    return files_dir / job_id / str(attempt) / file_id


def is_file_id(text: str) -> bool:
    """Return whether the text may be a file's id; such a text names no other folder."""
    return len(text) <= FILE_ID_MAX_CHARS and text.isascii() and text.replace("-", "").isalnum()


def find_path(files_dir: Path, file_id: str) -> Path | None:
    """Return the path of the file with this id, or None, however many files there are.

    Raises:
        OSError: the folder can't be read.
    """
    if not is_file_id(file_id):
        return None
    try:
        target = os.readlink(_link_path(files_dir, file_id))
    except FileNotFoundError:
        return None
    path = files_dir.joinpath(*Path(target).parts[-3:])
    return path if path.is_file() else None


def write_file(
    files_dir: Path, job_id: str, attempt: int, file_id: str, chunks: Iterable[bytes | memoryview]
) -> tuple[int, str]:
    """Write a file durably; return its size in bytes and its SHA-256 in hexadecimal.

    The file and its entry in the index survive a power cut after this returns. Before, no file of this id is
    visible. Any error of `chunks` leaves nothing behind.

    Raises:
        OSError: the disk refused the write.
    """
    from hashlib import sha256

    folder = files_dir / job_id / str(attempt)
    _make_folder(folder, files_dir)
    digest = sha256()
    size = 0
    temporary = folder / f".{file_id}.tmp"
    try:
        with open(temporary, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, folder / file_id)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    sync_folder(add_to_index(files_dir, job_id, attempt, file_id))
    return size, digest.hexdigest()


def remove_file(files_dir: Path, job_id: str, attempt: int, file_id: str) -> None:
    """Remove a file and its entry in the index; nothing happens where there is none."""
    # The entry first: without its file nothing would ever remove it.
    remove_from_index(files_dir, file_id)
    file_path(files_dir, job_id, attempt, file_id).unlink(missing_ok=True)


def add_to_index(files_dir: Path, job_id: str, attempt: int, file_id: str) -> Path:
    """Add a file to the index unless it is there; return the folder that must be synced."""
    link = _link_path(files_dir, file_id)
    _make_folder(link.parent, files_dir)
    # An id is given to one file only: an entry that exists is that of the same file.
    with suppress(FileExistsError):
        os.symlink(f"../../{job_id}/{attempt}/{file_id}", link)
    return link.parent


def remove_from_index(files_dir: Path, file_id: str) -> None:
    """Remove the entry of a file from the index, if there is one."""
    _link_path(files_dir, file_id).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link_path(files_dir: Path, file_id: str) -> Path:
    # The end of an id is random (UUIDv7): 256 folders of equal size.
    return files_dir / INDEX_NAME / file_id[-2:] / file_id


def _make_folder(folder: Path, root: Path) -> None:
    """Create the folder so that its directory entries up to `root` survive a power cut."""
    missing = []
    at = folder
    while at != root and not at.is_dir():
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)
