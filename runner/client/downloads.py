"""Effect: writes files of a job to a folder, under names that can't leave it or replace another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from runner.client.http_call import HttpCall, HttpResponse, raise_problem
from runner.errors import RunnerError

#: Longest name of a file as UTF-8, with room for a number and the suffix of an unfinished file.
NAME_MAX_BYTES = 200
#: Read timeout of a download, in seconds: longest silence of the server.
READ_TIMEOUT_S = 120.0

#: Called with a file reference and how many bytes of the file have arrived.
OnBytes = Callable[[dict[str, Any], int], object]


def safe_name(name: str) -> str:
    """Return a name that can't lead out of a folder or hide: no slashes, no controls, no dot first."""
    cleaned = "".join("_" if mark in '/\\:*?"<>|' or not mark.isprintable() else mark for mark in name)
    cleaned = cleaned.lstrip(". ").rstrip(" ") or "file"
    while len(cleaned.encode("utf-8", "replace")) > NAME_MAX_BYTES:
        stem, dot, ending = cleaned.rpartition(".")
        cleaned = f"{stem[:-1]}{dot}{ending}" if len(stem) > 1 else cleaned[:-1]
    return cleaned


def download_call(job_id: str, name: str) -> HttpCall:
    """Return the request for the bytes of a file of a job."""
    path = f"/v1/jobs/{quote(job_id, safe='')}/files/{quote(name, safe='')}"
    return HttpCall("GET", path, timeout_s=READ_TIMEOUT_S)


def check_status(response: HttpResponse) -> None:
    """Raise the `RunnerError` that a refused download means."""
    if response.status >= 400:
        raise_problem(response)


class Download:
    """One file on its way to a folder; it gets its name when all of it is there and its sum is right.

    Used as a context manager: a download that fails leaves nothing behind.
    """

    def __init__(self, reference: dict[str, Any], folder: Path, on_bytes: OnBytes | None) -> None:
        self._reference = reference
        self._folder = folder
        self._on_bytes = on_bytes
        self._digest = sha256()
        self._size = 0
        #: Where the file is, once `finish` has returned.
        self.path = folder / safe_name(str(reference["name"]))
        self._partial = folder / f".{os.getpid()}-{id(self)}.part"

    def __enter__(self) -> Self:
        """Create the unfinished file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self._partial, "xb")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Add bytes to the file."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self._size += len(chunk)
        if self._on_bytes is not None:
            self._on_bytes(self._reference, self._size)

    def finish(self) -> Path:
        """Give the file its name, with a number before the ending if another file has it; return its path.

        Raises:
            RunnerError: other bytes came than the job has saved.
        """
        self._file.close()
        if self._digest.hexdigest() != self._reference["sha256"]:
            raise RunnerError(
                f"{self._reference['name']!r} arrived incomplete or changed: {self._size} of "
                f"{self._reference['size']} bytes, or another SHA-256; fetch it again"
            )
        first, number = self.path, 1
        while True:
            try:
                # Claim the name: a rename alone would replace a file that has it.
                open(self.path, "xb").close()  # guard: download-claim
            except FileExistsError:
                number += 1
                self.path = first.with_name(f"{first.stem}-{number}{first.suffix}")
            else:
                os.replace(self._partial, self.path)
                return self.path
