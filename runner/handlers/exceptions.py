"""Pure: the exceptions with which a handler decides how its attempt ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


class Retry(Exception):
    """Raise this to have the job retried later, within its `retries`.

    `after` is a delay (seconds or text such as "60s"), `at` a time with a time zone; without either the
    handler's backoff decides. Both are limited to ten years ahead.

    Raises:
        ValueError: both are given, or one can't be parsed.
    """

    def __init__(
        self, message: str = "", *, after: float | str | None = None, at: datetime | None = None
    ) -> None:
        super().__init__(message)
        if after is not None and at is not None:
            raise ValueError("Retry takes `after` or `at`, not both")
        if at is not None and at.tzinfo is None:
            raise ValueError("Retry(at=...) needs a time with a time zone")
        self.message = message
        self.at = at
        self.after_s: float | None = None
        if after is not None:
            from runner.formats.units import parse_seconds

            self.after_s = parse_seconds(after)

    def earliest(self, now: float) -> float | None:
        """Return the UTC epoch seconds of the earliest next attempt; None: the backoff decides.

        Raises:
            ValueError: `at` is more than ten years after `now`.
        """
        if self.at is not None:
            from runner.bounds import is_too_far

            at = self.at.timestamp()
            if is_too_far(at, now):
                raise ValueError("Retry(at=...) is at most ten years ahead")
            return at
        return None if self.after_s is None else now + self.after_s


class PermanentError(Exception):
    """Raise this if a retry can't help: the job fails at once."""


class JobCancelled(BaseException):
    """Raised in a handler whose job is being cancelled; clean up and let it propagate.

    A BaseException, so that `except Exception` in a handler does not swallow it.
    """

    #: The error of the cancelled job: code and message. The message is the reason, or empty in a handler that
    #: is not told it.
    error: dict[str, Any]

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.error = {"code": "cancelled", "message": str(args[0]) if args else ""}
