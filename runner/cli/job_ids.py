"""Effect: finds the job that an argument of the command line names: an id, a unique prefix, or `@last`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.cli.arguments import CommandUsageError
from runner.errors import NotFound

if TYPE_CHECKING:
    from runner.client import Client

#: Names the newest job.
LAST = "@last"
#: Shortest prefix: four digits of a UUIDv7 cover about two years.
PREFIX_MIN = 4
#: An id holds its time in milliseconds in the first 12 of its 32 hexadecimal digits.
TIME_DIGITS = 12
#: The time in an id and the time of creation are read one after the other, from clocks that may be stepped.
SLACK_MS = 2_000
#: Largest number of jobs that are searched for a prefix: a longer one covers a shorter time.
SEARCH_MAX = 5_000

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PREFIX = re.compile(r"[0-9a-f-]+")


def creation_window_ms(prefix: str) -> tuple[int, int]:
    """Return the first and the last millisecond (UTC epoch) in which an id of this prefix was made.

    `prefix`: lower-case hexadecimal digits and hyphens, at least one digit.
    """
    digits = prefix.replace("-", "")[:TIME_DIGITS]
    return int(digits.ljust(TIME_DIGITS, "0"), 16), int(digits.ljust(TIME_DIGITS, "f"), 16)


def resolve_job_id(client: Client, argument: str) -> str:
    """Return the id of the job that `argument` names; a complete id is returned without a request.

    Raises:
        CommandUsageError: the argument is no id, or more than one job has this prefix.
        NotFound: no job has this prefix, or there is no job at all.
    """
    text = argument.lower()
    if _ID.fullmatch(text):
        return text
    if text == LAST:
        newest = client.jobs(limit=1)
        if not newest:
            raise NotFound("there are no jobs yet")
        return newest[0].id
    if not _PREFIX.fullmatch(text) or len(text.replace("-", "")) < PREFIX_MIN:
        raise CommandUsageError(
            f"{argument!r} is not a job id: expected 36 characters, "
            f"a prefix of at least {PREFIX_MIN}, or {LAST}"
        )
    return _search(client, argument, text)


def _search(client: Client, argument: str, prefix: str) -> str:
    """Return the one id that begins with `prefix`; errors as `resolve_job_id`."""
    first_ms, last_ms = creation_window_ms(prefix)
    found = client.jobs(
        created_after=_rfc3339(first_ms - SLACK_MS),
        created_before=_rfc3339(last_ms + SLACK_MS),
        limit=SEARCH_MAX,
    )
    ids = [job.id for job in found if job.id.startswith(prefix)]
    if len(ids) > 1:
        raise CommandUsageError(
            f"{argument} is ambiguous: {ids[0]} and {ids[1]} both begin so; give more of it"
        )
    if not ids and len(found) == SEARCH_MAX:
        raise CommandUsageError(
            f"more than {SEARCH_MAX:,} jobs are as old as {argument}; give more of the id"
        )
    if not ids:
        raise NotFound(f"no job's id begins with {argument}")
    return ids[0]


def _rfc3339(at_ms: int) -> str:
    """Return a time as the API takes it; a time far ahead, at which no job was made, becomes tomorrow."""
    tomorrow_ms = round((time.time() + 86_400) * 1000)
    at = datetime.fromtimestamp(min(max(at_ms, 0), tomorrow_ms) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
