"""Pure: the bounds on every number, time, text and list that clients, handlers and settings give.

Both doors use this table: the front for requests, the executor and the decorator for the calls of handlers.
It imports nothing, because executors load it before user code.
"""

from __future__ import annotations

# Numbers and times.

#: Integers of JSON: 64 bits, with or without a sign.
INT_MIN, INT_MAX = -(2**63), 2**64 - 1
#: Largest integer that SQLite and a signed field of a message hold.
INT64_MAX = 2**63 - 1
#: Counts in options and settings.
COUNT_MAX = 2**31 - 1
#: Bytes of a size: more than any machine has, and few enough that sums stay within 64 bits.
BYTES_MAX = 2**62
#: Ten years. A longer duration is a mistake in its unit, and its end may exceed the calendar of datetime.
SECONDS_MAX = 10 * 366 * 86400.0
PRIORITY_MAX = 100
RETRIES_MAX = 1000

# Texts, in characters unless the name says bytes. The rule for names is in `runner.formats.names`.

#: Name of a model, a group, a metric or a device.
NAME_CHARS_MAX = 200
TAG_CHARS_MAX = 200
#: Path of a field of an input.
PATH_CHARS_MAX = 200
VERSION_CHARS_MAX = 100
#: Text of a date and time, a duration, or a size.
VALUE_CHARS_MAX = 64
#: Reason of a cancel.
REASON_CHARS_MAX = 1000
CONTENT_TYPE_CHARS_MAX = 255
#: Name of a file as UTF-8, as file systems have it.
FILE_NAME_BYTES_MAX = 255
#: JSON text of a progress event; up to 20 events a second are sent.
PROGRESS_BYTES_MAX = 64 * 1024

# Lists.

TAGS_MAX = 100
#: Delays of a backoff: later ones would never be reached.
STEPS_MAX = RETRIES_MAX
#: Fields of an input in `size_by` and in `by` of a batch.
FIELDS_MAX = 8
#: Models in `preload`.
PRELOADED_MODELS_MAX = 1000
#: Jobs of one bulk request.
BULK_MAX = 10_000
#: Values of one filter of a list of jobs. SQLite takes 32,766 in one statement, and a page has 5 parts.
FILTER_VALUES_MAX = 500
#: Filters `input.PATH` of a list of jobs: each of them is a subquery.
INPUT_FILTERS_MAX = 20
#: Jobs of one page.
PAGE_MAX = 500
#: Files that one attempt saves; all are listed in the job's row.
FILES_MAX = 10_000

# Depth and concurrency.

#: Nesting of a JSON value: readers of a value recurse as deep.
DEPTH_MAX = 256
#: Attempts that one executor runs at once, as slots or as a batch: each has a place in its shared page.
ATTEMPTS_MAX = 1000
#: Loads without a job that wait for capacity.
WAITING_LOADS_MAX = 1000
#: Executors on one device.
EXECUTORS_MAX = 1000
#: Seconds of `Prefer: wait=N`.
WAIT_S_MAX = 300


def is_too_far(at: float, now: float) -> bool:
    """Return whether a time lies more than ten years after `now`; both are UTC epoch seconds."""
    return not at <= now + SECONDS_MAX
