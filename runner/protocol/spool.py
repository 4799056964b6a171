"""Effect: writes and reads the files in which workers leave messages that no coordinator has acknowledged.

A spool is a byte stream of frames as in `framing`: a frame with the worker's `Hello`, then frames of messages
in order, then one empty frame that marks the spool as complete.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from runner.jobs.job_files import sync_folder
from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.framing import WireError
from runner.protocol.worker import Hello

log = logging.getLogger(__name__)

SUFFIX = ".spool"
#: A spool while it is written, and before that the room that a worker keeps for it.
DRAFT_SUFFIX = ".draft"
#: Room on the disk that a worker keeps: some thousand results without large outputs.
RESERVE_BYTES = 1024 * 1024
#: Appended to the name of an unreadable file, which is kept for inspection.
BAD_SUFFIX = ".bad"


class Spool(NamedTuple):
    """The content of one complete spool file."""

    path: Path
    hello: Hello
    #: Encoded messages to the coordinator, oldest first.
    messages: list[bytes]


def reserve_spool(folder: Path, name: str) -> None:
    """Keep `RESERVE_BYTES` of the disk for the spool of a worker, which may be written on a full disk.

    Raises:
        OSError: there is no room now.
    """
    descriptor = os.open(folder / f"{name}{DRAFT_SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    finally:
        os.close(descriptor)


def release_spool(folder: Path, name: str) -> None:
    """Give up what `reserve_spool` has kept."""
    (folder / f"{name}{DRAFT_SUFFIX}").unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove the drafts of workers that were killed; called while no worker runs."""
    for path in folder.glob(f"*{DRAFT_SUFFIX}"):
        path.unlink(missing_ok=True)


def fit_reserve(hello: Hello, messages: list[bytes]) -> list[bytes]:
    """Return the first messages, as many as fit into a spool of `RESERVE_BYTES`."""
    # Of each message: its length; of the frames around them: a few bytes in a mebibyte.
    size = len(worker_protocol.encode(hello)) + RESERVE_BYTES // 64
    for count, message in enumerate(messages):
        size += len(message) + 8
        if size > RESERVE_BYTES:
            return messages[:count]
    return messages


def write_spool(folder: Path, hello: Hello, messages: list[bytes]) -> Path:
    """Write `<hello.name>.spool` atomically, and return its path.

    After a power cut the file is either complete or absent. The token is omitted, because the file outlives
    it. The bytes go into the reserved room first, which takes them on a full disk too.

    Raises:
        OSError: the disk is full or failed.
    """
    path = folder / f"{hello.name}{SUFFIX}"
    draft = folder / f"{hello.name}{DRAFT_SUFFIX}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            framing.with_length(
                framing.pack([worker_protocol.encode(msgspec.structs.replace(hello, token=""))])
            )
        )
        for frame in framing.group(messages):
            file.write(framing.with_length(framing.pack(frame)))
        file.write(framing.with_length(framing.pack([])))
        file.flush()
        file.truncate()
        os.fsync(descriptor)
    draft.rename(path)
    sync_folder(folder)
    return path


def read_spools(folder: Path) -> list[Spool]:
    """Return every complete spool of a folder, oldest first.

    An incomplete one is logged, renamed with BAD_SUFFIX and skipped.
    """
    if not folder.is_dir():
        return []
    spools: list[Spool] = []
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns):
        try:
            spools.append(_read_spool(path))
        except (OSError, *worker_protocol.UNDECODABLE) as error:
            bad_path = path.with_name(path.name + BAD_SUFFIX)
            log.error("%s is not a complete spool (%s); renamed to %s", path, error, bad_path.name)
            path.rename(bad_path)
    return spools


def remove_spool(spool: Spool) -> None:
    """Remove a spool whose messages are durable in the store."""
    spool.path.unlink(missing_ok=True)


def _read_spool(path: Path) -> Spool:
    data = path.read_bytes()
    frames = [framing.unpack(frame) for frame in framing.FrameBuffer().feed(data)]
    size = sum(len(framing.with_length(framing.pack(frame))) for frame in frames)
    if len(frames) < 2 or frames[-1] or size != len(data):
        raise WireError("the end is missing")
    hello = worker_protocol.from_worker_decoder.decode(frames[0][0]) if frames[0] else None
    if not isinstance(hello, Hello):
        raise WireError("the first message is not a hello")
    return Spool(path, hello, [message for frame in frames[1:] for message in frame])
