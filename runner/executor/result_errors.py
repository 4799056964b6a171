"""Pure: the exceptions that end an attempt because it sends more than it may."""

from __future__ import annotations


class ResultTooLarge(Exception):
    """The output, the chunks yielded so far, or the number of events exceed the limit."""
