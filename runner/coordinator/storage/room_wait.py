"""Effect: waits at the start until a full disk has room again."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runner.errors import StartDiskFull, StoreFull

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Longest wait for room, and the time between two tries and between two reports of them.
WAIT_S = 60.0  # guard: room-wait
RETRY_S = 0.5
REPORT_S = 10.0
#: A full disk, a full quota, and a limit on the size of files.
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk has no room."""
    return isinstance(error, StoreFull) or (isinstance(error, OSError) and error.errno in FULL_ERRNOS)


async def wait_for_room(
    write: Callable[[], Awaitable[Result]],
    *,
    give_up: asyncio.Event,
    wait_s: float = WAIT_S,
    retry_s: float = RETRY_S,
    report_s: float = REPORT_S,
) -> Result:
    """Return what `write` returns; while it finds the disk full, try again, for `wait_s` seconds.

    `give_up` ends the wait early. The log says at once and every `report_s` seconds what the start waits for.
    Errors of other kinds are raised as they are.

    Raises:
        StartDiskFull: the disk is still full.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    reported: float | None = None
    while True:
        try:
            result = await write()
        except (StoreFull, OSError) as error:
            if not is_full(error):
                raise
            now = loop.time()
            why = error.message if isinstance(error, StoreFull) else str(error)
            remaining_s = started + wait_s - now
            if remaining_s <= 0 or give_up.is_set():
                raise StartDiskFull(f"{why}; make room there and start again") from error
            if reported is None or now - reported >= report_s:
                reported = now
                log.warning("no room to start: %s; trying again for %.0f s", why, remaining_s)
        else:
            if reported is not None:
                log.info("the disk has room again; the start goes on")
            return result
        try:
            await asyncio.wait_for(give_up.wait(), min(retry_s, remaining_s))
        except TimeoutError:
            continue
