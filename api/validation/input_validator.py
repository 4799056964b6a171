"""Pure: a compiled input schema, and what it finds wrong with an input."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec

from api.validation.json_text import InputFault
from api.validation.schema_visits import count_visits
from runner.formats.json_pointer import escape_pointer

#: Bound on the length of one message, which may quote the whole input.
MESSAGE_CHARS_MAX = 500


class InputValidator:
    """A compiled schema. It holds the interpreter while it works, however long that takes."""

    def __init__(self, schema: bytes) -> None:
        """Compile a schema.

        Raises:
            ValueError: it is invalid, or refers to another document.
        """
        document = msgspec.json.decode(schema)
        #: See `count_visits`; None also where a pattern needs backtracking.
        self.visits: int | None = None
        try:
            # The linear-time regex engine: no input can make a pattern run for ever.
            self._validator = jsonschema_rs.validator_for(
                document, offline=True, pattern_options=jsonschema_rs.RegexOptions()
            )
            self.visits = count_visits(document)
        except ValueError:
            # Patterns with look-around need the backtracking engine, which stops after a bounded number of
            # steps.
            self._validator = jsonschema_rs.validator_for(document, offline=True)

    def is_valid(self, value: Any) -> bool:
        """Return whether the schema accepts the value; it stops at the first fault."""
        return self._validator.is_valid(value)

    def find_faults(self, value: Any, limit: int) -> list[InputFault]:
        """Return up to `limit` faults of the value; all of them are found before the first is returned."""
        found: list[InputFault] = []
        for error in self._validator.iter_errors(value):
            pointer = "".join(f"/{escape_pointer(step)}" for step in error.instance_path)
            found.append((pointer, error.message[:MESSAGE_CHARS_MAX]))
            if len(found) == limit:
                break
        return found
