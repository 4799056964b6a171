"""Effect: after a start: what the last coordinator left is made good before anything new starts."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from runner.coordinator.book import Live
from runner.coordinator.journal import Journal
from runner.coordinator.line import Line
from runner.errors import Fenced, RefusedStart, StoreUnavailable
from runner.job import ENDED, Job
from runner.spool import Spool
from runner.wire import UNDECODABLE, Ended, Note, Up, up_decoder

log = logging.getLogger(__name__)

#: Workers of a dead coordinator end within a second; one that holds its lock longer is stuck.
LOCKS_WAIT_S = 5.0
LOCKS_POLL_S = 0.02
#: So long a start tries to write what it has made good; nobody waits for an answer meanwhile.
WRITE_WAIT_S = 10.0
WRITE_POLL_S = 0.1


async def wait_for_locks(locks_dir: Path) -> None:
    """Wait until no worker of an earlier start holds a device.

    Raises:
        RefusedStart: one still does after 5 s.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCKS_WAIT_S
    for path in sorted(locks_dir.glob("*.lock")):
        while _is_held(path):
            if loop.time() > deadline:
                raise RefusedStart(
                    f"a worker of an earlier server still holds {path}; end that process and start again"
                )
            await asyncio.sleep(LOCKS_POLL_S)


def _is_held(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def make_durable(journal: Journal) -> None:
    """Wait until what was recovered is stored, also where the store is late or refuses for a while.

    Raises:
        StoreUnavailable: it still refuses after 10 s, or another coordinator has taken over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WRITE_WAIT_S
    while True:
        try:
            return await journal.flush()
        except Fenced:
            raise
        except StoreUnavailable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(WRITE_POLL_S)


def recover(line: Line, jobs: Iterable[Job], spools: Iterable[Spool]) -> dict[str, int]:
    """Take in the jobs that had not ended, apply what workers kept for us, put back what was cut off.

    Returns how many jobs were live, how many messages were applied, how many attempts interrupted.
    """
    counts = {"live": 0, "applied": 0, "interrupted": 0}
    for job in jobs:
        line.recover(Live(job, None, "parked"))
        counts["live"] += 1
    for spool in spools:
        for raw in spool.messages:
            counts["applied"] += _apply(line, raw, spool.hello.name)
    for live in list(line.book):
        if live.where == "ended":
            continue
        if live.job.state == "running":
            live.flight = live.job.attempt
            message = "the server ended while the attempt ran"
            line.end(live, Ended(live.job.id, live.flight, live.job.heard, "interrupted", message))
            counts["interrupted"] += 1
        elif live.flight == 0:
            line.waiting.resume(live)
    return counts


def _apply(line: Line, raw: bytes, worker: str) -> int:
    try:
        message: Up = up_decoder.decode(raw)
    except UNDECODABLE as error:
        log.warning("a spooled message does not decode: %s", error)
        return 0
    if not isinstance(message, Note | Ended):
        # The rest tells of executors, which are gone.
        return 0
    live = line.book.by_id.get(message.job_id)
    if live is None or live.where == "ended" or live.job.state in ENDED or message.attempt < live.job.attempt:
        line.figures.stale += 1
        return 0
    job = live.job
    live.flight = message.attempt
    if job.attempt < message.attempt:
        # The attempt had been sent before its start was written: a first attempt may be.
        at = (
            message.started_at
            if isinstance(message, Ended) and message.started_at is not None
            else line.now()
        )
        line.begin(live, at=at, worker=worker, devices=[], loading=False)
    elif message.seq <= job.heard:
        return 0
    elif job.state != "running":
        line.figures.stale += 1
        return 0
    if isinstance(message, Note):
        line.note(live, message)
    else:
        line.end(live, message)
    return 1
