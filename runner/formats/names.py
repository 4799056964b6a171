"""Pure: the names that users give to handlers, queues and tenants."""

from __future__ import annotations

import re
from typing import TypeGuard

#: Regular expression of a whole name, as JSON Schema and pydantic take it.
NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,100}$"
#: The rule in words, for error messages.
NAME_RULE = "1 to 100 of A-Z a-z 0-9 _ . -"

_NAME = re.compile(NAME_PATTERN.strip("^$"))


def is_name(value: object) -> TypeGuard[str]:
    """Return whether the value is a name. A trailing line feed, which `$` would let pass, is refused."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
