"""Effect: parses stored values, and logs the damaged ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def parse_value(name: str, value: bytes | None, parse: Callable[[bytes], T]) -> T | None:
    """Return what `parse` makes of a stored value; None if there is none, or if it is damaged.

    A damaged value counts as one that was never stored: a start must not fail over it.
    """
    if value is None:
        return None
    try:
        return parse(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("the stored value %s is damaged and counts as absent: %s", name, error)
        return None
