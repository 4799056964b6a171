"""Pure: rows of a store that can't be read, and the checks of what rows hold."""

from __future__ import annotations

from typing import NamedTuple, get_args

import msgspec

from runner.jobs.job import Job, State

#: State, in the store only, of a row that is set aside: no query for jobs returns it.
DAMAGED = "damaged"
STATES: frozenset[str] = frozenset(get_args(State))
#: Longest part of a damaged value that a reason shows, in characters.
SHOWN_CHARS_MAX = 60

_json_decoder = msgspec.json.Decoder(msgspec.Raw)


class DamagedRow(NamedTuple):
    """A job whose row, input, output or events can't be read."""

    number: int
    #: As its column has it; `row-NUMBER` if that holds no text.
    id: str
    #: What can't be read, and why.
    reason: str
    #: As the columns have them; "" for what is no text.
    queue: str = ""
    state: str = ""


def payload_damage(text: bytes) -> str | None:
    """Return why a stored JSON text can't be used; None if it is valid."""
    try:
        text.decode()
        _json_decoder.decode(text)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        return f"not JSON: {error}"
    return None


def text_damage(job: Job) -> str | None:
    """Return why one of the JSON texts inside a job can't be used; None if all are valid."""
    metadata, progress = job.terms.metadata, job.progress
    if metadata != b"{}" and (why := payload_damage(metadata)) is not None:
        return f"metadata: {why}"
    if progress is not None and (why := payload_damage(progress)) is not None:
        return f"progress: {why}"
    return None


def shown(value: object) -> str:
    """Return a damaged value as it stands in a reason: its type, and its beginning."""
    text = repr(value)
    return (
        f"{type(value).__name__} {text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + '...'}"
    )
