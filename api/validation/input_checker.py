"""Pure: the check of an input against the schema and the options of its handler."""

from __future__ import annotations

from typing import Any

import msgspec

from api.validation.input_validator import InputValidator
from api.validation.json_text import InputFault
from api.validation.unknown_fields import UnknownFields
from runner.handlers.spec import HandlerSpec
from runner.jobs.traits import InputTraits, TraitError, TraitReader

_NO_TRAITS = InputTraits("", "", "")


class InputRules(msgspec.Struct, array_like=True, frozen=True):
    """The schema of a handler's inputs, and the fields that its options name."""

    schema: bytes
    model_by: str | None = None
    size_by: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()


def rules_of(spec: HandlerSpec) -> InputRules:
    """Return the rules of a handler."""
    options = spec.options
    group_by = () if options.batch is None else tuple(options.batch.by)
    return InputRules(spec.input_schema, options.model_by, tuple(options.size_by), group_by)


class InputChecker:
    """The rules of one handler, compiled."""

    def __init__(self, rules: InputRules) -> None:
        """Compile the rules; raise ValueError if the schema is invalid."""
        #: None if every value is valid.
        self.validator = None if _takes_anything(rules.schema) else InputValidator(rules.schema)
        schema = msgspec.json.decode(rules.schema) if rules.schema.strip() else True
        #: None if no option of the handler names fields of the input.
        self._trait_reader: TraitReader | None = None
        if rules.model_by is not None or rules.size_by or rules.group_by:
            self._trait_reader = TraitReader(rules.model_by, rules.size_by, rules.group_by, schema=schema)
        #: Names the fields of an input that the schema ignores.
        self.unknown_fields = UnknownFields(schema)

    def read_traits(self, value: Any) -> InputTraits | InputFault:
        """Return the traits of a valid input, or what is wrong with a field that an option names."""
        if self._trait_reader is None:
            return _NO_TRAITS
        traits = self._trait_reader.read(value)
        return (traits.pointer, traits.message) if isinstance(traits, TraitError) else traits


def _takes_anything(schema: bytes) -> bool:
    return schema.strip() in (b"true", b"{}", b"")
